"""Lock files: pins with hashes, compiled by pip-tools, read and checked without a resolver, a network or torch.

`verbatim.compile` writes them (the `lock` session). A lock holds no URL and no option. Its first lines carry
digests of what it was compiled from and of what it pins, so that an edit by hand shows:

    # inputs sha256:…   the requirements of every .in file behind it, normalised and sorted
    # pins sha256:…     its names, versions and hashes, sorted
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from verbatim import digest as digests
from verbatim.errors import VerbatimError

VARIANTS = ("cpu", "cuda")
# What may differ between the variants: torch and what its CUDA build brings.
GPU_ONLY = re.compile(r"torch|triton|nvidia-.+|cuda-.+")
COMPILE = "nox -s lock"


@dataclass(frozen=True, kw_only=True, slots=True)
class Pin:
    name: str
    version: str
    hashes: tuple[str, ...]  # "sha256:<hex>", sorted
    via: tuple[str, ...]
    line: int


def normalise(name: str) -> str:
    """https://packaging.python.org/en/latest/specifications/name-normalization/"""
    return re.sub(r"[-_.]+", "-", name).lower()


_PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)===?([^\s;\\=]+)\s*\\?$")
_HASH = re.compile(r"\s+--hash=(sha256:[0-9a-f]{64})\s*\\?$")
_COMMENT = re.compile(r"\s*#\s?(.*)$")


def read(path: Path) -> list[Pin]:
    """The pins of a lock, in its order. Anything that is not a hashed `==` pin or a comment is refused with its line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise VerbatimError(path, expected="a lock file", found="nothing there", then=COMPILE) from None
    except UnicodeDecodeError as error:
        raise VerbatimError(
            f"{path}, byte {error.start}", expected="UTF-8", found=hex(error.object[error.start])
        ) from None
    pins: list[Pin] = []
    name, version, start = "", "", 0
    hashes: list[str] = []
    via: list[str] = []

    def close() -> None:
        if not name:
            return
        if not hashes:
            raise VerbatimError(f"{path}, line {start}", expected=f"a --hash for {name}", found="none", then=COMPILE)
        if any(pin.name == normalise(name) for pin in pins):
            raise VerbatimError(
                f"{path}, line {start}", expected=f"{name} pinned once", found="a second pin", then=COMPILE
            )
        pins.append(
            Pin(name=normalise(name), version=version, hashes=tuple(sorted(hashes)), via=tuple(via), line=start)
        )

    for number, line in enumerate(lines, 1):
        if match := _PIN.match(line):
            close()
            name, version, hashes, via, start = match[1], match[2], [], [], number
        elif (match := _HASH.match(line)) and name:
            hashes.append(match[1])
        elif match := _COMMENT.match(line):
            if name and line[0].isspace() and (source := match[1].strip().removeprefix("via").strip()):
                via.append(source)
        elif line.strip():
            raise VerbatimError(
                f"{path}, line {number}",
                expected="name==version, --hash=sha256:… or a comment",
                found=line.strip(),
                then=COMPILE,
            )
    close()
    return pins


def digest(pins: Iterable[Pin]) -> str:
    """Digest of names, versions and hashes: it ignores order, comments and line ends."""
    return digests.of_value(sorted([pin.name, pin.version, *pin.hashes] for pin in pins))


def differences(pins: Iterable[Pin], installed: dict[str, str]) -> list[str]:
    """What is installed against what is locked, a sentence each. pip itself is tolerated: `venv` brings it."""
    wanted = {pin.name: pin.version for pin in pins}
    says = [f"{name}: locked {version}, not installed" for name, version in wanted.items() if name not in installed]
    says += [
        f"{n}: locked {v}, installed {installed[n]}" for n, v in wanted.items() if n in installed and installed[n] != v
    ]
    return says + [
        f"{name}: installed {installed[name]}, not locked"
        for name in sorted(installed.keys() - wanted.keys() - {"pip"})
    ]


def inputs(path: Path) -> str:
    """Digest of the requirements behind a `.in` file, `-r` followed, comments and order ignored."""
    return digests.of_value(sorted(set(_requirements(path))))


def _requirements(path: Path) -> Iterable[str]:
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, UnicodeDecodeError) as error:
        raise VerbatimError(path, expected="a file of requirements", found=type(error).__name__) from None
    for line in text.splitlines():
        words = re.sub(r"(^|\s)#.*$", "", line).strip()
        if match := re.match(r"(?:-r|--requirement)[ =]\s*(\S+)$", words):
            yield from _requirements(path.parent / match[1])
        elif words:
            yield re.sub(r"\s+", "", words)


def header(path: Path) -> dict[str, str]:
    """The `inputs` and `pins` digests that a lock's first lines state; empty for a lock not written by `nox -s lock`."""
    with path.open(encoding="utf-8") as file:
        return dict(re.findall(r"^# (inputs|pins) (sha256:[0-9a-f]{64})$", file.read(400), re.MULTILINE))


def check(folder: Path) -> list[str]:
    """What of `requirements/` has drifted, a sentence each: inputs edited, a lock edited, the variants apart."""
    says = []
    variants = {}
    for name in ("tools", *VARIANTS):
        pins = read(folder / f"{name}.txt")
        stated = header(folder / f"{name}.txt")
        if stated.get("inputs") != inputs(folder / f"{name}.in"):
            says.append(f"{name}.in was edited after {name}.txt was compiled")
        if stated.get("pins") != digest(pins):
            says.append(f"{name}.txt was edited by hand")
        variants[name] = {pin.name: pin for pin in pins if not GPU_ONLY.fullmatch(pin.name)}
    cpu, cuda = variants["cpu"], variants["cuda"]
    for name in sorted(cpu.keys() | cuda.keys()):
        one, other = cpu.get(name), cuda.get(name)
        if one is None or other is None or (one.version, one.hashes) != (other.version, other.hashes):
            says.append(
                f"{name}: cpu.txt has {one.version if one else 'no pin'}, cuda.txt {other.version if other else 'no pin'}, or other hashes"
            )
    return says
