"""What a sweep gave: one entry per job, read from its run's record; `results.json`, and the report made of it."""

import collections
import contextlib
import csv
import dataclasses
import os
import re
import shlex
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

from verbatim import folders, launch, record, settings
from verbatim.errors import VerbatimError
from verbatim.multirun import folder as sweep_folder
from verbatim.multirun import places, typed
from verbatim.multirun.jobs import Ended
from verbatim.multirun.plan import Made
from verbatim.record import Record

FILE = sweep_folder.RESULTS
ENDED_BADLY = ("failed", "refused", "lost", "interrupted")
OPEN = ("waiting", "running")  # states of a job that has not ended
# What says where and how, and not what: another value does not make another sweep, and nobody compares by it.
ELSEWHERE = tuple(f"{name}{mark}" for name in settings.ELSEWHERE for mark in ".=")


@dataclasses.dataclass(kw_only=True, slots=True)
class Job:
    """`state`: waiting, running, or how it ended: that of its run's record, `lost` where its process was killed, `refused` where its
    recipe is not the one that was planned. `value` is the objective's. `found`: sealed before, and not run again. `went_on`: from a
    checkpoint of an earlier start. `different`: what a run of the same recipe gave instead."""

    index: int
    words: list[str]
    state: str = "waiting"
    reason: str = ""
    run: str = ""
    folder: str = ""
    value: float | None = None
    metrics: dict[str, Any] = dataclasses.field(default_factory=dict)
    wall_s: float = 0.0
    outcome: str = ""
    recipe: str = ""
    found: bool = False
    went_on: bool = False
    different: str = ""

    def take(self, run: Made, root: Path, runs: Path, objective: str) -> None:
        path = runs / run.run
        self.run, self.folder, self.state, self.reason = (
            run.run,
            folders.show(path, root),
            run.state,
            run.reason,
        )
        self.metrics = {name: value for name, value in run.metrics.items() if isinstance(value, int | float)}
        self.wall_s, self.outcome, self.recipe = run.wall_s, run.outcome, run.recipe
        if self.state == "sealed":
            value = self.metrics.get(objective)
            self.value = None if value is None else float(value)

    def read(self, folder: sweep_folder.Folder, root: Path, runs: Path, objective: str, ended: Ended) -> Record | None:
        """From the run that the job says is its own; where there is none, it failed before."""
        path = folder.run(self.index)
        try:
            run = record.read(path) if path else None
        except VerbatimError as error:
            self.state, self.reason = "failed", str(error).partition("\n")[0]
            return None
        if not run or not path:
            self.state, self.reason = (
                ("lost", ended.lost) if ended.lost else ("failed", _last_words(folder.log(self.index), ended.how))
            )
            return None
        self.take(Made.of(run), root, path.parent, objective)
        self.went_on = bool(run.resumed)
        if run.state == "started":
            self.state, self.reason = (
                ("lost", ended.lost) if ended.lost else ("failed", f"{ended.how} before its record was sealed")
            )
        return run

    def shown(self) -> list[str]:
        return [word for word in self.words if not word.startswith(ELSEWHERE)]

    def plain(self) -> dict[str, Any]:
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        plain["job"], plain["overrides"] = plain.pop("index"), self.shown()
        del plain["words"]
        plain["again"] = f"nox -s reproduce -- {shlex.quote(self.folder)}" if self.folder else ""
        plain["train"] = _command("train", [*places, *self.words])
        return plain


def varied(jobs: list[dict[str, Any]]) -> list[list[str]]:
    """Of each job the settings in which it is not like all others; where there is nothing else, all."""
    common = set.intersection(*(set(job["overrides"]) for job in jobs)) if len(jobs) > 1 else set()
    return [[word for word in job["overrides"] if word not in common] or job["overrides"] for job in jobs]


def epochs(run: Path, last: int | None = None) -> list[dict[str, Any]]:
    """The rows, or the `last` ones, of its `epochs.csv`, numbers as numbers; none where there is no such file, or half a row."""
    rows: list[dict[str, Any]] = []
    with contextlib.suppress(OSError, ValueError, csv.Error), (run / "epochs.csv").open() as file:
        for row in csv.DictReader(file if last is None else [file.readline(), *collections.deque(file, last)]):
            rows.append({name: float(value) for name, value in row.items() if name is not None and value is not None})
    return rows


def goal_of(objective: str, goal: str) -> str:
    """An objective that knows the test set would choose by it, and how many epochs there were is no merit: refused."""
    if not objective.startswith("validation"):
        raise VerbatimError(
            "multirun.objective", expected="a metric of the validation part, as validation_loss", found=objective,
            then=f"did you mean multirun.objective=validation_{objective.removeprefix('test_')}?",
        )  # fmt: skip
    if goal != "auto":
        return goal
    for word, wanted in (("accuracy", "maximize"), ("loss", "minimize"), ("error", "minimize")):
        if word in objective:
            return wanted
    raise VerbatimError("multirun.goal", expected=f"minimize or maximize, for {objective}", found=goal, then="add multirun.goal=maximize, say")  # fmt: skip


def without_objective(jobs: list[dict[str, Any]], objective: str) -> VerbatimError | None:
    """What is to be said where sealed runs did not give the objective; None where all did."""
    lack = [job for job in jobs if job["state"] == "sealed" and job["value"] is None]
    if not lack:
        return None
    there = dict.fromkeys(name for job in lack for name in job["metrics"] if name.startswith("validation"))
    return VerbatimError(
        "multirun.objective", expected=f"one of {', '.join(there)}: what the runs gave" if there else "a metric that the runs give",
        found=f"{objective}, which {len(lack)} of them did not", then="the same command with multirun.objective=… judges the runs that there are",
    )  # fmt: skip


def reasons(jobs: list[dict[str, Any]], states: Collection[str]) -> list[tuple[str, str, list[dict[str, Any]]]]:
    """Jobs that ended in one of `states`, by state and reason, the most frequent first: a thousand often fail for one, at another step
    each."""
    alike: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for job in jobs:
        if job["state"] in states:
            alike.setdefault((job["state"], re.sub(r"[0-9]+", "", job["reason"])), []).append(job)
    found = [(state, same[0]["reason"] or "no reason was left", same) for (state, _), same in alike.items()]
    return sorted(found, key=lambda item: -len(item[2]))


def ranked(results: dict[str, Any]) -> list[dict[str, Any]]:
    """The sealed jobs, the best first; of equal ones the first."""
    sign = -1 if results["goal"] == "maximize" else 1
    sealed = [job for job in results["jobs"] if job["state"] == "sealed" and job["value"] is not None]
    return sorted(sealed, key=lambda job: (sign * job["value"], job["job"]))


def command(*, again: bool = False) -> str:
    """This multirun's, as a person types it; `again`: to make what is left of it."""
    return _command("multirun", [word for word in typed if not again or word != "--again"])


def _command(task: str, words: list[str]) -> str:
    """As a person types it. A script of one's own has no nox session."""
    program = launch.program(sys.orig_argv)
    if program[-1] == "experiment.train":
        return f"nox -s {task} -- {shlex.join(words)}".rstrip()
    python = folders.show(Path(sys.executable))
    return shlex.join([python, *program, *(["--multirun"] if task == "multirun" else []), *words])


def write_report(folder: Path, results: dict[str, Any], root: Path) -> None:
    from verbatim.multirun import page

    # With the words of a file of configs/sweep/, which the command does not show.
    asked = (sweep_folder.read(folder / sweep_folder.IDENTITY) or {}).get("command") or []
    made = page.page(results, folder, root, lambda job: epochs(root / job["folder"]) if job["folder"] else [], asked)
    record.write_atomically(folder / sweep_folder.REPORT, made.encode())


def _last_words(log: Path, how: str) -> str:
    """Why a job that never got a run ended, as it said it itself."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, os.path.getsize(log) - 4096))
            lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    except OSError:
        lines = []
    said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    traced = [at for at, line in enumerate(lines) if line.startswith("Traceback")]
    raised = [line for line in lines[traced[-1] + 1 :] if not line.startswith(" ")][:1] if traced else []
    return (said or raised or lines or [how])[-1].strip()
