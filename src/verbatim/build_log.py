"""What a build says: one bar per step on a terminal, a line per step elsewhere, and every word in a log file.

A step that fails becomes one error with its last lines.
"""

import re
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from verbatim import engine
from verbatim.errors import VerbatimError
from verbatim.progress import console

LAST_LINES = 12
STEP = re.compile(r"Step (\d+)/(\d+) : (.*)", re.DOTALL)
NOISE = re.compile(r"\x1b\[[0-9;]*m|^ ---> .*|^Removing intermediate container .*")


class BuildLog:
    def __init__(self, path: Path, name: str) -> None:
        self.path, self._name = path, name
        self._console = console()
        self._step, self._last, self._cached = "", deque[str](maxlen=LAST_LINES), False
        self._began = time.monotonic()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[says]}"),
        )
        self._bar = Progress(*columns, console=self._console, transient=True, disable=not self._console.is_terminal)

    def __enter__(self) -> Self:
        self.path.parent.mkdir(exist_ok=True)
        self._file = self.path.open("w", encoding="utf-8")
        self._task = self._bar.add_task(self._name, total=None, says="")
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._bar.stop()
        self._file.close()

    def follow(self, chunks: Iterable[dict[str, Any]]) -> str:
        """Reads the build to its end; returns the image's ID: of several stages', the last."""
        made = ""
        for chunk in chunks:
            if "error" in chunk:
                self._file.write(f"{chunk['error']}\n")
                raise self._failed(str(chunk["error"]))
            made = (chunk.get("aux") or {}).get("ID", made)
            if text := chunk.get("stream") or chunk.get("status"):
                self._file.write(text if text.endswith("\n") else f"{text}\n")
                self._line(text.strip("\n"))
        self._end_step()
        return made

    def _line(self, text: str) -> None:
        if match := STEP.match(text):
            self._end_step()
            self._step = f"{match[1]:>2}/{match[2]} {' '.join(match[3].split())}"
            self._last.clear()
            self._cached, self._began = False, time.monotonic()
            self._bar.update(
                self._task, description=self._shown(), completed=int(match[1]) - 1, total=int(match[2]), says=""
            )
        elif "Using cache" in text:
            self._cached = True
        elif (clean := NOISE.sub("", text).strip()) and self._step:
            self._last.extend(clean.splitlines())
            self._bar.update(self._task, says=self._last[-1][:60])

    def _end_step(self) -> None:
        """A step that took time gets a line that stays."""
        took_s = time.monotonic() - self._began
        if self._step and not self._cached and took_s >= 0.2:
            self._console.print(f"{self._shown()}  {took_s:.1f} s", markup=False)

    def _shown(self) -> str:
        return self._step if len(self._step) <= 80 else f"{self._step[:79]}…"

    def _failed(self, says: str) -> VerbatimError:
        where = f"building {self._name}, step {self._step.strip()[:100] or 'none'}"
        if "no space left on device" in f"{says} {self._last}".lower():
            return engine.refusal(where, "no space left on device")
        lines = "".join(f"\n    {line}" for line in self._last)
        if re.match(r"\s*\d+/\d+ FROM", self._step):
            return VerbatimError(
                where, expected="the base image", found=says.strip() + lines,
                then="check the network, or name a copy of it: VERBATIM_BASE=…",
            )  # fmt: skip
        return VerbatimError(where, expected="it done", found=says.strip() + lines, then=f"read {self.path}")
