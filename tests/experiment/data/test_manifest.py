"""A folder that a `sha256sum` file pins: a changed, missing or extra image is refused by name."""

import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from experiment.data import Data
from verbatim.errors import VerbatimError


def refusal(load: Callable[..., Data], **changes: Any) -> str:
    with pytest.raises(VerbatimError) as error:
        load(**changes)
    return str(error.value)


def sha256(path: Path) -> str:
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def pin(root: Path) -> Callable[[], Path]:
    """Writes SHA256SUMS by the command that the errors name."""

    def pin() -> Path:
        subprocess.run(["bash", "-c", f"cd {root} && sha256sum */* > SHA256SUMS"], check=True)
        return root / "SHA256SUMS"

    return pin


def test_a_folder_that_agrees_with_its_manifest_is_read(load: Callable[..., Data], pin: Callable[[], Path]) -> None:
    before = load().fingerprint
    pin()

    assert load().fingerprint == before


def test_a_flipped_bit_is_refused_by_name(
    load: Callable[..., Data], root: Path, pin: Callable[[], Path], flip: Callable[[Path], None]
) -> None:
    path, sums = root / "dog" / "1.png", pin()
    before = sha256(path)
    flip(path)

    assert refusal(load) == (
        f"{path}: expected {before}, found {sha256(path)}\n"
        f"  next: restore it, or pin what is there: cd {root} && sha256sum */* > {sums}"
    )


def test_a_missing_file_is_refused_by_name(load: Callable[..., Data], root: Path, pin: Callable[[], Path]) -> None:
    path, sums = root / "dog" / "1.png", pin()
    before = sha256(path)
    path.unlink()

    assert refusal(load) == (
        f"{path}: expected {before}, found no file\n"
        f"  next: restore it, or pin what is there: cd {root} && sha256sum */* > {sums}"
    )


def test_an_extra_file_is_refused_by_name(load: Callable[..., Data], root: Path, pin: Callable[[], Path]) -> None:
    sums = pin()
    Image.new("RGB", (4, 4)).save(root / "cat" / "new.png")

    assert refusal(load) == (
        f"{root}/cat/new.png: expected a line for it in {sums}, found none\n"
        f"  next: restore it, or pin what is there: cd {root} && sha256sum */* > {sums}"
    )


def test_the_command_that_the_refusal_names_mends_it(
    load: Callable[..., Data], root: Path, pin: Callable[[], Path]
) -> None:
    pin()
    Image.new("RGB", (4, 4)).save(root / "cat" / "new.png")
    with pytest.raises(VerbatimError) as error:
        load()

    subprocess.run(["bash", "-c", error.value.then.split(": ")[1]], check=True)

    assert "cat/new.png" in load().files


def test_a_manifest_elsewhere_is_used(
    load: Callable[..., Data], root: Path, pin: Callable[[], Path], tmp_path: Path
) -> None:
    sums = pin().rename(tmp_path / "sums")
    assert load(manifest=str(sums)).classes == ("cat", "dog")
    (root / "cat" / "0.png").rename(root / "cat" / "9.png")

    assert refusal(load, manifest=str(sums)).startswith(f"{root}/cat/0.png: expected sha256:")


def test_a_manifest_may_mark_binary_files_and_list_others(
    load: Callable[..., Data], root: Path, pin: Callable[[], Path]
) -> None:
    sums = pin()
    lines = sums.read_text().replace("  ", " *./") + f"{'0' * 64}  README.md\r\n\n"
    sums.write_text(lines)

    assert load().classes == ("cat", "dog")


def test_a_manifest_that_is_named_and_missing_is_refused(load: Callable[..., Data], tmp_path: Path) -> None:
    path = tmp_path / "none"

    assert refusal(load, manifest=path) == (
        f"{path}: expected a file that sha256sum wrote, found [Errno 2] No such file or directory: '{path}'"
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("abc  cat/0.png", "expected a sha256, two spaces and a file's name, found abc  cat/0.png"),
        ("{0}  cat/0.png\n{0}  cat/0.png", "expected each file once, found {0}  cat/0.png"),
    ],
)
def test_a_line_that_is_no_digest_is_refused(load: Callable[..., Data], root: Path, line: str, message: str) -> None:
    (root / "SHA256SUMS").write_text(line.format("0" * 64))

    number = line.count("\n") + 1
    assert refusal(load) == f"{root}/SHA256SUMS:{number}: {message.format('0' * 64)}"
