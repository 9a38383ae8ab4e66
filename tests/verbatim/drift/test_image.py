"""Kind (e): images against the lock; inside one by its stamp, outside by the engine's labels."""

import json

import pytest

import drift_planted as planted
from verbatim import drift, lock


def image(project):
    return drift.answers(project, ("image",))[0]


@pytest.fixture
def inside(project, monkeypatch):
    """As in a container: the environment lies elsewhere, and is named."""
    environment = (project / ".venv").rename(project.parent / "venv")
    (environment / "lib" / "python3.11" / "site-packages" / "verbatim.pth").unlink()
    monkeypatch.setenv("VERBATIM_ENV", str(environment))
    return environment


def test_in_an_image_built_from_the_lock_everything_agrees(project, inside):
    assert image(project).state == "agrees"
    assert drift.answers(project, ("installed",), deep=True)[0].findings == ()
    assert drift.main(["image", "installed", "python", "--deep"], project) == 0


def test_in_an_image_built_from_an_older_lock_the_container_is_to_be_rebuilt(project, inside):
    stamp = json.loads((inside / "verbatim.json").read_text())
    (inside / "verbatim.json").write_text(json.dumps(stamp | {"lock": "sha256:" + "12" * 32}))
    now = lock.digest(lock.read(project / "requirements" / "cpu.txt")).removeprefix("sha256:")[:12]

    found = image(project).findings

    assert [(f.what, f.expected, f.found, f.mend) for f in found] == [
        ("this image", f"built from cpu.txt {now}", "121212121212", "rebuild the container")
    ]


def test_what_was_installed_into_an_image_is_named_with_the_same_remedy(project, inside):
    (inside / "lib" / "python3.11" / "site-packages" / "extra-1.0.dist-info").mkdir()

    found = drift.answers(project, ("installed",))[0].findings

    assert {f.what for f in found} >= {"extra"}
    assert {f.mend for f in found} == {"rebuild the container"}


@pytest.mark.parametrize("host", ["unix:///nowhere/engine.sock", "tcp://localhost:1", "ssh://somewhere"])
def test_without_an_engine_images_are_not_checked(project, monkeypatch, host):
    monkeypatch.setenv("DOCKER_HOST", host)

    assert image(project).state == "not checked"
    assert drift.main(["image"], project) == 2


def test_an_engine_that_says_no_is_not_checked(project, engine):
    engine.status = 500

    assert image(project).state == "not checked"


def test_an_engine_without_our_images_is_not_checked(project, engine):
    engine.images.clear()

    assert image(project).state == "not checked"


def test_a_base_asked_for_by_another_name_is_on_purpose(project, engine):
    engine.images[0]["Labels"] |= {
        "org.opencontainers.image.base.name": "standin:1",
        "org.opencontainers.image.base.digest": "sha256:" + "0" * 64,
    }

    assert image(project).state == "agrees"


def test_an_image_names_the_build_that_mends_it(project, engine):
    planted.edit("requirements/cpu.txt", r"^iniconfig==\S+", "iniconfig==2.0.9")(project)

    found = image(project).findings

    assert [(f.what, f.mend) for f in found] == [("verbatim:train-cpu", "nox -s build -- train cpu")]
