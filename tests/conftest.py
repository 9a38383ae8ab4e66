"""Fixtures: real training runs, each a process of its own, in a runs folder of the test's own."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from verbatim import record

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = os.environ | {"PYTHONHASHSEED": "0", "PYTHONPATH": str(ROOT / "src"), "PYTHONDONTWRITEBYTECODE": ""}


os.environ.setdefault("PYTHONHASHSEED", "0")  # for runs in this very process; what they need of it is not tested here
# A shell starts a job in the background with Ctrl-C ignored, and so would everything here be: tests that send it need an answer.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, lambda *_: None)  # so with nohup; what is started here has its own answer


@dataclass(frozen=True)
class Done:
    """A command that has ended; `record` is that of the run it made, None where it made none."""

    code: int
    out: str
    err: str
    folder: Path | None

    @property
    def record(self) -> record.Record:
        assert self.folder, self.err
        return record.read(self.folder)


def python(*arguments: str, cwd: Path = ROOT, **variables: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=cwd, env=ENVIRONMENT | variables, capture_output=True, text=True, check=False)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """`small_disk("600k")`: a file system of that size."""
    made: list[Path] = []

    def call(size: str) -> Path:
        at = tmp_path / f"disk{len(made)}"
        at.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(at)]
        if subprocess.run(mount, capture_output=True, check=False).returncode:
            pytest.skip("this user may not mount a file system")
        made.append(at)
        return at

    yield call
    for at in made:
        subprocess.run(["umount", str(at)], check=True)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def train(runs: Path) -> Callable[..., Done]:
    """`train("model=mlp", "seed=1")`: five steps unless it says otherwise."""

    def call(*overrides: str, **variables: str) -> Done:
        before = set(runs.iterdir()) if runs.is_dir() else set()
        steps = [] if any("max_steps" in o or "experiment=" in o for o in overrides) else ["trainer.max_steps=5"]
        done = python("-m", "experiment.train", f"paths.runs={runs}", *steps, *overrides, **variables)
        new = sorted(set(runs.iterdir()) - before) if runs.is_dir() else []
        return Done(done.returncode, done.stdout, done.stderr, new[0] if new else None)

    return call
