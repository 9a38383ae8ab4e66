"""The engine `ray` on a real Ray: one that it starts itself, and nodes that were there before."""

import os
import signal
import subprocess
import sys
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


class TestRayStartedHere(Common):
    @pytest.fixture
    def engine(self, network):
        return Ray()

    def short_grace(self, monkeypatch):
        monkeypatch.setattr(module, "GRACE_S", 1.0)

    def test_a_job_whose_worker_is_killed_is_lost_and_asked_to_end(self, engine, tmp_path):
        one = script(tmp_path, 0, SLEEPS.replace("getppid()", "getppid()) + ' ' + str(os.getpid()"))
        engine.start([one])
        until(lambda: started(one))
        worker, own = (one.folder / "started").read_text().split()
        os.kill(int(worker), signal.SIGKILL)

        assert waited(engine, 1) == {0: "its worker was killed"}
        until(lambda: not Path(f"/proc/{own}").exists())

    def test_more_cores_than_there_are_is_refused(self, engine, tmp_path):
        with pytest.raises(
            VerbatimError, match=r"^ray: expected 1000 cores for job 0, found \d+ here\n  next: add determinism"
        ):
            engine.start([script(tmp_path, 0, "", threads=1000)])


def test_a_node_that_dies_loses_its_job_alone(nodes, tmp_path):
    nodes.start("head", "--head", f"--port={ray_here.PORT}", "--num-cpus=1")
    nodes.start("other", f"--address={ray_here.ADDRESS}", "--num-cpus=2")
    engine = Ray(address=ray_here.ADDRESS)
    try:
        jobs = [
            script(tmp_path, 0, "import pathlib, time; pathlib.Path('started').write_text('.'); time.sleep(20)"),
            script(tmp_path, 1, SLEEPS, threads=2),  # only the other node has as many
        ]
        engine.start(jobs[1:])
        until(lambda: started(jobs[1]))
        engine.start(jobs[:1])
        until(lambda: started(jobs[0]))
        nodes.kill("other")
        found = waited(engine, 2)

        assert found[0] == ""
        assert found[1]
    finally:
        engine.close()


def test_a_cluster_that_is_not_there_is_said(network, tmp_path):
    with pytest.raises(
        VerbatimError, match=r"(?s)^hydra.launcher.address=auto: expected a Ray .*next: ray start --head"
    ):
        Ray(address="auto")


def test_without_ray_it_says_what_to_install(tmp_path):
    text = "import sys; sys.modules['ray'] = None\nfrom verbatim.multirun.ray import Ray\ntry: Ray()\nexcept Exception as e: print(e)"
    done = subprocess.run([sys.executable, "-c", text], env=ENVIRONMENT, capture_output=True, text=True, check=False)

    assert done.stdout == "ray: expected it in the environment, found nothing there\n  next: nox -s env -- ray\n"
