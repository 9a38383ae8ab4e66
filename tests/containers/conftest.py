"""A real engine, a base image, a person without privileges and their checkout, for everything in this folder."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from docker.errors import DockerException

from containers import debian_engine
from containers.person import PYTHON, Person
from verbatim import image
from verbatim.errors import VerbatimError

ROOT = Path(__file__).resolve().parents[2]
SKIP = "VERBATIM_SKIP_CONTAINERS"
NAME = "verbatim-tester"


@pytest.fixture(scope="session")
def client() -> Iterator[Any]:
    if os.environ.get(SKIP, ""):
        pytest.skip(f"{SKIP} is set")
    with tempfile.TemporaryDirectory() as folder:
        try:
            with debian_engine.running(Path(folder) / "dockerd.log") as client:
                before = {container.id for container in client.containers.list(all=True)}
                yield client
                left = {container.id for container in client.containers.list(all=True)} - before
                assert left == set()
        except VerbatimError as error:
            pytest.fail(f"{error}\n  or: {SKIP}=1 nox -s containers")


@pytest.fixture(scope="session")
def base(client: Any) -> Iterator[str]:
    """The Dockerfile's own base where it can be pulled; a stand-in elsewhere, named to every build by `VERBATIM_BASE`."""
    before = os.environ.pop("VERBATIM_BASE", None)
    name = before or image.base(ROOT)
    try:
        if not before:
            client.images.pull(name)
    except DockerException:
        name = debian_engine.stand_in(client)
    with debian_engine.served_wheels(client):
        if name != image.base(ROOT):
            os.environ["VERBATIM_BASE"] = name
        yield name
    os.environ.pop("VERBATIM_BASE", None)
    if before:
        os.environ["VERBATIM_BASE"] = before


@pytest.fixture(scope="session")
def person(client: Any) -> Iterator[Person]:
    """Root gets a user without privileges, as the CLI treats root apart; anyone else is the person."""
    folder = Path(tempfile.mkdtemp(prefix="verbatim-"))
    folder.chmod(0o755)
    checkout = folder / "checkout"
    _check_out(checkout)
    root = os.geteuid() == 0
    if root:
        socket_group = Path("/var/run/docker.sock").stat().st_gid
        # Another uid than the image's own user has, so that `updateRemoteUserUID` is seen to work.
        subprocess.run(["useradd", "--create-home", "--base-dir", folder, "--uid", "1234", NAME], check=True)
        account = pwd.getpwnam(NAME)
        subprocess.run(["chown", "-R", f"{account.pw_uid}:{account.pw_gid}", checkout], check=True)
        made = Person(
            uid=account.pw_uid, gid=account.pw_gid, groups=[socket_group], home=Path(account.pw_dir), checkout=checkout
        )
    else:
        made = Person(uid=os.getuid(), gid=os.getgid(), groups=os.getgroups(), home=Path.home(), checkout=checkout)
    try:
        if root:
            debian_engine.install(PYTHON, "python3")
        yield made
    finally:
        if root:
            subprocess.run(["userdel", NAME], check=True)
        shutil.rmtree(folder)


def _check_out(folder: Path) -> None:
    """What git would commit now, as a repository of its own."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    for name in names:
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    who = ["-c", "user.name=tester", "-c", "user.email=tester@localhost"]
    for arguments in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "The checkout"]):
        subprocess.run(["git", *arguments], cwd=folder, check=True)


@pytest.fixture(scope="session")
def built(client: Any, base: str, person: Person) -> dict[str, Any]:
    """Every CPU image, built by the person through the command that people use."""
    made = {}
    for target in ("base", "locked", "train", "evaluate", "dev"):
        result = person.verbatim("build", target, "cpu")
        print(result.stdout)
        assert result.returncode == 0, result.stdout + result.stderr
        made[target] = client.images.get(image.tag(target, "cpu"))
    return made
