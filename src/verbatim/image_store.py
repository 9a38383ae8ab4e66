"""Remembers what images hold, in `.nox/images/`, so that a content digest after an edit of the code takes half a second.

It only saves time: what is missing or damaged is read from the engine again.
"""

import json
import re
from pathlib import Path
from typing import Any

from verbatim import digest, record
from verbatim.image_digest import Content, content, files, starts, unstarted

FOLDER = Path(".nox") / "images"
# The Dockerfile's steps that come after the environment change nothing outside this folder: a COPY or WORKDIR can't.
CODE = "workspace"
CODE_STEP = re.compile(rf"/bin/sh -c #\(nop\) (COPY .* in|WORKDIR) /{CODE}\s*")


def of(client: Any, image: Any, root: Path) -> dict[str, Any]:
    """`digest`, number of `files`, and the `python`, `lock` and `variant` of the environment in an image."""
    path = root / FOLDER / f"{_key([image.attrs['RootFS']['Layers'], starts(image)])}.json"
    known = _read(path)
    if not known:
        read = _content(client, image, root)
        known = {"digest": read.digest, "files": len(read.files)}
        known |= {name: read.stamp.get(name, "") for name in ("python", "lock", "variant")}
        _write(path, known)
    return known


def _content(client: Any, image: Any, root: Path) -> Content:
    """The whole content; where only the code is new, the rest comes from the listing that was kept."""
    below = _without_code(client, image)
    if below is None:
        return content(client, image)
    path = root / FOLDER / f"{_key(below)}.listing.json"
    kept = _read(path)
    if not kept:
        read = content(client, image)
        rest = {name: entry for name, entry in read.files.items() if not _is_code(name)}
        _write(path, {"files": rest, "stamp": read.stamp})
        return read
    with unstarted(client, image) as container:
        code, _ = files(container.get_archive(f"/{CODE}")[0])
    return Content(files=kept["files"] | code, starts=starts(image), stamp=kept["stamp"])


def _without_code(client: Any, image: Any) -> list[str] | None:
    """The layers below the code; None where the builder kept no chain of steps (BuildKit), or nothing is known to be code."""
    layers: list[str] = image.attrs["RootFS"]["Layers"]
    while image.attrs.get("Parent"):
        parent = client.images.get(image.attrs["Parent"])
        below: list[str] = parent.attrs["RootFS"]["Layers"]
        if below != layers:
            if not CODE_STEP.fullmatch(image.history()[0]["CreatedBy"]):
                return layers if layers else None
            layers = below
        image = parent
    return None


def _is_code(name: str) -> bool:
    return name == CODE or name.startswith(f"{CODE}/")


def _key(value: Any) -> str:
    return digest.short(digest.of_value(value))


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    record.write_atomically(path, json.dumps(value).encode())
