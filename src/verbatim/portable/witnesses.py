"""The digests that every machine should give, and who gave them: `witnesses.json`, committed beside this file.

torch, numpy   the versions that the digests are of: other versions, other bits
operators      threads → case → the first 16 hex digits of its sha256; of more than one thread, only what differs
trainings      model and optimizer → the outcome's digest
witnesses      who agreed: CPU, how (native, or by which emulator), where, and the digests of the two tables that it agreed with
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from verbatim import digest, record
from verbatim.errors import VerbatimError

FILE = Path(__file__).with_name("witnesses.json")
RENEW = "nox -s portability -- --renew"


@dataclass(frozen=True, kw_only=True, slots=True)
class Witness:
    """`cpu` is its model's name; `how` is `native`, or the emulator with the CPU that it played."""

    cpu: str
    vendor: str
    how: str
    os: str
    libc: str
    cores: int
    date: str
    operators: str
    trainings: str


@dataclass(kw_only=True)
class Table:
    torch: str = ""
    numpy: str = ""
    operators: dict[str, dict[str, str]] = field(default_factory=dict)
    trainings: dict[str, str] = field(default_factory=dict)
    witnesses: list[Witness] = field(default_factory=list)

    def expected(self, threads: int) -> dict[str, str]:
        """Case → digest, of that number of threads."""
        return self.operators.get("1", {}) | self.operators.get(str(threads), {})

    @property
    def digests(self) -> tuple[str, str]:
        """Of the two tables: what a witness agreed with."""
        return digest.short(digest.of_value(self.operators)), digest.short(digest.of_value(self.trainings))

    def agreed(self, *, native: bool, vendor: str = "") -> list[Witness]:
        """Witnesses of the operators as they are in the table now."""
        now = self.digests[0]
        found = [w for w in self.witnesses if w.operators == now and (w.how == "native") == native]
        return [w for w in found if vendor in w.vendor]

    @property
    def claim(self) -> str:
        """What may be said, in one line: real machines of both makers, no more than an emulator, or not even that."""
        makers = {"Intel": "GenuineIntel", "AMD": "AuthenticAMD"}
        missing = [maker for maker, vendor in makers.items() if not self.agreed(native=True, vendor=vendor)]
        if not missing:
            return "confirmed on real Intel and real AMD machines"
        how = "tested by emulation" if self.agreed(native=False) else "not yet tested by emulation"
        return f"{how}: no real {' and no real '.join(missing)} machine has confirmed it yet"


def read(path: Path = FILE) -> Table:
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return Table(**(value | {"witnesses": [Witness(**w) for w in value["witnesses"]]}))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise VerbatimError(path, expected="the table of digests", found=f"{type(error).__name__}: {error}", then=f"git checkout -- {path.name}, or {RENEW}") from None  # fmt: skip


def write(table: Table, path: Path = FILE) -> None:
    record.write_atomically(path, (json.dumps(asdict(table), indent=1, ensure_ascii=False) + "\n").encode())


def apart(expected: dict[str, str], found: dict[str, str]) -> list[str]:
    """The cases that differ, or that one side lacks."""
    return [name for name in {**expected, **found} if expected.get(name) != found.get(name)]


def probe(threads: int) -> str:
    """The digest of what this process computes, after it was found to be what every machine computes. Imports torch; 0.5 s.

    Every listed operator, forward and backward; its variants (types, strides, sizes) are `nox -s portability`'s.
    """
    import numpy
    import torch

    from verbatim.portable import LEVEL, cases

    table, found = read(), cases.digests(quick=True)
    expected = {name: value for name, value in table.expected(threads).items() if name in found}
    if names := apart(expected, found):
        versions = (table.torch, table.numpy)
        here = (torch.__version__.partition("+")[0], numpy.__version__)
        why = (
            ""
            if versions == here
            else f"; the table is of torch {versions[0]} and numpy {versions[1]}, here are {here[0]} and {here[1]}"
        )
        raise VerbatimError(
            LEVEL, expected="the bits that every other machine computes", found=f"others in {', '.join(names[:5])} ({len(names)} of {len(found)} operators{why})",
            then="choose determinism=exact; `nox -s portability` names all that differs",
        )  # fmt: skip
    return digest.of_value(found)
