"""Whether a run's files are still those that its record sealed: every changed byte is found, and its file named."""

from collections.abc import Callable
from pathlib import Path

from verbatim import digest, trace
from verbatim.errors import VerbatimError
from verbatim.record import Record
from verbatim.trace import Reader


def folder_of(where: Path) -> Path:
    return where if where.is_dir() else where.parent


def check(where: Path, run: Record, note: Callable[[str], None]) -> Reader | None:
    """The record's own integrity: each file that lies beside it has the recorded bytes, and the trace's chain is whole."""
    folder = folder_of(where)
    if where.is_dir() or (folder / trace.FILE).exists():
        for name, stated in run.files.items():
            path = folder / name
            if path.name != name:
                raise VerbatimError(where, expected="plain file names", found=name)
            if not path.exists():
                note(f"{path} is gone; its recorded digest stands for it")
            elif name != trace.FILE and (found := digest.of_file(path)) != stated:
                raise VerbatimError(
                    path, expected=stated, found=f"{found}: changed after the run", then="use another copy of the run"
                )
    recorded = open_trace(folder, run)
    if recorded:
        recorded.verify()
    return recorded


def open_trace(where: Path, run: Record) -> Reader | None:
    """The trace of a run, after its digest is found to be the recorded one; None where there is none."""
    path = where / trace.FILE
    if not path.exists():
        return None
    stated = run.files.get(trace.FILE)
    if stated and (found := digest.of_file(path)) != stated:
        reader = Reader(path)
        reader.verify()  # names the row, where it is one
        raise VerbatimError(
            path, expected=stated, found=f"{found}: the file was changed after the run", then="use another copy"
        )
    reader = Reader(path)
    if run.state == "sealed" and (reader.rows, reader.digest) != (run.trace.get("rows"), run.trace.get("digest")):
        raise VerbatimError(path, expected=f"the recorded {run.trace.get('rows')} rows", found=f"another {reader.rows}")
    return reader
