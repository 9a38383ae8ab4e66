"""All recorded runs of a folder: newest first, and where one recipe gave more than one outcome. Reads records, changes nothing."""

import argparse
import json
import platform
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from verbatim import digest, environment, record, verdicts
from verbatim.errors import VerbatimError


def each(runs: Path) -> Iterator[record.Record | VerbatimError]:
    """Every run folder's record, newest first; a folder whose record can't be read gives the reason instead."""
    for folder in sorted(runs.iterdir(), reverse=True) if runs.is_dir() else ():
        if folder.is_dir() and folder.name != verdicts.IMPORTED:
            try:
                yield record.read(folder)
            except VerbatimError as error:
                yield error


def read(runs: Path) -> list[record.Record | VerbatimError]:
    """All of them at once."""
    return list(each(runs))


def state(run: record.Record) -> str:
    """`started` is `running` while its process lives, and `lost` after (SIGKILL, power)."""
    if run.state != "started":
        return run.state
    process = run.environment.get("process", {})
    if run.environment.get("host") not in (None, platform.node()):
        return "started"  # on another machine: not to be known from here
    alive = process and environment.started_ticks(process["pid"]) == process["started_ticks"]
    return "running" if alive else "lost"


def conflicts(runs: list[record.Record]) -> dict[str, list[record.Record]]:
    """Recipe → its sealed runs, where their outcomes are not all the same."""
    by_recipe: dict[str, list[record.Record]] = defaultdict(list)
    for run in runs:
        if run.state == "sealed" and run.recipe:
            by_recipe[run.recipe].append(run)
    return {recipe: same for recipe, same in by_recipe.items() if len({run.outcome for run in same}) > 1}


def find(name: str, runs: Path, root: Path) -> Path:
    """A run folder by its path (relative to the current folder or the project) or its name."""
    for candidate in (Path(name), root / name, runs / name):
        if (candidate / record.FILE).is_file():
            return candidate.resolve()
    exists = any(candidate.exists() for candidate in (Path(name), root / name, runs / name))
    raise VerbatimError(
        f"run={name}", expected=f"a run folder (it holds {record.FILE})", found="no record in it" if exists else "nothing there",
        then="nox -s runs lists the runs that there are",
    )  # fmt: skip


def latest(runs: Path) -> Path:
    """The newest sealed run."""
    for run in each(runs):
        if isinstance(run, record.Record) and run.state == "sealed":
            return runs / run.run
    raise VerbatimError("run=latest", expected=f"a sealed run in {runs}", found="none", then="nox -s train")


def main(arguments: list[str], root: Path) -> int:
    parser = argparse.ArgumentParser(
        prog="nox -s runs --",
        description="Recorded runs, newest first. Exit code 1 where one recipe gave several outcomes.",
    )
    parser.add_argument(
        "folder", nargs="?", default=root / "runs", type=Path, help="where the runs lie (default: runs)"
    )
    parser.add_argument("-n", metavar="N", type=int, default=30, help="how many to show (default: 30; 0: all)")
    parser.add_argument("--json", action="store_true", help="one JSON object per run, one per line")
    options = parser.parse_args(arguments)
    found = read(options.folder)
    records = [run for run in found if isinstance(run, record.Record)]
    several = conflicts(records)
    by_record, passed_over = verdicts.find(options.folder)
    if options.json:
        for run in records:
            said = verdicts.of(options.folder / run.run, by_record)
            more = {"conflict": run.recipe in several, "reproduced": [v.result for v in said]}
            print(json.dumps(summary(run) | more))
    else:
        _show(found[: options.n or None], several, len(found), options.folder, by_record)
        for text in passed_over:
            print(f"a verdict was passed over: {text}", file=sys.stderr)
    return 1 if several else 0


def summary(run: record.Record) -> dict[str, Any]:
    name, metric = _metric(run)
    return {
        "run": run.run, "started": run.started, "experiment": _experiment(run),
        "data": run.data.get("name", ""), "model": _last(run.config, "model"),
        "seed": run.seed, "metric": metric, "of": name, "recipe": run.recipe, "outcome": run.outcome, "state": state(run),
        "reason": run.reason, "wall_s": run.wall_s, "level": run.level, "claim": run.claim, "resumed": len(run.resumed),
    }  # fmt: skip


def _metric(run: record.Record) -> tuple[str, Any]:
    for name in ("test_accuracy", "test_loss"):
        if name in run.metrics:
            return name, run.metrics[name]
    return "", None


def _experiment(run: record.Record) -> str:
    """The experiment file that was asked for, else data set and model."""
    named = [o.partition("=")[2] for o in run.overrides if o.startswith("experiment=")]
    return named[-1] if named else f"{run.data.get('name', '')} {_last(run.config, 'model')}".strip()


def _last(config: dict[str, Any], group: str) -> str:
    return str((config.get(group) or {}).get("_target_", "")).rpartition(".")[2].lower()


def _show(
    found: list[record.Record | VerbatimError],
    several: dict[str, list[record.Record]],
    total: int,
    folder: Path,
    by_record: dict[str, list[verdicts.Verdict]],
) -> None:
    from rich.markup import escape
    from rich.table import Table

    from verbatim.progress import console as make_console

    console = make_console()
    if not found:
        console.print(f"no runs in {folder}: nox -s train makes one", markup=False)
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in (
        "run",
        "experiment",
        "seed",
        "metric",
        "wall",
        "recipe",
        "outcome",
        "state",
        *(["reproduced"] if by_record else []),
    ):
        table.add_column(
            column,
            justify="right" if column in ("seed", "metric", "wall") else "left",
            no_wrap=column not in ("state", "reproduced"),
            overflow="fold",
        )
    colours = {"sealed": "green", "failed": "red", "lost": "red", "interrupted": "yellow", "running": "cyan"}
    for run in found:
        if isinstance(run, VerbatimError):
            table.add_row(Path(run.where).name, "", "", "", "", "", "", f"[red]unreadable[/]: {run.found}")
            continue
        row = summary(run)
        metric = f"{row['of'].removeprefix('test_')} {row['metric']:.4f}" if row["of"] else ""
        mark = "[bold red]≠ [/]" if run.recipe in several else ""
        shown = f"[{colours.get(row['state'], '')}]{row['state']}[/]" if row["state"] in colours else row["state"]
        shown = "; ".join([shown, *map(escape, run.remarks)])
        table.add_row(
            run.run, row["experiment"], str(run.seed), metric, f"{run.wall_s:.1f} s" if run.wall_s else "",
            digest.short(run.recipe), mark + digest.short(run.outcome), shown,
            *([verdicts.summary(verdicts.of(folder / run.run, by_record))] if by_record else []),
        )  # fmt: skip
    console.print(table)
    if len(found) < total:
        console.print(f"{total - len(found)} more: nox -s runs -- -n 0", markup=False)
    for recipe, same in several.items():
        names = ", ".join(f"{run.run} ({digest.short(run.outcome)})" for run in same)
        console.print(
            f"≠ one recipe, {digest.short(recipe)}, gave {len({r.outcome for r in same})} outcomes: {names}",
            style="bold red",
            markup=False,
        )
