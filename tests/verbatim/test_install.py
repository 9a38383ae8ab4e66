import json
import re
import subprocess
import sys

import pytest

from conftest import ROOT
from verbatim import environment, install, lock
from verbatim.errors import VerbatimError

# A lock of two small distributions, from the project's own.
NAMES = ("iniconfig", "setuptools")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project whose lock has two distributions; its environment is made for real, from the package index."""
    for name in ("VERBATIM_ENV", "VERBATIM_VARIANT"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "requirements").mkdir()
    (tmp_path / "src").mkdir()
    for variant in lock.VARIANTS:
        full = ROOT / "requirements" / f"{variant}.txt"
        text = "".join(install._extract(full, name) for name in NAMES)
        (tmp_path / "requirements" / f"{variant}.txt").write_text(text)
    return tmp_path


def stamp(project):
    return json.loads((project / ".venv" / "verbatim.json").read_text())


@pytest.fixture(params=["uv", "pip"])
def installer(request, monkeypatch):
    if request.param == "uv" and not install.find_uv():
        pytest.skip("uv is not here")
    monkeypatch.setenv("VERBATIM_INSTALLER", request.param)
    return request.param


def test_an_environment_is_made_once_and_then_left_alone(project, installer, capfd):
    made = install.ensure(project, "cpu")
    says = capfd.readouterr().out
    again = install.ensure(project)

    assert f"making it from requirements/cpu.txt with {installer}" in says
    assert made == again
    assert capfd.readouterr().out == ""
    found = environment.distributions(environment.site_packages(made.path))
    assert lock.differences(lock.read(project / "requirements" / "cpu.txt"), found) == []
    where = [str(made.python), "-c", "import iniconfig, sys; print(iniconfig.__file__, *sys.path)"]
    out = subprocess.run(where, capture_output=True, text=True, check=True).stdout.split()
    assert out[0].startswith(str(project / ".venv"))
    assert str(project / "src") in out
    assert list((project / ".venv").rglob("iniconfig/__pycache__/*.pyc"))


SPOIL = {
    "an interrupted install": lambda p: (p / ".venv" / "verbatim.json").unlink(),
    "a package removed": lambda p: next((p / ".venv").rglob("iniconfig-*.dist-info")).rename(p / "gone"),
    "a package added": lambda p: (environment.site_packages(p / ".venv") / "extra-1.0.dist-info").mkdir(),
    "another version": lambda p: (d := next((p / ".venv").rglob("iniconfig-*.dist-info"))).rename(
        d.with_name("iniconfig-0.1.dist-info")
    ),
    "python gone": lambda p: (p / ".venv" / "bin" / "python").unlink(),
    "a lock of other hashes": lambda p: (f := p / "requirements" / "cpu.txt").write_text(
        f.read_text().replace("--hash=sha256:", "--hash=sha256:" + "0" * 64 + " \\\n    --hash=sha256:", 1)
    ),
}


@pytest.mark.parametrize("how", SPOIL)
def test_what_is_not_as_locked_is_made_again(project, how, capfd):
    install.ensure(project, "cpu")
    SPOIL[how](project)
    capfd.readouterr()
    install.ensure(project)

    assert "making it from requirements/cpu.txt" in capfd.readouterr().out
    assert stamp(project)["lock"] == lock.digest(lock.read(project / "requirements" / "cpu.txt"))
    install.ensure(project)
    assert capfd.readouterr().out == ""


def test_a_wrong_hash_is_refused_and_leaves_no_stamp(project, capfd):
    path = project / "requirements" / "cpu.txt"
    path.write_text(re.sub(r"--hash=sha256:\w+", "--hash=sha256:" + "0" * 64, path.read_text()))

    with pytest.raises(VerbatimError, match="expected an environment, found"):
        install.ensure(project, "cpu")

    assert not (project / ".venv" / "verbatim.json").exists()


def test_a_lock_edited_by_hand_is_not_installed_from(project):
    path = project / "requirements" / "cpu.txt"
    path.write_text(f"# pins {lock.digest(lock.read(path))}\n" + path.read_text())
    lock.read_sealed(path)
    path.write_text(re.sub(r"iniconfig==\S+", "iniconfig==1.0", path.read_text()))

    with pytest.raises(
        VerbatimError, match="it was edited by hand\n  next: edit requirements/[*].in, then nox -s lock"
    ):
        install.ensure(project, "cpu")

    assert not (project / ".venv").exists()


def test_a_chosen_variant_stays_chosen(project):
    install.ensure(project, "cuda")

    assert install.ensure(project).variant == "cuda"
    assert stamp(project)["chosen"] == "cuda"
    assert install.ensure(project, "cpu").variant == "cpu"


def test_the_variant_follows_the_machine_and_can_be_overridden(monkeypatch):
    driver = environment.has_nvidia_driver()

    assert install.choose("") == ("cuda" if driver else "cpu")
    assert install.choose("cuda") == "cuda"
    monkeypatch.setattr(environment, "has_nvidia_driver", lambda: True)
    assert install.choose("auto") == "cuda"
    with pytest.raises(VerbatimError) as error:
        install.choose("gpu")
    assert str(error.value) == "variant: expected cpu, cuda or auto, found gpu\n  next: nox -s env -- cpu"


def test_inside_the_image_nothing_is_installed(project, tmp_path, monkeypatch):
    monkeypatch.setenv("VERBATIM_ENV", str(tmp_path / "image"))

    with pytest.raises(VerbatimError) as error:
        install.ensure(project, "cpu")

    assert str(error.value) == (
        f"{tmp_path}/image: expected the environment that the lock names, found not there\n  next: rebuild the container"
    )
    assert not (tmp_path / "image").exists()


def test_the_environment_of_the_image_is_verified(project, monkeypatch):
    made = install.ensure(project, "cpu")
    monkeypatch.setenv("VERBATIM_ENV", str(made.path))

    assert install.ensure(project) == made

    SPOIL["a package added"](project)
    with pytest.raises(VerbatimError, match="found extra: installed 1[.]0, not locked"):
        install.ensure(project)


def test_two_at_once_make_one_environment(project):
    code = f"import sys; sys.path.insert(0, {str(ROOT / 'src')!r}); from verbatim import install; "
    code += f"from pathlib import Path; install.ensure(Path({str(project)!r}), 'cpu')"
    processes = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    says = [process.communicate()[0] for process in processes]

    assert [process.returncode for process in processes] == [0, 0]
    assert sum("making it from" in text for text in says) == 1


def test_an_environment_beside_the_projects_is_whole_and_finds_the_code_too(project, capfd):
    (project / "older").mkdir()
    made = install.ensure(project, "cpu", own=project / "older" / "env")
    site = environment.site_packages(made.path)

    assert (site / "verbatim.pth").read_text() == f"{project / 'src'}\n"
    assert "taken out" not in capfd.readouterr().out


def test_an_images_environment_is_trimmed_and_finds_code_by_the_path_alone(project, monkeypatch, capfd):
    monkeypatch.setenv("VERBATIM_INSTALLER", "pip")
    pins = lock.read(project / "requirements" / "cpu.txt")
    install._make(project, project / "image", "cpu", "cpu", pins, ["not there"], image=True)
    site = environment.site_packages(project / "image")

    assert not (site / "verbatim.pth").exists()
    assert "MiB that no run can use taken out" in capfd.readouterr().out
    assert json.loads((project / "image" / "verbatim.json").read_text())["lock"] == lock.digest(pins)
