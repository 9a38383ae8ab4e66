"""The development container, brought up by the real CLI as a person would, and used from inside."""

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from containers.person import Person
from verbatim import devcontainer

CLI = Path(__file__).parent / "cli"
CPU = ".devcontainer/cpu/devcontainer.json"


class Devcontainer:
    def __init__(self, program: Path, person: Person, extra: list[str]) -> None:
        self._program, self.person, self._extra = str(program), person, extra

    def call(self, verb: str, *arguments: str, extra: bool = True) -> "subprocess.CompletedProcess[str]":
        where = ["--workspace-folder", str(self.person.checkout), "--config", str(self.person.checkout / CPU)]
        # Debian's own CLI first: another one on the PATH may be newer than the engine and want buildx.
        path = f"/usr/bin:{self.person.popen()['env']['PATH']}"
        return self.person.run(self._program, verb, *where, *(self._extra if extra else []), *arguments, PATH=path)

    def run(self, *command: str) -> "subprocess.CompletedProcess[str]":
        return self.call("exec", *command, extra=False)


@pytest.fixture(scope="module")
def cli(base: str, built: dict[str, Any], person: Person) -> Devcontainer:
    folder = person.checkout.parent / "cli"
    shutil.copytree(CLI, folder, ignore=shutil.ignore_patterns("node_modules"))
    subprocess.run(
        ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder, check=True, capture_output=True
    )
    extra = []
    if "VERBATIM_BASE" in os.environ:  # a stand-in, which the generated file does not know
        config = json.loads(devcontainer.text("cpu/devcontainer.json").partition("\n")[2])
        config["build"]["args"]["BASE"] = base
        override = folder / "devcontainer.json"
        override.write_text(json.dumps(config))
        extra = ["--override-config", str(override), "--buildkit", "never"]
    return Devcontainer(folder / "node_modules/.bin/devcontainer", person, extra)


@pytest.fixture(scope="module")
def up(cli: Devcontainer, client: Any) -> Iterator[dict[str, Any]]:
    """What `devcontainer up` says, and how long it took, the second time: the first adapts the image to the person's uid."""
    images = {tag for one in client.images.list() for tag in one.tags}
    try:
        cli.call("up")
        started = time.monotonic()
        result = cli.call("up", "--remove-existing-container")
        took_s = time.monotonic() - started
        assert result.returncode == 0, result.stdout + result.stderr[-4000:]
        yield json.loads(result.stdout.splitlines()[-1]) | {"took_s": took_s, "log": result.stderr}
    finally:
        for container in client.containers.list(
            all=True, filters={"label": f"devcontainer.local_folder={cli.person.checkout}"}
        ):
            volumes = [mount["Name"] for mount in container.attrs["Mounts"] if mount["Type"] == "volume"]
            container.remove(force=True)
            for name in volumes:
                client.volumes.get(name).remove()
        for one in client.images.list():
            for tag in set(one.tags) - images:
                client.images.remove(tag, force=True)


def test_it_comes_up_on_a_warm_engine(up: dict[str, Any]) -> None:
    print(f"devcontainer up: {up['took_s']:.1f} s")

    assert up["outcome"] == "success"
    assert up["remoteUser"] == "verbatim"
    assert up["took_s"] < 60  # 4 s here; installing anything again takes longer


def test_its_last_words_are_the_doctors_and_a_welcome(up: dict[str, Any]) -> None:
    assert "Three commands to try" in up["log"]
    assert re.search(r"distributions\s+ok", up["log"])


def test_inside_one_is_the_person_and_owns_the_checkout_and_the_cache(up: dict[str, Any], cli: Devcontainer) -> None:
    result = cli.run("sh", "-c", "id -u && touch made-inside ~/.cache/made-inside && stat -c %u made-inside ~/.cache")

    assert result.stdout.split() == [str(cli.person.uid)] * 3, result.stderr
    assert (cli.person.checkout / "made-inside").stat().st_uid == cli.person.uid
    (cli.person.checkout / "made-inside").unlink()


def test_the_doctor_finds_everything_as_pinned(up: dict[str, Any], cli: Devcontainer) -> None:
    result = cli.run("nox", "-s", "doctor")

    assert result.returncode == 0, result.stdout + result.stderr
    assert "differs" not in result.stdout


def test_a_login_shell_has_the_same_programs(up: dict[str, Any], cli: Devcontainer) -> None:
    result = cli.run("bash", "-lc", "command -v python nox uv")

    assert result.stdout.split() == ["/opt/venv/bin/python", "/opt/tools/bin/nox", "/opt/tools/bin/uv"]


def test_training_installs_nothing_and_is_recorded(up: dict[str, Any], cli: Devcontainer) -> None:
    result = cli.run("nox", "-s", "train", "--", "trainer.epochs=1", "trainer.max_steps=5")

    assert result.returncode == 0, result.stdout + result.stderr
    assert "/opt/venv: cpu, as locked" in result.stdout + result.stderr
    assert not (cli.person.checkout / ".venv").exists()
    assert "outcome" in result.stdout


def test_the_tools_of_the_image_are_used_for_locking(up: dict[str, Any], cli: Devcontainer) -> None:
    code = "import noxfile; print(noxfile.tools())"
    result = cli.run("/opt/tools/bin/python", "-c", code)

    assert result.stdout.strip() == "/opt/tools/bin/python", result.stderr


def test_tests_run_inside(up: dict[str, Any], cli: Devcontainer) -> None:
    result = cli.run("nox", "-s", "tests", "--", "-k", "digits")

    assert result.returncode == 0, result.stdout + result.stderr
    assert re.search(r"\d+ passed", result.stdout)


def test_the_default_asks_for_a_gpu_only_where_there_is_one(cli: Devcontainer) -> None:
    where = str(cli.person.checkout)
    result = cli.person.run(cli._program, "read-configuration", "--workspace-folder", where)
    read = json.loads(result.stdout)["configuration"]

    assert read["hostRequirements"]["gpu"] == "optional"
    assert read["build"]["args"] == {"VARIANT": "cuda"}
    assert "runArgs" not in read
