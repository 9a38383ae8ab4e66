import shutil
import subprocess

import pytest

from conftest import ROOT, python
from verbatim import doctor


@pytest.fixture
def project(tmp_path):
    """A project with this one's locks, in git."""
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    shutil.copytree(ROOT / ".devcontainer", tmp_path / ".devcontainer")
    who = ["-c", "user.name=a", "-c", "user.email=a@localhost"]
    for arguments in (["init", "-q"], ["add", "."], [*who, "commit", "-qm", "x"]):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True)
    return tmp_path


def state(project, monkeypatch):
    monkeypatch.setattr(doctor, "LIMIT_S", 0.0)  # the probe is not what is looked at here
    return {line.what: line for line in doctor.check(project)}


def test_every_line_is_there_and_nothing_differs(project, monkeypatch):
    lines = state(project, monkeypatch)

    assert list(lines) == [
        "image", "Python", "distributions", "lock", "GPU", "git", "devcontainer", "disk", "memory", "engine", "probe",
    ]  # fmt: skip
    assert [line.what for line in lines.values() if line.state == doctor.DIFFERS] == []


def test_an_edited_lock_and_an_edited_devcontainer_differ_and_say_what_mends_them(project, monkeypatch):
    path = project / "requirements/cpu.txt"
    path.write_text(path.read_text().replace("xxhash==", "xxhash==9.", 1))
    (project / ".devcontainer/devcontainer.json").write_text("{}")
    lines = state(project, monkeypatch)

    assert (lines["lock"].state, lines["lock"].then) == (doctor.DIFFERS, "nox -s lock")
    assert (lines["distributions"].state, lines["distributions"].then) == (doctor.DIFFERS, "nox -s env")
    assert lines["distributions"].here.startswith("xxhash: locked 9.")
    assert (lines["devcontainer"].state, lines["devcontainer"].then) == (doctor.DIFFERS, "nox -s devcontainer")


def test_no_repository_differs(project, monkeypatch):
    shutil.rmtree(project / ".git")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(project.parent))

    assert state(project, monkeypatch)["git"].then == "git init && git add . && git commit"


def test_a_probe_that_takes_too_long_is_not_checked(project, monkeypatch):
    assert state(project, monkeypatch)["probe"].state == doctor.UNCHECKED


def test_it_needs_no_engine_and_welcomes():
    done = python("-m", "verbatim", "doctor", "--welcome", DOCKER_HOST="unix:///nonexistent.sock")

    assert "only images need one" in done.stdout
    assert "Three commands to try" in done.stdout
    assert "Traceback" not in done.stderr
