"""Drift of images from the lock: of the one that this runs in, by its environment's stamp; of those of a local engine, by labels.

The engine is asked over its socket with nothing but the standard library; the docker SDK would take a third of a second to import.
"""

import json
import os
import socket
from collections.abc import Iterator
from typing import Any

from verbatim import digest, lock
from verbatim.drift.finding import Answer, Finding, answer, unchecked
from verbatim.drift.installed import Installed
from verbatim.drift.locks import Locked

LABELS = {"lock": "verbatim.lock", "variant": "verbatim.variant"}
SOCKET = "/var/run/docker.sock"
TIMEOUT_S = 2.0


def of_images(here: Installed, locks: dict[str, Locked]) -> Answer:
    """(e) Was each image built from the lock as it is now?"""
    if here.fixed:
        return answer("image", f"the image that this runs in, by {here.path.name}", _of_stamp(here, locks))
    try:
        images = _images()
    except (OSError, ValueError) as error:
        why = f"this is no image, and no engine answers ({error})"
        return answer(
            "image", "nothing", [unchecked("images", why, "nox -s drift in the container, or start the engine")]
        )
    if not images:
        return answer(
            "image",
            "nothing",
            [unchecked("images", "this is no image, and the engine has none with our labels", "nox -s build")],
        )
    findings = [finding for image in images for finding in _of_labels(image, locks)]
    return answer("image", f"{len(images)} images of the engine, by their labels", findings)


def _of_stamp(here: Installed, locks: dict[str, Locked]) -> Iterator[Finding]:
    pins = locks[here.variant].pins
    if pins is None:
        yield unchecked("this image", f"{here.variant}.txt can't be read")
    elif here.stamp.get("lock") != lock.digest(pins.values()):
        stated = digest.short(here.stamp.get("lock", "")) or "no lock stated"
        yield Finding(what="this image", expected=f"built from {here.variant}.txt {digest.short(lock.digest(pins.values()))}", found=stated, mend="rebuild the container")  # fmt: skip


def _of_labels(image: dict[str, Any], locks: dict[str, Locked]) -> Iterator[Finding]:
    labels = image.get("Labels") or {}
    name = (image.get("RepoTags") or [digest.short(str(image.get("Id", "")))])[0]
    variant, stated = labels.get(LABELS["variant"], ""), labels.get(LABELS["lock"], "")
    if variant not in lock.VARIANTS:
        yield Finding(
            what=name,
            expected=f"the label {LABELS['variant']}: cpu or cuda",
            found=variant or "none",
            mend="nox -s build",
        )
        return
    pins = locks[variant].pins
    if pins is None:
        yield unchecked(name, f"{variant}.txt can't be read")
    elif stated != lock.digest(pins.values()):
        yield Finding(what=name, expected=f"built from {variant}.txt {digest.short(lock.digest(pins.values()))}", found=digest.short(stated) or "no lock stated", mend="nox -s build")  # fmt: skip


def _images() -> list[dict[str, Any]]:
    """The engine's images that carry our label and a tag; an untagged one is what a newer build left behind."""
    query = '/images/json?filters={"label":["' + LABELS["lock"] + '"],"dangling":["false"]}'
    return [image for image in ask(query.replace('"', "%22"), TIMEOUT_S) if isinstance(image, dict)]


def ask(path: str, timeout_s: float) -> Any:
    """The engine's JSON. OSError where it does not answer, ValueError where it says no, or something else."""
    head, _, body = _get(path, timeout_s).partition(b"\r\n\r\n")
    status = head.partition(b"\r\n")[0]
    if b" 200 " not in status + b" ":
        says = body.decode(errors="replace").strip()[:160]
        raise ValueError(f"it says {status.decode(errors='replace')[9:60]} {says}".strip())
    return json.loads(body)


def _get(path: str, timeout_s: float) -> bytes:
    """One answer of the engine, its head included. By HTTP/1.0, it comes in one piece and ends where the engine hangs up."""
    host = os.environ.get("DOCKER_HOST", f"unix://{SOCKET}")
    if not host.startswith("unix://"):
        raise ValueError(f"DOCKER_HOST={host} is no local socket")
    parts = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_s)
        connection.connect(host.removeprefix("unix://"))
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        while part := connection.recv(1 << 16):
            parts.append(part)
    return b"".join(parts)
