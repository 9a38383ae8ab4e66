"""What is no folder of images is refused: nothing is dropped, repaired or clipped in silence."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from experiment.data import Data
from verbatim.errors import VerbatimError

SUFFIXES = "(.bmp .gif .jpeg .jpg .pgm .png .ppm .tif .tiff .webp)"


def refusal(load: Callable[..., Data], **changes: Any) -> str:
    with pytest.raises(VerbatimError) as error:
        load(**changes)
    return str(error.value)


def test_a_folder_that_is_not_set_is_refused(load: Callable[..., Data]) -> None:
    assert refusal(load, path=None) == (
        "paths.folder: expected the folder of your images, found none\n  next: set paths.folder"
    )


def test_a_missing_folder_is_refused(load: Callable[..., Data], tmp_path: Path) -> None:
    path = tmp_path / "none"

    assert refusal(load, path=path) == (
        f"{path}: expected a folder with one folder of images for each class, found none\n"
        f"  next: put images in {path}/<class>/, or set paths.folder"
    )


def test_an_empty_folder_is_refused(load: Callable[..., Data], tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.mkdir()

    assert refusal(load, path=path) == (
        f"{path}: expected 2 classes or more, found none\n  next: put images in {path}/<class>/, or set paths.folder"
    )


def test_one_class_is_refused(load: Callable[..., Data], root: Path) -> None:
    (root / "dog").rename(root / ".dog")

    assert refusal(load) == (
        f"{root}: expected 2 classes or more, found cat\n  next: put images in {root}/<class>/, or set paths.folder"
    )


def test_a_class_without_images_is_refused(load: Callable[..., Data], root: Path) -> None:
    (root / "ape").mkdir()

    assert refusal(load) == f"{root}/ape: expected images, found none\n  next: add some, or rmdir {root}/ape"


def test_an_image_outside_the_classes_is_refused(load: Callable[..., Data], root: Path) -> None:
    (root / "cat" / "0.png").rename(root / "0.png")

    assert refusal(load) == (
        f"{root}/0.png: expected images in the folder of their class, found one outside\n"
        f"  next: put images in {root}/<class>/, or set paths.folder"
    )


@pytest.mark.parametrize("name", ["0.heic", "notes.txt", "sub.png"])
def test_what_is_no_image_is_refused_and_not_dropped(load: Callable[..., Data], root: Path, name: str) -> None:
    path = root / "cat" / name
    path.mkdir() if name == "sub.png" else path.touch()

    assert refusal(load) == (
        f"{path}: expected an image {SUFFIXES}, found another kind\n  next: convert it, or move it out of the folder"
    )


def test_an_image_of_16_bits_is_refused_and_not_clipped(load: Callable[..., Data], root: Path) -> None:
    Image.fromarray(np.full((4, 4), 300, np.uint16)).save(root / "cat" / "0.png")

    assert refusal(load) == f"{root}/cat/0.png: expected an image of 8 bits a channel, found mode I;16"


def test_a_file_that_only_claims_to_be_an_image_is_refused(load: Callable[..., Data], root: Path) -> None:
    (root / "dog" / "2.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0")

    assert refusal(load) == (
        f"{root}/dog/2.png: expected a whole image, found no format it knows\n  next: restore it, or remove it"
    )


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_cut_image_is_refused(load: Callable[..., Data], root: Path, in_memory: bool) -> None:
    path = root / "cat" / "0.JPG"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:1500])

    with pytest.raises(VerbatimError) as error:
        load(in_memory=in_memory).images[0]

    assert str(error.value).startswith(f"{path}: expected a whole image, found image file is truncated")
    assert str(error.value).endswith("\n  next: restore it, or remove it")


def test_a_size_below_a_pixel_is_refused(load: Callable[..., Data]) -> None:
    assert refusal(load, size=0) == "data.size: expected 1 pixel or more, found 0"


def test_a_name_that_no_record_can_hold_is_refused(load: Callable[..., Data], root: Path) -> None:
    os.rename(root / "cat" / "0.png", os.fsencode(root / "cat") + b"/\xe9.png")

    assert refusal(load) == f"{root}/cat: expected names in UTF-8, found '\\udce9.png'\n  next: rename it"


def test_a_split_that_leaves_a_part_empty_is_refused(load: Callable[..., Data]) -> None:
    assert refusal(load, test=0.01) == ("data.test: expected a fraction that takes 1 of 10 images or more, found 0.01")
