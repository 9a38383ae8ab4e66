"""The data files that an archive carries: found by their recorded digests, packed under these, laid out again where a run reads them.

What it gives away or lays out is what the record names, byte for byte, or it is refused. `data.json` says, for each file's name as
recorded, its digest, the setting of `paths` under which it lay, and where below: {"cat/1.png": {"digest": "sha256:…", "place":
"folder", "path": "cat/1.png"}}. Its bytes are the archive's file `data-<digest>.bin`.
"""

import base64
import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from verbatim import digest, environment
from verbatim.errors import VerbatimError
from verbatim.record import Record

FILE = "data.json"
PACKED = re.compile(r"data-[0-9a-f]{64}\.bin")
THEN = "get another copy of the archive"


@dataclass(frozen=True, kw_only=True, slots=True)
class DataFile:
    """One file of the data set. `path` is relative to the place, with `/`, and ends in the recorded name."""

    digest: str
    place: str
    path: str

    @property
    def packed(self) -> str:
        return f"data-{self.digest.removeprefix('sha256:')}.bin"


def find(run: Record, places: dict[str, Path], limit_bytes: int) -> dict[str, tuple[DataFile, Path]]:
    """Where the recorded data files lie, by name; those that an installed distribution brings come with the lock, and stay out."""
    folders = [(place, folder) for place, top in places.items() if top.is_dir() for folder in _with_folders(top)]
    brought = _brought(run)
    found: dict[str, tuple[DataFile, Path]] = {}
    total_bytes = 0
    for name, stated in _stated(run).items():
        if stated in brought:
            continue
        here = _find(name, stated, folders, places)
        total_bytes += here[1].stat().st_size
        if total_bytes > limit_bytes:
            raise VerbatimError(
                here[1], expected=f"at most {limit_bytes / 2**20:.0f} MiB of data in an archive",
                found=f"{total_bytes / 2**20:.1f} MiB with this file", then="add --limit <MiB>, or pack without `--with data`",
            )  # fmt: skip
        found[name] = here
    return found


def _stated(run: Record) -> dict[str, str]:
    files = run.data.get("files")
    if not files or not isinstance(files, dict):
        raise VerbatimError(
            run.run, expected="data files in its record", found="none", then="pack without `--with data`"
        )
    for name, stated in files.items():
        if not _plain(name) or not re.fullmatch("sha256:[0-9a-f]{64}", str(stated)):
            raise VerbatimError(run.run, expected="plain names and digests of data files", found=f"{name}: {stated}")
    return dict(sorted(files.items()))


def _plain(path: object) -> bool:
    """A relative path that stays below where it starts."""
    return isinstance(path, str) and bool(path) and not re.search(r"[\\\0]|^/|/$|//|(?:^|/)\.{1,2}(?:/|$)", path)


def _with_folders(top: Path) -> Iterator[Path]:
    """A cache has a folder for each data set."""
    yield top
    yield from sorted(entry for entry in top.iterdir() if entry.is_dir())


def _find(name: str, stated: str, folders: list[tuple[str, Path]], places: dict[str, Path]) -> tuple[DataFile, Path]:
    other = ""
    for place, folder in folders:
        path = folder / name
        if path.is_file():
            if (now := digest.of_file(path)) == stated:
                below = path.relative_to(places[place]).as_posix()
                return DataFile(digest=stated, place=place, path=below), path
            other = f"{now} at {path}"
    searched = ", ".join(f"paths.{place}={folder}" for place, folder in places.items())
    raise VerbatimError(
        f"data file {name}", expected=stated, found=other or f"none in {searched or 'no place'}",
        then="say where it lies: nox -s pack -- <run> --with data paths.<name>=<folder>",
    )  # fmt: skip


def _brought(run: Record) -> set[str]:
    """Digests of all files of installed distributions that the run had as well, of the same version; from their own lists."""
    site = environment.site_packages()
    recorded = run.environment.get("distributions", {})
    same = {name for name, version in environment.distributions(site).items() if recorded.get(name) == version}
    wanted = {value: _as_listed(value) for value in (run.data.get("files") or {}).values()}
    found = set[str]()
    for entry in site.glob("*.dist-info/RECORD"):
        name = re.sub(r"[-_.]+", "-", entry.parent.name.partition("-")[0]).lower()
        if name in same:
            text = entry.read_text(encoding="utf-8", errors="replace")
            found |= {value for value, listed in wanted.items() if listed in text}
    return found


def _as_listed(value: str) -> str:
    raw = bytes.fromhex(value.removeprefix("sha256:")) if value.startswith("sha256:") else b""
    return f",sha256={base64.urlsafe_b64encode(raw).decode().rstrip('=')},"


def write(folder: Path, found: dict[str, tuple[DataFile, Path]]) -> list[Path]:
    """`data.json`, and a link to each file under its name in the archive; nothing is copied."""
    listed = folder / FILE
    listed.write_text(
        json.dumps({name: asdict(file) for name, (file, _) in found.items()}, indent=1, ensure_ascii=False) + "\n",
        encoding="utf-8",
    )
    by_packed = {file.packed: path for file, path in found.values()}  # two names of the same bytes are packed once
    for packed, path in by_packed.items():
        (folder / packed).symlink_to(path.resolve())
    return [listed, *(folder / packed for packed in by_packed)]


def read(folder: Path, run: Record) -> dict[str, DataFile]:
    """The data files that an unpacked archive carries, by name; each is found to be what the record names."""
    listed = folder / FILE
    there = {path.name for path in folder.iterdir() if PACKED.fullmatch(path.name)} if folder.is_dir() else set()
    found = {name: _read(listed, name, entry, run) for name, entry in _entries(listed).items()}
    for stray in sorted(there ^ {file.packed for file in found.values()}):
        here = "one that it does not name" if stray in there else "no such file"
        raise VerbatimError(folder / stray, expected=f"the files that {FILE} names", found=here, then=THEN)
    for name, file in found.items():
        if (now := digest.of_file(folder / file.packed)) != file.digest:
            raise VerbatimError(f"{folder / file.packed} ({name})", expected=file.digest, found=now, then=THEN)
    return found


def _entries(listed: Path) -> dict[str, Any]:
    try:
        entries = json.loads(listed.read_text(encoding="utf-8")) if listed.exists() else {}
    except (ValueError, RecursionError, OSError) as error:
        raise VerbatimError(listed, expected="a list of data files", found=error, then=THEN) from None
    if not isinstance(entries, dict):
        raise VerbatimError(listed, expected="a list of data files", found=type(entries).__name__, then=THEN)
    return entries


def _read(listed: Path, name: str, entry: Any, run: Record) -> DataFile:
    try:
        file = DataFile(**entry)
    except TypeError as error:
        raise VerbatimError(f"{listed}, {name}", expected="digest, place and path", found=error, then=THEN) from None
    stated = run.data.get("files")
    if not isinstance(stated, dict) or not isinstance(file.digest, str) or stated.get(name) != file.digest:
        raise VerbatimError(f"{listed}, {name}", expected="a data file of the record", found=file.digest, then=THEN)
    plain = _plain(file.path) and f"/{file.path}".endswith(f"/{name}") and str(PurePosixPath(file.path)) == file.path
    if not plain or not isinstance(file.place, str) or not re.fullmatch(r"[A-Za-z_]\w*", file.place):
        found = f"paths.{file.place}, {file.path}"
        raise VerbatimError(f"{listed}, {name}", expected="a path that stays in its place", found=found, then=THEN)
    return file


def lay_out(files: dict[str, DataFile], folder: Path, to: Path, recorded: dict[str, Any]) -> dict[str, str]:
    """Put an archive's data files under `to`, each place a folder that is named as it was; the settings of `paths` that lead there.

    The name matters where a data set is named after its folder. Links, not copies.
    """
    tops = {file.place: to / file.place / _last_name(recorded.get(file.place)) for file in files.values()}
    for name, file in files.items():
        target = tops[file.place] / file.path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(folder / file.packed, target)
        except OSError as error:  # two names that want one path, or a path through a file
            raise VerbatimError(f"{FILE}, {name}", expected=f"to put it at {target}", found=error, then=THEN) from None
    return {place: str(top) for place, top in tops.items()}


def _last_name(place: Any) -> str:
    name = PurePosixPath(str(place)).name
    return name if _plain(name) else "data"


def are_here(files: dict[str, DataFile], places: dict[str, Path]) -> bool:
    """Whether this machine has all of them, where a run would read them."""

    def here(file: DataFile) -> bool:
        path = places[file.place] / file.path if file.place in places else None
        return path is not None and path.is_file() and digest.of_file(path) == file.digest

    return all(map(here, files.values()))
