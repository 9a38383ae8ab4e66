"""Lock files: pins with hashes, compiled by pip-tools, read without a resolver, a network, `packaging` or torch.

`verbatim.compile` writes them (the `lock` session), `verbatim.drift` checks them. A lock holds no URL and no option. Its first lines
carry digests of what it was compiled from and of what it pins, so that an edit by hand shows:

    # inputs sha256:…   the requirements of every .in file behind it, normalised and sorted
    # pins sha256:…     its names, versions and hashes, sorted

An optional lock ends in the versions that it was compiled beside, which both variants must have:

    # beside numpy==2.4.6
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from verbatim import digest as digests
from verbatim.errors import VerbatimError

VARIANTS = ("cpu", "cuda")
NAMES = ("tools", "audit", *VARIANTS)
# Optional, beside whichever variant: they pin only what it does not have. Installed by `verbatim.extras`.
EXTRAS = ("ray", "trackers", "bench")
# What may differ between the variants: torch and what its CUDA build brings.
GPU_ONLY = re.compile(r"torch|triton|nvidia-.+|cuda-.+")
COMPILE = "nox -s lock"
MERGE = "nox -s lock && git add requirements"  # it starts from this side's pins, and compiles the merged inputs


@dataclass(frozen=True, kw_only=True, slots=True)
class Pin:
    name: str
    version: str
    hashes: tuple[str, ...]  # "sha256:<hex>", sorted
    via: tuple[str, ...]  # what requires it: names, or `-r requirements/project.in`
    line: int


def normalise(name: str) -> str:
    """https://packaging.python.org/en/latest/specifications/name-normalization/"""
    return re.sub(r"[-_.]+", "-", name).lower()


_PIN = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)===?([^\s;,\\=<>!~*]+)\s*(\\?)$")
_HASH = re.compile(r"\s+--hash=(sha256:[0-9a-f]{64})\s*(\\?)$")
_COMMENT = re.compile(r"\s*(?:#.*)?$")
_VIA = re.compile(r"\s+#( via|  )(?:\s+(\S.*?))?\s*$")
_FITS = re.compile(r"\s*(?:--hash=(?:sha256:[0-9a-f]*)?|[A-Za-z0-9][A-Za-z0-9._-]*(?:===?[^\s;,\\=<>!~*]*)?)?\s*")
_BESIDE = re.compile(r"^# beside (\S+?)==(\S+)$", re.MULTILINE)
_CONFLICT = re.compile(r"(?:<{7}|={7}|>{7}|\|{7})(?: |$)")


def names(folder: Path) -> tuple[str, ...]:
    """The locks of a `requirements/`: those that must be there, and the optional ones that have a file there."""
    there = (name for name in EXTRAS if any((folder / f"{name}{end}").exists() for end in (".in", ".txt")))
    return (*NAMES, *there)


def read(path: Path) -> list[Pin]:
    """The pins of a lock, in its order. Anything that is not a hashed `==` pin or a comment is refused with line and column."""
    return parse(path, read_text(path, "a lock file"))


def parse(path: Path, text: str) -> list[Pin]:
    """As `read`, for text that has been read; `path` is where errors say that it is from."""
    lines = text.splitlines()
    pins: dict[str, Pin] = {}
    number = 0
    while number < len(lines):
        line = lines[number]
        if match := _PIN.match(line):
            pin, after = _pin(path, lines, number, match)
            if pin.name in pins:
                _refuse(path, number, 0, f"{pin.name} pinned once", f"a second pin, after line {pins[pin.name].line}")
            pins[pin.name] = pin
            number = after
        elif _COMMENT.match(line):
            number += 1
        elif _HASH.match(line) and number:
            _refuse(
                path,
                number - 1,
                len(lines[number - 1]),
                "a backslash, because a --hash follows",
                lines[number - 1].strip() or "none",
            )
        else:
            refuse_conflict(path, lines, MERGE)
            _refuse(path, number, _fits(line), "name==version, --hash=sha256:… or a comment", line.strip())
    return list(pins.values())


def _pin(path: Path, lines: list[str], start: int, match: re.Match[str]) -> tuple[Pin, int]:
    """One pin from its first line on, and the number of the line after it. A backslash must lead to a hash, and only one may."""
    hashes: list[str] = []
    number, continued = start + 1, bool(match[3])
    while continued:
        line = lines[number] if number < len(lines) else ""
        if not (found := _HASH.match(line)):
            refuse_conflict(path, lines, MERGE)
            _refuse(
                path, number, _fits(line), "--hash=sha256:<64 hex digits> after a backslash", line.strip() or "none"
            )
        hashes.append(found[1])
        number, continued = number + 1, bool(found[2])
    if not hashes:
        _refuse(path, start, len(lines[start]), f"a backslash and a --hash for {match[1]}", "none")
    via: list[str] = []
    while number < len(lines) and (found := _VIA.match(lines[number])) and (via or found[1] == " via"):
        via.append(found[2] or "")
        number += 1
    pin = Pin(
        name=normalise(match[1]), version=match[2], hashes=tuple(sorted(set(hashes))), via=tuple(filter(None, via)), line=start + 1
    )  # fmt: skip
    return pin, number


def read_text(path: Path, what: str, then: str = COMPILE) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise VerbatimError(path, expected=what, found="nothing there", then=then) from None
    except UnicodeDecodeError as error:
        before = error.object[: error.start]
        where = place(path, before.count(b"\n"), error.start - before.rfind(b"\n") - 1)
        raise VerbatimError(where, expected="UTF-8", found=hex(error.object[error.start]), then=then) from None
    except OSError as error:
        raise VerbatimError(path, expected=what, found=error.strerror, then=then) from None


def place(path: Path, number: int, column: int) -> str:
    """Where in a file, as editors count: from 1."""
    return f"{path}, line {number + 1}, column {column + 1}"


def refuse_conflict(path: Path, lines: list[str], then: str) -> None:
    """Say that a merge left this file in two versions, where it did: every other complaint would only confuse."""
    for number, line in enumerate(lines):
        if _CONFLICT.match(line):
            raise VerbatimError(place(path, number, 0), expected="one version", found=f"a merge conflict ({line[:40]})", then=then)  # fmt: skip


def _refuse(path: Path, number: int, column: int, expected: str, found: str) -> NoReturn:
    raise VerbatimError(place(path, number, column), expected=expected, found=found, then=COMPILE)


def _fits(line: str) -> int:
    """How far a line reads like one of a lock."""
    match = _FITS.match(line)
    return match.end() if match else 0


def digest(pins: Iterable[Pin]) -> str:
    """Digest of names, versions and hashes: it ignores order, comments and line ends."""
    return digests.of_value(sorted([pin.name, pin.version, *pin.hashes] for pin in pins))


def compare(pins: Iterable[Pin], installed: dict[str, str]) -> list[tuple[str, str, str]]:
    """Name, locked version, installed version, where the two differ; one of them empty. pip itself is tolerated: `venv` brings it."""
    wanted = {pin.name: pin.version for pin in pins}
    missing = [(name, version, "") for name, version in wanted.items() if name not in installed]
    other = [(n, v, installed[n]) for n, v in wanted.items() if n in installed and installed[n] != v]
    extra = [(name, "", installed[name]) for name in sorted(installed.keys() - wanted.keys() - {"pip"})]
    return missing + other + extra


def differences(pins: Iterable[Pin], installed: dict[str, str]) -> list[str]:
    """What is installed against what is locked, a sentence each."""
    return [
        f"{name}: {f'locked {one}, ' if one else ''}{f'installed {other}' if other else 'not installed'}{'' if one else ', not locked'}"
        for name, one, other in compare(pins, installed)
    ]


def header(path: Path) -> dict[str, str]:
    """What a lock's first lines state: the digests `inputs` and `pins`, and the `python` it was compiled for.

    Empty for a lock not written by `nox -s lock`, or with one of them twice.
    """
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        head = file.read(600)
    found = re.findall(r"^# (inputs|pins) (sha256:[0-9a-f]{64})$", head, re.MULTILINE)
    found += [("python", v) for v in re.findall(r"^# This file is autogenerated by pip-compile with Python (\S+)$", head, re.MULTILINE)]  # fmt: skip
    return dict(found) if len(found) == len(dict(found)) else {}


def beside(path: Path) -> dict[str, str]:
    """What an optional lock needs of the variants' locks, as it was compiled: normalised name → version."""
    return {normalise(name): version for name, version in _BESIDE.findall(read_text(path, "a lock file"))}


def read_sealed(path: Path) -> list[Pin]:
    """The pins of a lock that are those its header states: one edited by hand is refused. What is installed from goes through here.

    A lock that states none is let through: it says nothing that could be untrue, and `nox -s drift` names it.
    """
    pins = read(path)
    stated, actual = header(path).get("pins", ""), digest(pins)
    if stated and stated != actual:
        raise VerbatimError(
            path, expected=f"the pins that its header states, {digests.short(stated)}",
            found=f"{digests.short(actual)}: it was edited by hand", then=f"edit requirements/*.in, then {COMPILE}",
        )  # fmt: skip
    return pins
