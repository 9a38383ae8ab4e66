"""Every installed file's bytes against its RECORD (`--deep`, some seconds). Reads all of them, changes none.

Byte code caches are the one thing that no RECORD lists: Python makes them anew from any source that is newer.
"""

import base64
import binascii
import csv
import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from verbatim import environment
from verbatim.drift.finding import Answer, Finding, answer, unchecked
from verbatim.drift.installed import Installed

OURS = {"verbatim.pth"}  # and, where optional packages lie, the stamp


def of_files(here: Installed, beside: Sequence[Installed] = ()) -> Answer:
    """(c), down to the bytes: changed, missing and unlisted files."""
    if not here.site.is_dir():
        return answer("files", "nothing", [unchecked(here.path.name, "no environment there", "nox -s env")])
    count, size, findings = 0, 0, list[Finding]()
    for one in (here, *beside):
        listed, found = _of_one(one)
        count, size = count + len(listed), size + sum(int(size) for _, _, size in listed.values() if size.isdigit())
        findings += found
    return answer("files", f"{count} files, {size / 1e6:.0f} MB (byte code caches have no RECORD)", findings)


def _of_one(here: Installed) -> tuple[dict[str, tuple[str, str, str]], list[Finding]]:
    listed: dict[str, tuple[str, str, str]] = {}  # path → distribution, hash, size
    findings: list[Finding] = []
    for name, _, folder in here.dists:
        if name == "pip":  # `venv` brings it; the lock does not name it
            continue
        rows, bad = _rows(folder / "RECORD")
        findings += [Finding(what=f"{folder.name}/RECORD, line {line}", expected="path,sha256=…,size", found=text, mend=here.anew) for line, text in bad]  # fmt: skip
        if here.extra:  # `pip install --target` moves scripts, and leaves their paths as they were
            rows = [(path.removeprefix("../../"), stated, size) for path, stated, size in rows]
        listed |= {path: (name, stated, size) for path, stated, size in rows}
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:  # hashing lets go of the interpreter's lock
        found = pool.map(lambda item: _of_file(here, item[0], *item[1]), listed.items(), chunksize=64)
        findings += [finding for finding in found if finding]
    findings += _unlisted(here, listed)
    return listed, findings


def _rows(record: Path) -> tuple[list[tuple[str, str, str]], list[tuple[int, str]]]:
    """The rows of a RECORD, and those that are none. Only RECORD itself and byte code may be without a hash."""
    rows, bad = [], []
    try:
        text = record.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        return [], [(1, type(error).__name__)]
    for number, row in enumerate(csv.reader(text.splitlines()), 1):
        if len(row) != 3 or "\0" in row[0] or not (row[1].startswith("sha256=") or _free(row[0])):
            bad.append((number, ",".join(row)[:60]))
        else:
            rows.append((row[0], row[1], row[2]))
    return rows, bad


def _free(path: str) -> bool:
    return path.endswith((".dist-info/RECORD", ".pyc"))


def _of_file(here: Installed, path: str, name: str, stated: str, size: str) -> Finding | None:
    file = here.site / path
    try:
        if not stated:
            return None
        if size and file.stat().st_size != int(size):
            return Finding(
                what=path, expected=f"{size} bytes ({name})", found=f"{file.stat().st_size} bytes", mend=here.anew
            )
        with file.open("rb") as opened:
            actual = hashlib.file_digest(opened, "sha256").digest()
        expected = base64.urlsafe_b64decode(stated.removeprefix("sha256=") + "==")
    except OSError as error:
        return Finding(what=path, expected=f"a file ({name})", found=error.strerror or "unreadable", mend=here.anew)
    except (ValueError, binascii.Error):
        return Finding(what=path, expected=f"a sha256 and a size ({name})", found=f"{stated},{size}", mend=here.anew)
    if actual != expected:
        return Finding(
            what=path, expected=f"sha256 {expected.hex()[:12]} ({name})", found=actual.hex()[:12], mend=here.anew
        )
    return None


def _unlisted(here: Installed, listed: dict[str, tuple[str, str, str]]) -> Iterator[Finding]:
    """Files that Python could import and no distribution brought."""
    known = {os.path.normpath(path) for path in listed} | ({environment.STAMP} if here.extra else OURS)
    for folder, folders, files in os.walk(here.site):
        inside = os.path.relpath(folder, here.site)
        if inside == ".":
            folders[:] = [f for f in folders if f != "pip" and not (f.startswith("pip-") and f.endswith(".dist-info"))]
        folders[:] = sorted(f for f in folders if f != "__pycache__")
        for file in sorted(files):
            path = os.path.normpath(os.path.join(inside, file))
            if path not in known:
                yield Finding(what=path, expected="no such file: no distribution lists it", found="a file", mend=f"rm {here.site / path}")  # fmt: skip
