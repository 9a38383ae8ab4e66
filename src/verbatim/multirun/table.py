"""What a person sees of a multirun: on a terminal a live table of the jobs that run, elsewhere a line for each that ended; then the answer.

Redrawn by the loop that follows the jobs: a drawing thread would be in the way of forking.
"""

import time
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table as Grid
from rich.text import Text

from verbatim import digest, folders, trace
from verbatim.multirun import figures, results, spread
from verbatim.multirun.folder import REPORT, Folder
from verbatim.progress import console

SHOWN, FEW = 20, 5
WIDE = 120  # columns, from which on there is room for outcomes
BADLY = ("failed", "lost", "refused")
COLOURS = {"sealed": "green", "failed": "red", "lost": "red", "refused": "red", "interrupted": "yellow"}


class Table:
    def __init__(self, folder: Path, objective: str, goal: str) -> None:
        self.console = console()
        self._at, self._objective, self._goal = folder, objective, goal
        self._live: Live | None = None
        self._all: list[results.Job] = []
        self._began: dict[int, tuple[float, float]] = {}
        self._varied: list[list[str]] = []
        self._before = 0  # jobs that were done when this began
        self._at_once = 0  # what was said of it

    def planning(self, jobs: int) -> None:
        if self.console.is_terminal and jobs % 100 == 0:
            self.console.print(f"planning {jobs:,} jobs …", end="\r")

    def begin(self, jobs: list[results.Job], todo: list[results.Job], found: int, *, continued: bool) -> None:
        """`jobs`: all of the sweep so far; of those that are new, `todo` are to be run and so many were `found`."""
        self._all, self._start_s, self._before = jobs, time.monotonic(), sum(j.state not in results.OPEN for j in jobs)
        new = len(todo) + found  # a search has them in batches
        says = f"{folders.show(self._at)}: {new:,} {'more ' * (new < len(jobs))}job{'s' * (new != 1)}"
        if found:
            says += f", {found:,} with a sealed outcome already, not run again (--again does)"
        self.say(says + (", continued" if continued and new == len(jobs) else ""))
        if self.console.is_terminal and todo:
            self._live = Live(console=self.console, auto_refresh=False, transient=True)
            self._live.start()

    def starting(self, at_once: int) -> None:
        """Where nothing is drawn, nothing more is said until a job ends, which may be hours."""
        if not self._live and at_once > self._at_once:
            self._at_once = at_once
            self.say(f"{'up to ' * (at_once > 1)}{at_once:,} at a time; a line for each when it ends")

    def ended(self, job: results.Job) -> None:
        self._began.pop(job.index, None)
        value = "" if job.value is None else f"  {self._objective} {job.value:.6g}"
        if job.state == "sealed" and job.value is None:
            value = f"  no {self._objective}"
        mark = f"  ≠ {job.different}" if job.different else ""
        text = f"{self._done()}/{len(self._all)}  {job.state}  {self._settings(job)}{value}  {_run(job.folder, went_on=job.went_on)}"
        if job.state != "sealed":
            text += f"  {_line(job.reason)}"
        if not self._live or job.state != "sealed" or mark:
            self.say(text + mark, COLOURS.get(job.state if not mark else "failed", ""))

    def again(self, job: results.Job, lost: str) -> None:
        self._began.pop(job.index, None)
        self.say(f"job {job.index} was lost ({lost}) and is started again")

    def draw(self, running: Collection[results.Job], folder: Folder) -> None:
        if not self._live:
            return
        now, parts = time.monotonic(), 0.0
        grid = Grid(box=None, header_style="bold", pad_edge=False)
        for name in ("job", "settings", "progress", self._objective, "time left"):
            grid.add_column(name, justify="left" if name in ("settings", "progress") else "right", no_wrap=True)
        room = max(12, self.console.width - len(self._objective) - 40)
        for place, job in enumerate(running):
            part, value = _progress(folder, job.index, self._objective)
            parts += part or 0.0
            if place >= SHOWN:
                continue
            bar: Any = ProgressBar(1.0, part, width=12) if part is not None else "queued"
            began, was = self._began.setdefault(job.index, (now, part)) if part is not None else (now, 0.0)
            done = (part or 0.0) - was  # one that went on had a part already
            left = f"{(now - began) * (1 - (part or 0.0)) / done:.0f} s" if done > 0.02 else ""
            grid.add_row(str(job.index), Text(_tail(self._settings(job), room)), bar, value, left)
        if len(running) > SHOWN:
            grid.add_row("", f"and {len(running) - SHOWN} more")
        made, failed = self._done() + parts, sum(job.state in BADLY for job in self._all)
        done = made - self._before
        left_s = (now - self._start_s) * (len(self._all) - made) / done if done > 0.02 else None
        whole = Grid.grid(padding=(0, 2))
        whole.add_row(
            ProgressBar(max(1, len(self._all)), made, width=24), f"{self._done():,}/{len(self._all):,}",
            *([f"{failed} failed"] if failed else []), *([f"{left_s:.0f} s left"] if left_s is not None else []),
        )  # fmt: skip
        self._live.update(Group(grid, whole), refresh=True)

    def _done(self) -> int:
        return sum(job.state not in results.OPEN for job in self._all)

    def _settings(self, job: results.Job) -> str:
        """Those in which it differs from the others, once these are known."""
        if len(self._varied) != len(self._all):
            self._varied = results.varied([{"overrides": job.shown()} for job in self._all])
        return _brief(self._varied[job.index])

    def stop(self) -> None:
        if self._live:
            self._live.stop()
            self._live = None

    def say(self, text: str, style: str = "") -> None:
        self.console.print(text, style=style, markup=False, soft_wrap=True)

    # ------------------------------------------------------------------------------------------------------ the answer

    def conclude(self, everything: dict[str, Any], *, stopped: bool) -> None:
        jobs: list[dict[str, Any]] = everything["jobs"]
        best = results.ranked(everything)
        varied = dict(zip((job["job"] for job in jobs), results.varied(jobs), strict=True)) if jobs else {}
        if best:
            self.console.print(jobs_table(best[:SHOWN], varied, self._objective, self.console.width))
            if len(best) > SHOWN:
                self.say(f"{len(best) - SHOWN:,} more: the report has them all")
        groups = [g for g in spread.groups(jobs, self._goal) if len(g.values) > 1]
        if groups:
            same = set.intersection(*(set(job["overrides"]) for job in jobs)) if len(groups) > 1 else set()
            self.console.print(spread_table(groups[:SHOWN], self._objective, same))
        if lacking := results.without_objective(jobs, self._objective):
            self.say(f"error: {lacking}", "bold red")
        self._wrong(jobs, stopped=stopped)
        rows = {}
        if best:
            rows["best"] = f"{best[0]['value']:.6g}  {best[0]['folder']}  {_brief(varied[best[0]['job']])}"
        rows["report"] = folders.show(self._at / REPORT)
        if best:
            rows["again"] = best[0]["again"]
        left = [job for job in jobs if job["state"] != "sealed"]
        if left:
            rows["go on" if stopped else "rerun"] = f"{everything['rerun']}  ({len(left)} of {len(jobs)} jobs are left)"
        for name, value in rows.items():  # no grid: one that is folded can't be copied
            self.console.print(Text.assemble((f"{name:8}", "bold"), value), soft_wrap=True)

    def _wrong(self, jobs: list[dict[str, Any]], *, stopped: bool) -> None:
        """Jobs that gave another outcome; and, by their reasons, those that gave none, each with the command that makes it alone."""
        for job in jobs:
            if job["different"]:
                self.say(
                    f"≠ job {job['job']}: {job['folder']} gave {job['outcome']}, {job['different']}, of the same recipe", "bold red"
                )  # fmt: skip
        found = results.reasons(jobs, [s for s in results.ENDED_BADLY if not (stopped and s == "interrupted")])
        for state, reason, same in found[:SHOWN]:
            self.say(f"{len(same)} {state}: {_line(reason)}", COLOURS[state])
            for job in same[:FEW]:
                self.say(f"  {job['train']}  # log: {folders.show(self._at / 'jobs' / str(job['job']))}.log")
            if len(same) > FEW:
                self.say(f"  {len(same) - FEW} more: the report has them all")
        if len(found) > SHOWN:
            self.say(f"{len(found) - SHOWN} more reasons: the report has them all")


def jobs_table(jobs: list[dict[str, Any]], varied: dict[int, list[str]], objective: str, width: int) -> Grid:
    """Where there is little room, it is the settings that are folded: a run's folder is there to be copied."""
    grid, wide = Grid(box=None, header_style="bold", pad_edge=False), width >= WIDE
    folded = {"settings"} | ({"run"} if max(len(job["folder"]) for job in jobs) > width // 2 else set())
    for name in ("job", "settings", objective, "wall", *(["outcome"] if wide else []), "run"):
        grid.add_column(
            name, justify="right" if name in ("job", objective, "wall") else "left", overflow="fold", no_wrap=name not in folded
        )  # fmt: skip
    for job in jobs:
        grid.add_row(
            str(job["job"]), Text(_brief(varied[job["job"]])), f"{job['value']:.6g}", f"{job['wall_s']:.1f} s",
            *([digest.short(job["outcome"])] if wide else []), Text(_run(job["folder"], found=job["found"], went_on=job["went_on"])),
        )  # fmt: skip
    return grid


def spread_table(groups: list[spread.Group], objective: str, same: Collection[str]) -> Grid:
    """`same`: what all have in common, and need not be said."""
    grid = Grid(box=None, header_style="bold", pad_edge=False, title=f"{objective} over seeds", title_justify="left")
    for name in ("settings", "seeds", "mean", "sd", "95 % interval of the mean"):
        grid.add_column(name, justify="left" if name == "settings" else "right")
    for group in groups:
        mean, sd, low, high = (
            f"{x:.4g}" if x is not None else "" for x in (group.mean, group.sd, group.low, group.high)
        )
        words = _brief(word for word in group.words if word not in same)
        grid.add_row(Text(words or "–"), str(len(group.values)), mean, sd, f"{low} … {high}")
    return grid


def _brief(words: Iterable[str]) -> str:
    """To be read; in a command that is to be copied every digit stays."""
    return " ".join(map(figures.brief, words))


def _run(folder: str, *, found: bool = False, went_on: bool = False) -> str:
    return folder + " (found)" * found + " (went on)" * went_on


def _tail(text: str, room: int) -> str:
    """The last settings are those that change from job to job."""
    return text if len(text) <= room else f"…{text[-room + 1 :]}"


def _line(reason: str) -> str:
    return "; ".join(part.strip() for part in reason.splitlines())


def _progress(folder: Folder, job: int, objective: str) -> tuple[float | None, str]:
    """How far a job is, 0 to 1, and its objective after the last epoch: by the files that its run writes. None while it has no run."""
    run = folder.run(job)
    if not run:
        return None, ""
    rows = results.epochs(run, last=1)
    value = f"{rows[-1][objective]:.4f}" if rows and objective in rows[-1] else ""
    try:
        steps = int(folder.at(job).with_suffix(".steps").read_text())
        done = ((run / trace.FILE).stat().st_size - trace.HEADER_BYTES) // trace.ROW_BYTES
    except (OSError, ValueError):
        return 0.0, value
    return min(1.0, max(0.0, done / steps)) if steps else 0.0, value
