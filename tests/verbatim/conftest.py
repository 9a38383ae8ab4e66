"""Fixtures: one real run to plant differences in, and a project of its own, with a repository, to make runs again in."""

import copy
import shutil
import subprocess
import sys

import pytest

from conftest import ENVIRONMENT, ROOT
from planting import make_project
from verbatim import record


@pytest.fixture
def project(tmp_path):
    return make_project(tmp_path / "project")


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """The folder of a real sealed run. Nothing may write to it."""
    runs = tmp_path_factory.mktemp("base")
    small = ("model=mlp", "model.hidden=[8]", "trainer.max_steps=12")
    command = [sys.executable, "-m", "experiment.train", f"paths.runs={runs}", *small]
    subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, check=True)
    (folder,) = runs.iterdir()
    return folder


@pytest.fixture
def planted(base, tmp_path):
    """`planted("b", change)`: a copy of the base run whose record, sealed again, went through `change(run, folder)`."""

    def call(name, change=lambda run, folder: None):
        folder = tmp_path / name
        shutil.copytree(base, folder)
        run = copy.deepcopy(record.read(folder))
        change(run, folder)
        record.write(folder, run)
        return folder

    return call
