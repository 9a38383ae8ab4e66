"""Optional packages: installed for real, beside a lock of the project's own, and looked at by drift, doctor and whoever needs them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import ENVIRONMENT, ROOT
from verbatim import doctor, environment, extras, install, lock
from verbatim.drift import files, installed, locks
from verbatim.errors import VerbatimError

HASHED = " \\\n    --hash=sha256:" + "ab" * 32 + "\n    # via -r requirements/ray.in\n"


@pytest.fixture
def project(tmp_path):
    """The locks of this project, but for ray's: it pins one small distribution."""
    folder = tmp_path / "requirements"
    folder.mkdir()
    for path in (ROOT / "requirements").iterdir():
        (folder / path.name).write_text(path.read_text())
    (folder / "ray.in").write_text("iniconfig\n")
    write(folder, install._extract(ROOT / "requirements" / "cpu.txt", "iniconfig"))
    return tmp_path


def write(folder, text):
    (folder / "ray.txt").write_text(text)
    pins = lock.digest(lock.read(folder / "ray.txt"))
    (folder / "ray.txt").write_text(f"# pins {pins}\n{text}")


def ensuring(project):
    """What `nox -s env -- ray` does, by the Python that runs nox, which has pip and uv; else by the one that made the environment."""
    tools = Path(os.environ.get("VERBATIM_TOOLS", ROOT / ".nox" / "tools")) / "bin" / "python"
    python = str(tools) if tools.exists() else install._base_python()
    return [
        python,
        "-c",
        f"from pathlib import Path; from verbatim import extras; extras.ensure(Path({str(project)!r}), 'ray')",
    ]


def ensure(project, **variables):
    done = subprocess.run(ensuring(project), env=ENVIRONMENT | variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def imports(project, *names):
    """What a process of its own finds, after `use`."""
    code = f"from pathlib import Path; from verbatim import extras; extras.use('ray', Path({str(project)!r}))\n"
    code += "import sys; print(sys.path[-1]); " + "; ".join(f"import {n}; print({n}.__file__)" for n in names)
    return subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("installer", ["", "pip"])
def test_they_are_installed_once_behind_what_the_environment_has(project, installer):
    assert ensure(project, VERBATIM_INSTALLER=installer).startswith("ray: not there; installing requirements/ray.txt")
    assert ensure(project, VERBATIM_INSTALLER=installer) == ""

    path = project / ".nox" / "extra" / "ray"
    assert environment.distributions(path).keys() == {"iniconfig"}
    assert files.of_files(installed.find_extras(project)[0]).findings == ()  # to the byte
    found = imports(project, "iniconfig").stdout.splitlines()
    assert found[0] == str(path)
    assert str(path) not in found[1]  # the environment has one too, and it comes first


SPOIL = {
    "their installation did not finish": lambda p: (p / "verbatim.json").unlink(),
    "made from another lock": lambda p: (p / "verbatim.json").write_text(
        json.dumps(json.loads((p / "verbatim.json").read_text()) | {"lock": "sha256:" + "0" * 64})
    ),
    "iniconfig: locked": lambda p: next(p.glob("iniconfig-*.dist-info")).rename(p / "iniconfig-0.1.dist-info"),
    "extra: installed 1.0": lambda p: (p / "extra-1.0.dist-info").mkdir(),
}


@pytest.mark.parametrize("says", SPOIL)
def test_what_is_not_as_locked_is_refused_named_and_installed_anew(project, says):
    ensure(project)
    path = extras.place(project, "ray")
    here = installed.find(ROOT)

    def look():
        beside, loaded = installed.find_extras(project), locks.load(project / "requirements")
        return [f for f in installed.of_installed(here, loaded, beside).findings if f.mend.endswith("-- ray")]

    assert look() == []
    assert [(line.what, line.state) for line in doctor._extras(project)] == [("ray", doctor.OK)]
    SPOIL[says](path)
    assert look()
    (line,) = doctor._extras(project)
    assert (line.state, line.then) == (doctor.DIFFERS, "nox -s env -- ray")
    assert says in line.here
    with pytest.raises(VerbatimError, match=says) as error:
        extras.use("ray", project)
    assert error.value.then == "nox -s env -- ray"
    assert says in ensure(project)
    assert extras.problems(project, "ray") == []


def test_what_is_not_installed_is_no_drift_and_says_how_to_get_it(project):
    assert installed.find_extras(project) == []
    assert doctor._extras(project) == []
    with pytest.raises(VerbatimError) as error:
        extras.use("ray", project)
    assert str(error.value) == (
        "the packages of requirements/ray.txt: expected all of them, as locked, found not there\n  next: nox -s env -- ray"
    )
    with pytest.raises(VerbatimError, match="rays: expected one of ray, trackers, bench, found rays"):
        extras.ensure(project, "rays")


def test_a_wrong_hash_is_refused_and_leaves_no_stamp(project):
    write(project / "requirements", "iniconfig==2.0.0" + HASHED)

    with pytest.raises(VerbatimError, match="expected an installation, found"):
        extras.ensure(project, "ray")

    assert extras.problems(project, "ray") in (["their installation did not finish"], ["not there"])


def test_one_killed_in_the_middle_is_made_anew(project):
    """Killed as soon as its folder is there: whatever lies in it then, the next call does not take it for whole."""
    path = extras.place(project, "ray")
    process = subprocess.Popen(ensuring(project), env=ENVIRONMENT, start_new_session=True)
    while process.poll() is None and not path.exists():
        time.sleep(0.001)
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()

    assert extras.problems(project, "ray") == ["their installation did not finish"]
    ensure(project)
    assert extras.problems(project, "ray") == []


# ---------------------------------------------------------------------------------------------------------- the locks


def test_every_input_has_a_lock_and_every_optional_lock_lies_beside_both_variants():
    folder = ROOT / "requirements"
    names = lock.names(folder)

    assert (
        {path.stem for path in folder.glob("*.in")} - {"project"}
        == set(names)
        == {p.stem for p in folder.glob("*.txt")}
    )
    assert set(lock.EXTRAS) <= set(names)
    for name in lock.EXTRAS:
        for variant in lock.VARIANTS:
            has = {pin.name: pin.version for pin in lock.read(folder / f"{variant}.txt")}
            assert not {pin.name for pin in lock.read(folder / f"{name}.txt")} & has.keys()
            assert lock.beside(folder / f"{name}.txt").items() <= has.items()


def edited(name, old, new):
    return lambda folder: (folder / name).write_text((folder / name).read_text().replace(old, new))


@pytest.mark.parametrize(
    ("kind", "spoil", "says"),
    [
        (2, edited("trackers.txt", "# beside numpy==", "# beside numpy==9."), "beside which trackers.txt was compiled, found cpu.txt: "),
        (2, edited("trackers.txt", "# beside numpy==", "# beside nothing=="), "nothing: expected "),
        (2, edited("ray.txt", "msgpack==", "numpy=="), "numpy: expected no pin in ray.txt: the variants' locks have it"),
        (2, edited("ray.txt", "msgpack==", "nvidia-nccl=="), "nvidia-nccl: expected no pin in ray.txt"),
        (1, edited("ray.txt", "msgpack==", "msgpack==9."), "edited by hand"),
        (0, edited("ray.in", "ray~=2.60.0", "ray>=3"), "ray.in, line 2: expected ray>=3 in ray.txt, found 2.60"),
        (0, edited("trackers.in", "sqlalchemy ", "sqlalchemy>=99 "), "expected sqlalchemy>=99 in trackers.txt, found 2."),
        (0, lambda folder: (folder / "ray.in").unlink(), "ray.in: expected a file of requirements, found nothing there"),
        (1, lambda folder: (folder / "ray.txt").unlink(), "ray.txt: expected a lock file, found nothing there"),
    ],
)  # fmt: skip
def test_a_drift_of_an_optional_lock_is_named(tmp_path, kind, spoil, says):
    for path in (ROOT / "requirements").iterdir():
        (tmp_path / path.name).write_text(path.read_text())
    assert locks.sentences(tmp_path) == []

    spoil(tmp_path)

    found = locks.of_requirements(tmp_path)[kind].findings
    assert [f for f in found if says in f"{f.what}: expected {f.expected}, found {f.found}"], found


def test_without_its_files_an_optional_lock_is_not_missed(tmp_path):
    for path in (ROOT / "requirements").iterdir():
        if path.stem not in lock.EXTRAS:
            (tmp_path / path.name).write_text(path.read_text())

    assert lock.names(tmp_path) == lock.NAMES
    assert locks.sentences(tmp_path) == []


def test_processes_that_are_started_find_them_too_where_they_are_meant_to(project):
    (project / "requirements" / "ray.in").write_text("iniconfig\n")
    ensure(project)
    code = f"import os, sys; from pathlib import Path; from verbatim import extras; root = Path({str(project)!r})\n"
    code += "extras.use('ray', root); before = os.environ['PYTHONPATH']; [extras.use('ray', root, children=True) for _ in '12']\n"
    code += "print(before); print(os.environ['PYTHONPATH'])"
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=True)

    before, after = done.stdout.splitlines()
    assert before == ENVIRONMENT["PYTHONPATH"]
    assert after == f"{before}{os.pathsep}{extras.place(project, 'ray')}"
