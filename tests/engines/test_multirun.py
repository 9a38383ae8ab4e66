"""One sweep on every launcher, with other numbers of jobs at once: the same outcomes, job by job."""

import json
import os
from pathlib import Path

import pytest

from conftest import ENVIRONMENT, python
from engines import ray_here
from verbatim import record
from verbatim.multirun import results

JOBS = ("model=mlp", "model.hidden=[8]", "trainer.max_steps=12", "seed=range(0,6)", "optimizer.lr=1e-2,1e-3")


def of_the_cluster():
    """The variables by which a cluster is found, as its fixture has set them."""
    return {
        name: value
        for name, value in os.environ.items()
        if ENVIRONMENT.get(name) != value and not name.startswith("PYTHON")
    }


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """`sweep(*words)`: the outcomes of the sweep, by the jobs' settings; each call runs all of it again."""
    folder = tmp_path_factory.mktemp("sweep")

    def call(*words):
        places = (f"paths.runs={folder}/runs", f"paths.sweeps={folder}/sweeps")
        done = python("-m", "experiment.train", "--multirun", "--again", *places, *JOBS, *words, **of_the_cluster())
        assert done.returncode == 0, done.stdout + done.stderr  # not so where a recipe gave two outcomes
        (path,) = (folder / "sweeps").glob(f"*/{results.FILE}")
        jobs = json.loads(path.read_text())["jobs"]
        return {" ".join(job["overrides"]): (job["outcome"], record.read(Path(job["folder"])).weights) for job in jobs}

    call.folder = folder
    return call


@pytest.fixture(scope="module")
def local(sweep):
    outcomes = sweep("--at-once", "1")
    assert len(set(outcomes.values())) == 12
    return outcomes


def test_on_this_machine(sweep, local):
    assert sweep("--at-once", "2") == local


@pytest.mark.parametrize("at_once", [1, 2])
def test_on_slurm(sweep, local, cluster, at_once):
    assert sweep("hydra/launcher=slurm", f"hydra.launcher.array_parallelism={at_once}") == local


@pytest.mark.parametrize("at_once", [1, 2])
def test_on_ray(sweep, local, nodes, at_once):
    assert (
        sweep("hydra/launcher=ray", f"hydra.launcher.address={ray_here.ADDRESS}", f"hydra.launcher.room={at_once}")
        == local
    )


def test_a_sweep_that_began_here_goes_on_there(sweep, local, cluster):
    """It is one sweep wherever it runs: all jobs are found."""
    places = (f"paths.runs={sweep.folder}/runs", f"paths.sweeps={sweep.folder}/sweeps")
    done = python("-m", "experiment.train", "--multirun", *places, *JOBS, "hydra/launcher=slurm", **of_the_cluster())

    assert done.returncode == 0
    assert "12 with a sealed outcome already" in done.stdout


@pytest.mark.parametrize("launcher", ["slurm", "ray"])
def test_a_cluster_that_does_not_answer_is_said_so(launcher, tmp_path):
    if launcher == "ray":
        ray_here.need()
    address = ["hydra.launcher.address=127.0.0.1:1"] if launcher == "ray" else []
    words = (
        f"paths.runs={tmp_path}/runs",
        f"paths.sweeps={tmp_path}/sweeps",
        *JOBS,
        f"hydra/launcher={launcher}",
        *address,
    )
    done = python("-m", "experiment.train", "--multirun", *words, PATH="/usr/bin:/bin", SLURM_CONF="")

    assert done.returncode == 2
    assert "expected" in done.stderr and "next: " in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
