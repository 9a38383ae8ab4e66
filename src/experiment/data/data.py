"""What every loader gives: pixels, labels, splits and one fingerprint. It must never import torch: it refuses fast."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from verbatim import digest
from verbatim.errors import VerbatimError

PARTS = ("train", "validation", "test")

Pixels = NDArray[np.uint8]  # (N, C, H, W), or (C, H, W) for one image
Indices = NDArray[np.int64]  # (N,)


class LazyImages(Protocol):
    """Images that are read when asked for. Picklable, so that a data loader's workers can read them too."""

    @property
    def shape(self) -> tuple[int, int, int, int]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Pixels: ...


Images = Pixels | LazyImages


# eq=False: `==` between arrays has no single answer; two data sets are the same when their fingerprints are.
@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Data:
    """`scale` times a pixel is in [0, 1]; `splits` maps train, validation and test to sorted positions in `images`;
    `files` maps each source file to the digest of its bytes. Made by `make`, which takes the fingerprint."""

    name: str
    images: Images
    labels: Indices
    classes: tuple[str, ...]
    scale: float
    splits: dict[str, Indices]
    files: dict[str, str]
    fingerprint: str

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of each image."""
        _, c, h, w = self.images.shape
        return c, h, w


def make(
    *,
    name: str,
    images: Images,
    labels: NDArray[Any],
    classes: Iterable[str],
    scale: float,
    splits: Mapping[str, Indices],
    files: Mapping[str, str],
    by_files: bool = False,
) -> Data:
    """Refuses what does not fit, then takes the fingerprint: over the pixels, or (`by_files`) over the files they come from."""
    classes, ordered = tuple(classes), {part: splits[part] for part in PARTS}
    if isinstance(images, np.ndarray):
        if images.dtype != np.uint8 or images.ndim != 4:
            found = f"{images.dtype} {images.shape}"
            raise VerbatimError(f"{name}: images", expected="uint8 (N, C, H, W)", found=found)
        images = np.ascontiguousarray(images)
    if len(images) != len(labels):
        raise VerbatimError(f"{name}: labels", expected=f"one for each of {len(images)} images", found=len(labels))
    labels = labels.astype(np.int64)
    wrong = labels[(labels < 0) | (labels >= len(classes))]
    if wrong.size:
        raise VerbatimError(f"{name}: labels", expected=f"0 to {len(classes) - 1}", found=wrong[0])
    uses = np.bincount(np.concatenate(list(ordered.values())), minlength=len(images))
    if len(uses) > len(images) or uses.max(initial=0) > 1:
        found = "one in two of them, or one that is not there"
        raise VerbatimError(f"{name}: splits", expected="each image in one part at most", found=found)
    pixels = digest.canonical(dict(files)) if by_files else images
    return Data(
        name=name,
        images=images,
        labels=labels,
        classes=classes,
        scale=scale,
        splits=ordered,
        files=dict(files),
        fingerprint=digest.of_parts(_parts(pixels, images.shape, labels, classes, scale, ordered)),
    )


def _parts(
    pixels: Any,
    shape: tuple[int, ...],
    labels: Indices,
    classes: tuple[str, ...],
    scale: float,
    splits: Mapping[str, Indices],
) -> Iterator[tuple[str, Any]]:
    yield f"images uint8 {list(shape)}", pixels
    yield "labels", labels.astype("<i8").tobytes()
    yield "classes, scale", digest.canonical([classes, scale])
    for part, indices in splits.items():
        yield f"split {part}", indices.astype("<i8").tobytes()


def split(n: int, *, validation: float, test: float | None, seed: int) -> dict[str, Indices]:
    """Sorted positions of each part; no `test` where the data set brings its own. `seed` is not the training seed, and
    the test part does not move when only `validation` changes.

    Drawn from PCG64's raw output, which NumPy keeps the same in every release; `Generator.permutation` has no such
    promise: https://numpy.org/neps/nep-0019-rng-policy.html
    """
    if seed < 0:
        raise VerbatimError("data.split_seed", expected="0 or more", found=seed)
    fractions = {"validation": validation} if test is None else {"test": test, "validation": validation}
    order = np.argsort(np.random.PCG64(seed).random_raw(n), kind="stable")
    parts: dict[str, Indices] = {}
    for part, fraction in fractions.items():
        size = round(n * fraction) if 0 < fraction < 1 else 0
        if not size:
            expected = f"a fraction that takes 1 of {n} images or more"
            raise VerbatimError(f"data.{part}", expected=expected, found=fraction)
        parts[part], order = np.sort(order[:size]).astype(np.int64), order[size:]
    if not len(order):
        where = " + ".join(f"data.{part}" for part in fractions)
        found = " + ".join(map(str, fractions.values()))
        raise VerbatimError(where, expected=f"1 of {n} images or more left to train on", found=found)
    return {"train": np.sort(order).astype(np.int64), **parts}


def first_difference(expected: Mapping[str, str], found: Mapping[str, str]) -> str | None:
    """The first file, by sorted name, that is changed, missing or extra."""
    names = sorted(expected.keys() | found.keys())
    return next((name for name in names if expected.get(name) != found.get(name)), None)


def check(data: Data, expected: str | None, files: Mapping[str, str] | None = None) -> Data:
    """Gives `data` back, or refuses it; given the digests that its files should have, it names the first wrong one."""
    if expected is None or expected == data.fingerprint:
        return data
    found = data.fingerprint
    if files is not None:
        name = first_difference(files, data.files)
        found += f"; the first file that differs is {name}" if name else "; every file is the same, the split is not"
    then = f"restore the data and its split, or take them as they are: data.fingerprint={data.fingerprint}"
    raise VerbatimError("data.fingerprint", expected=expected, found=found, then=then)
