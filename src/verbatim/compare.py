"""The command that compares two runs, and its answer as text or JSON: `nox -s compare -- A B`. It finds nothing itself.

Exit code 0: nothing differs; 1: something does; 2: the two can't be compared.
"""

import argparse
import contextlib
import json
import sys
from pathlib import Path
from typing import Any

from verbatim import causes, digest, ledger
from verbatim.causes import Difference
from verbatim.comparison import Comparison, compare

LISTED = 10  # lines of a part, where not all are asked for
LAST = "last.safetensors"  # what training goes on to after model.safetensors, the best epoch's


def main(arguments: list[str], root: Path) -> int:
    parser = argparse.ArgumentParser(
        prog="nox -s compare --",
        description="Every difference between two runs, the first cause first. Exit code 0: none, 1: some, 2: can't be compared.",
    )
    parser.add_argument("a", metavar="A", help="a run's folder, name or record.json")
    parser.add_argument("b", metavar="B", help="the other; `latest` is the newest sealed run")
    parser.add_argument("--patch", action="store_true", help="show how the code differs, line by line")
    parser.add_argument(
        "--outcome", action="store_true", help="exit with 0 where the outcomes are the same, whatever else differs"
    )
    parser.add_argument(
        "--zoom", action="store_true", help="run both again to the step at which they part, and name the operator"
    )
    parser.add_argument(
        "--tolerance",
        metavar="REL",
        type=float,
        help="exit with 0 where losses and metrics are as close as this; no bit is claimed",
    )
    parser.add_argument("--all", action="store_true", help=f"list more than {LISTED} differences of a part")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse_args(arguments)
    a, b = locate(options.a, root), locate(options.b, root)
    found = compare(a, b, root)
    if not options.json:
        print(report(found, root, patch=options.patch, everything=options.all), flush=True)
    zoomed = None
    if options.zoom and found.parting and found.parting.a:
        from verbatim import zoom

        with contextlib.redirect_stdout(sys.stderr if options.json else sys.stdout):  # it says what it is doing
            zoomed = zoom.zoom(a, b, found.parting, root)
    if options.json:
        answer = as_dict(found) | ({"zoom": zoomed.as_dict() if zoomed else None} if options.zoom else {})
        print(json.dumps(answer, ensure_ascii=False, indent=1))
    elif zoomed:
        print("\n".join(zoomed.lines()))
    if options.tolerance is not None:
        from verbatim import tolerance

        apart = tolerance.measure(found, a, b)
        print(tolerance.say(apart, options.tolerance), file=sys.stderr if options.json else sys.stdout)
        return 0 if apart.relative <= options.tolerance else 1
    return 1 if (found.of(*causes.OUTCOME) if options.outcome else found.differences) else 0


def locate(name: str, root: Path) -> Path:
    """A run folder by its path or name, a `record.json` by its path, or `latest`."""
    runs = root / "runs"
    if name == "latest":
        return ledger.latest(runs)
    return Path(name).resolve() if Path(name).is_file() else ledger.find(name, runs, root)


def report(found: Comparison, root: Path, *, patch: bool = False, everything: bool = False, more: str = "--all") -> str:
    """The verdict, the two runs, then one line for each difference under its part; `more` is said to list what is left out."""
    lines = [found.verdict, ""]
    for mark, run in (("A", found.a), ("B", found.b)):
        digests = f"recipe {digest.short(run.recipe)}  outcome {digest.short(run.outcome)}"
        lines.append("  ".join([mark, run.run, f"{run.state:11}", digests, *filter(None, ["; ".join(run.remarks)])]))
    for part in causes.PARTS:
        listed = [str(d) for d in found.of(part)] if everything else _shortened(found.of(part), more)
        lines += [f"{'' if index else part:10}{line}" for index, line in enumerate(listed)]
    if found.parting and not found.of("step"):
        lines.append(f"{'step':10}the same, {found.parting.compared} of {found.parting.compared}")
    lines += [f"note: {note}" for note in found.notes]
    if "seeded" in (found.a.claim, found.b.claim) and found.of("step", "tensor", "metric"):
        lines.append("note: the level `seeded` does not claim the same bits; determinism=exact does")
    if patch and found.of("code"):
        lines += ["", causes.git_diff(root, found.a.code["tree"], found.b.code["tree"], "--patch", "--stat")]
    return "\n".join(lines)


def _shortened(differences: list[Difference], more: str) -> list[str]:
    """At most `LISTED` lines, and what was left out; the last epoch's tensors in one, where the best epoch's are the same ones."""
    by_file: dict[str, list[str]] = {}
    for difference in differences:
        if difference.part == "tensor":
            file, _, tensor = difference.where.partition(", ")
            by_file.setdefault(file, []).append(tensor)
    last = by_file.pop(LAST, [])
    twin = next((file for file, tensors in by_file.items() if tensors == last), "")
    lines = [str(d) for d in differences if not (twin and d.where.startswith(f"{LAST}, "))]
    if len(lines) > LISTED:
        lines[LISTED:] = [f"and {len(lines) - LISTED} more: {more}"]
    if twin:
        count = f"{len(last)} tensors differ" if len(last) > 1 else "tensor differs"
        lines.append(f"{LAST}: the same {count} as in {twin}")
    return lines


def as_dict(found: Comparison) -> dict[str, Any]:
    """For machines. A side that lacks a key lacks `a` or `b` here."""
    differences = [
        {"part": d.part, "where": d.where, "says": d.says}
        | {side: value for side, value in (("a", d.a), ("b", d.b)) if value is not causes.Nothing.HERE}
        for d in found.differences
    ]
    part = found.parting
    return {
        "a": found.a.run, "b": found.b.run, "identical": not differences, "verdict": found.verdict,
        "first": differences[0] if differences else None, "differences": differences, "notes": found.notes,
        "claims": [found.a.claim, found.b.claim], "resumed": [len(found.a.resumed), len(found.b.resumed)],
        "steps_compared": part.compared if part else None,
        "first_step": part.a.step if part and part.a else None, "first_of_step": part.what[0] if part and part.what else None,
    }  # fmt: skip
