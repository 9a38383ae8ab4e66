"""What differs between two runs, the first cause first. Reads only, and never imports torch.

The order is that in which one thing causes the next: image, Python, lock, code, config, data, hardware and probe, then the first
step at which the traces part, the weights, the metrics, and how each run ended. Folder, host, process and times are not
compared: no two runs share them.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from verbatim import causes, digest, integrity, parting, record, trace
from verbatim.causes import Difference
from verbatim.errors import VerbatimError
from verbatim.parting import Parting
from verbatim.record import Record
from verbatim.trace import Row


@dataclass(kw_only=True)
class Comparison:
    """`differences` in the order of `causes.PARTS`; `notes` say what could not be compared."""

    a: Record
    b: Record
    differences: list[Difference] = field(default_factory=list)
    parting: Parting | None = None
    notes: list[str] = field(default_factory=list)

    def of(self, *parts: str) -> list[Difference]:
        return [difference for difference in self.differences if difference.part in parts]

    @property
    def verdict(self) -> str:
        """One line: nothing differs, or the first cause."""
        if not self.differences:
            return (
                "identical: the same recipe, environment and outcome"
                if self.a.outcome
                else "identical, as far as both go"
            )
        first = self.differences[0].part
        same = self.of(first)
        more = f" (and {len(same) - 1} more)" if len(same) > 1 else ""
        line = f"first cause: {first}, {same[0]}{more}"
        if self.a.outcome and self.a.outcome == self.b.outcome:
            line += "; without effect: the outcome is the same, bit for bit"
        return line


def compare(a: Path, b: Path, root: Path, until: int | None = None) -> Comparison:
    """Compare two run folders (or `record.json` files), as far as both go, and the trace not past step `until`."""
    one, other = record.read(a), record.read(b)
    found = Comparison(a=one, b=other)
    _refuse_strangers(one, other)
    found.differences += causes.find(one, other, root)
    found.differences += _steps(found, integrity.folder_of(a), integrity.folder_of(b), until)
    if until is None and one.state == other.state == "sealed":
        found.differences += _tensors(found, integrity.folder_of(a), integrity.folder_of(b))
        found.differences += causes.values("metric", "", one.metrics, other.metrics)
    if until is None:
        found.differences += _ends(found)
        if one.outcome != other.outcome and not found.of(*causes.OUTCOME):
            says = (
                f"{digest.short(one.outcome)} → {digest.short(other.outcome)}, though nothing that was compared differs"
            )
            found.differences.append(Difference(part="end", where="outcome", a=one.outcome, b=other.outcome, says=says))
    return found


def _refuse_strangers(a: Record, b: Record) -> None:
    """Two runs that share no setting, or were started by different programs, have no first difference: all is different."""
    programs = [_program(run.command) for run in (a, b)]
    if all(programs) and programs[0] != programs[1]:
        raise VerbatimError("compare", expected="two runs of one experiment", found=f"{programs[0]} and {programs[1]}")
    if a.recipe_config and b.recipe_config and not a.recipe_config.keys() & b.recipe_config.keys():
        raise VerbatimError("compare", expected="two runs of one experiment", found="configurations that share no key")


def _program(command: list[str]) -> str:
    """`-m experiment.train` or `train.py`: what the interpreter was told to run."""
    for index, word in enumerate(command[1:], 1):
        if word == "-m" and index + 1 < len(command):
            return f"-m {command[index + 1]}"
        if word.endswith(".py"):
            return Path(word).name
    return ""


def _steps(found: Comparison, a: Path, b: Path, until: int | None) -> Iterator[Difference]:
    left, right = integrity.open_trace(a, found.a), integrity.open_trace(b, found.b)
    if left is None or right is None:
        one, other = found.a.trace.get("digest"), found.b.trace.get("digest")
        missing = " and ".join(str(side) for side, trace in ((a, left), (b, right)) if trace is None)
        if one and other and one != other:
            found.notes.append(f"{missing}: no {trace.FILE}, so the first differing step can't be named")
            yield Difference(part="step", where="trace", a=one, b=other)
        elif not (one and other):
            found.notes.append(f"{missing}: no trace, so no step was compared")
        return
    found.parting = part = parting.find(left, right, until)
    if part.a and part.b:
        yield Difference(part="step", where=f"step {part.a.step}", a=_row(part.a), b=_row(part.b), says=_say(part))
    elif until is None and left.rows != right.rows:
        yield Difference(part="step", where="trace", a=left.rows, b=right.rows,
                         says=f"the same for {part.compared} steps, then one ends: {left.rows} and {right.rows} steps")  # fmt: skip


def _row(row: Row) -> dict[str, Any]:
    return {key: value.hex() if isinstance(value, bytes) else value for key, value in asdict(row).items()}


def _say(part: Parting) -> str:
    assert part.a and part.b  # noqa: S101 — the caller has looked
    says = f"{', '.join(part.what)} (the first to differ: {part.what[0]})" if len(part.what) > 1 else part.what[0]
    if "loss" in part.what:
        says += f"; loss {part.a.loss!r} → {part.b.loss!r}"
    if "batch" not in part.what and part.parameters_same_after is not None and part.what[0] != "parameters":
        says += f"; the parameters were the same after step {part.parameters_same_after}"
    return says


def _tensors(found: Comparison, a: Path, b: Path) -> Iterator[Difference]:
    names = [
        n
        for n in found.a.files
        if n.endswith(".safetensors") and found.b.files.get(n, found.a.files[n]) != found.a.files[n]
    ]
    done: set[tuple[str, str]] = set()
    named = False
    for name in sorted(names):
        pair = found.a.files[name], found.b.files[name]
        if pair in done:  # the best epoch was the last: two names of the same bytes
            continue
        done.add(pair)
        missing = [str(side) for side in (a, b) if not (side / name).exists()]
        if missing:
            found.notes.append(f"{' and '.join(missing)}: no {name}, so its tensors were not compared")
            continue
        for side, run in ((a, found.a), (b, found.b)):
            if (now := digest.of_file(side / name)) != run.files[name]:
                raise VerbatimError(
                    side / name, expected=run.files[name], found=f"{now}: the file was changed after the run"
                )
        from verbatim import weights

        for apart in weights.compare(a / name, b / name):
            named = True
            yield Difference(
                part="tensor", where=f"{name}, {apart.name}", a=apart.first_a, b=apart.first_b, says=apart.says
            )
    if not named and found.a.weights != found.b.weights:
        yield Difference(part="tensor", where="weights", a=found.a.weights, b=found.b.weights)


def _ends(found: Comparison) -> Iterator[Difference]:
    ends = [f"{run.state}{f' ({run.reason})' if run.reason else ''}" for run in (found.a, found.b)]
    if ends[0] != ends[1]:
        yield Difference(part="end", where="state", a=ends[0], b=ends[1])
