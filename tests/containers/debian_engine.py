"""Starts Debian's container engine where none runs, and makes a stand-in for the base image where it can't be pulled.

For a machine of its own, as root: it installs packages. On a person's machine the engine runs already, and nothing here is used.
"""

import functools
import glob
import http.server
import ipaddress
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker
from docker.errors import DockerException, ImageNotFound

from verbatim import engine
from verbatim.errors import VerbatimError

BASE = "verbatim-stand-in:base"
PORT = 8177  # fixed: it is part of the stand-in's environment, and so of what the engine has cached
CERTIFICATES = "/usr/local/share/ca-certificates/*.crt"  # a machine's own, behind an inspecting proxy


@contextmanager
def running(log: Path) -> Iterator[Any]:
    """The engine's client. An engine that was started here is stopped here, by its process."""
    started = None
    try:
        client = docker.from_env(timeout=600)
    except DockerException:
        started, client = _start(log)
    try:
        yield client
    finally:
        client.close()
        if started:
            started.terminate()
            started.wait(30)


def _start(log: Path) -> tuple["subprocess.Popen[bytes]", Any]:
    install("dockerd", "docker.io")
    with log.open("wb") as file:
        # A session of its own, so that Ctrl-C ends the tests first and the engine after.
        started = subprocess.Popen(
            ["dockerd", "--storage-driver=overlay2"], stdout=file, stderr=file, start_new_session=True
        )
    for _ in range(120):
        if started.poll() is not None:
            break
        try:
            return started, docker.from_env(timeout=600)
        except DockerException:
            time.sleep(0.5)
    started.terminate()
    raise VerbatimError("dockerd", expected="it ready within 60 s", found=log.read_text()[-2000:])


def install(program: str, package: str) -> None:
    if shutil.which(program):
        return
    if os.geteuid() or not shutil.which("apt-get"):
        raise VerbatimError(
            program, expected="it installed", found="neither it, nor Debian and root to install it", then=engine.START
        )
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], check=True, env=environment)
    subprocess.run(
        ["apt-get", "install", "-qq", "--yes", "--no-install-recommends", package], check=True, env=environment
    )


def stand_in(client: Any) -> str:
    """Debian with Python 3.11, this machine's certificates, and its own place for wheels where it has one."""
    try:
        client.images.get(f"{BASE}-root")
    except ImageNotFound:
        _bootstrap(client)
    settings = {"PIP_CERT": "/etc/ssl/certs/ca-certificates.crt"} if glob.glob(CERTIFICATES) else {}
    if _wheels():
        gateway = _gateway(client)
        settings |= {"PIP_FIND_LINKS": f"http://{gateway}:{PORT}/", "PIP_TRUSTED_HOST": gateway}
    wanted = {f"{key}={value}" for key, value in settings.items()}
    try:  # made again it would be another image, and nothing that stands on it would be found in the cache
        if wanted == set(client.images.get(BASE).attrs["Config"]["Env"] or ()):
            return BASE
    except ImageNotFound:
        pass
    container = client.containers.create(f"{BASE}-root", command=["/bin/sh"])
    try:
        repository, tag = BASE.split(":")
        container.commit(repository, tag, changes=[f"ENV {setting}" for setting in sorted(wanted)])
    finally:
        container.remove()
    return BASE


def _bootstrap(client: Any) -> None:
    install("debootstrap", "debootstrap")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        packages = "--include=ca-certificates,python3,python3-venv"
        command = ["debootstrap", "--variant=minbase", packages, "bookworm", str(root), _mirror()]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        for certificate in glob.glob(CERTIFICATES):
            shutil.copy(certificate, root / "usr/local/share/ca-certificates")
        subprocess.run(["chroot", root, "update-ca-certificates"], check=True, capture_output=True)
        for pattern in ("var/cache/apt/archives/*.deb", "var/lib/apt/lists/*_*"):
            for path in root.glob(pattern):
                path.unlink()
        packed = Path(folder) / "root.tar"
        subprocess.run(["tar", "-C", root, "-cf", packed, "."], check=True)
        repository, tag = f"{BASE}-root".split(":")
        client.api.import_image_from_file(str(packed), repository=repository, tag=tag)


def _mirror() -> str:
    """The first that this machine's own apt uses."""
    for path in [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("debian*"))]:
        for line in path.read_text().splitlines() if path.exists() else ():
            words = [word for word in line.split() if not word.startswith("[")]
            if words and words[0] in ("deb", "URIs:"):
                return words[1]
    raise VerbatimError("apt", expected="a mirror of Debian in its sources", found="none")


def _gateway(client: Any) -> str:
    """This machine, as containers see it. Older engines name the bridge's subnet alone: it is the first address there."""
    known = client.networks.get("bridge").attrs["IPAM"]["Config"][0]
    return str(known.get("Gateway") or ipaddress.ip_network(known["Subnet"])[1])


def _wheels() -> str:
    """A folder of this machine where wheels lie; a container can't see it, so it is served."""
    return next((place for place in os.environ.get("PIP_FIND_LINKS", "").split() if Path(place).is_dir()), "")


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        return


@contextmanager
def served_wheels(client: Any) -> Iterator[None]:
    if not _wheels():
        yield
        return
    handler = functools.partial(_Quiet, directory=_wheels())
    with http.server.ThreadingHTTPServer((_gateway(client), PORT), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
