"""A sweep's folder, `sweeps/<UTC time>-<8 hex digits>`: the digits are of its command, code and lock, so that the same command finds it.

    .lock           held by the process that is at it, which says who it is
    sweep.json      what the digits are of
    recipes.json    what each job's recipe is, so that a thousand need not be composed again
    jobs/<number>   where its run lies, once it has one;  jobs/<number>.log  what it printed
    results.json    what came out
    report.html     the same, to look at

Whether a job is done is not kept here: its run's record says so.
"""

import contextlib
import fcntl
import json
import os
import platform
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from verbatim import digest, record
from verbatim.errors import VerbatimError

RESULTS = "results.json"
REPORT = "report.html"
LOCK, IDENTITY = ".lock", "sweep.json"


class Folder:
    """Of the sweep that `identity` names, its command, code and lock: found, or made."""

    def __init__(self, sweeps: Path, identity: dict[str, Any]) -> None:
        mark = digest.of_value(identity).removeprefix("sha256:")[:8]
        try:
            sweeps.mkdir(parents=True, exist_ok=True)
            with _alone(sweeps):  # else the same command, given twice at once, makes two
                there = sorted(sweeps.glob(f"*-{mark}"))
                self.path = there[-1] if there else sweeps / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{mark}"
                (self.path / "jobs").mkdir(parents=True, exist_ok=True)
            self.continued = bool(there)
            self._lock = (self.path / LOCK).open("a")
        except OSError as error:
            raise VerbatimError(
                error.filename or sweeps, expected="a folder that can be written to", found=error.strerror, then="add paths.sweeps=…"
            ) from None  # fmt: skip
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise VerbatimError(
                self.path, expected="that no other process is at this sweep", found=(self.path / LOCK).read_text().strip() or "one that is",
                then="wait for it, or end it",
            ) from None  # fmt: skip
        self._lock.truncate(0)
        self._lock.write(f"process {os.getpid()} of {platform.node()}, since {datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}\n")
        self._lock.flush()
        for left in (*self.path.glob(".*.*"), *self.path.glob("jobs/.*")):  # what a killed process was about to write
            left.unlink()
        self.other = None if self.continued else _other(sweeps, identity)
        if not self.continued:
            self.write(IDENTITY, identity)

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

    def write(self, name: str, value: Any) -> None:
        record.write_atomically(self.path / name, (json.dumps(value, ensure_ascii=False) + "\n").encode())

    def close(self) -> None:
        self._lock.close()

    def leave(self) -> None:
        """Nothing was begun: what was made for it goes."""
        if not self.continued:
            shutil.rmtree(self.path, ignore_errors=True)
        self.close()


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """While no other process is in here."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a network's file system may lock no folders
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _other(sweeps: Path, identity: dict[str, Any]) -> tuple[Path, str] | None:
    """The newest sweep of the same command, and what else it is not the same in: a person may have meant to go on with it."""
    for path in sorted(sweeps.glob(f"*/{IDENTITY}"), reverse=True):
        known = read(path)
        if isinstance(known, dict) and known.get("command") == identity["command"]:
            return path.parent, " and ".join(name for name in identity if known.get(name) != identity[name])
    return None


def read(path: Path) -> Any:
    """None where there is no such file, or a damaged one."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def find(name: str, sweeps: Path, root: Path) -> tuple[Path, dict[str, Any]]:
    """A sweep by its path or name, or `latest`, that which somebody was last at; and its results."""
    if name == "latest":
        found = max(sweeps.glob(f"*/{RESULTS}"), key=lambda path: path.stat().st_mtime_ns, default=None)
        candidates = [found.parent] if found else []
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
