"""A job of a multirun, and what an engine must do with it. What a job gave is read from its run's record, never from the engine."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, Self

from verbatim import record
from verbatim.multirun import codes

AT = "VERBATIM_JOB"


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One run to be made. `command` makes it alone; an engine that is itself a warm Python may run `words` at once instead.

    `at` is the job's own file: the run writes its folder's path there as soon as it has one. `log` takes stdout and stderr.
    """

    index: int
    words: tuple[str, ...]  # Hydra overrides
    command: tuple[str, ...]
    folder: Path  # the working directory
    at: Path
    log: Path
    threads: int = 1  # cores that it keeps busy, all its ranks together
    environment: dict[str, str] = field(default_factory=dict)  # besides this process's own

    def variables(self) -> dict[str, str]:
        return {**self.environment, AT: str(self.at)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """`lost`: the engine took the job away (its process was killed, its node failed or was preempted), and why. Such a job is tried
    again. Any other end is the job's own doing, and its record says what it was; `how`, where the record could not."""

    index: int
    lost: str = ""
    how: str = "its process ended"

    @classmethod
    def by(cls, index: int, code: int) -> Self:
        """By its exit code."""
        return cls(index=index, lost=codes.lost(code), how=codes.how(code))


class Engine(Protocol):
    """Starts jobs, says which have ended. Raises VerbatimError where it can't be reached, saying what to do."""

    room: int  # how many jobs it takes at once; a cluster that queues takes them all

    def start(self, jobs: Sequence[Job]) -> None:
        """Start them, or queue them; returns at once."""

    def wait(self, timeout_s: float) -> list[Ended]:
        """Those that ended since the last call; returns at the first, or after the time, with none."""

    def stop(self) -> None:
        """Ask all that run to end (SIGTERM: they leave a checkpoint), end those that do not, and wait for it."""

    def close(self) -> None:
        """Leave nothing behind. Jobs that still run are ended."""


def tell(*, run: Path | None = None, steps: int = 0) -> None:
    """A run that is a job's says where it lies, and how many steps it will make at most. Any other keeps silent."""
    if not (at := os.environ.get(AT)):
        return
    if run:
        record.write_atomically(Path(at), f"{run}\n".encode(), flush=False)
    if steps:
        Path(at).with_suffix(".steps").write_text(str(steps))
