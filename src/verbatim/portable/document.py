"""Writes what docs/determinism.md and README.md say of level `portable` from what the code and the witnesses hold, so that no page
promises what nobody has shown: `nox -s portability -- --document`. Reads and writes text; torch is not loaded.

A part stands between `<!-- made by nox -s portability -- --document: NAME -->` and `<!-- end -->`, and is replaced as a whole.
"""

import re
import textwrap
from collections.abc import Iterable
from pathlib import Path

from verbatim import record
from verbatim.errors import VerbatimError
from verbatim.portable import operators, witnesses
from verbatim.portable.witnesses import Table, Witness

FILES = ("README.md", "docs/determinism.md")
COMMAND = "nox -s portability -- --document"
PART = re.compile(rf"(<!-- made by {COMMAND}: (.*?) -->\n).*?(<!-- end -->)", re.DOTALL)
WIDTH = 120


def main(root: Path) -> int:
    written = write(root)
    for name in FILES:
        print(f"{name}: {'written' if name in written else 'up to date'}")
    return 0


def write(root: Path) -> list[str]:
    """The files that were not up to date, and are now."""
    made = stale(root)
    for name, text in made.items():
        record.write_atomically(root / name, text.encode())
    return list(made)


def stale(root: Path) -> dict[str, str]:
    """File → what it should say, of those that say something else."""
    table, found = witnesses.read(), {}
    for name in FILES:
        try:
            text = (root / name).read_text(encoding="utf-8")
        except FileNotFoundError:
            raise VerbatimError(root / name, expected="the page to write to", found="nothing there", then="run it in a checkout") from None  # fmt: skip
        if (new := renewed(text, table, name)) != text:
            found[name] = new
    return found


def renewed(text: str, table: Table, name: str = "") -> str:
    """The page with each of its parts as `table` and `operators` have it now."""
    parts = {"claim": claim, "operators": covered, "rerouted": rerouted, "unlisted": unlisted, "write": written, "threads": threads, "witnesses": witnessed}  # fmt: skip
    asked = [match[2] for match in PART.finditer(text)]
    if len(asked) != text.count(COMMAND + ": ") or not asked or set(asked) - parts.keys():
        raise VerbatimError(name or "the page", expected=f"parts named {', '.join(parts)}, each with its end", found=", ".join(asked) or "none")  # fmt: skip
    return PART.sub(lambda match: f"{match[1]}\n{parts[match[2]](table)}\n{match[3]}", text)


# ---------------------------------------------------------------------------------------------------------- the parts


def claim(table: Table) -> str:
    return _wrapped(f"Level `portable` is {table.claim} (torch {table.torch}, NumPy {table.numpy}).")


def covered(_: Table) -> str:
    width = max(map(len, operators.GROUPS)) + 2
    lines = [
        textwrap.fill(
            f"{group:{width}}{' '.join(names.split())}", WIDTH, subsequent_indent=" " * width, break_on_hyphens=False
        )
        for group, names in operators.GROUPS.items()
    ]
    return "\n".join(["```text", *lines, "```", ""])


def rerouted(_: Table) -> str:
    return _rows(
        ("operators", "computed by", "because", "cost"),
        ((_code(names), *why) for names, why in operators.REROUTED.items()),
    )


def unlisted(_: Table) -> str:
    reasons = dict.fromkeys(operators.INSTEAD.values())
    return _rows(
        ("operators", "why"),
        ((_code(" ".join(n for n, why in operators.INSTEAD.items() if why == reason)), reason) for reason in reasons),
    )


def written(_: Table) -> str:
    return _rows(("for", "write"), ((f"`{plain}`", f"`{instead}`") for plain, instead in operators.WRITE.values()))


def threads(table: Table) -> str:
    """By the names of cases, whose first word is what they call."""
    others = {int(n): cases for n, cases in table.operators.items() if n != "1"}
    what = sorted({case.split()[0] for cases in others.values() for case in cases})
    counts = ", ".join(f"{len(cases)} with {n}" for n, cases in others.items())
    return _wrapped(
        f"Of {len(table.expected(1))} cases, {counts} threads give other bits than with one. They are of {_code(' '.join(what))}."
    )


def witnessed(table: Table) -> str:
    if not table.witnesses:
        return _wrapped("No machine has been added yet.")
    return _rows(
        ("CPU", "how", "C library", "operator cases", "trainings", "on"),
        (_of(table, witness) for witness in table.witnesses),
    )


def _of(table: Table, witness: Witness) -> tuple[str, ...]:
    operators_now, trainings_now = table.digests
    cases = len(table.expected(1)) if witness.operators == operators_now else "an earlier table"
    trainings = len(table.trainings) if witness.trainings == trainings_now else "an earlier table"
    return (
        f"{witness.cpu} ({witness.vendor})", witness.how, witness.libc, str(cases), str(trainings) if witness.trainings else "not run",
        witness.date,
    )  # fmt: skip


def _wrapped(text: str) -> str:
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False) + "\n"


def _rows(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    return "".join(f"| {' | '.join(line)} |\n" for line in (head, ("---",) * len(head), *rows))


def _code(names: str) -> str:
    return ", ".join(f"`{name}`" for name in names.split())
