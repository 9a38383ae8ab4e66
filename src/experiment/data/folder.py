"""Loads your own images, one folder for each class. It must never drop or repair a file: it refuses it by name."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from experiment.data import manifest as sums
from experiment.data.data import Data, Pixels, check, make, split
from experiment.data.image import FORMATS, decode, read
from verbatim import digest
from verbatim.errors import VerbatimError

T = TypeVar("T")
R = TypeVar("R")


def folder(
    *,
    path: Path | str | None,
    size: int,
    validation: float,
    test: float,
    split_seed: int,
    in_memory: bool,
    fingerprint: str | None = None,
    manifest: Path | str | None = None,
) -> Data:
    """RGB images of (size, size) from `path`/<class>/<image>, squeezed where they are not square.

    `manifest` is a `sha256sum` file of names relative to `path`; `path`/SHA256SUMS is used when it is there.
    The fingerprint is over the files and `size`, the same whether the images are kept in memory or not.
    """
    if path is None:
        raise VerbatimError("paths.folder", expected="the folder of your images", found="none", then="set paths.folder")
    if size < 1:
        raise VerbatimError("data.size", expected="1 pixel or more", found=size)
    root = Path(path)
    classes, names, labels = _listing(root)
    files = dict(zip(names, _parallel(lambda name: digest.of_bytes(read(root / name)), names), strict=True))
    pinned = Path(manifest) if manifest is not None else root / "SHA256SUMS"
    if manifest is not None or pinned.exists():
        listed = sums.read(pinned)
        sums.check(root, files, pinned, {name: listed[name] for name in listed if Path(name).suffix.lower() in FORMATS})
    lazy = FolderImages(root.absolute(), tuple(files.items()), size)
    data = make(
        name=root.absolute().name,
        images=_pixels(lazy) if in_memory else lazy,
        labels=np.array(labels),
        classes=classes,
        scale=1 / 255,
        splits=split(len(names), validation=validation, test=test, seed=split_seed),
        files=files,
        by_files=True,
    )
    return check(data, fingerprint)


def _parallel(function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    """In order. Threads help: waiting for the disk, hashing and decoding all release the interpreter's lock."""
    with ThreadPoolExecutor() as pool:
        yield from pool.map(function, items)


@dataclass(frozen=True, slots=True)
class FolderImages:
    """Decodes an image when it is asked for, and refuses it if it has changed since the run began."""

    root: Path
    files: tuple[tuple[str, str], ...]  # name, digest
    size: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self.files), 3, self.size, self.size

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int, /) -> Pixels:
        name, expected = self.files[index]
        content = read(self.root / name)
        found = digest.of_bytes(content)
        if found != expected:
            raise VerbatimError(self.root / name, expected=expected, found=found, then="restore it, and start again")
        return decode(self.root / name, content, self.size)


def _pixels(lazy: FolderImages) -> Pixels:
    pixels = np.empty(lazy.shape, np.uint8)
    for index, image in enumerate(_parallel(lazy.__getitem__, range(len(lazy)))):
        pixels[index] = image
    return pixels


def _listing(root: Path) -> tuple[list[str], list[str], list[int]]:
    """Classes, names relative to `root` and labels; sorted by code point, so that no locale or disk has a say."""
    then = f"put images in {root}/<class>/, or set paths.folder"
    if not root.is_dir():
        raise VerbatimError(root, expected="a folder with one folder of images for each class", found="none", then=then)
    entries = list(_visible(root))
    for entry in entries:
        if entry.suffix.lower() in FORMATS and entry.is_file():
            raise VerbatimError(entry, expected="images in the folder of their class", found="one outside", then=then)
    classes = [entry.name for entry in entries if entry.is_dir()]
    if len(classes) < 2:
        raise VerbatimError(root, expected="2 classes or more", found=", ".join(classes) or "none", then=then)
    names, labels = list[str](), list[int]()
    for label, name in enumerate(classes):
        images = list(_visible(root / name))
        if not images:
            raise VerbatimError(root / name, expected="images", found="none", then=f"add some, or rmdir {root / name}")
        for image in images:
            if image.suffix.lower() not in FORMATS or image.is_dir():
                move = "convert it, or move it out of the folder"
                raise VerbatimError(image, expected=f"an image ({' '.join(FORMATS)})", found="another kind", then=move)
        names += [f"{name}/{image.name}" for image in images]
        labels += [label] * len(images)
    return classes, names, labels


def _visible(path: Path) -> Iterator[Path]:
    for name in sorted(entry.name for entry in path.iterdir()):
        if name.encode(errors="replace") != name.encode(errors="surrogateescape"):  # a record could not hold it
            raise VerbatimError(path, expected="names in UTF-8", found=ascii(name), then="rename it")
        if not name.startswith("."):
            yield path / name
