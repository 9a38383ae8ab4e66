"""The hooks: run by pre-commit itself where it is there; and, in any case, with no tool or version of their own."""

import re
import shutil
import subprocess

import pytest
from omegaconf import OmegaConf

from conftest import ROOT
from verbatim.drift import twins


@pytest.fixture(scope="module")
def hooks():
    config = OmegaConf.load(ROOT / ".pre-commit-config.yaml")
    assert [repository.repo for repository in config.repos] == ["local"]
    return list(config.repos[0].hooks)


def test_every_hook_runs_a_session(hooks):
    sessions = twins.sessions(ROOT)

    for hook in hooks:
        assert hook.language == "system"
        assert re.fullmatch(r"python3\.11 noxfile\.py -s (\w+)", hook.entry)[1] in sessions
    assert {"drift", "lint"} == {hook.entry.rpartition(" ")[2] for hook in hooks}


def test_pre_commit_accepts_the_hooks():
    if not shutil.which("pre-commit"):
        pytest.skip("pre-commit is not here")
    subprocess.run(["pre-commit", "validate-config", ".pre-commit-config.yaml"], cwd=ROOT, check=True)
