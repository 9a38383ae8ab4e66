"""The mutation test: every planted drift is seen, by its own kind; what is no drift is not; and nothing is ever a traceback."""

import shutil
from pathlib import Path

import pytest

import drift_planted as planted
import drift_world as world
from verbatim import drift


@pytest.fixture(scope="module")
def copy(pristine, tmp_path_factory):
    """One copy for all: each test puts back what it spoiled."""
    root = shutil.copytree(pristine, tmp_path_factory.mktemp("planted") / "project", symlinks=True)
    (planted.site(root) / "verbatim.pth").write_text(f"{root / 'src'}\n")
    return root, {path: content(path) for path in sorted(root.rglob("*")) if path.is_symlink() or path.is_file()}


def content(path: Path) -> "tuple[int, int, bytes | Path]":
    status = path.lstat()
    return status.st_mtime_ns, status.st_size, path.readlink() if path.is_symlink() else path.read_bytes()


@pytest.fixture
def project(copy, engine, monkeypatch):
    for name in ("VERBATIM_ENV", "VERBATIM_VARIANT"):
        monkeypatch.delenv(name, raising=False)
    root, files = copy
    yield root
    for path in sorted(root.rglob("*"), reverse=True):
        if path not in files and (path.is_symlink() or path.is_file()):
            path.unlink()
        elif (path in files and path.is_dir()) or (path.is_dir() and not path.is_symlink() and not any(path.iterdir())):
            path.rmdir()
    for path, (time, size, data) in files.items():
        there = path.lstat() if path.is_symlink() or path.exists() else None
        if there is None or (there.st_mtime_ns, there.st_size) != (time, size):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            path.symlink_to(data) if isinstance(data, Path) else path.write_bytes(data)


def seen(root, *, deep=False):
    """The kinds that say of something that it drifted, or is broken; each finding says what to do."""
    given = drift.answers(root, deep=deep)
    kinds = {answer.kind for answer in given if answer.state in ("drift", "broken")}
    found = [finding for answer in given for finding in answer.findings if finding.state != "not checked"]
    assert all(finding.what and finding.expected and finding.found and finding.mend for finding in found), found
    assert drift.exit_code(given, named=False) == (0 if not kinds else 2 if "broken" in {a.state for a in given} else 1)
    return kinds


def test_there_are_at_least_200_planted_drifts_and_each_is_another():
    assert len({one.name for one in planted.ALL}) == len(planted.ALL) >= 200


@pytest.mark.parametrize("one", planted.ALL, ids=lambda one: one.name)
def test_a_planted_drift_is_seen(project, engine, one):
    for picture in engine.images:
        labels = picture["Labels"] | one.labels.get(picture["Labels"]["verbatim.variant"], {})
        picture["Labels"] = {name: value for name, value in labels.items() if value is not None}
    one.spoil(project)

    assert seen(project, deep=one.deep) >= one.kinds


@pytest.mark.parametrize("name", planted.HARMLESS)
def test_what_is_no_drift_is_not_reported(project, name):
    why, spoil = planted.HARMLESS[name]
    spoil(project)

    assert seen(project, deep=True) == set(), why


def test_the_project_is_whole_again_after_each(project):
    assert seen(project, deep=True) == set()
    assert (project / "requirements" / "cpu.in").read_text() == world.INPUTS["cpu.in"]
