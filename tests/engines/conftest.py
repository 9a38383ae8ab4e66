"""Real clusters, started here and ended here, for everything in this folder."""

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("engines.common")

from engines import debian_slurm, ray_here
from engines.common import direct  # noqa: F401 — a fixture


@pytest.fixture(scope="module")
def cluster() -> Iterator[debian_slurm.Cluster]:
    """A Slurm of two nodes; its commands are on the PATH."""
    pytest.importorskip("submitit", reason="submitit is not in the environment")
    folder = Path(tempfile.mkdtemp(prefix="verbatim-slurm-"))
    folder.chmod(0o755)  # munge refuses a socket in a folder that is closed to others
    before = dict(os.environ)
    try:
        with debian_slurm.running(folder) as cluster:
            os.environ.update(cluster.environment)
            yield cluster
    except debian_slurm.UnavailableError as why:
        pytest.skip(str(why))
    finally:
        os.environ.clear()
        os.environ.update(before)
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def nodes() -> Iterator[ray_here.Nodes]:
    """A Ray whose head has two cores; this process is in its network."""
    ray_here.need()
    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # short: a socket's path may have 107 bytes
    nodes = ray_here.Nodes(folder)
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    os.environ.update(token)
    try:
        with ray_here.own_network():
            nodes.start("head", "--head", f"--port={ray_here.PORT}", "--num-cpus=2", "--include-dashboard=false")
            yield nodes
            nodes.end()
    except ray_here.UnavailableError as why:
        pytest.skip(str(why))
    finally:
        nodes.end()
        for name in token:
            del os.environ[name]
        shutil.rmtree(folder, ignore_errors=True)
