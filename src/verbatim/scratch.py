"""Temporary folders that name the processes they live for: what a killed one left behind is removed at the next start.

Nothing is removed that another user owns, that is of another name, or whose process is still there.
"""

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from verbatim.environment import started_ticks

KINDS = ("archive", "pack", "verify", "zoom")
OWNERS = "owners.json"
ORPHAN_S = 60.0  # a folder without owners may be one that is just being made


@contextlib.contextmanager
def folder(kind: str) -> Iterator[Path]:
    """A new folder for as long as the block lasts; `owners.json` in it is not its user's."""
    remove_stale()
    with tempfile.TemporaryDirectory(prefix=f"verbatim-{kind}-") as made:
        owned_by(Path(made), os.getpid())
        yield Path(made)


def owned_by(folder: Path, *pids: int) -> None:
    """The folder lives while one of these processes does."""
    (folder / OWNERS).write_text(json.dumps([[pid, started_ticks(pid)] for pid in pids]))


def alive(folder: Path) -> bool:
    try:
        owners = json.loads((folder / OWNERS).read_text())
        return any(bool(ticks) and started_ticks(pid) == ticks for pid, ticks in owners)
    except (OSError, ValueError, TypeError):
        return folder.exists() and time.time() - folder.stat().st_mtime < ORPHAN_S


def named(prefix: str) -> Iterator[Path]:
    """This user's temporary folders of that name."""
    for found in Path(tempfile.gettempdir()).resolve().glob(f"{prefix}*"):
        with contextlib.suppress(OSError):  # gone since
            if found.lstat().st_uid == os.getuid() and found.is_dir() and not found.is_symlink():
                yield found


def remove_stale() -> None:
    for kind in KINDS:
        for found in named(f"verbatim-{kind}-"):
            if not alive(found):
                shutil.rmtree(found, ignore_errors=True)
