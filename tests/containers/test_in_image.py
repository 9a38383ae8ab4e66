"""Training and evaluation inside the images: as the caller, read-only, sealed on a signal, and the same outcome as outside."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from containers.person import Person
from verbatim import ledger, record

SHORT = ("trainer.epochs=1", "trainer.max_steps=5")


def newest(person: Person) -> record.Record:
    found = ledger.read(person.checkout / "runs")[0]
    assert isinstance(found, record.Record)
    return found


@pytest.fixture(scope="module")
def trained(built: dict[str, Any], person: Person) -> record.Record:
    result = person.verbatim("in_image", "train", *SHORT)
    assert result.returncode == 0, result.stdout + result.stderr
    return newest(person)


def test_the_record_is_the_callers_and_names_the_content_of_the_image(trained: record.Record, person: Person) -> None:
    path = person.checkout / "runs" / trained.run / record.FILE
    known = person.verbatim("build", "train", "cpu").stdout

    assert trained.state == "sealed"
    assert (path.stat().st_uid, path.stat().st_gid) == (person.uid, person.gid)
    assert f"content  {trained.environment['image']['digest']}" in known
    assert trained.lock["differences"] == []
    assert trained.code["tree"]


def test_the_same_recipe_gives_the_same_outcome_outside_and_in_the_image(
    trained: record.Record, person: Person
) -> None:
    # git trusts root with the checkout of the one who called sudo.
    environment = person.popen()["env"] | {"SUDO_UID": str(person.uid)}
    command = [sys.executable, "-m", "experiment.train", *SHORT]
    subprocess.run(command, cwd=person.checkout, env=environment, check=True, capture_output=True)
    outside = newest(person)

    assert outside.environment["image"] is None
    assert outside.recipe == trained.recipe
    if outside.environment["probe"] == trained.environment["probe"]:
        assert outside.outcome == trained.outcome


def test_evaluation_in_its_image_gives_what_training_recorded(trained: record.Record, person: Person) -> None:
    result = person.verbatim("in_image", "evaluate", f"run=runs/{trained.run}")

    assert result.returncode == 0, result.stderr
    assert "the same as recorded" in result.stdout


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_reaches_the_run_inside_which_seals_its_record(
    trained: record.Record, client: Any, person: Person, number: int, code: int
) -> None:
    command = [*person.command, "in_image", "train", "trainer.epochs=10000"]
    process = subprocess.Popen(command, **person.popen(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout
    next(line for line in process.stdout if line.startswith("epoch"))  # output is live
    process.send_signal(number)
    process.communicate(timeout=30)

    assert process.returncode == code
    assert newest(person).state == "interrupted"
    assert client.containers.list(all=True, filters={"ancestor": "verbatim:train-cpu"}) == []


def test_docker_stop_seals_the_record(
    trained: record.Record, built: dict[str, Any], client: Any, person: Person
) -> None:
    runs = person.checkout / "runs"
    container = client.containers.run(
        "verbatim:train-cpu", ["trainer.epochs=10000"], user=f"{person.uid}:{person.gid}", detach=True, read_only=True,
        tmpfs={"/tmp": ""}, volumes={str(runs): {"bind": "/workspace/runs", "mode": "rw"}},  # noqa: S108
    )  # fmt: skip
    try:
        for _ in range(300):
            if b"epoch" in container.logs():
                break
            time.sleep(0.1)
        container.stop(timeout=20)
        code = container.wait()["StatusCode"]
    finally:
        container.remove(force=True)

    assert code == 143
    assert newest(person).reason.startswith("SIGTERM at step")


def test_an_image_of_other_code_is_refused(trained: record.Record, person: Person) -> None:
    source = person.checkout / "src/experiment/models.py"
    before = source.read_text()
    try:
        source.write_text(before + "# edited\n")
        result = person.verbatim("in_image", "train", *SHORT)
    finally:
        source.write_text(before)

    assert result.returncode == 2
    assert result.stderr == (
        "error: verbatim:train-cpu: expected the code of this checkout, found other code in the image\n"
        "  next: nox -s build -- train cpu\n"
    )


def test_an_image_of_another_lock_is_refused(trained: record.Record, person: Person) -> None:
    path = person.checkout / "requirements/cpu.txt"
    before = path.read_text()
    try:
        path.write_text(before.replace("xxhash==", "xxhash==9", 1))
        result = person.verbatim("in_image", "train", *SHORT)
    finally:
        path.write_text(before)

    assert result.returncode == 2
    assert result.stderr.startswith("error: verbatim:train-cpu: expected the lock sha256:")
    assert result.stderr.endswith("  next: nox -s build -- train cpu\n")


def test_a_gpu_that_must_be_there_and_is_not_is_said_so(built: dict[str, Any], client: Any, person: Person) -> None:
    if "nvidia" in client.info()["Runtimes"]:
        pytest.skip("this engine has a GPU to give")
    result = person.verbatim("in_image", "train", "--variant", "cuda", "--gpu", "require")

    assert result.returncode == 2
    assert "expected a GPU for the container, found the engine has no NVIDIA runtime" in result.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a folder of another user")
def test_a_runs_folder_that_is_not_the_callers_is_refused(
    trained: record.Record, person: Person, tmp_path: Path
) -> None:
    result = person.verbatim("in_image", "train", "--runs", "/usr/lib")

    assert result.returncode == 2
    assert "--runs /usr/lib: expected a folder that you (uid 1234) can write to, found one you can't" in result.stderr
