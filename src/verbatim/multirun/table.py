"""What a person sees of a multirun: on a terminal a live table of the jobs that run, elsewhere a line for each that ended; then the answer.

Redrawn by the loop that follows the jobs: a drawing thread would be in the way of forking.
"""

import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table as Grid
from rich.text import Text

from verbatim import digest, folders, trace
from verbatim.multirun import results, spread
from verbatim.multirun.folder import REPORT, Folder
from verbatim.progress import console

SHOWN = 20
COLOURS = {"sealed": "green", "failed": "red", "lost": "red", "refused": "red", "interrupted": "yellow"}


class Table:
    def __init__(self, folder: Path, objective: str, goal: str) -> None:
        self.console = console()
        self._at, self._objective, self._goal = folder, objective, goal
        self._live: Live | None = None
        self._all: list[results.Job] = []
        self._began: dict[int, tuple[float, float]] = {}
        self._varied: list[list[str]] = []
        self._ended = 0

    def planning(self, jobs: int) -> None:
        if self.console.is_terminal and jobs % 100 == 0:
            self.console.print(f"planning {jobs:,} jobs …", end="\r")

    def begin(self, jobs: list[results.Job], todo: list[results.Job], found: int, *, continued: bool) -> None:
        """`jobs`: all of the sweep so far; of those that are new, `todo` are to be run and so many were `found`."""
        self._all, self._start_s, self._ended = jobs, time.monotonic(), 0
        new = len(todo) + found  # a search has them in batches
        says = f"{folders.show(self._at)}: {new:,} {'more ' * (new < len(jobs))}job{'s' * (new != 1)}"
        if found:
            says += f", {found:,} with a sealed outcome already, not run again (--again does)"
        self.say(says + (", continued" if continued and new == len(jobs) else ""))
        if self.console.is_terminal and todo:
            self._live = Live(console=self.console, auto_refresh=False, transient=True)
            self._live.start()

    def ended(self, job: results.Job) -> None:
        self._ended += 1
        value = "" if job.value is None else f"  {self._objective} {job.value:.6g}"
        count = sum(j.state not in results.OPEN for j in self._all)
        mark = f"  ≠ {job.different}" if job.different else ""
        text = f"{count}/{len(self._all)}  {job.state}  {self._settings(job)}{value}  {job.folder}"
        if job.state != "sealed":
            text += f"  {_line(job.reason)}"
        if not self._live or job.state != "sealed" or mark:
            self.say(text + mark, COLOURS.get(job.state if not mark else "failed", ""))

    def draw(self, running: Collection[results.Job], folder: Folder, waiting: int) -> None:
        if not self._live:
            return
        now = time.monotonic()
        grid = Grid(box=None, header_style="bold", pad_edge=False)
        for name in ("job", "settings", "progress", self._objective, "time left"):
            grid.add_column(
                name, justify="right" if name in ("job", self._objective, "time left") else "left", no_wrap=True
            )
        for job in list(running)[:SHOWN]:
            part, value = _progress(folder, job.index, self._objective)
            began, was = self._began.setdefault(job.index, (now, part))  # one that went on had a part already
            left = f"{(now - began) * (1 - part) / (part - was):.0f} s" if part - was > 0.02 else ""
            grid.add_row(str(job.index), Text(self._settings(job)), ProgressBar(1.0, part, width=24), value, left)
        if len(running) > SHOWN:
            grid.add_row("", f"and {len(running) - SHOWN} more", "", "", "")
        done = sum(job.state not in results.OPEN for job in self._all)
        failed = sum(job.state in ("failed", "lost", "refused") for job in self._all)
        left_s = (now - self._start_s) / self._ended * (waiting + len(running)) if self._ended else None
        bar = Grid.grid(padding=(0, 2))
        bar.add_row(
            ProgressBar(max(1, len(self._all)), done, width=40), f"{done:,}/{len(self._all):,}",
            f"{failed} failed" if failed else "", f"{left_s:.0f} s left" if left_s is not None else "",
        )  # fmt: skip
        self._live.update(Group(grid, bar), refresh=True)

    def _settings(self, job: results.Job) -> str:
        """Those in which it differs from the others, once these are known."""
        if len(self._varied) != len(self._all):
            self._varied = results.varied([{"overrides": job.shown()} for job in self._all])
        return " ".join(self._varied[job.index])

    def stop(self) -> None:
        if self._live:
            self._live.stop()
            self._live = None

    def say(self, text: str, style: str = "") -> None:
        self.console.print(text, style=style, markup=False, soft_wrap=True)

    # ------------------------------------------------------------------------------------------------------ the answer

    def conclude(self, everything: dict[str, Any], *, stopped: bool) -> None:
        best = results.ranked(everything)
        if best:
            varied = dict(
                zip((job["job"] for job in everything["jobs"]), results.varied(everything["jobs"]), strict=True)
            )
            self.console.print(jobs_table(best[:SHOWN], varied, self._objective))
            if len(best) > SHOWN:
                self.say(f"{len(best) - SHOWN:,} more: the report has them all")
        groups = [g for g in spread.groups(everything["jobs"], self._goal) if len(g.values) > 1]
        if groups:
            self.console.print(spread_table(groups[:SHOWN], self._objective))
        self._wrong(everything, stopped=stopped)
        rows = {}
        if best:
            rows["best"] = f"{best[0]['value']:.6g}  {best[0]['folder']}  {' '.join(best[0]['overrides'])}"
        rows["report"] = folders.show(self._at / REPORT)
        if best:
            rows["again"] = best[0]["again"]
        left = [job for job in everything["jobs"] if job["state"] != "sealed"]
        if left:
            rows["go on" if stopped else "rerun"] = f"{everything['command']}  ({len(left)} of {len(everything['jobs'])} jobs are left)"  # fmt: skip
        for name, value in rows.items():  # no grid: one that is folded can't be copied
            self.console.print(Text.assemble((f"{name:8}", "bold"), value), soft_wrap=True)

    def _wrong(self, everything: dict[str, Any], *, stopped: bool) -> None:
        """Jobs that gave another outcome; and, by their reasons, those that gave none, each with the command that makes it alone."""
        quiet = ("sealed", *results.OPEN, *(["interrupted"] if stopped else []))
        reasons: dict[tuple[str, str], list[str]] = {}
        for job in everything["jobs"]:
            if job["different"]:
                self.say(
                    f"≠ job {job['job']}: {job['folder']} gave {job['outcome']}, {job['different']}, of the same recipe", "bold red"
                )  # fmt: skip
            if job["state"] not in quiet:
                reasons.setdefault((job["state"], _line(job["reason"])), []).append(job["train"])
        for (state, reason), commands in reasons.items():
            self.say(f"{len(commands)} {state}: {reason}", COLOURS.get(state, ""))
            for command in commands[:SHOWN]:
                self.say(f"  {command}")
            if len(commands) > SHOWN:
                self.say(f"  {len(commands) - SHOWN} more: the report has them all")


def jobs_table(jobs: list[dict[str, Any]], varied: dict[int, list[str]], objective: str) -> Grid:
    grid = Grid(box=None, header_style="bold", pad_edge=False)
    for name in ("job", "settings", objective, "wall", "outcome", "run"):
        grid.add_column(name, justify="right" if name in ("job", objective, "wall") else "left", overflow="fold")
    for job in jobs:
        grid.add_row(
            str(job["job"]), Text(" ".join(varied[job["job"]])), f"{job['value']:.6g}", f"{job['wall_s']:.1f} s",
            digest.short(job["outcome"]), Text(job["folder"] + (" (found)" if job["found"] else "")),
        )  # fmt: skip
    return grid


def spread_table(groups: list[spread.Group], objective: str) -> Grid:
    grid = Grid(box=None, header_style="bold", pad_edge=False, title=f"{objective} over seeds", title_justify="left")
    for name in ("settings", "seeds", "mean", "sd", "95 % interval of the mean"):
        grid.add_column(name, justify="left" if name == "settings" else "right")
    for group in groups:
        mean, sd, low, high = (
            f"{x:.4g}" if x is not None else "" for x in (group.mean, group.sd, group.low, group.high)
        )
        grid.add_row(Text(" ".join(group.words) or "–"), str(len(group.values)), mean, sd, f"{low} … {high}")
    return grid


def _line(reason: str) -> str:
    return "; ".join(part.strip() for part in reason.splitlines())


def _progress(folder: Folder, job: int, objective: str) -> tuple[float, str]:
    """How far a job is, 0 to 1, and its objective after the last epoch: by the files that its run writes."""
    run = folder.run(job)
    if not run:
        return 0.0, ""
    rows = results.epochs(run, last=1)
    value = f"{rows[-1][objective]:.4f}" if rows and objective in rows[-1] else ""
    try:
        steps = int(folder.at(job).with_suffix(".steps").read_text())
        done = ((run / "trace.bin").stat().st_size - trace.HEADER_BYTES) // trace.ROW_BYTES
    except (OSError, ValueError):
        return 0.0, value
    return min(1.0, max(0.0, done / steps)) if steps else 0.0, value
