"""Fixtures: one real run to plant differences in, and a project of its own, with a repository, to make runs again in."""

import copy
import shutil
import subprocess
import sys

import pytest

from conftest import ENVIRONMENT, ROOT
from planting import Project, git
from verbatim import record


@pytest.fixture
def project(tmp_path):
    root = tmp_path / "project"
    for name in git(ROOT, "ls-files", "--cached", "--others", "--exclude-standard").splitlines():
        if name.startswith((".gitignore", "src/", "configs/", "requirements/")) and (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, root / name)
    git(root, "init", "--quiet", "--initial-branch=main")
    git(root, "config", "user.name", "somebody")
    git(root, "config", "user.email", "somebody@example.org")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "as it is")
    return Project(root)


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
