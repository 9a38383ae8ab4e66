import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import ENVIRONMENT
from verbatim.errors import VerbatimError
from verbatim.multirun import fork


def test_a_childs_answer_comes_back_and_what_it_does_stays_with_it():
    marker = "VERBATIM_TEST_MARKER"

    def question():
        os.environ[marker] = "set"
        return {"pid": os.getpid(), "text": "é"}

    answer = fork.ask(question)

    assert answer["pid"] != os.getpid()
    assert answer["text"] == "é"
    assert marker not in os.environ


def test_an_error_that_can_be_mended_comes_back_as_one():
    def question():
        raise VerbatimError("paths.data", expected="a folder", found="none", then="make one")

    with pytest.raises(VerbatimError, match="paths.data: expected a folder, found none\n  next: make one"):
        fork.ask(question)


def test_a_defect_is_no_answer(capfd):
    with pytest.raises(RuntimeError):
        fork.ask(lambda: 1 / 0)

    assert "ZeroDivisionError" in capfd.readouterr().err


@pytest.mark.parametrize(("run", "code"), [(lambda: 3, 3), (lambda: sys.exit(4), 4), (lambda: sys.exit("no"), 1), (lambda: sys.exit(), 0)])  # fmt: skip
def test_the_exit_code_of_a_child_is_what_it_says(run, code):
    _, status = os.waitpid(fork.start(run), 0)

    assert os.waitstatus_to_exitcode(status) == code


GRANDCHILD = """
import os, sys, time
from verbatim.multirun import fork

def middle():
    pid = fork.start(lambda: time.sleep(600) or 0)
    print(os.getpid(), pid, flush=True)
    time.sleep(600)
    return 0

fork.start(middle)
time.sleep(600)
"""


def test_none_outlives_its_parent_even_where_that_is_killed():
    parent = subprocess.Popen([sys.executable, "-c", GRANDCHILD], stdout=subprocess.PIPE, env=ENVIRONMENT, text=True)
    pids = [int(word) for word in parent.stdout.readline().split()]
    assert all(alive(pid) for pid in pids)

    parent.kill()
    parent.wait()
    parent.stdout.close()

    deadline_s = time.monotonic() + 60
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert not any(alive(pid) for pid in pids)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except FileNotFoundError:
        return False
