"""Runs one of the project's images as the person who asks: their uid, their run folder, the GPU where there is one.

    nox -s train_in_image -- [options] [overrides]
    nox -s evaluate_in_image -- [options] run=latest

The root file system is read-only, nothing is kept but what is written into the mounted folders, and no container stays behind.
"""

import argparse
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from verbatim import context, determinism, engine, image, image_digest, image_store, install, lock
from verbatim.errors import VerbatimError


def main(arguments: list[str], root: Path) -> int:
    parser = argparse.ArgumentParser(
        prog="nox -s train_in_image --", description="Run an image; what is no option goes to its entry point.",
        allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument("target", choices=("train", "evaluate"), help=argparse.SUPPRESS)
    parser.add_argument("--variant", default="", help="cpu or cuda (default: what this machine has)")
    parser.add_argument(
        "--gpu", default="auto", choices=("auto", "require", "none"), help="default: auto, if there is one"
    )
    parser.add_argument("--runs", type=Path, default=root / "runs", help="where the runs lie (default: runs)")
    parser.add_argument("--data", type=Path, default=None, help="where downloaded data lies (default: as outside)")
    options, overrides = parser.parse_known_args(arguments)
    variant = install.choose(options.variant)
    runs = writable(options.runs, "--runs ")
    data = writable(options.data or _data(), "--data ")
    name = image.tag(options.target, variant)
    with engine.connect() as client:
        with engine.refusals(name):
            devices = [] if options.gpu == "none" else gpus(client, variant, required=options.gpu == "require")
        made = _checked(client, root, name, variant)
        digest = image_store.of(client, made, root)["digest"]
        passed = {name: os.environ[name] for name in determinism.PROCESS_VARIABLES if name in os.environ}
        volumes = _volumes(runs, data, reads=options.target == "evaluate")
        return _run(client, name, settings(made, digest, passed, volumes, devices) | {"command": overrides})


def settings(
    made: Any, digest: str, variables: dict[str, str], volumes: dict[str, dict[str, str]], devices: list[Any]
) -> dict[str, Any]:
    """How every container of a run is made. `variables` are those that change bits."""
    return {
        "image": made.id, "user": f"{os.getuid()}:{os.getgid()}", "device_requests": devices,
        "environment": variables | _environment(made, digest), "volumes": volumes,
        "read_only": True, "tmpfs": {"/tmp": "exec"}, "cap_drop": ["ALL"], "security_opt": ["no-new-privileges"],  # noqa: S108
        "shm_size": "1g",  # loader processes pass batches through it; the engine's 64 MB is too little
        "init": True,  # the kernel ignores SIGTERM for a first process that has no handler for it yet
        "tty": sys.stdout.isatty(),
    }  # fmt: skip


def _checked(client: Any, root: Path, name: str, variant: str) -> Any:
    """The image, refused where this checkout would build another: a run must not use code or a lock that isn't the one here."""
    target = name.partition(":")[2].partition("-")[0]
    again = f"nox -s build -- {target} {variant}"
    try:
        made = image_digest.find(client, name)
    except VerbatimError as error:
        raise VerbatimError(name, expected="it built", found=error.found, then=again) from None
    labels = made.labels
    locked = lock.digest(lock.read(root / "requirements" / f"{variant}.txt"))
    if labels.get(image.LABEL + "lock") != locked:
        raise VerbatimError(
            name, expected=f"the lock {locked}", found=labels.get(image.LABEL + "lock", "no lock named"), then=again
        )
    if labels.get(image.LABEL + "context") != context.digest_of(root, context.checked_names(root)):
        raise VerbatimError(name, expected="the code of this checkout", found="other code in the image", then=again)
    return made


def gpus(client: Any, variant: str, *, required: bool) -> list[Any]:
    from docker.types import DeviceRequest

    reason = engine.gpus(client.info()) if variant == "cuda" else "the cpu image has no use for one"
    if not reason:
        return [DeviceRequest(count=-1, capabilities=[["gpu"]])]
    if required:
        raise VerbatimError(
            "--gpu require", expected="a GPU for the container", found=reason,
            then="install the NVIDIA Container Toolkit, or leave --gpu out to train on the CPU",
        )  # fmt: skip
    return []


def writable(folder: Path, option: str) -> Path:
    """A folder to mount, made where it is missing: the engine would make it root's. `option` is what goes before it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise VerbatimError(
            f"{option}{folder}", expected="a folder", found=error.strerror, then=f"add {option}FOLDER"
        ) from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise VerbatimError(
            f"{option}{folder}", expected=f"a folder that you (uid {os.getuid()}) can write to", found="one you can't",
            then=f"sudo chown $USER {folder}, or add {option}FOLDER",
        )  # fmt: skip
    return folder.resolve()


def _data() -> Path:
    """Where runs outside an image keep downloads: configs/base.yaml says the same."""
    cache = os.environ.get("XDG_CACHE_HOME", "") or str(Path.home() / ".cache")
    return Path(os.environ.get("VERBATIM_DATA", "") or Path(cache) / "verbatim")


def _volumes(runs: Path, data: Path, *, reads: bool) -> dict[str, dict[str, str]]:
    return {
        str(runs): {"bind": "/workspace/runs", "mode": "ro" if reads else "rw"},
        str(data): {"bind": "/data", "mode": "rw"},
    }


def _environment(made: Any, digest: str) -> dict[str, str]:
    """What the record needs to know of the image, and the terminal."""
    terminal = {name: os.environ[name] for name in ("TERM", "NO_COLOR") if name in os.environ}
    return terminal | {
        "COLUMNS": str(shutil.get_terminal_size().columns),
        "HOME": "/tmp",  # noqa: S108  (the one place that any uid can write to)
        "VERBATIM_IMAGE_DIGEST": digest,
        "VERBATIM_CODE": made.labels.get(image.LABEL + "code", ""),
    }  # fmt: skip


def _run(client: Any, name: str, settings: dict[str, Any]) -> int:
    """Start, show, pass signals on, remove: in the order in which nothing is lost and nothing stays."""
    with engine.refusals(name), engine.created(client, settings) as container:
        output = container.attach(stream=True, logs=True, demux=True)
        with _signals(container):
            container.start()
            show(output)
            return int(container.wait()["StatusCode"])


def show(output: Any) -> None:
    """What comes out of a container, where this process's output goes, until it ends."""
    for parts in output:
        for stream, part in zip((sys.stdout, sys.stderr), parts, strict=True):
            stream.buffer.write(part or b"")
            stream.buffer.flush()


@contextmanager
def _signals(container: Any) -> Iterator[None]:
    """Ctrl-C and SIGTERM go to the process inside, which seals its record and ends; this one then ends with its exit code."""
    from docker.errors import APIError

    def send(number: int, _: FrameType | None) -> None:
        try:
            container.kill(signal=number)
        except APIError:  # not started yet, or ended already: nothing in there has anything to seal
            raise KeyboardInterrupt from None

    before = {number: signal.signal(number, send) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
