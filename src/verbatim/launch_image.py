"""What it takes to start a recorded run again inside the project's train image, built from the restored code.

The image has a name of its own while the run lasts: those of the checkout stay what they are. No container is left behind.
"""

import contextlib
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from verbatim import container, context, digest, engine, image, image_store, launch
from verbatim.ending import sigterm_raises
from verbatim.errors import VerbatimError
from verbatim.follow import Process
from verbatim.record import Record

WORKSPACE = "/workspace"  # the Dockerfile's own


@contextlib.contextmanager
def prepared(
    run: Record, root: Path, folder: Path, tree: Path, paths: dict[str, Any]
) -> Iterator[Callable[[], Process]]:
    """What starts the run in its image. Places have the same paths inside, so that messages and records name them as outside."""
    variant = launch.locked(run, tree).stem
    if not (tree / context.DOCKERFILE).exists():
        raise VerbatimError(
            "the recorded code", expected=f"{context.DOCKERFILE} in it", found="none", then="leave --in-image out"
        )
    places = {name: str(place.resolve()) for name, place in launch.folders(paths, root).items()}
    launch.write_config(folder / "config", run.recipe_config, paths | places)
    words = launch.command(run.command, tree, Path("python"), folder / "config")
    words = [f"{WORKSPACE}/{word.removeprefix(f'{tree}/')}" if word.startswith(f"{tree}/") else word for word in words]
    with sigterm_raises(), engine.connect() as client, engine.refusals("the train image"):
        devices = _devices(client, run, variant)
        with _image(client, root, folder, tree, variant) as made:
            found = image_store.of(client, made, root)["digest"]
            print(f"image        {_against(run, found)}", flush=True)
            variables = run.environment.get("variables", {}) | launch.FRESH
            settings = container.settings(made, found, variables, _volumes(paths["runs"], places, folder), devices)
            with engine.created(client, settings | {"entrypoint": words[:1], "command": words[1:]}) as box:
                print(f"running      {' '.join(words[1:3])} in the image, with the recorded configuration", flush=True)
                yield lambda: InContainer(box)


@contextlib.contextmanager
def _image(client: Any, root: Path, folder: Path, tree: Path, variant: str) -> Iterator[Any]:
    name = f"verbatim:{folder.name}"
    logs = root / ".nox"
    logs.mkdir(exist_ok=True)
    try:
        yield image.build(client, tree, "train", variant, name=name, logs=logs)
        (logs / f"build-{name.replace(':', '-')}.log").unlink(missing_ok=True)
    finally:
        image.remove(client, name, keep_cache=True)


def _against(run: Record, found: str) -> str:
    """What is built here, and how it stands to what was recorded."""
    recorded = (run.environment.get("image") or {}).get("digest", "")
    if not recorded:
        return f"{digest.short(found)}; the run was recorded outside of one"
    if recorded == found:
        return f"{digest.short(found)}, as recorded"
    return f"{digest.short(found)}, not {digest.short(recorded)} as recorded: other bits may come of it"


def _devices(client: Any, run: Record, variant: str) -> list[Any]:
    """A GPU where the run had one; none where it had none, as it would be used."""
    gpu = run.environment.get("gpu")
    if gpu and (reason := engine.gpus(client.info())):
        raise VerbatimError(
            "--in-image", expected=f"a GPU for the container: the run was recorded on {gpu['name']}", found=reason,
            then="install the NVIDIA Container Toolkit, or leave --in-image out",
        )  # fmt: skip
    return container.gpus(client, variant, required=True) if gpu else []


def _volumes(runs: str, places: dict[str, str], folder: Path) -> dict[str, dict[str, str]]:
    """Written are the runs and what is downloaded, no other place. One that is missing is the run's to complain about."""
    read = [str(folder / "config"), *(place for place in places.values() if Path(place).exists())]
    written = [container.writable(Path(runs), "paths.runs=")]
    if "data" in places:
        written.append(container.writable(Path(places["data"]), "paths.data="))
    modes = dict.fromkeys(read, "ro") | dict.fromkeys(map(str, written), "rw")
    return {place: {"bind": place, "mode": mode} for place, mode in modes.items()}


class InContainer:
    """A container that is started, shown and ended like a process."""

    def __init__(self, box: Any) -> None:
        self._box = box
        output = box.attach(stream=True, logs=True, demux=True)
        self._shown = threading.Thread(target=container.show, args=(output,), daemon=True)
        self._shown.start()
        box.start()

    def poll(self) -> int | None:
        return None if self._shown.is_alive() else self.wait()

    def wait(self, timeout: float | None = None) -> int:
        """Its output ends when it does."""
        self._shown.join(timeout)
        if self._shown.is_alive():
            raise subprocess.TimeoutExpired("the container", timeout or 0)
        return int(self._box.wait()["StatusCode"])

    def send_signal(self, sig: int, /) -> None:
        from docker.errors import APIError

        with contextlib.suppress(APIError):  # it has ended already
            self._box.kill(signal=int(sig))

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)
