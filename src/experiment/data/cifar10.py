"""Loads CIFAR-10 from its binary archive. It must never touch the pickled one, nor unpack either to disk.

The format, https://www.cs.toronto.edu/~kriz/cifar.html: six files of 10,000 records; a record is one byte of
label, then 1,024 bytes each of red, green and blue, in row-major order.
"""

import tarfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from experiment.data.data import Data, Pixels, check, make, split
from experiment.data.download import fetch
from verbatim.errors import VerbatimError

INSIDE = "cifar-10-batches-bin/"
BATCHES = (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin")
NAMES = "batches.meta.txt"
ROWS = 10_000
SHAPE = (3, 32, 32)
RECORD_BYTES = 1 + 3 * 32 * 32
TEXT_BYTES = 4096  # more than ten names need
THEN = "pin the binary version under data.url and data.sha256"


def cifar10(
    *,
    url: str,
    sha256: str,
    validation: float,
    split_seed: int,
    folder: Path | str,
    fingerprint: str | None = None,
) -> Data:
    """`folder` is the cache. The test part is the data set's own 10,000 images, last in `images`."""
    path = fetch(url, sha256, Path(folder) / "cifar10")
    images, labels, classes = read(path)
    n = (len(BATCHES) - 1) * ROWS
    splits = split(n, validation=validation, test=None, seed=split_seed)
    data = make(
        name="cifar10",
        images=images,
        labels=labels,
        classes=classes,
        scale=1 / 255,
        splits={**splits, "test": np.arange(n, n + ROWS)},
        files={path.name: f"sha256:{sha256.lower()}"},
    )
    return check(data, fingerprint)


def read(path: Path, rows: int = ROWS) -> tuple[Pixels, Pixels, list[str]]:
    """Images (6 x rows, 3, 32, 32) and labels in the order of `BATCHES`, class names; `rows` are a batch's records."""
    images = np.empty((len(BATCHES) * rows, *SHAPE), np.uint8)
    labels = np.empty(len(images), np.uint8)
    classes: list[str] = []
    for name, content in _members(path, {**dict.fromkeys(BATCHES, rows * RECORD_BYTES), NAMES: None}):
        if name == NAMES:
            classes = content.decode("ascii", "replace").split()
            continue
        records = np.frombuffer(content, np.uint8).reshape(rows, RECORD_BYTES)
        start = BATCHES.index(name) * rows
        labels[start : start + rows] = records[:, 0]
        images[start : start + rows] = records[:, 1:].reshape(rows, *SHAPE)
    if len(classes) != 10:
        raise VerbatimError(f"{path}: {INSIDE}{NAMES}", expected="10 class names", found=len(classes), then=THEN)
    return images, labels, classes


def _members(path: Path, sizes: Mapping[str, int | None]) -> Iterator[tuple[str, bytes]]:
    """Each of the named members once, in the archive's order; `sizes` are in bytes, None for a short text."""
    left = dict(sizes)
    try:
        # A stream reads on and never back: one pass over the gzip, and memory for one batch.
        with tarfile.open(path, "r|gz") as archive:
            for member in archive:
                name = member.name.removeprefix(INSIDE)
                if name in sizes and member.name == INSIDE + name:
                    yield name, _content(f"{path}: {member.name}", archive, member, left.pop(name, -1))
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise VerbatimError(path, expected="a whole tar.gz file", found=error, then=THEN) from error
    if left:
        raise VerbatimError(f"{path}: {INSIDE}{min(left)}", expected="it in the archive", found="none", then=THEN)


def _content(where: str, archive: tarfile.TarFile, member: tarfile.TarInfo, size_bytes: int | None) -> bytes:
    """Refuses by kind and size before it reads; a size of -1 says that the member was there before."""
    file = archive.extractfile(member) if member.isreg() else None
    if size_bytes == -1:
        raise VerbatimError(where, expected="it once in the archive", found="it twice", then=THEN)
    if file is None:
        raise VerbatimError(where, expected="a plain file", found="another kind", then=THEN)
    if size_bytes is not None and member.size != size_bytes:
        raise VerbatimError(where, expected=f"{size_bytes} bytes", found=member.size, then=THEN)
    if member.size > max(TEXT_BYTES, size_bytes or 0):
        raise VerbatimError(where, expected=f"{TEXT_BYTES} bytes at most", found=member.size, then=THEN)
    return file.read()
