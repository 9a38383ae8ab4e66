"""What a check of drift answers. It says what it looked at, so that nothing can be green that nobody looked at."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from verbatim.errors import VerbatimError

DRIFT, UNCHECKED, BROKEN = "drift", "not checked", "broken"


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """`what` has drifted; or it could not be looked at (`not checked`), or not be read (`broken`), and `found` says why."""

    what: str
    expected: str
    found: str
    mend: str
    state: str = DRIFT


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """Of one kind: what was looked at, and what was found there; nothing found means that all of it agrees."""

    kind: str
    looked_at: str
    findings: tuple[Finding, ...]

    @property
    def state(self) -> str:
        states = {finding.state for finding in self.findings}
        return next((state for state in (BROKEN, DRIFT, UNCHECKED) if state in states), "agrees")

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "state": self.state, "looked_at": self.looked_at, "findings": [asdict(f) for f in self.findings]}  # fmt: skip


def answer(kind: str, looked_at: str, findings: Iterable[Finding]) -> Answer:
    return Answer(kind=kind, looked_at=looked_at, findings=tuple(findings))


def broken(error: VerbatimError) -> Finding:
    return Finding(what=error.where, expected=error.expected, found=error.found, mend=error.then, state=BROKEN)


def unchecked(what: str, why: str, mend: str = "") -> Finding:
    return Finding(what=what, expected="", found=why, mend=mend, state=UNCHECKED)
