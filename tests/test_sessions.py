"""Sessions as people run them, by nox itself."""

import os
import shutil
import signal
import subprocess
import time

import pytest

from conftest import ENVIRONMENT, ROOT
from verbatim import record

NOX = shutil.which("nox", path=f"{os.environ['PATH']}{os.pathsep}{ROOT / '.nox' / 'tools' / 'bin'}")
pytestmark = pytest.mark.skipif(NOX is None, reason="nox is not here")


def session(*words):
    return subprocess.Popen([NOX, *words], cwd=ROOT, env=ENVIRONMENT, stdout=-1, stderr=-2, text=True)


def test_sigterm_to_nox_reaches_the_training_and_nox_waits_for_it(tmp_path):
    started = session("-s", "train", "--", "model=mlp", "trainer.epochs=100000", f"paths.runs={tmp_path}")
    deadline_s = time.monotonic() + 120
    while not any(path.stat().st_size > 10_000 for path in tmp_path.glob("*/trace.bin")):
        assert time.monotonic() < deadline_s and started.poll() is None
        time.sleep(0.05)
    started.send_signal(signal.SIGTERM)
    said, _ = started.communicate(timeout=60)

    (folder,) = tmp_path.iterdir()
    assert started.returncode == 143, said
    assert record.read(folder).state == "interrupted"
    assert "the same command goes on from its last checkpoint" in said


def test_a_session_ends_with_the_exit_code_of_its_command(tmp_path):
    refused = session("-s", "train", "--", "optimizer.lrr=1", f"paths.runs={tmp_path}")
    said, _ = refused.communicate(timeout=60)

    assert refused.returncode == 2
    assert "did you mean optimizer.lr?" in said


def test_what_the_environment_can_not_be_is_refused_and_its_help_is_help():
    wrong, shown = session("-s", "env", "--", "cpuu"), session("-s", "env", "--", "--help")

    assert "cpuu: expected some of cpu, cuda, auto, ray, trackers" in wrong.communicate(timeout=60)[0]
    assert wrong.returncode == 1
    assert "Make or verify .venv from the lock" in shown.communicate(timeout=60)[0]
    assert shown.returncode == 0
