"""What people write: the `.in` files of `requirements/`. Read with `packaging`, the rules that pip itself reads by; never resolved.

hydra-core~=1.3.8        a requirement
-r project.in            another file's requirements as well
-c limits.in             its versions as limits, where something else requires the package
# also NAME==VERSION --hash=sha256:…    a wheel's hash that compiling can't see, added to the pin (for other machines)
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from packaging.markers import default_environment
from packaging.requirements import InvalidRequirement, Requirement

from verbatim import digest as digests
from verbatim import environment, lock
from verbatim.errors import VerbatimError

BY_HAND = "mend that line, then nox -s lock"
_NESTED = re.compile(r"(-r|-c|--requirement|--constraint)(?:\s+|=|(?<=-[rc]))(\S+)\s*$")
_ALSO = re.compile(r"\s*#\s*also\s+(\S+?)==(\S+)\s+--hash=(sha256:[0-9a-f]{64})\s*$")
_ALSO_MEANT = re.compile(r"\s*#\s*also\s+\S+?==")
_COMMENT = re.compile(r"(^|\s+)#.*$")


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    requirement: Requirement
    name: str
    limit: bool  # of a `-c` file: it holds where something else requires the package
    path: Path
    line: int

    @property
    def where(self) -> str:
        return f"{self.path.name}, line {self.line}"

    def canonical(self) -> str:
        """The same text for whatever pip reads as the same: spacing, quotes, case and order do not matter."""
        r = self.requirement
        extras = ",".join(sorted(map(lock.normalise, r.extras)))
        marker = f";{r.marker}" if r.marker else ""
        return f"{'-c ' * self.limit}{self.name}{f'[{extras}]' if extras else ''}{r.specifier}{marker}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Also:
    name: str
    version: str
    hash: str
    where: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Inputs:
    wanted: tuple[Wanted, ...]
    also: tuple[Also, ...]
    files: tuple[str, ...]

    @property
    def digest(self) -> str:
        stated = {f"also {a.name}=={a.version} {a.hash}" for a in self.also}
        return digests.of_value(sorted({w.canonical() for w in self.wanted} | stated))


def surroundings() -> dict[str, str]:
    """What markers are evaluated against: this machine, and the Python of the locks, whichever Python asks."""
    found: dict[str, Any] = {**default_environment(), "extra": ""}
    if found["python_version"] != environment.PYTHON:
        found |= {
            "python_version": environment.PYTHON,
            "python_full_version": f"{environment.PYTHON}.0",
            "implementation_version": f"{environment.PYTHON}.0",
        }
    return found


def read(path: Path) -> Inputs:
    """The requirements behind a `.in` file, `-r` and `-c` followed. What can't be read is refused with line and column."""
    wanted: list[Wanted] = []
    also: list[Also] = []
    files: list[Path] = []
    _read(path, False, wanted, also, files)
    return Inputs(wanted=tuple(wanted), also=tuple(also), files=tuple(file.name for file in files))


def _read(path: Path, limit: bool, wanted: list[Wanted], also: list[Also], files: list[Path]) -> None:
    text = lock.read_text(path, "a file of requirements", then="git status requirements")
    files.append(path)
    lines = text.splitlines()
    lock.refuse_conflict(path, lines, f"keep one of the two by hand, then {lock.MERGE}")
    for number, line in enumerate(lines):
        if _ALSO_MEANT.match(line):
            also.append(_also(path, number, line))
    for number, line in _logical(lines):
        text = _COMMENT.sub("", line).rstrip()
        start = len(text) - len(text.lstrip())
        if not text.strip():
            continue
        if match := _NESTED.match(text.strip()):
            other = path.parent / match[2]
            if other in files:  # a second time, or a circle, adds nothing
                continue
            if not os.path.isfile(other):
                _refuse(path, number, start + match.start(2), "a file of requirements", f"no {match[2]} there")
            _read(other, limit or match[1] in ("-c", "--constraint"), wanted, also, files)
        else:
            found = _requirement(path, number, start, text.strip())
            wanted.append(Wanted(requirement=found, name=lock.normalise(found.name), limit=limit, path=path, line=number + 1))  # fmt: skip


def _logical(lines: list[str]) -> Iterator[tuple[int, str]]:
    """Lines with their number from 0; one that ends in a backslash goes on in the next."""
    start, text = 0, ""
    for number, line in enumerate(lines):
        start = start if text else number
        text += line.removesuffix("\\")
        if line.endswith("\\") and number + 1 < len(lines):
            text = text or " "
            continue
        yield start, text
        text = ""


def _requirement(path: Path, number: int, start: int, text: str) -> Requirement:
    if text.startswith("-"):
        _refuse(path, number, start, "a requirement, -r FILE or -c FILE: where packages come from is the machine's business", text.split()[0])  # fmt: skip
    try:
        found = Requirement(text)
    except InvalidRequirement as error:
        says = str(error).splitlines() or ["no requirement"]
        column = (
            max(says[-1].find("^") - 4, 0) if len(says) > 2 else 0
        )  # packaging indents by 4 what it quotes and marks
        _refuse(path, number, start + column, f"a requirement: {says[0][:1].lower()}{says[0][1:]}", text)
    except RecursionError:
        _refuse(path, number, start, "a requirement", "brackets in brackets in brackets …")
    if found.url:
        _refuse(path, number, start + max(text.find("@"), 0), "a version", "an address, which no lock may name")
    return found


def _also(path: Path, number: int, line: str) -> Also:
    match = _ALSO.match(line)
    if not match:
        _refuse(path, number, line.find("also"), "`# also NAME==VERSION --hash=sha256:<64 hex digits>`", line.strip())
    return Also(name=lock.normalise(match[1]), version=match[2], hash=match[3], where=f"{path.name}, line {number + 1}")


def _refuse(path: Path, number: int, column: int, expected: str, found: str) -> NoReturn:
    raise VerbatimError(lock.place(path, number, column), expected=expected, found=found, then=BY_HAND)
