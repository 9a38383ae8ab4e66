"""Your own images: sorted, decoded in one way, lazily or at once, under a fingerprint that covers them."""

import hashlib
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from experiment.data import Data
from verbatim.errors import VerbatimError


def sha256(path: Path) -> str:
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


def everything(data: Data) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.stack([data.images[index] for index in range(len(data.images))])


def test_classes_and_images_are_sorted(load: Callable[..., Data]) -> None:
    data = load()

    assert data.name == "pets"
    assert data.classes == ("cat", "dog")
    assert data.labels.tolist() == [0] * 5 + [1] * 5
    assert list(data.files) == [f"{name}/{number}.png" for name in ("cat", "dog") for number in range(5)]


def test_every_file_has_its_digest(load: Callable[..., Data], root: Path) -> None:
    assert load().files == {name: sha256(root / name) for name in load().files}


def test_pixels_of_the_right_size_are_those_of_the_file(load: Callable[..., Data], root: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8)
    Image.fromarray(pixels).save(root / "cat" / "0.png")
    data = load()

    assert data.shape == (3, 4, 4)
    assert np.array_equal(data.images[0], pixels.transpose(2, 0, 1))


def test_images_of_another_size_are_resized(load: Callable[..., Data]) -> None:
    assert load(size=7).shape == (3, 7, 7)
    assert load(size=1).images[0].flags.writeable


@pytest.mark.parametrize("suffix", ["bmp", "gif", "jpeg", "JPG", "pgm", "png", "ppm", "tif", "tiff", "webp"])
def test_each_format_is_read(load: Callable[..., Data], root: Path, suffix: str) -> None:
    Image.new("L", (4, 4), 77).save(root / "cat" / f"0.{suffix}")
    data = load()
    image = data.images[list(data.files).index(f"cat/0.{suffix}")]

    assert image.shape == (3, 4, 4)
    assert abs(image.astype(int) - 77).max() <= 1


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_each_mode_of_8_bits_becomes_rgb(load: Callable[..., Data], root: Path, mode: str) -> None:
    Image.new("L", (4, 4), 255).convert(mode).save(root / "cat" / "0.png")

    assert (load().images[0] == 255).all()


def test_lazy_images_are_those_in_memory(load: Callable[..., Data]) -> None:
    lazy, memory = load(in_memory=False), load()

    assert lazy.shape == memory.shape
    assert len(lazy.images) == len(memory.images) == 10
    assert np.array_equal(everything(lazy), everything(memory))


def test_lazy_images_survive_the_way_to_a_worker(load: Callable[..., Data]) -> None:
    images = load(in_memory=False).images

    with ProcessPoolExecutor(1, get_context("spawn")) as workers:
        theirs = workers.submit(images.__getitem__, 3).result()

    assert np.array_equal(theirs, images[3])


def test_lazy_images_end(load: Callable[..., Data]) -> None:
    with pytest.raises(IndexError):
        load(in_memory=False).images[10]


def test_hidden_files_and_files_beside_the_classes_are_no_data(load: Callable[..., Data], root: Path) -> None:
    before = load().fingerprint
    (root / "README.md").touch()
    (root / ".git").mkdir()
    (root / "cat" / ".DS_Store").touch()

    assert load().fingerprint == before


@pytest.mark.parametrize("in_memory", [True, False])
def test_the_pin_holds_until_a_pixel_a_name_the_size_or_the_split_changes(
    load: Callable[..., Data], root: Path, in_memory: bool
) -> None:
    pinned = load(in_memory=in_memory).fingerprint
    assert load(in_memory=in_memory, fingerprint=pinned).fingerprint == pinned

    found = {
        load(in_memory=in_memory, **change).fingerprint for change in ({"size": 5}, {"split_seed": 1}, {"test": 0.3})
    }
    (root / "cat").rename(root / "cow")
    found.add(load(in_memory=in_memory).fingerprint)
    (root / "cow").rename(root / "cat")
    Image.new("RGB", (6, 4)).save(root / "dog" / "4.png")
    found.add(load(in_memory=in_memory).fingerprint)

    assert len(found) == 5
    assert pinned not in found


def test_a_pin_that_does_not_hold_is_refused(load: Callable[..., Data]) -> None:
    found = load().fingerprint

    with pytest.raises(VerbatimError) as error:
        load(fingerprint="sha256:00")

    assert str(error.value) == (
        f"data.fingerprint: expected sha256:00, found {found}\n"
        f"  next: restore the data and its split, or take them as they are: data.fingerprint={found}"
    )


def test_a_file_that_changes_after_the_start_is_refused_when_it_is_read(
    load: Callable[..., Data], root: Path, flip: Callable[[Path], None]
) -> None:
    path, images = root / "cat" / "3.png", load(in_memory=False).images
    before = sha256(path)
    flip(path)

    with pytest.raises(VerbatimError) as error:
        images[3]

    assert str(error.value) == f"{path}: expected {before}, found {sha256(path)}\n  next: restore it, and start again"


def test_a_file_that_goes_after_the_start_is_refused_when_it_is_read(load: Callable[..., Data], root: Path) -> None:
    images = load(in_memory=False).images
    (root / "cat" / "3.png").unlink()

    with pytest.raises(VerbatimError) as error:
        images[3]

    assert str(error.value) == (
        f"{root}/cat/3.png: expected an image that can be read, found No such file or directory"
    )
