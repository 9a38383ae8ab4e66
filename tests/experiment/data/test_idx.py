"""IDX files are read exactly or refused by name: a flipped bit, a cut, a wrong header, counts that don't agree."""

import gzip
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from experiment.data import Data, idx
from experiment.data.data import Pixels
from experiment.data.idx import FILES, read
from verbatim.errors import VerbatimError

CONFIGS = Path(__file__).parents[3] / "configs" / "data"
THEN = "\n  next: pin a whole IDX file under data.url and data.sha256"
ARRAYS = {
    "train_images": np.random.default_rng(0).integers(0, 256, (20, 5, 4), np.uint8),
    "train_labels": np.arange(20, dtype=np.uint8) % 3,
    "test_images": np.random.default_rng(1).integers(0, 256, (6, 5, 4), np.uint8),
    "test_labels": np.arange(6, dtype=np.uint8) % 3,
}


def packed(values: Pixels, magic: bytes | None = None) -> bytes:
    shape = b"".join(size.to_bytes(4) for size in values.shape)
    return gzip.compress((magic or bytes([0, 0, 8, values.ndim])) + shape + values.tobytes(), mtime=0)


@pytest.fixture
def load(served: Path, url: str, tmp_path: Path) -> Callable[..., Data]:
    """Serves the four files, those in `contents` in place of the right ones, pins what it serves, and loads it."""

    def load(contents: dict[str, bytes] | None = None, **changes: Any) -> Data:
        for key, name in FILES.items():
            (served / name).write_bytes((contents or {}).get(key, packed(ARRAYS[key])))
        sha256 = {key: hashlib.sha256((served / name).read_bytes()).hexdigest() for key, name in FILES.items()}
        settings: dict[str, Any] = {"name": "tiny", "url": url, "sha256": sha256, "classes": ["a", "b", "c"]}
        settings |= {"validation": 0.25, "split_seed": 0, "folder": tmp_path / "cache"}
        return idx(**settings | changes)

    return load


def refusal(load: Callable[..., Data], contents: dict[str, bytes]) -> str:
    with pytest.raises(VerbatimError) as error:
        load(contents)
    return str(error.value)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "tiny"


def test_idx_gives_the_pixels_and_labels_that_were_written(load: Callable[..., Data]) -> None:
    data = load()

    assert isinstance(data.images, np.ndarray)
    assert data.shape == (1, 5, 4)
    assert data.classes == ("a", "b", "c")
    assert data.scale == 1 / 255
    assert np.array_equal(data.images[:, 0], np.concatenate([ARRAYS["train_images"], ARRAYS["test_images"]]))
    assert np.array_equal(data.labels, np.concatenate([ARRAYS["train_labels"], ARRAYS["test_labels"]]))
    assert data.images.flags.writeable
    assert data.labels.flags.writeable


def test_the_test_part_is_the_data_sets_own(load: Callable[..., Data]) -> None:
    splits = load().splits

    assert {part: len(indices) for part, indices in splits.items()} == {"train": 15, "validation": 5, "test": 6}
    assert splits["test"].tolist() == [20, 21, 22, 23, 24, 25]


def test_the_files_and_their_digests_are_known(load: Callable[..., Data], cache: Path) -> None:
    files = load().files

    assert files == {path.name: "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest() for path in cache.iterdir()}


def test_plain_values_and_hydras_containers_give_the_same(load: Callable[..., Data]) -> None:
    config = OmegaConf.create({"classes": ["a", "b", "c"], "files": dict(FILES)})

    assert load(classes=config.classes, files=config.files).fingerprint == load().fingerprint


def test_the_second_time_needs_no_network(load: Callable[..., Data], offline: Callable[[], None]) -> None:
    data = load()
    offline()

    assert load(fingerprint=data.fingerprint).fingerprint == data.fingerprint


def test_the_same_pixels_in_another_split_are_refused_by_the_pin(load: Callable[..., Data]) -> None:
    pinned = load().fingerprint

    with pytest.raises(VerbatimError) as error:
        load(split_seed=1, fingerprint=pinned)

    assert str(error.value).startswith(f"data.fingerprint: expected {pinned}, found sha256:")


@pytest.mark.parametrize("name", FILES.values())
def test_a_flipped_bit_in_a_cached_file_is_refused(
    load: Callable[..., Data], cache: Path, flip: Callable[[Path], None], name: str
) -> None:
    expected = load().files[name]
    flip(cache / name)
    found = "sha256:" + hashlib.sha256((cache / name).read_bytes()).hexdigest()

    with pytest.raises(VerbatimError) as error:
        load()

    assert str(error.value) == f"{cache / name}: expected {expected}, found {found}\n  next: rm {cache / name}"


def test_a_pinned_file_that_is_cut_is_refused(load: Callable[..., Data], cache: Path) -> None:
    message = refusal(load, {"train_images": packed(ARRAYS["train_images"])[:100]})

    assert message == (
        f"{cache}/train-images-idx3-ubyte.gz: expected a whole gzip file, "
        "found Compressed file ended before the end-of-stream marker was reached" + THEN
    )


def test_a_pinned_file_that_is_no_gzip_is_refused(load: Callable[..., Data], cache: Path) -> None:
    message = refusal(load, {"test_labels": b"<html>"})

    assert message == (
        f"{cache}/t10k-labels-idx1-ubyte.gz: expected a whole gzip file, found Not a gzipped file (b'<h')" + THEN
    )


def test_a_pinned_file_that_is_corrupt_is_refused(load: Callable[..., Data], cache: Path) -> None:
    content = bytearray(packed(ARRAYS["train_labels"]))
    content[-8] ^= 1  # the first byte of gzip's own checksum

    assert refusal(load, {"train_labels": bytes(content)}).startswith(
        f"{cache}/train-labels-idx1-ubyte.gz: expected a whole gzip file, found CRC check failed"
    )


@pytest.mark.parametrize("magic", ["00000801", "00000d03", "01000803"])
def test_another_magic_number_is_refused(load: Callable[..., Data], cache: Path, magic: str) -> None:
    message = refusal(load, {"train_images": packed(ARRAYS["train_images"], bytes.fromhex(magic))})

    assert message == f"{cache}/train-images-idx3-ubyte.gz: expected magic number 00000803, found {magic}" + THEN


def test_an_empty_file_is_refused(load: Callable[..., Data], cache: Path) -> None:
    message = refusal(load, {"train_images": gzip.compress(b"")})

    assert message == f"{cache}/train-images-idx3-ubyte.gz: expected magic number 00000803, found none" + THEN


@pytest.mark.parametrize(("change", "found"), [(-1, 415), (1, 417)])
def test_a_byte_too_few_or_too_many_is_refused(load: Callable[..., Data], cache: Path, change: int, found: int) -> None:
    content = gzip.decompress(packed(ARRAYS["train_images"]))
    content = content[:change] if change < 0 else content + bytes(change)
    message = refusal(load, {"train_images": gzip.compress(content)})

    assert message == (f"{cache}/train-images-idx3-ubyte.gz: expected 416 bytes for (20, 5, 4), found {found}" + THEN)


def test_labels_that_are_fewer_than_the_images_are_refused(load: Callable[..., Data], cache: Path) -> None:
    message = refusal(load, {"train_labels": packed(ARRAYS["train_labels"][:19])})

    assert message == f"{cache}/train-labels-idx1-ubyte.gz: expected 20 labels, found 19" + THEN


def test_test_images_of_another_size_are_refused(load: Callable[..., Data], cache: Path) -> None:
    message = refusal(load, {"test_images": packed(ARRAYS["test_images"][:, 1:])})

    assert message == (
        f"{cache}/t10k-images-idx3-ubyte.gz: expected images of (5, 4), as in training, found (4, 4)" + THEN
    )


def test_a_label_without_a_class_is_refused(load: Callable[..., Data]) -> None:
    assert refusal(load, {"test_labels": packed(ARRAYS["test_labels"] + 1)}) == "tiny: labels: expected 0 to 2, found 3"


def test_a_digest_that_is_not_given_is_refused(load: Callable[..., Data]) -> None:
    with pytest.raises(VerbatimError) as error:
        load(sha256={"train_images": "0" * 64})

    assert str(error.value) == (
        "data.sha256: expected train_images, train_labels, test_images, test_labels, found train_images"
    )


def test_a_header_that_promises_more_than_memory_holds_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "huge.gz"
    path.write_bytes(gzip.compress(bytes([0, 0, 8, 3]) + b"\xff" * 12))

    with pytest.raises(VerbatimError) as error:
        read(path, 3)

    assert str(error.value) == (
        f"{path}: expected {16 + (2**32 - 1) ** 3} bytes for (4294967295, 4294967295, 4294967295), found 16" + THEN
    )


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_the_configurations_name_what_idx_takes_and_pin_each_file(name: str) -> None:
    config = OmegaConf.load(CONFIGS / f"{name}.yaml")

    assert config._target_ == "experiment.data.idx"
    assert config.name == name
    assert config.url.startswith("https://")
    assert config.files == FILES
    assert len(config.classes) == 10
    assert {key: len(bytes.fromhex(digest)) for key, digest in config.sha256.items()} == dict.fromkeys(FILES, 32)
