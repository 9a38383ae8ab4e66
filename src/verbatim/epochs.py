"""The values of each epoch: `epochs.csv`, a row added as it comes, so that a killed run leaves those it finished."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from verbatim import record

FILE = "epochs.csv"


class Epochs:
    """`folder`: where the file lies; None for a rank that writes nothing. The columns are those of the first row."""

    def __init__(self, folder: Path | None = None) -> None:
        self._path = folder / FILE if folder else None
        self.rows: list[dict[str, Any]] = []

    def add(self, values: Mapping[str, float]) -> None:
        self.rows.append(dict(values))
        if self._path:
            with self._path.open("a") as file:
                file.write(("" if len(self.rows) > 1 else _line(values)) + _line(values.values()))

    def go_on(self, rows: list[dict[str, Any]]) -> None:
        """With the rows of a checkpoint: those that the file has besides are of epochs that will be made again."""
        self.rows = rows
        if self._path and rows:
            text = _line(rows[0]) + "".join(_line(row.values()) for row in rows)
            record.write_atomically(self._path, text.encode())
        elif self._path:
            self._path.unlink(missing_ok=True)


def _line(values: Iterable[Any]) -> str:
    return ",".join(v if isinstance(v, str) else repr(v) for v in values) + "\n"
