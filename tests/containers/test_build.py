"""Images: what is in them, what is not, how fast they are made again, and that two builds are the same."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from containers.person import Person
from verbatim import image, image_digest

NEVER = re.compile(
    r"(.*/)?(gcc|g\+\+|cc|cc1|cc1plus|ld|as|clang|nvcc|make)(-[\d.]+)?"  # a compiler or its parts
    r"|root/\.cache/.*|home/[^/]+/\.cache/pip.*|var/cache/apt/.*\.(bin|deb)|var/lib/apt/lists/.+"
    r"|(.*/)?\.(git|ssh|env|netrc)(/.*)?|workspace/(runs|tests|data)/.*"
)


@pytest.fixture(scope="session")
def train(client: Any, built: dict[str, Any]) -> image_digest.Content:
    return image_digest.content(client, built["train"])


def test_no_compiler_cache_or_repository_is_in_the_train_image(train: image_digest.Content) -> None:
    found = [name for name, entry in train.files.items() if entry[0] != "folder" and NEVER.fullmatch(name)]

    assert found == []
    assert NEVER.fullmatch("usr/bin/gcc-12")
    assert NEVER.fullmatch("workspace/.git/config")


def test_the_train_image_holds_the_code_and_its_locks_alone_in_its_workspace(train: image_digest.Content) -> None:
    folders = {name.split("/")[1] for name in train.files if name.startswith("workspace/")}

    assert folders == {"configs", "requirements", "runs", "src"}


def test_images_run_as_a_user_without_privileges_and_in_exec_form(built: dict[str, Any]) -> None:
    configs = {name: built[name].attrs["Config"] for name in ("train", "evaluate", "dev")}

    assert {name: config["User"] for name, config in configs.items()} == {
        "train": "1000:1000", "evaluate": "1000:1000", "dev": "verbatim",
    }  # fmt: skip
    assert configs["train"]["Entrypoint"] == ["python", "-m", "experiment.train"]
    assert configs["evaluate"]["Entrypoint"] == ["python", "-m", "experiment.evaluate"]
    assert not any(config.get("Healthcheck") for config in configs.values())


def test_sizes_are_within_what_is_promised(built: dict[str, Any]) -> None:
    train, dev = (built[name].attrs["Size"] for name in ("train", "dev"))
    print(f"train {train / 1e9:.2f} GB, dev {(dev - train) / 1e9:.2f} GB more")

    assert train <= 1.4e9
    assert dev - train <= 0.35e9


def test_labels_say_where_an_image_came_from(built: dict[str, Any], person: Person) -> None:
    labels = built["train"].labels
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], **person.popen(), capture_output=True, check=True
    ).stdout.strip()

    assert labels["org.opencontainers.image.revision"].removesuffix("-dirty") == head
    assert labels["org.opencontainers.image.base.digest"].startswith("sha256:")
    assert labels["verbatim.lock"].startswith("sha256:")
    assert (labels["verbatim.variant"], labels["verbatim.python"]) == ("cpu", "3.11")


def test_an_edited_source_file_rebuilds_no_dependency_layer(client: Any, built: dict[str, Any], person: Person) -> None:
    source = person.checkout / "src/experiment/models.py"
    before, times_s = source.read_text(), []
    try:
        for turn in range(3):  # the fastest says what the work is; the others, what else this machine did
            source.write_text(f"{before}# edited {turn}\n")
            started = time.monotonic()
            result = person.verbatim("build", "train", "cpu")
            times_s.append(time.monotonic() - started)
        made = client.images.get(image.tag("train", "cpu"))
        read = image_digest.content(client, made).digest
    finally:
        source.write_text(before)
        person.verbatim("build", "train", "cpu")
    locked = built["locked"].attrs["RootFS"]["Layers"]
    print("rebuilt in", *(f"{took_s:.1f} s" for took_s in times_s))

    assert made.attrs["RootFS"]["Layers"][: len(locked)] == locked
    assert f"content  {read}" in result.stdout  # read from what was kept and the code: the same as read whole
    assert min(times_s) < 30  # 1.5 s here; a dependency layer takes more than a minute


def test_two_builds_without_cache_have_the_same_content(
    client: Any, built: dict[str, Any], train: image_digest.Content, person: Person
) -> None:
    try:
        second = image.build(client, person.checkout, "train", "cpu", name="verbatim:second", nocache=True)
        differences = image_digest.differences(train, image_digest.content(client, second))
    finally:
        client.images.remove("verbatim:second", force=True)

    assert differences == []


def test_buildkit_builds_the_same_content(
    client: Any, base: str, built: dict[str, Any], train: image_digest.Content, person: Person
) -> None:
    docker = next((path for path in ("/usr/bin/docker", "/usr/local/bin/docker") if Path(path).exists()), "docker")
    command = [docker, "build", "--build-arg", f"BASE={base}", "--target", "train", "--tag", "verbatim:buildkit"]
    try:
        result = person.run(*command, "--file", ".devcontainer/Dockerfile", ".", DOCKER_BUILDKIT="1")
        assert result.returncode == 0, result.stderr[-2000:]
        made = client.images.get("verbatim:buildkit")
        differences = image_digest.differences(train, image_digest.content(client, made))
    finally:
        client.images.remove("verbatim:buildkit", force=True)

    assert differences == []


def test_verify_builds_twice_and_compares(base: str, built: dict[str, Any], person: Person) -> None:
    result = person.verbatim("build", "base", "cpu", "--verify")

    assert result.returncode == 0, result.stderr
    assert "the same content twice" in result.stdout


def test_verify_names_the_first_file_that_differs(base: str, built: dict[str, Any], person: Person) -> None:
    dockerfile = person.checkout / ".devcontainer/Dockerfile"
    before = dockerfile.read_text()
    try:
        dockerfile.write_text(before.replace("&& groupadd", "&& head -c 9 /dev/urandom >/etc/dice && groupadd", 1))
        result = person.verbatim("build", "base", "cpu", "--verify")
    finally:
        dockerfile.write_text(before)

    assert result.returncode == 1
    assert "two builds differ in 1 places; the first: /etc/dice: sha256 " in result.stdout


def test_image_diff_names_what_differs(built: dict[str, Any], person: Person) -> None:
    same = person.verbatim("image_diff", "verbatim:base-cpu", "verbatim:base-cpu")
    other = person.verbatim("image_diff", "verbatim:train-cpu", "verbatim:evaluate-cpu")

    assert (same.returncode, other.returncode) == (0, 1)
    assert "the same content" in same.stdout
    assert (
        "Entrypoint: ['python', '-m', 'experiment.train'] and ['python', '-m', 'experiment.evaluate']" in other.stdout
    )


def test_an_image_that_is_not_there_is_refused(client: Any, person: Person) -> None:
    result = person.verbatim("image_diff", "verbatim:nosuch", "verbatim:nosuch")

    assert result.returncode == 2
    assert result.stderr == (
        "error: verbatim:nosuch: expected an image of this engine, found none of that name\n"
        "  next: nox -s build -- train cpu\n"
    )


@pytest.mark.parametrize(
    ("step", "says"),
    [
        ("echo first; echo last words; false", "last words"),
        ("dd if=/dev/zero of=/dev/shm/full bs=1M", "expected room on the engine's disk, found none left"),
    ],
    ids=["a failing step", "a full disk"],
)
def test_a_build_that_fails_says_why_and_leaves_nothing(
    client: Any, base: str, built: dict[str, Any], person: Person, step: str, says: str
) -> None:
    dockerfile = person.checkout / ".devcontainer/Dockerfile"
    before, containers = dockerfile.read_text(), client.containers.list(all=True)
    image_before = client.images.get("verbatim:base-cpu").id
    try:
        dockerfile.write_text(before.replace("&& groupadd", f"&& {step} && groupadd", 1))
        result = person.verbatim("build", "base", "cpu")
    finally:
        dockerfile.write_text(before)

    assert result.returncode == 2
    assert result.stderr.startswith("error: building verbatim:base-cpu, step 5/")
    assert says in result.stderr
    assert "Traceback" not in result.stderr
    assert client.containers.list(all=True) == containers
    assert client.images.get("verbatim:base-cpu").id == image_before


@pytest.mark.parametrize("arguments", [("nosuch", "cpu"), ("train", "nosuch")])
def test_an_unknown_target_or_variant_is_refused(person: Person, arguments: tuple[str, str]) -> None:
    result = person.verbatim("build", *arguments)

    assert result.returncode == 2
    assert result.stderr.startswith("error: ")
    assert "found nosuch" in result.stderr


def test_a_socket_without_permission_is_said_so(client: Any, person: Person) -> None:
    if os.geteuid() or sys.platform != "linux":
        result = person.verbatim("build", "base", "cpu", DOCKER_HOST="unix:///nonexistent.sock")
        assert "its socket is not there" in result.stderr
        return
    result = person.verbatim("build", "base", "cpu", engine=False)

    assert result.returncode == 2
    assert "expected its socket open to you, found permission denied\n  next: sudo usermod" in result.stderr
