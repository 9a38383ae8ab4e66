"""Loads data sets in MNIST's IDX format, downloaded and pinned. It must never guess at a file that is not exactly one.

The format, http://yann.lecun.com/exdb/mnist: two zero bytes, the type (8: unsigned byte), the number of dimensions,
each of them as a big-endian 32-bit integer, then the values in row-major order.
"""

import gzip
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from experiment.data.data import Data, Pixels, check, make, split
from experiment.data.download import fetch
from verbatim.errors import VerbatimError

FILES = {
    "train_images": "train-images-idx3-ubyte.gz",
    "train_labels": "train-labels-idx1-ubyte.gz",
    "test_images": "t10k-images-idx3-ubyte.gz",
    "test_labels": "t10k-labels-idx1-ubyte.gz",
}
THEN = "pin a whole IDX file under data.url and data.sha256"


def idx(
    *,
    name: str,
    url: str,
    sha256: Mapping[str, str],
    classes: Iterable[str],
    validation: float,
    split_seed: int,
    folder: Path | str,
    files: Mapping[str, str] = FILES,
    fingerprint: str | None = None,
) -> Data:
    """`url` is the folder of the four files, `files` and `sha256` are their names and digests, by `FILES`' keys.

    `folder` is the cache, in which each data set has a folder of its own. The test part is the data set's own.
    """
    for where, given in (("data.sha256", sha256), ("data.files", files)):
        if set(given) != set(FILES):
            raise VerbatimError(where, expected=", ".join(FILES), found=", ".join(map(str, given)) or "none")
    paths = {key: fetch(f"{url.rstrip('/')}/{files[key]}", str(sha256[key]), Path(folder) / name) for key in FILES}
    train, train_labels = _pair(paths["train_images"], paths["train_labels"])
    test, test_labels = _pair(paths["test_images"], paths["test_labels"])
    if train.shape[1:] != test.shape[1:]:
        expected = f"images of {train.shape[1:]}, as in training"
        raise VerbatimError(paths["test_images"], expected=expected, found=test.shape[1:], then=THEN)
    splits = split(len(train), validation=validation, test=None, seed=split_seed)
    data = make(
        name=name,
        images=np.concatenate([train, test])[:, None],
        labels=np.concatenate([train_labels, test_labels]),
        classes=map(str, classes),
        scale=1 / 255,
        splits={**splits, "test": np.arange(len(train), len(train) + len(test))},
        files={paths[key].name: f"sha256:{str(sha256[key]).lower()}" for key in FILES},
    )
    return check(data, fingerprint)


def _pair(images_path: Path, labels_path: Path) -> tuple[Pixels, Pixels]:
    images, labels = read(images_path, 3), read(labels_path, 1)  # (N, H, W), (N,)
    if len(images) != len(labels):
        raise VerbatimError(labels_path, expected=f"{len(images)} labels", found=len(labels), then=THEN)
    return images, labels


def read(path: Path, dimensions: int) -> Pixels:
    """The array in a gzipped IDX file of unsigned bytes; read-only."""
    try:
        with gzip.open(path) as file:
            content = file.read()
    except (EOFError, OSError, zlib.error) as error:
        raise VerbatimError(path, expected="a whole gzip file", found=error, then=THEN) from error
    magic = bytes([0, 0, 8, dimensions])
    if content[:4] != magic:
        raise VerbatimError(path, expected=f"magic number {magic.hex()}", found=content[:4].hex() or "none", then=THEN)
    header = 4 + 4 * dimensions
    shape = tuple(int.from_bytes(content[at : at + 4]) for at in range(4, header, 4))
    size_bytes = header + int(np.prod(shape, dtype=object))
    if len(content) != size_bytes:
        raise VerbatimError(path, expected=f"{size_bytes} bytes for {shape}", found=len(content), then=THEN)
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
