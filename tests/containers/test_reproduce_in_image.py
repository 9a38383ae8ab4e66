"""Runs made again inside the image: from either side, with a planted difference, broken off, and with nothing left behind."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from containers.person import Person
from verbatim import ledger, record

SHORT = ("trainer.epochs=1", "trainer.max_steps=5")
TRACE = "        run.trace(step, indices, loss)\n"
IN_IMAGE = "__import__('os').environ.get('VERBATIM_IMAGE_DIGEST')"


def newest(person: Person) -> record.Record:
    found = ledger.read(person.checkout / "runs")[0]
    assert isinstance(found, record.Record)
    return found


def again(person: Person, run: Path, *options: str, **variables: Any) -> "subprocess.CompletedProcess[str]":
    result = person.verbatim("reproduce", str(run), "--in-image", *options, **variables)
    print(result.stdout, result.stderr)
    return result


def on_host(person: Person) -> Path:
    """A run outside; as root, whose git objects are then given back to the person."""
    environment = person.popen()["env"] | {"SUDO_UID": str(person.uid)}
    command = [sys.executable, "-m", "experiment.train", *SHORT]
    subprocess.run(command, cwd=person.checkout, env=environment, check=True, capture_output=True)
    if os.geteuid() == 0:
        subprocess.run(["chown", "-R", f"{person.uid}:{person.gid}", person.checkout], check=True)
    return person.checkout / "runs" / newest(person).run


@pytest.fixture(scope="module")
def trained(built: dict[str, Any], person: Person) -> Path:
    result = person.verbatim("in_image", "train", *SHORT)
    assert result.returncode == 0, result.stdout + result.stderr
    return person.checkout / "runs" / newest(person).run


@pytest.fixture
def nothing_left(client: Any, built: dict[str, Any], person: Person) -> Iterator[None]:
    """No container, no name of an image and no worktree more than before, and the checkout's image is the one it was."""

    def there() -> list[Any]:
        worktrees = subprocess.run(
            ["git", "worktree", "list"], **person.popen(), capture_output=True, check=True
        ).stdout.splitlines()
        names = sorted(tag for found in client.images.list() for tag in found.tags)
        return [len(client.containers.list(all=True)), names, client.images.get("verbatim:train-cpu").id, worktrees]

    before = there()
    yield
    assert there() == before


def test_a_run_of_the_image_is_made_again_in_the_same_image_after_the_code_has_moved_on(
    trained: Path, person: Person, nothing_left: None
) -> None:
    source = person.checkout / "src/experiment/models.py"
    before = source.read_text()
    try:
        source.write_text("raise SystemExit('not the recorded code')\n")
        result = again(person, trained)
    finally:
        source.write_text(before)

    old, new = record.read(trained), newest(person)
    assert result.returncode == 0
    assert result.stdout.splitlines()[-1].startswith(f"identical: {trained.name} was reproduced bit for bit")
    assert ", as recorded\n" in result.stdout
    assert new.run != old.run
    assert (new.environment["image"], new.recipe, new.outcome) == (old.environment["image"], old.recipe, old.outcome)


def test_a_run_of_the_host_is_made_again_in_the_image(trained: Path, person: Person, nothing_left: None) -> None:
    run = on_host(person)

    result = again(person, run)

    old, new = record.read(run), newest(person)
    assert "the run was recorded outside of one" in result.stdout
    assert old.environment["image"] is None
    assert new.environment["image"] == record.read(trained).environment["image"]
    assert new.recipe == old.recipe
    if new.environment["probe"] == old.environment["probe"]:
        assert result.returncode == 0
        assert new.outcome == old.outcome


def test_what_the_image_changes_is_named_as_the_first_cause_and_at_its_step(
    trained: Path, person: Person, nothing_left: None
) -> None:
    source = person.checkout / "src/experiment/trainer.py"
    before = source.read_text()
    assert TRACE in before
    try:
        source.write_text(
            before.replace(TRACE, f"        loss = loss * 2 if step == 3 and {IN_IMAGE} else loss\n{TRACE}")
        )
        result = again(person, on_host(person))
    finally:
        source.write_text(before)

    assert result.returncode == 1
    assert result.stdout.splitlines()[-1].startswith("different: ")
    assert "step 3" in result.stdout
    assert "image" in result.stdout.splitlines()[-1]


def test_an_image_that_is_not_the_recorded_one_is_said_before_the_run(
    trained: Path, person: Person, nothing_left: None
) -> None:
    moved = shutil.copytree(trained, person.home / trained.name)
    planted = record.read(moved)
    planted.environment["image"]["digest"] = "sha256:" + "0" * 64
    record.write(moved, planted)
    if os.geteuid() == 0:
        subprocess.run(["chown", "-R", str(person.uid), moved], check=True)

    result = again(person, moved)

    said = result.stdout.index("not 000000000000 as recorded")
    assert said < result.stdout.index("running  ")
    assert result.returncode == 0  # by the outcome alone


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_in_the_container_and_leaves_nothing(
    trained: Path, person: Person, nothing_left: None, number: int, code: int
) -> None:
    runs = person.checkout / "runs"
    before = set(runs.iterdir())
    command = [*person.command, "reproduce", str(trained), "--in-image"]
    process = subprocess.Popen(command, **person.popen(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    for _ in range(600):
        if any((folder / record.FILE).exists() for folder in set(runs.iterdir()) - before):
            break
        time.sleep(0.05)
    process.send_signal(number)
    said = process.communicate(timeout=40)

    assert process.returncode == code, said
    assert newest(person).state == "interrupted"


@pytest.mark.parametrize("stage", ["record", "code", "image", "running"])
def test_a_signal_at_any_stage_leaves_nothing(trained: Path, person: Person, nothing_left: None, stage: str) -> None:
    command = [*person.command, "reproduce", str(trained), "--in-image"]
    process = subprocess.Popen(command, **person.popen(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout
    next(line for line in process.stdout if line.startswith(stage))
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=40)

    assert process.returncode == 130, said


def test_a_run_ends_in_the_container_after_the_step_that_was_asked_for(
    trained: Path, person: Person, nothing_left: None
) -> None:
    result = again(person, trained, "--until", "2")

    assert result.returncode == 0
    assert "identical as far as compared" in result.stdout.splitlines()[-1]
