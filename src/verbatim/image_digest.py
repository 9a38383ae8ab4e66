"""What an image is, whoever built it: a digest of its content, and the first thing in which two images differ.

An image's ID holds times and the builder's own choices, so two builders never agree on it. The content digest covers each file's
path, type, mode, owner, link target and bytes, and what a container starts with: environment, entry point, user, folder. File
times, labels and layers are left out. It reads one stream from the engine and keeps no file of it.
"""

import argparse
import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verbatim import digest, engine
from verbatim.errors import VerbatimError

# The engine makes these in every container; they are no part of the image.
ENGINES_OWN = re.compile(r"\.dockerenv|(dev|proc|sys)(/.*)?|etc/(hostname|hosts|resolv\.conf|mtab)|run/\.containerenv")
STARTS = ("Env", "Entrypoint", "Cmd", "User", "WorkingDir")


@dataclass(frozen=True, kw_only=True, slots=True)
class Content:
    """`files` maps a path to [type, mode, uid, gid, link target, sha256]; `starts` is the part of the config that counts."""

    files: dict[str, list[Any]]
    starts: dict[str, Any]
    stamp: dict[str, str]  # of the locked environment inside; empty where there is none

    @property
    def digest(self) -> str:
        return digest.of_value([self.starts, sorted(self.files.items())])


class _Stream(io.RawIOBase):
    """The engine's chunks as a file that tarfile can read."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks, self._left = iter(chunks), memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left:
            try:
                self._left = memoryview(next(self._chunks))
            except StopIteration:
                return 0
        count = min(len(buffer), len(self._left))
        buffer[:count], self._left = self._left[:count], self._left[count:]
        return count


def files(chunks: Iterable[bytes]) -> tuple[dict[str, list[Any]], dict[str, str]]:
    """The listing of an exported file system, and the stamp of the environment in it. A hard link counts as its file."""
    listed: dict[str, list[Any]] = {}
    stamp: dict[str, str] = {}
    reader: Any = io.BufferedReader(_Stream(chunks), 2**20)
    with tarfile.open(fileobj=reader, mode="r|", bufsize=2**20) as tar:
        for member in tar:
            name = member.name.removeprefix("./").strip("/")
            if not name or name == "." or ENGINES_OWN.fullmatch(name):
                continue
            if member.islnk():
                listed[name] = listed[member.linkname.removeprefix("./").strip("/")]
                continue
            sha = ""
            if member.isfile() and (file := tar.extractfile(member)):
                sum_ = hashlib.sha256()
                while block := file.read(2**20):
                    sum_.update(block)
                    if name == "opt/venv/verbatim.json":
                        stamp = json.loads(block)
                sha = sum_.hexdigest()
            kind = (
                "file"
                if member.isfile()
                else {tarfile.DIRTYPE: "folder", tarfile.SYMTYPE: "link"}.get(member.type, "other")
            )
            listed[name] = [kind, f"{member.mode:04o}", member.uid, member.gid, member.linkname, sha]
    return listed, stamp


def starts(image: Any) -> dict[str, Any]:
    config = image.attrs["Config"]
    return {name: config.get(name) or None for name in STARTS}


def content(client: Any, image: Any) -> Content:
    """Read a whole image (about 8 s for 1.2 GB)."""
    with unstarted(client, image) as container:
        listed, stamp = files(container.export())
    return Content(files=listed, starts=starts(image), stamp=stamp)


@contextmanager
def unstarted(client: Any, image: Any) -> Iterator[Any]:
    """A container to read an image through: made, never started, and removed."""
    settings = {"image": image.id, "entrypoint": ["/nothing"], "command": []}
    with engine.refusals(image.short_id), engine.created(client, settings) as container:
        yield container


def differences(one: Content, other: Content) -> list[str]:
    """A sentence for each thing that differs: first how it starts, then files by path."""
    says = [
        f"{name}: {one.starts[name]} and {other.starts[name]}"
        for name in STARTS
        if one.starts[name] != other.starts[name]
    ]
    for path in sorted(one.files.keys() | other.files.keys()):
        a, b = one.files.get(path), other.files.get(path)
        if a is None or b is None:
            says.append(f"/{path}: only in the {'second' if a is None else 'first'}")
        elif a != b:
            names = ("type", "mode", "uid", "gid", "link target", "sha256")
            parts = [f"{n} {_short(x)} and {_short(y)}" for n, x, y in zip(names, a, b, strict=True) if x != y]
            says.append(f"/{path}: {', '.join(parts)}")
    return says


def _short(value: Any) -> str:
    return str(value)[: digest.SHORT] if isinstance(value, str) and len(value) == 64 else str(value)


def find(client: Any, name: str) -> Any:
    from docker.errors import ImageNotFound

    try:
        with engine.refusals(name):
            return client.images.get(name)
    except VerbatimError as error:
        if isinstance(error.__context__, ImageNotFound):
            raise VerbatimError(
                name, expected="an image of this engine", found="none of that name", then="nox -s build -- train cpu"
            ) from None
        raise


def main(arguments: list[str], _root: Path) -> int:
    parser = argparse.ArgumentParser(
        prog="nox -s image_diff --",
        description="Name what differs between two images. Exit code 1 where something does.",
    )
    parser.add_argument("one", metavar="A")
    parser.add_argument("other", metavar="B")
    parser.add_argument(
        "-n", metavar="N", type=int, default=20, help="how many differences to show (default: 20; 0: all)"
    )
    options = parser.parse_args(arguments)
    with engine.connect() as client:
        one, other = (content(client, find(client, name)) for name in (options.one, options.other))
    print(f"{options.one}  {one.digest}\n{options.other}  {other.digest}")
    found = differences(one, other)
    for says in found[: options.n or None]:
        print(f"  {says}")
    print(f"{len(found)} differences" if found else f"the same content: {len(one.files)} files")
    return 1 if found else 0
