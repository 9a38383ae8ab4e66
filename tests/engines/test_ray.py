"""The engine `ray` on a real Ray: one that it starts itself, and nodes that were there before."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from conftest import ENVIRONMENT
from engines import ray_here
from engines.common import Common, script, until, waited
from verbatim.errors import VerbatimError
from verbatim.multirun import ray as module
from verbatim.multirun.ray import Ray

SLEEPS = "import os, pathlib, time; pathlib.Path('started').write_text(str(os.getppid())); time.sleep(1000)"


def started(one) -> bool:
    return (one.folder / "started").exists() and bool((one.folder / "started").read_text())


class TestRay(Common):
    @pytest.fixture
    def engine(self, nodes):
        return Ray(address=ray_here.ADDRESS)

    def short_grace(self, monkeypatch):
        """The worker's own is Ray's to pickle, at the first job."""
        monkeypatch.setattr(module, "GRACE_S", 1.0)

    def test_a_job_whose_worker_is_killed_is_lost_and_asked_to_end(self, engine, tmp_path):
        one = script(tmp_path, 0, SLEEPS.replace("getppid()", "getppid()) + ' ' + str(os.getpid()"))
        engine.start([one])
        until(lambda: started(one))
        worker, own = (one.folder / "started").read_text().split()
        os.kill(int(worker), signal.SIGKILL)

        assert waited(engine, 1) == {0: "its worker was killed"}
        until(lambda: not Path(f"/proc/{own}").exists())

    def test_a_node_that_dies_loses_its_job_alone(self, engine, nodes, tmp_path):
        nodes.start("other", f"--address={ray_here.ADDRESS}", "--num-cpus=3")
        there = script(tmp_path, 1, SLEEPS, threads=3)  # only the other node has as many
        here = script(
            tmp_path,
            0,
            f"import pathlib, time\nwhile not pathlib.Path({str(tmp_path / 'go')!r}).exists(): time.sleep(0.1)",
        )
        engine.start([there])
        until(lambda: started(there))
        engine.start([here])
        nodes.kill("other")

        assert waited(engine, 1) == {1: "its node died"}
        (tmp_path / "go").touch()
        assert waited(engine, 1) == {0: ""}

    def test_a_job_gets_no_gpu_that_it_did_not_ask_for(self, engine, tmp_path, monkeypatch):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
        one = script(tmp_path, 0, "import os; print(repr(os.environ.get('CUDA_VISIBLE_DEVICES')))")
        engine.start([one])

        assert waited(engine, 1) == {0: ""}
        assert one.log.read_text() in ("''\n", "None\n")

    def test_more_cores_than_any_node_has_are_noted(self, engine, tmp_path, capsys):
        engine.start([script(tmp_path, 0, "", threads=1000)])

        said = capsys.readouterr().err  # of a node that has just died Ray does not know yet
        assert re.fullmatch(r"note: job 0 waits for a node of 1000 cores; the largest has [23]\n", said)


HERE = """
import os, pathlib, sys
from engines import common, ray_here
from verbatim.errors import VerbatimError
from verbatim.multirun.ray import Ray

folder = pathlib.Path(sys.argv[1])
with ray_here.own_network():
    engine = Ray()
    engine.start([common.script(folder, 0, "import os; print(sorted({'RAY_AUTH_MODE', 'RAY_AUTH_TOKEN'} & os.environ.keys()))")])
    print(common.waited(engine, 1), (folder / "0.log").read_text().strip())
    try:
        engine.start([common.script(folder, 1, "", threads=1000)])
    except VerbatimError as error:
        print(error)
    engine.close()
    print([name for name in os.environ if name.startswith("RAY_AUTH")])
"""


GONE = """
import os, pathlib, sys
from engines import common, ray_here
from verbatim.errors import VerbatimError
from verbatim.multirun.ray import Ray

folder = pathlib.Path(sys.argv[1])
nodes = ray_here.Nodes(folder)
with ray_here.own_network():
    nodes.start("head", "--head", f"--port={ray_here.PORT}", "--num-cpus=1", "--include-dashboard=false")
    engine = Ray(address=ray_here.ADDRESS)
    engine.start([common.script(folder, 0, "import time; open('started', 'w'); time.sleep(1000)")])
    common.until((folder / "0" / "started").exists)
    nodes.kill("head")
    print(common.waited(engine, 1))
    try:
        engine.start([common.script(folder, 1, "")])
    except VerbatimError as error:
        print(error)
    engine.close()
"""


def test_a_head_that_has_gone_is_said(tmp_path):
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    try:
        done = alone(GONE, folder, RAY_AUTH_MODE="disabled")
    finally:
        shutil.rmtree(folder)

    lost, *said = done.stdout.splitlines()
    assert lost == "{0: 'its node died'}", done.stderr
    assert said[0] == "ray at 127.0.0.1:6379: expected it to answer, found Connection refused"


def alone(text, folder, **variables) -> "subprocess.CompletedProcess[str]":
    """In a process of its own, which has not yet heard of Ray."""
    ray_here.need()
    kept = {name: value for name, value in ENVIRONMENT.items() if not name.startswith("RAY_")}
    found = {"PYTHONPATH": os.pathsep.join(sys.path), "HOME": str(folder)} | variables
    command = [sys.executable, "-c", text, str(folder)]
    return subprocess.run(command, env=kept | found, capture_output=True, text=True, check=False)


def test_ray_is_started_here_for_us_alone_and_ended_again(tmp_path):
    done = alone(HERE, tmp_path)

    lines = done.stdout.splitlines()
    assert lines[0] == "{0: ''} ['RAY_AUTH_MODE']", done.stderr
    assert re.fullmatch(r"ray: expected 1000 cores for job 1, found \d+ here", lines[1])
    assert lines[3:] == ["[]"]
    assert not (tmp_path / ".ray").exists()


def test_sigterm_stays_with_who_had_it(nodes):
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        Ray(address=ray_here.ADDRESS).close()

        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_cluster_that_is_not_there_is_said(nodes):
    with pytest.raises(
        VerbatimError, match=r"(?s)^hydra.launcher.address=127.0.0.1:1: expected a Ray .*next: ray start --head"
    ):
        Ray(address="127.0.0.1:1")


def test_without_ray_it_says_what_to_install():
    text = "import sys; sys.modules['ray'] = None\nfrom verbatim.multirun.ray import Ray\ntry: Ray()\nexcept Exception as e: print(e)"
    done = subprocess.run([sys.executable, "-c", text], env=ENVIRONMENT, capture_output=True, text=True, check=False)

    assert done.stdout == "ray: expected it in the environment, found nothing there\n  next: nox -s env -- ray\n"
