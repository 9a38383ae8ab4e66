"""A sweep's folder, `sweeps/<UTC time>-<8 hex digits>`: the digits are of its command, code and lock, so that the same command finds it.

    .lock           held by the process that is at it
    recipes.json    what each job's recipe is, so that a thousand need not be composed again
    jobs/<number>   where its run lies, once it has one;  jobs/<number>.log  what it printed
    results.json    what came out
    report.html     the same, to look at

Whether a job is done is not kept here: its run's record says so.
"""

import fcntl
import json
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from verbatim import digest, record
from verbatim.errors import VerbatimError

RESULTS = "results.json"
REPORT = "report.html"


class Folder:
    """Of the sweep that `identity` names: found, or made."""

    def __init__(self, sweeps: Path, identity: Sequence[Any]) -> None:
        mark = digest.of_value(list(identity)).removeprefix("sha256:")[:8]
        try:
            sweeps.mkdir(parents=True, exist_ok=True)
            there = sorted(sweeps.glob(f"*-{mark}"))
            self.path = there[-1] if there else sweeps / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{mark}"
            self.continued = bool(there)
            (self.path / "jobs").mkdir(parents=True, exist_ok=True)
            self._lock = (self.path / ".lock").open("a")
        except OSError as error:
            raise VerbatimError(
                error.filename or sweeps, expected="a folder that can be written to", found=error.strerror, then="add paths.sweeps=…"
            ) from None  # fmt: skip
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise VerbatimError(
                self.path, expected="that no other process is at this sweep", found="one that is", then="wait for it, or end it"
            ) from None  # fmt: skip
        for left in (*self.path.glob(".*.*"), *self.path.glob("jobs/.*")):  # what a killed process was about to write
            left.unlink()

    def at(self, job: int) -> Path:
        return self.path / "jobs" / str(job)

    def log(self, job: int) -> Path:
        return self.path / "jobs" / f"{job}.log"

    def run(self, job: int) -> Path | None:
        """Where the job's run lies; None while it has none."""
        try:
            return Path(self.at(job).read_text().strip())
        except OSError:
            return None

    def read(self, name: str) -> Any:
        """None where there is no such file, or a damaged one."""
        try:
            return json.loads((self.path / name).read_text())
        except (OSError, ValueError):
            return None

    def write(self, name: str, value: Any) -> None:
        record.write_atomically(self.path / name, (json.dumps(value, ensure_ascii=False) + "\n").encode())

    def close(self) -> None:
        self._lock.close()

    def leave(self) -> None:
        """Nothing was begun: what was made for it goes."""
        if not self.continued:
            shutil.rmtree(self.path, ignore_errors=True)
        self.close()


def find(name: str, sweeps: Path, root: Path) -> tuple[Path, dict[str, Any]]:
    """A sweep by its path or name, or `latest`, and its results."""
    if name == "latest":
        found = sorted(path.parent for path in sweeps.glob(f"*/{RESULTS}"))
        candidates = found[-1:]
    else:
        candidates = [path for path in (Path(name), root / name, sweeps / name) if (path / RESULTS).is_file()]
    if not candidates:
        there = ", ".join(sorted((path.parent.name for path in sweeps.glob(f"*/{RESULTS}")), reverse=True)[:3])
        raise VerbatimError(name, expected=f"a sweep's folder (it holds {RESULTS}), or latest", found="none there", then=f"one of {there}" if there else "nox -s multirun -- seed=0,1,2")  # fmt: skip
    path = candidates[0] / RESULTS
    try:
        results = json.loads(path.read_text())
        results["jobs"], results["objective"], results["goal"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise VerbatimError(path, expected="a sweep's results", found=f"{type(error).__name__}: {error}", then="the sweep's command again") from None  # fmt: skip
    return candidates[0], results
