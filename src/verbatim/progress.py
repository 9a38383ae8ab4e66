"""What a person sees while a run goes on: one live bar on a terminal, plain lines elsewhere. It never decides anything.

Redrawn by the training loop itself, four times a second at most: a drawing thread would take the interpreter away from training.
"""

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table

from verbatim.multirun import jobs

REDRAW_S = 0.25


def console(*, stderr: bool = False) -> Console:
    """Colour and width of the terminal; where there is none, no colour and lines as long as they are."""
    made = Console(stderr=stderr, highlight=False)
    if not made.is_terminal:
        made.width = 1000
    return made


class Progress:
    def __init__(self, *, silent: bool = False) -> None:
        self.console = console()
        self.console.quiet = silent
        self._bar: Bar | None = None
        self._drawn = 0.0
        self._samples = 0
        self._text = ""

    def start(self, steps: int, done: int = 0) -> None:
        """`steps`: how many there will be at most; `done`: of these, by an earlier start of the run."""
        self._began = self._drawn = time.monotonic()
        jobs.tell(steps=steps)
        if self.console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TaskProgressColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[says]}"),
            )
            self._bar = Bar(*columns, console=self.console, auto_refresh=False, transient=True)
            self._task = self._bar.add_task("train", total=steps, completed=done, says="")
            self._bar.start()

    def step(self, step: int, samples: int, loss: float) -> None:
        """Once per step; returns at once between two redraws. `samples`: of this step."""
        self._samples += samples
        if self._bar is None:
            return
        now = time.monotonic()
        if now - self._drawn > REDRAW_S:
            self._drawn = now
            rate = self._samples / (now - self._began)
            self._bar.update(
                self._task, completed=step + 1, says=f"loss {loss:.4f}  {self._text}  {rate:,.0f} samples/s"
            )
            self._bar.refresh()

    def epoch(self, line: str, text: str) -> None:
        """At the end of an epoch: `line` is printed; `text` stays beside the bar during the next."""
        self._text = text
        left = ""
        if self._bar is None and self._samples:
            left = f"  {self._samples / (time.monotonic() - self._began):,.0f} samples/s"
        self.say(line + left)

    def stop(self) -> None:
        if self._bar:
            self._bar.stop()
            self._bar = None

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        self.console.print(f"warning: {text}", markup=False, soft_wrap=True, style="yellow")

    def table(self, rows: dict[str, Any]) -> None:
        """Two columns: names and values."""
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="bold")
        grid.add_column(overflow="fold")
        for name, value in rows.items():
            grid.add_row(name, str(value))
        self.console.print(grid)
