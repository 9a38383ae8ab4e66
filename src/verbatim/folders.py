"""Where runs lie, and how one is claimed."""

import os
import secrets
from datetime import UTC, datetime
from pathlib import Path

from verbatim.errors import VerbatimError

ROOT = Path(__file__).resolve().parents[2]


def claim(runs: Path) -> Path:
    """Make a new run folder, `<UTC time>-<8 hex digits>`. `mkdir` is atomic: of any number at once, no two get the same."""
    try:
        runs.mkdir(parents=True, exist_ok=True)
        while True:
            folder = runs / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            return folder
    except OSError as error:
        raise VerbatimError(
            f"paths.runs={runs}",
            expected="a folder that can be written to",
            found=error.strerror,
            then="add paths.runs=…",
        ) from None


def runs_folder(path: str, root: Path = ROOT) -> Path:
    """Relative to the project, whatever the current directory is."""
    return root / Path(path).expanduser()


def show(path: Path, root: Path = ROOT) -> str:
    """A path as people would type it from the project's folder."""
    return os.path.relpath(path, root) if path.is_relative_to(root) else str(path)
