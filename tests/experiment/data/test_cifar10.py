"""CIFAR-10's binary archive is read exactly, without unpacking it, or refused by the member's name."""

import gzip
import hashlib
import io
import tarfile
from collections.abc import Callable
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from experiment.data import cifar10
from experiment.data.cifar10 import BATCHES, INSIDE, NAMES, RECORD_BYTES, ROWS, read
from verbatim.errors import VerbatimError

CONFIG = Path(__file__).parents[3] / "configs" / "data" / "cifar10.yaml"
FEW = 3  # records in each batch of the small archives here
CLASSES = [f"class{number}" for number in range(10)]
THEN = "\n  next: pin the binary version under data.url and data.sha256"


def batch(seed: int, rows: int = FEW) -> bytes:
    records = np.random.default_rng(seed).integers(0, 256, (rows, RECORD_BYTES), np.uint8)
    records[:, 0] = np.arange(rows) % 10
    return records.tobytes()


def members(**changes: bytes) -> dict[str, bytes]:
    """Small batches, last first: in the real archive they have no order. `changes` are by name, up to the dot."""
    contents = {name: changes.get(name.split(".")[0], batch(seed)) for seed, name in enumerate(BATCHES)}
    contents |= {NAMES: changes.get("names", "\n".join([*CLASSES, "", ""]).encode()), "readme.html": b"<html>"}
    return {INSIDE + name: contents[name] for name in sorted(contents, reverse=True)}


def without(name: str) -> dict[str, bytes]:
    return {each: content for each, content in members().items() if each != INSIDE + name}


def packed(contents: dict[str, bytes], extra: list[tarfile.TarInfo] | None = None) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz", compresslevel=1) as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for member in extra or []:
            archive.addfile(member)
    return file.getvalue()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path / "cifar-10-binary.tar.gz"


def refusal(archive: Path, content: bytes) -> str:
    archive.write_bytes(content)
    with pytest.raises(VerbatimError) as error:
        read(archive, FEW)
    return str(error.value)


def test_read_gives_the_batches_in_order_whatever_their_order_in_the_archive(archive: Path) -> None:
    archive.write_bytes(packed(members()))
    images, labels, classes = read(archive, FEW)

    records = np.frombuffer(b"".join(batch(seed) for seed in range(6)), np.uint8).reshape(-1, RECORD_BYTES)
    assert images.shape == (18, 3, 32, 32)
    assert images.dtype == np.uint8
    assert np.array_equal(images.reshape(18, -1), records[:, 1:])
    assert np.array_equal(labels, records[:, 0])
    assert classes == CLASSES


def test_red_green_and_blue_are_planes(archive: Path) -> None:
    record = bytes([1]) + bytes([10]) * 1024 + bytes([20]) * 1024 + bytes([30]) * 1024
    archive.write_bytes(packed(members(data_batch_1=record * FEW)))
    images, _, _ = read(archive, FEW)

    assert [np.unique(plane).tolist() for plane in images[0]] == [[10], [20], [30]]


def test_nothing_is_unpacked(archive: Path) -> None:
    archive.write_bytes(packed(members()))
    read(archive, FEW)

    assert list(archive.parent.iterdir()) == [archive]


def test_a_member_that_climbs_out_of_its_folder_is_not_read(archive: Path) -> None:
    message = refusal(archive, packed({f"../{name}": content for name, content in members().items()}))

    assert message == f"{archive}: {INSIDE}batches.meta.txt: expected it in the archive, found none" + THEN


@pytest.mark.parametrize("name", [*BATCHES, NAMES])
def test_a_missing_member_is_named(archive: Path, name: str) -> None:
    message = refusal(archive, packed(without(name)))

    assert message == f"{archive}: {INSIDE}{name}: expected it in the archive, found none" + THEN


@pytest.mark.parametrize("change", [-1, 1, -RECORD_BYTES])
def test_a_batch_of_another_size_is_refused(archive: Path, change: int) -> None:
    content = batch(0)[:change] if change < 0 else batch(0) + bytes(change)
    message = refusal(archive, packed(members(test_batch=content)))

    size = FEW * RECORD_BYTES
    assert message == f"{archive}: {INSIDE}test_batch.bin: expected {size} bytes, found {size + change}" + THEN


def test_names_that_are_too_long_are_refused(archive: Path) -> None:
    message = refusal(archive, packed(members(names=b"x" * 4097)))

    assert message == f"{archive}: {INSIDE}{NAMES}: expected 4096 bytes at most, found 4097" + THEN


def test_nine_class_names_are_refused(archive: Path) -> None:
    message = refusal(archive, packed(members(names="\n".join(CLASSES[:9]).encode())))

    assert message == f"{archive}: {INSIDE}{NAMES}: expected 10 class names, found 9" + THEN


def test_a_link_in_place_of_a_batch_is_refused(archive: Path) -> None:
    link = tarfile.TarInfo(INSIDE + "test_batch.bin")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    message = refusal(archive, packed(without("test_batch.bin"), [link]))

    assert message == f"{archive}: {INSIDE}test_batch.bin: expected a plain file, found another kind" + THEN


def test_a_batch_that_is_there_twice_is_refused(archive: Path) -> None:
    again = tarfile.TarInfo(INSIDE + "test_batch.bin")
    message = refusal(archive, packed(members(), [again]))

    assert message == f"{archive}: {INSIDE}test_batch.bin: expected it once in the archive, found it twice" + THEN


@pytest.mark.parametrize("part", [0.02, 0.5, 0.98])
def test_a_cut_archive_is_refused(archive: Path, part: float) -> None:
    content = packed(members())
    message = refusal(archive, content[: int(len(content) * part)])

    assert message.startswith(f"{archive}: expected a whole tar.gz file, found ")
    assert message.endswith(THEN)


@pytest.mark.parametrize("content", [b"", b"<html>", gzip.compress(b"<html>")])
def test_what_is_no_archive_is_refused(archive: Path, content: bytes) -> None:
    message = refusal(archive, content)

    assert message.startswith(f"{archive}: expected a whole tar.gz file, found ")
    assert message.endswith(THEN)


def test_a_whole_archive_is_downloaded_once_checked_and_split(
    served: Path, server: ThreadingHTTPServer, tmp_path: Path, offline: Callable[[], None], flip: Callable[[Path], None]
) -> None:
    empty = bytes(ROWS * RECORD_BYTES)
    contents = {INSIDE + name: empty for name in BATCHES} | {INSIDE + NAMES: " ".join(CLASSES).encode()}
    content = packed(contents)
    (served / "cifar-10-binary.tar.gz").write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    settings: dict[str, Any] = {"validation": 0.1, "split_seed": 0, "folder": tmp_path / "cache", "sha256": sha256}
    settings["url"] = f"http://127.0.0.1:{server.server_port}/cifar-10-binary.tar.gz"

    data = cifar10(**settings)

    assert data.shape == (3, 32, 32)
    assert data.classes == tuple(CLASSES)
    assert {part: len(indices) for part, indices in data.splits.items()} == {
        "train": 45_000, "validation": 5_000, "test": 10_000,
    }  # fmt: skip
    assert data.splits["test"].tolist() == list(range(50_000, 60_000))
    assert data.files == {"cifar-10-binary.tar.gz": f"sha256:{sha256}"}

    offline()
    path = tmp_path / "cache" / "cifar10" / "cifar-10-binary.tar.gz"
    flip(path)
    with pytest.raises(VerbatimError) as error:
        cifar10(**settings)

    found = hashlib.sha256(path.read_bytes()).hexdigest()
    assert str(error.value) == f"{path}: expected sha256:{sha256}, found sha256:{found}\n  next: rm {path}"


def test_the_configuration_names_the_binary_version_and_pins_it() -> None:
    config = OmegaConf.load(CONFIG)

    assert config._target_ == "experiment.data.cifar10"
    assert config.url == "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
    assert len(bytes.fromhex(config.sha256)) == 32
