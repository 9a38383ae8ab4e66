"""What the tests of resuming share: trainings that are watched by their trace and ended at a step, by their own process id."""

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from conftest import ENVIRONMENT, ROOT
from verbatim import record
from verbatim.trace import HEADER_BYTES, ROW_BYTES

WAIT_S = 300  # on a slow and shared machine

# Something happens right after the row of a step: the one moment that can't be hit from outside.
AT_STEP = """
import os
from verbatim import app, recorder
plain = recorder.Run.trace
def trace(self, step, *values):
    plain(self, step, *values)
    if step == int(os.environ["AT"]):
        exec(os.environ["DO"])
recorder.Run.trace = trace
from experiment.train import main
app.run(main)
"""


@dataclass
class Started:
    """A training in a process of its own; what it prints goes to a file."""

    process: "subprocess.Popen[bytes]"
    out: Path
    before: set[str]

    @property
    def said(self) -> str:
        return self.out.read_text()

    @property
    def folder(self) -> Path | None:
        """That of the run which it is at, once it is known for good."""
        found = re.search(r"^(.+): \w+ of [\d,]+ parameters", self.said, re.MULTILINE)
        if not found or (Path(found[1]).name in self.before and "goes on after step" not in self.said):
            return None
        return Path(found[1])

    @property
    def steps(self) -> int:
        """How many this process has made."""
        if not self.folder:
            return 0
        went_on = re.search(r"goes on after step (\d+)", self.said)
        with contextlib.suppress(FileNotFoundError):
            rows = ((self.folder / "trace.bin").stat().st_size - HEADER_BYTES) // ROW_BYTES
            return rows - (int(went_on[1]) + 1 if went_on else 0)
        return 0

    def wait(self) -> int:
        return self.process.wait(WAIT_S)

    def end(self, number: int, *, steps: int, later_s: float = 0.0) -> bool:
        """Send a signal once it has made so many steps, and wait; False where it ended by itself before."""
        deadline = time.monotonic() + WAIT_S
        while self.process.poll() is None and self.steps < steps:
            assert time.monotonic() < deadline, self.said
            time.sleep(0.01)
        time.sleep(later_s)
        if self.process.poll() is not None:
            return False
        self.process.send_signal(number)
        return self.wait() != 0


def start(runs: Path, *overrides: str, script: str = "", **variables: str) -> Started:
    runs.mkdir(parents=True, exist_ok=True)
    number, name = tempfile.mkstemp(dir=runs.parent, prefix="out-")
    command = [
        sys.executable,
        *(["-c", script] if script else ["-m", "experiment.train"]),
        f"paths.runs={runs}",
        *overrides,
    ]
    before = set(os.listdir(runs))
    with open(number, "wb") as file:
        process = subprocess.Popen(
            command, cwd=ROOT, env=ENVIRONMENT | variables, stdout=file, stderr=subprocess.STDOUT
        )
    return Started(process, Path(name), before)


def end_at(runs: Path, step: int, number: int, *overrides: str) -> Started:
    """A training that the signal reached in this very step."""
    started = start(runs, *overrides, script=AT_STEP, AT=str(step), DO=f"os.kill(os.getpid(), {int(number)})")
    started.wait()
    return started


def train(runs: Path, *overrides: str, **variables: str) -> Started:
    """To its end, whatever that is."""
    started = start(runs, *overrides, **variables)
    started.wait()
    return started


def only(runs: Path) -> Path:
    (folder,) = runs.iterdir()
    return folder


def outcome(folder: Path) -> str:
    run = record.read(folder)
    assert run.state == "sealed", run.reason
    return run.outcome


def chain(runs: Path, overrides: tuple[str, ...], numbers: list[int], draws: random.Random, most: int) -> list[int]:
    """Start the same command again and again, and send each start one of these signals after up to `most` steps; then let it end.

    The exit codes of all starts. The last is that of the one which nobody disturbed.
    """
    codes = []
    for number in numbers:
        started = start(runs, *overrides)
        started.end(number, steps=draws.randint(1, most), later_s=draws.uniform(0, 0.02))
        codes.append(started.process.returncode)
        if codes[-1] == 0:
            return codes
    return [*codes, train(runs, *overrides).process.returncode]


KILLED = (-signal.SIGKILL, 143)  # 143: SIGTERM, seen to
