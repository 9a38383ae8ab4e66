"""Two branches, both with new locks, merged by git itself: drift says what to run, and a lock never merges in silence."""

import subprocess

import pytest

import drift_world as world
from verbatim import compile, drift, lock

HEAD = "^# (?:inputs|pins) .*\n"


def git(root, *arguments, check=True):
    who = ["-c", "user.name=x", "-c", "user.email=x@localhost", "-c", "core.hooksPath=/dev/null"]
    return subprocess.run(["git", *who, *arguments], cwd=root, capture_output=True, text=True, check=check)


@pytest.fixture
def repository(project):
    git(project, "init", "--quiet", "--initial-branch=main")
    commit(project, "Start")
    return project


def commit(root, message):
    git(root, "add", "--all", "requirements")
    git(root, "commit", "--quiet", "--message", message)


def bump(root, package, version, line=""):
    """Another version of a pin in both variants, compiled; and another line in their inputs."""
    folder = root / "requirements"
    for name in lock.VARIANTS:
        text = (folder / f"{name}.txt").read_text()
        before = next(pin for pin in lock.parse(folder, text) if pin.name == package)
        (folder / f"{name}.txt").write_text(text.replace(f"{package}=={before.version}", f"{package}=={version}"))
    if line:
        (folder / "project.in").write_text((folder / "project.in").read_text() + line)
    for name in lock.VARIANTS:
        world.reseal(folder, name)


def merge(root, theirs, ours):
    git(root, "checkout", "--quiet", "-b", "theirs")
    bump(root, *theirs)
    commit(root, "Theirs")
    git(root, "checkout", "--quiet", "main")
    bump(root, *ours)
    commit(root, "Ours")
    return git(root, "merge", "theirs", check=False)


def answers(root):
    return {answer.kind: answer for answer in drift.answers(root, ("inputs", "lock", "variants"))}


def test_after_a_merge_drift_says_what_to_run(repository):
    assert merge(repository, ("iniconfig", "2.0.1"), ("pluggy", "1.6.1")).returncode == 1

    found = answers(repository)["lock"].findings

    assert [(f.what, f.expected, f.found, f.mend) for f in found] == [
        (f"{repository}/requirements/{name}.txt, line 1, column 1".replace("line 1", f"line {line(repository, name)}"),
         "one version", "a merge conflict (<<<<<<< HEAD)", "nox -s lock && git add requirements")
        for name in lock.VARIANTS
    ]  # fmt: skip
    assert drift.main(["lock"], repository) == 2


def line(root, name):
    lines = (root / "requirements" / f"{name}.txt").read_text().splitlines()
    return next(number for number, text in enumerate(lines, 1) if text.startswith("<<<<<<<"))


def test_two_upgrades_of_different_pins_never_merge_in_silence(repository):
    """Git alone would join them, as they are far apart; the digests of the header, which both changed, stop it."""
    merge(repository, ("iniconfig", "2.0.1"), ("pluggy", "1.6.1"))

    for name in lock.VARIANTS:
        text = (repository / "requirements" / f"{name}.txt").read_text()
        assert "# pins" in text.partition("=======")[0].partition("<<<<<<<")[2]


def test_an_input_in_conflict_is_for_people_to_mend_first(repository):
    merge(repository, ("iniconfig", "2.0.1", "mdurl>=0.1\n"), ("pluggy", "1.6.1", "mdurl\n"))

    found = answers(repository)["inputs"].findings[0]

    assert found.what.endswith("requirements/project.in, line 6, column 1")
    assert found.found == "a merge conflict (<<<<<<< HEAD)"
    assert found.mend == "keep one of the two by hand, then nox -s lock && git add requirements"


def test_inputs_that_git_joined_ask_for_a_new_compile(repository):
    """Each side's lock was right for its own inputs; neither is for both."""
    merge(repository, ("iniconfig", "2.0.1"), ("pluggy", "1.6.1", "mdurl>=0.1\n"))
    git(repository, "checkout", "--theirs", "requirements")

    found = answers(repository)["inputs"].findings

    assert {f.mend for f in found} == {"nox -s lock"}
    assert any("cpu.txt" in f.expected for f in found)


@pytest.mark.parametrize("style", ["merge", "diff3", "zdiff3"])
def test_compiling_starts_from_this_sides_pins(repository, style):
    git(repository, "config", "merge.conflictStyle", style)
    merge(repository, ("pluggy", "1.6.2"), ("pluggy", "1.6.1"))
    path = repository / "requirements" / "cpu.txt"
    ours = git(repository, "show", "HEAD:requirements/cpu.txt").stdout

    compile._this_side(path)

    assert path.read_text() == ours
