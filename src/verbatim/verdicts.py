"""The verdicts that lie among the runs, one's own and others': which runs were reproduced, in how many environments, and which broke.

Others' verdicts are put, as files, into `runs/verdicts/`. A verdict counts for a record of exactly the bytes that it names; one whose
signature does not fit, or that does not fit the records beside it, counts for nothing.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verbatim import attest, digest, record
from verbatim.errors import VerbatimError

IMPORTED = "verdicts"


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """`environment`: a digest of where it was reproduced, without names. `signer`: empty where nobody signed."""

    record: str
    result: str
    first_cause: str
    environment: str
    place: str
    signer: str
    path: Path


def find(runs: Path) -> tuple[dict[str, list[Verdict]], list[str]]:
    """Digest of a record's bytes → the verdicts on it; and why others were passed over, a line each."""
    by_record: dict[str, list[Verdict]] = defaultdict(list)
    passed_over = []
    for path in _files(runs):
        try:
            said, signer = attest.read(path)
            by_record[f"sha256:{said['subject'][0]['digest']['sha256']}"].append(
                _verdict(said["predicate"], said, signer, path)
            )
        except VerbatimError as error:
            passed_over.append(str(error).partition("\n")[0])
        except (KeyError, TypeError, AttributeError) as error:
            passed_over.append(f"{path}: no whole verdict ({type(error).__name__}: {error})")
    return dict(by_record), passed_over


def _files(runs: Path) -> Iterator[Path]:
    """Of a verdict that was signed, the signed copy alone; each verdict once, whoever brought it."""
    for folder in sorted(runs.iterdir()) if runs.is_dir() else ():
        signed = folder / attest.SIGNED
        if signed.exists():
            yield signed
        elif (folder / attest.FILE).exists():
            yield folder / attest.FILE
    if (runs / IMPORTED).is_dir():
        yield from sorted((runs / IMPORTED).glob("*.json"))


def _verdict(predicate: dict[str, Any], said: dict[str, Any], signer: str, path: Path) -> Verdict:
    where = predicate["environment"]
    place = (
        (where.get("gpu") or {}).get("name") or (where.get("cpu") or {}).get("model") or "?"
    ) + f", torch {where.get('torch')}"
    return Verdict(
        record=said["subject"][0]["digest"]["sha256"], result=predicate["result"], first_cause=predicate.get("firstCause", ""),
        environment=digest.of_value(where), place=place, signer=signer, path=path,
    )  # fmt: skip


def of(folder: Path, by_record: dict[str, list[Verdict]]) -> list[Verdict]:
    """The verdicts on a run; a reproduction that was itself the subject of none has none."""
    path = folder / record.FILE
    return by_record.get(digest.of_file(path), []) if by_record and path.exists() else []


def summary(verdicts: list[Verdict]) -> str:
    """`3× in 2 environments`, `≠ 1 of 4`, or nothing."""
    if not verdicts:
        return ""
    broke = sum(v.result == "different" for v in verdicts)
    places = len({v.environment for v in verdicts if v.result != "different"})
    good = f"{len(verdicts) - broke}× in {places} environment{'s' * (places != 1)}" if len(verdicts) > broke else ""
    return ", ".join(filter(None, (f"≠ {broke} of {len(verdicts)}" if broke else "", good)))
