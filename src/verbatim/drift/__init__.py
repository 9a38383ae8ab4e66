"""Drift: a declared thing and its pinned twin no longer agree. Seven kinds, one table, no resolver, no network, no torch.

    inputs     (a) an `.in` file was edited after its lock was compiled
    lock       (b) a lock was edited by hand, half merged, or broken
    installed  (c) the environment differs from its lock; with --deep, down to every file's bytes
    upstream   (d) what a compile would give today, what was yanked, what is vulnerable: only with --upstream, over the network
    image      (e) an image was built from another lock
    python     (f) another Python than the locks were compiled for
    variants   (g) the CPU and CUDA locks disagree
    twins      what this repository writes in two places

Exit code: 0 nothing has drifted, 1 something has, 2 something could not be read, or was asked for by name and could not be checked.
"""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from verbatim.drift import question
from verbatim.drift.finding import BROKEN, DRIFT, UNCHECKED, Answer, Finding
from verbatim.errors import VerbatimError

if TYPE_CHECKING:
    from verbatim.drift.locks import Locked

HEAD = ("kind", "what", "expected", "found", "mend")
KINDS = ("inputs", "lock", "installed", "image", "python", "variants", "twins")


def answers(root: Path, kinds: tuple[str, ...] = KINDS, *, deep: bool = False) -> list[Answer]:
    """Ask the kinds named, all offline. Nothing is raised for what can't be read: it is in the answer."""
    # First, because the engine thinks for longer than it takes to import and look at all else.
    asked = question.ask_for_images() if "image" in kinds and not os.environ.get("VERBATIM_ENV") else None
    from verbatim.drift import locks

    loaded = locks.load(root / "requirements")
    ask = {"inputs": locks.of_inputs, "lock": locks.of_locks, "variants": locks.of_variants}
    found = {kind: ask[kind](loaded) for kind in kinds if kind in ask}
    if deep or len(found) < len(set(kinds)):
        found |= _of_what_is_here(root, loaded, kinds, asked, deep)
    return [found[kind] for kind in (*kinds, *(["files"] if deep else []))]


def _of_what_is_here(
    root: Path, loaded: "dict[str, Locked]", kinds: tuple[str, ...], asked: question.Question | None, deep: bool
) -> dict[str, Answer]:
    """The kinds that look beyond `requirements/`; their imports take as long as the others' answers."""
    from verbatim.drift import image, installed, python, twins

    here, beside = installed.find(root), installed.find_extras(root)
    ask: dict[str, Callable[[], Answer]] = {
        "installed": lambda: installed.of_installed(here, loaded, beside),
        "python": lambda: python.of_python(here, loaded, root),
        "twins": lambda: twins.of_twins(root, loaded),
        "image": lambda: image.of_images(root, here, loaded, asked),  # last: see above
    }
    found = {kind: call() for kind, call in ask.items() if kind in kinds}
    if deep:
        from verbatim.drift import files

        found["files"] = files.of_files(here, beside)
    return found


def exit_code(given: list[Answer], named: bool) -> int:
    states = {finding.state for answer in given for finding in answer.findings}
    if BROKEN in states or (named and UNCHECKED in states):
        return 2
    return 1 if DRIFT in states else 0


def main(arguments: list[str], root: Path) -> int:
    parser = argparse.ArgumentParser(prog="nox -s drift --", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"only these: {', '.join(KINDS)}")
    parser.add_argument(
        "--deep", action="store_true", help="read every installed file and compare its bytes (some seconds)"
    )
    parser.add_argument(
        "--upstream", action="store_true", help="ask the network: newer, yanked and vulnerable versions, base image"
    )
    parser.add_argument("--as-of", metavar="DATE", default="", help="with --upstream: as the index stood on that date")
    parser.add_argument("--json", action="store_true", help="one JSON object, for programs")
    options = parser.parse_args(arguments)
    for kind in options.kinds:
        if kind not in KINDS:
            raise VerbatimError(
                f"drift {kind}", expected=f"a kind: {', '.join(KINDS)}", found=kind, then="nox -s drift -- --help"
            )
    if options.as_of and not options.upstream:
        raise VerbatimError(
            "drift --as-of",
            expected="--upstream as well",
            found="no --upstream",
            then="nox -s drift -- --upstream --as-of …",
        )
    kinds = tuple(options.kinds) or (() if options.upstream else KINDS)
    given = answers(root, kinds, deep=options.deep)
    if options.upstream:
        from verbatim.drift import upstream

        given += upstream.answers(root, options.as_of)
    code = exit_code(given, named=bool(options.kinds or options.upstream))
    if options.json:
        print(json.dumps({"exit": code, "answers": [answer.to_dict() for answer in given]}, indent=1))
    else:
        show(given, root)
    return code


def show(given: list[Answer], root: Path) -> None:
    """One line a kind, with what was looked at; then one table of what was found."""
    signs = {"agrees": "ok", DRIFT: "DRIFT", UNCHECKED: "not checked", BROKEN: "BROKEN"}
    for answer in given:
        print(f"{answer.kind:<10} {signs[answer.state]:<12} {answer.looked_at}")
    rows = [(answer.kind, finding) for answer in given for finding in answer.findings]
    if rows:
        print()
        _table(rows, root)


def _table(rows: list[tuple[str, Finding]], root: Path) -> None:
    """Aligned; on a terminal that is too narrow for it, one below the other. By hand: the tools' environment has no `rich`."""
    cells = [
        tuple(_plain(text, root) for text in (kind, f.what, f.expected or "–", _found(f), f.mend or "–"))
        for kind, f in rows
    ]
    widths = [max(map(len, column)) for column in zip(HEAD, *cells, strict=True)]
    if sys.stdout.isatty() and sum(widths) + 2 * len(widths) > shutil.get_terminal_size().columns:
        for kind, *rest in cells:
            print(f"{kind}: {rest[0]}")
            print(*(f"  {name + ':':<10}{text}" for name, text in zip(HEAD[2:], rest[1:], strict=True)), sep="\n")
        return
    for row in (HEAD, *cells):
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def _found(finding: Finding) -> str:
    return finding.found if finding.state == DRIFT else f"{finding.state}: {finding.found}"


def _plain(text: str, root: Path) -> str:
    """Paths as from the project's folder, and nothing that a terminal would obey."""
    return "".join(c if c.isprintable() else "�" for c in text.replace(f"{root}/", ""))
