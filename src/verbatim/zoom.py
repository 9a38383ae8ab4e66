"""Names the first operator at which two runs part: both are run again up to the guilty step, with every operator of it digested.

It decides nothing about the runs: what the records and traces say is `verbatim.comparison`'s.
"""

import contextlib
import difflib
import json
import math
import os
import subprocess
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verbatim import integrity, launch, parting, record, restore, scratch, trace
from verbatim.errors import VerbatimError
from verbatim.parting import Parting
from verbatim.trace import Reader

if TYPE_CHECKING:
    from verbatim.weights import Apart

OBSERVER = Path(__file__).with_name("observe.py")
STOPPED = 130  # how the observer ends a run whose step it has seen
FAR = 50  # steps to watch before the guilty one where the parameters were never digested
SCALAR = ("aten._local_scalar_dense.default",)  # `.item()`: its output is no tensor
WINDOW = 2000  # operators that are aligned after the first whose names differ


Pair = tuple[int | None, int | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Log:
    """The operators of one run's guilty step. `repeated`: whether the run gave its recorded bits under observation as well."""

    entries: list[dict[str, Any]]
    repeated: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """The first operator that differs: its number in each run (None where one lacks it), and what of it."""

    a: int | None
    b: int | None
    what: str
    says: str = ""
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, slots=True)
class Zoomed:
    """What was found in the steps from the first to the last of `steps`; `tensors`: how those of the operator differ."""

    runs: tuple[str, str]
    steps: tuple[int, int]
    logs: tuple[Log, Log]
    found: Found | None
    tensors: "list[Apart]"

    def lines(self) -> list[str]:
        span = (
            f"step {self.steps[1]}" if self.steps[0] == self.steps[1] else f"steps {self.steps[0]} to {self.steps[1]}"
        )
        lines = [
            f"note: {run} gave other bits under observation than it recorded"
            for run, log in zip(self.runs, self.logs, strict=True)
            if not log.repeated
        ]
        if self.found is None:
            counts = " and ".join(str(len(log.entries)) for log in self.logs)
            none = f"operator  none of {span} differs ({counts} operators)"
            return [*lines, f"{none}: what differs lies outside of torch, or did not repeat"]
        lines.append(f"operator  {span}, {tell(self.found, list(self.logs))}")
        return lines + [f"          {apart.name}: {apart.says}" for apart in self.tensors]

    def as_dict(self) -> dict[str, Any]:
        """For machines. The operator's entry in a run's log is null where that run lacks it, all of it where none differs."""
        found = self.found
        at = (found.a, found.b) if found else (None, None)
        entries = [None if n is None else log.entries[n] | {"number": n} for n, log in zip(at, self.logs, strict=True)]
        return {
            "steps": list(self.steps), "operators": [len(log.entries) for log in self.logs],
            "repeated": [log.repeated for log in self.logs], "what": found.what if found else None,
            "says": found.says if found else "", "a": entries[0], "b": entries[1],
            "tensors": [{key: _plain(value) for key, value in asdict(apart).items()} for apart in self.tensors],
        }  # fmt: skip


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity: they are their names."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def zoom(a: Path, b: Path, parted: Parting, root: Path) -> Zoomed:
    """The first differing operator after the last common state, and how its tensors differ."""
    from verbatim import weights

    assert parted.a  # noqa: S101 — asked for only where two rows differ
    last = parted.a.step
    known = parted.parameters_same_after
    steps = (max(0, last - FAR) if known is None else known + 1, last)
    tensors: list[Apart] = []
    with scratch.folder("zoom") as own:
        places = [own / name for name in ("a", "b")]
        logs = (observe(a, steps, root, places[0]), observe(b, steps, root, places[1]))
        found = first(logs[0].entries, logs[1].entries)
        if found and found.a is not None and found.b is not None and found.what != "operator":
            for run, place, keep in ((a, places[0], found.a), (b, places[1], found.b)):
                observe(run, steps, root, place, keep)
            tensors = list(weights.compare(*(place / "log.safetensors" for place in places)))
    return Zoomed(runs=(a.name, b.name), steps=steps, logs=logs, found=found, tensors=tensors)


def tell(found: Found, logs: list[Log]) -> str:
    at = found.a if found.a is not None else found.b
    entry = logs[0 if found.a is not None else 1].entries[at or 0]
    where = ", ".join(filter(None, (entry["module"], *entry["parameters"], entry["line"])))
    said = f"operator {at} of {len(logs[0].entries)}: {entry['operator']}, {entry['phase']}{f' ({where})' if where else ''}"
    return f"{said}: {found.says}"


def first(a: list[dict[str, Any]], b: list[dict[str, Any]]) -> Found | None:
    """The first pair of aligned operators whose tensors differ, or the first operator that one run lacks."""
    for i, j in align(a, b):
        if i is None or j is None:
            return Found(a=i, b=j, what="operator", says=f"only {'B' if i is None else 'A'} runs it")
        if a[i]["outputs"] == b[j]["outputs"] and a[i]["operator"] not in SCALAR:
            continue  # whatever went in, it made no difference
        one, other = a[i]["arguments"], b[j]["arguments"]
        if name := next((name for name in one if one[name] != other.get(name)), ""):
            return Found(a=i, b=j, what="arguments", says=f"{name}: {one[name]} → {other.get(name)}")
        if a[i]["inputs"] != b[j]["inputs"]:
            return Found(
                a=i,
                b=j,
                what="inputs",
                says="its inputs differ, and came from no operator: data, or a value of the code",
            )
        if a[i]["outputs"]:
            return Found(a=i, b=j, what="outputs", says="its inputs are the same, its outputs differ")
    return None


def align(a: list[dict[str, Any]], b: list[dict[str, Any]]) -> list[Pair]:
    """Pairs of positions, in order. Operators pair by name, phase and the text of their line of code; where only that text is
    other, the line was edited, and they pair as well."""
    keys = [[(entry["operator"], entry["phase"], entry["source"]) for entry in log] for log in (a, b)]
    common = next((n for n, (x, y) in enumerate(zip(*keys, strict=False)) if x != y), min(len(a), len(b)))
    pairs: list[Pair] = [(n, n) for n in range(common)]
    left, right = keys[0][common : common + WINDOW], keys[1][common : common + WINDOW]
    for _, i, i_end, j, j_end in difflib.SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        while i < i_end and j < j_end and left[i][:2] == right[j][:2]:
            pairs.append((common + i, common + j))
            i, j = i + 1, j + 1
        pairs += [(common + n, None) for n in range(i, i_end)] + [(None, common + n) for n in range(j, j_end)]
    return pairs


def observe(where: Path, steps: tuple[int, int], root: Path, aside: Path, keep: int = -1) -> Log:
    """Run a recorded run again, in its own code and environment, to the last of `steps`, and read what its operators did in them."""
    run = record.read(where)
    log, runs = aside / "log.jsonl", aside / f"runs{keep}"
    aside.mkdir(exist_ok=True)
    with restore.restored(root, run.code) as folder:
        tree = restore.project(root, folder)
        launch.write_config(folder / "config", run.recipe_config, launch.places(run, root, [f"paths.runs={runs}"]))
        python, *rest = launch.command(run.command, tree, launch.environment_of(run, tree, root), folder / "config")
        options = rest[: next(n for n, word in enumerate(rest) if word == "-m" or word.endswith(".py"))]
        words = [
            python,
            "-P",
            *options,
            str(OBSERVER),
            str(log),
            str(steps[0]),
            str(steps[1]),
            str(keep),
            *rest[len(options) :],
        ]
        print(f"observing    {run.run}, steps {steps[0]} to {steps[1]}", flush=True)
        done = subprocess.Popen(words, cwd=tree, env=launch.variables(run, tree), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)  # fmt: skip
        for lived_in in (folder, aside.parent):
            scratch.owned_by(lived_in, os.getpid(), done.pid)
        try:
            _, said = done.communicate()
        except BaseException:
            done.terminate()
            done.wait()
            raise
    if done.returncode != STOPPED or not log.exists():
        last = said.strip().splitlines()
        raise VerbatimError(
            run.run,
            expected=f"to reach step {steps[1]} again",
            found=last[-1] if last else f"exit code {done.returncode}",
        )
    entries = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return Log(entries=entries, repeated=_repeated(where, runs, steps[1]))


def _repeated(where: Path, runs: Path, step: int) -> bool:
    with contextlib.suppress(StopIteration, OSError, VerbatimError):
        new = Reader(next(runs.iterdir()) / trace.FILE)
        return parting.find(Reader(integrity.folder_of(where) / trace.FILE), new, step).a is None
    return False
