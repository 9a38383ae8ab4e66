"""Follows a run that is made again: finds its folder, compares its trace while it is written, and ends it early when asked."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from verbatim import causes, record, trace
from verbatim.ending import sigterm_raises
from verbatim.errors import VerbatimError
from verbatim.record import Record
from verbatim.trace import HEADER_BYTES, Reader

POLL_S = 0.1
GRACE_S = 20.0  # what a run may take to seal its record when it is asked to end


class Process(Protocol):
    """What can be followed: a process, or a container that behaves like one."""

    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, sig: int, /) -> None: ...
    def kill(self) -> None: ...


@dataclass(kw_only=True)
class Follower:
    """Watches one run. `recorded` is the trace that it should repeat; `folder` is the new run's, once it is known."""

    runs: Path
    original: Record
    recorded: Reader | None
    until: int | None = None
    fail_fast: bool = False
    folder: Path | None = None
    stopped: str = ""
    _before: set[str] = field(default_factory=set)
    _checked: bool = False

    def run(self, start: Callable[[], Process], marker: str) -> int:
        """Run to the end, or until there is a reason to stop; the exit code. `marker` is a word of this run's command alone."""
        self._before = set(os.listdir(self.runs)) if self.runs.is_dir() else set()
        with sigterm_raises():
            process = start()
            try:
                while process.poll() is None:
                    time.sleep(POLL_S)
                    self._look(marker)
                    if self.stopped:
                        _end(process)
            except BaseException:
                _end(process)
                raise
        self._look(marker)
        return process.wait()

    def _look(self, marker: str) -> None:
        self.folder = self.folder or self._find(marker)
        if not self.folder:
            return
        if not self._checked:
            new = record.read(self.folder)
            if not new.recipe:
                return
            self._checked = True
            if new.recipe != self.original.recipe:
                self.stopped = "recipe"
                return
        path = self.folder / trace.FILE
        if not self.recorded or not path.exists() or path.stat().st_size <= HEADER_BYTES:
            return
        new_trace = Reader(path)
        rows = min(new_trace.rows, self.recorded.rows)
        if rows and self.fail_fast and new_trace.chain(rows - 1) != self.recorded.chain(rows - 1):
            self.stopped = "differs"
        elif self.until is not None and new_trace.rows and new_trace.row(new_trace.rows - 1).step >= self.until:
            self.stopped = "until"

    def _find(self, marker: str) -> Path | None:
        """The run folder that is new and whose record was written by this very command."""
        for name in sorted(set(os.listdir(self.runs)) - self._before) if self.runs.is_dir() else ():
            with contextlib.suppress(VerbatimError):
                if marker in record.read(self.runs / name).command:
                    return self.runs / name
        return None

    def mismatch(self) -> causes.Difference | None:
        """What of the recipe is not the recorded one."""
        if not self.folder:
            return None
        found = causes.find(self.original, record.read(self.folder), self.runs)
        return next((difference for difference in found if difference.part in causes.RECIPE), None)


def _end(process: Process) -> None:
    """Ask it to end, which seals its record; after the grace, end it."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(GRACE_S)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            process.kill()
            process.wait()
