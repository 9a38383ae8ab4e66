"""One file that holds a run: written by `nox -s pack -- <run>`, opened by `nox -s verify` and `nox -s reproduce`.

A ZIP that is stored, flat and in one canonical form, so that every byte of it follows from its contents: a changed byte is found
wherever it is, names can't lead out of a folder, nothing unpacks to more than it was. It holds no pickle and no secret.
"""

import re
import stat
import struct
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from verbatim import digest
from verbatim.errors import VerbatimError

SUMS = "SHA256SUMS"
FIRST = "ro-crate-metadata.json"
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,120}")
KINDS = (".bin", ".bundle", ".csv", ".html", ".json", ".md", ".safetensors", ".svg", ".txt", ".yaml")
EPOCH = (1980, 1, 1, 0, 0, 0)
CHUNK_BYTES = 2**20
THEN = "get another copy of the archive"


def write(path: Path, files: Iterable[Path]) -> None:
    """All files (their names must differ), preceded by their sums. Written beside, then renamed."""
    by_name = {file.name: file for file in files}
    beside = path.with_name(f".{path.name}.new")
    try:
        with beside.open("wb") as out:
            _write(out, by_name)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _write(out: IO[bytes], by_name: dict[str, Path]) -> None:
    sums = "".join(
        f"{digest.of_file(file).removeprefix('sha256:')}  {name}\n" for name, file in sorted(by_name.items())
    )
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as made:
        made.writestr(_entry(SUMS, len(sums)), sums)
        for name in sorted(by_name, key=lambda n: (n != FIRST, n)):
            with (
                by_name[name].open("rb") as source,
                made.open(_entry(name, by_name[name].stat().st_size), "w") as target,
            ):
                while chunk := source.read(CHUNK_BYTES):
                    target.write(chunk)


def _entry(name: str, size_bytes: int) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, EPOCH)
    entry.external_attr, entry.create_system, entry.file_size = (stat.S_IFREG | 0o644) << 16, 3, size_bytes
    return entry


def unpack(path: Path, folder: Path) -> None:
    """Check an archive to its last byte, and write its files to `folder`, which must be empty."""
    try:
        with zipfile.ZipFile(path) as opened:
            _check_entries(path, opened)
            for entry in opened.infolist():
                _extract(opened, entry, folder / entry.filename)
    except (
        zipfile.BadZipFile,
        EOFError,
        NotImplementedError,
        RuntimeError,
        OSError,
        ValueError,
        struct.error,
    ) as error:
        raise VerbatimError(path, expected="a whole archive of a run", found=error, then=THEN) from None
    _check_sums(path, folder)
    _check_form(path, folder)


def _check_entries(path: Path, opened: zipfile.ZipFile) -> None:
    size_bytes, seen = path.stat().st_size, set[str]()
    for entry in opened.infolist():
        name = entry.filename
        kind = stat.S_IFMT(entry.external_attr >> 16)
        wrong = (
            "a name that leads elsewhere, or is no plain file name" if not NAME.fullmatch(name)
            else "a link or a folder" if kind not in (0, stat.S_IFREG)
            else "a second file of this name" if name in seen
            else "a compressed or an encrypted file" if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1
            else "more than the archive's own size" if entry.file_size > size_bytes
            else "a kind of file that no run has" if name != SUMS and not name.endswith(KINDS)
            else ""
        )  # fmt: skip
        if wrong:
            raise VerbatimError(f"{path}, {name!r}", expected="a plain file of a run", found=wrong, then=THEN)
        seen.add(name)


def _extract(opened: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path) -> None:
    with opened.open(entry) as source, target.open("xb") as file:
        while chunk := source.read(CHUNK_BYTES):
            file.write(chunk)


def _check_sums(path: Path, folder: Path) -> None:
    sums = folder / SUMS
    text = sums.read_text(encoding="utf-8", errors="replace") if sums.exists() else ""
    stated = {name: f"sha256:{value}" for value, name in re.findall(r"^([0-9a-f]{64})  (\S+)$", text, re.MULTILINE)}
    found = {file.name: digest.of_file(file) for file in folder.iterdir() if file.name != SUMS}
    for name in sorted(stated.keys() | found.keys()):
        if stated.get(name) != found.get(name):
            raise VerbatimError(f"{path}, {name}", expected=stated.get(name, f"a line for it in {SUMS}"), found=found.get(name, "no such file"), then=THEN)  # fmt: skip


def _check_form(path: Path, folder: Path) -> None:
    """The archive is what its contents give, byte for byte: nothing hides between its files."""
    with tempfile.TemporaryFile(dir=folder.parent) as again, path.open("rb") as there:
        _write(again, {file.name: file for file in folder.iterdir() if file.name != SUMS})
        again.seek(0)
        at = 0
        while True:
            one, other = again.read(CHUNK_BYTES), there.read(CHUNK_BYTES)
            if one != other:
                at += next(
                    (i for i, (x, y) in enumerate(zip(one, other, strict=False)) if x != y), min(len(one), len(other))
                )
                raise VerbatimError(
                    f"{path}, byte {at}", expected="the form that its contents give", found="another byte", then=THEN
                )
            if not one:
                return
            at += len(one)
