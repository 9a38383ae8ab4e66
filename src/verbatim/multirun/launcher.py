"""Hydra's launcher for multiruns: plans the jobs, leaves out those that are done, starts the others on an engine, follows and judges them.

Nothing that counts is kept here: a job is done when its run is sealed. So a sweep that was killed goes on with the same command, on any
engine, and a job whose recipe has an outcome already, from whatever command, is not run again.
"""

import contextlib
import importlib
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher as Plugin
from omegaconf import DictConfig

from verbatim import app, code, determinism, environment, folders, launch, multirun
from verbatim.ending import sigterm_raises
from verbatim.errors import Interrupted, VerbatimError
from verbatim.multirun import folder, local, results
from verbatim.multirun.compose import Composer
from verbatim.multirun.folder import Folder
from verbatim.multirun.jobs import Ended, Engine, Job
from verbatim.multirun.plan import Planned, Planner, Sealed
from verbatim.multirun.table import Table

WAIT_S = 0.25
WRITE_S = 10.0  # between two writings of the results while jobs run, at least
WRITE_SHARE = 0.02  # of the time, at most
RECIPES = "recipes.json"
ENGINES = {"slurm": "verbatim.multirun.slurm.Slurm", "ray": "verbatim.multirun.ray.Ray"}
current: "list[Launcher]" = []


class Launcher(Plugin):
    """`engine`: local, slurm or ray; `parameters` are its own. `goal` is what a sweeper has to do with a job's value."""

    def __init__(self, engine: str = "local", **parameters: Any) -> None:
        self._engine_name, self._parameters = engine, parameters

    def setup(self, *, hydra_context: Any, task_function: Any, config: DictConfig) -> None:
        self._task, self._config, self._given, self._root = task_function, config, config.multirun, folders.ROOT
        self.goal = results.goal_of(self._given.objective, self._given.goal)
        self._compose = Composer(hydra_context.config_loader, config)
        self._runs = folders.runs_folder(config.paths.runs, self._root)
        self._code, self._lock = code.hold(self._root), environment.describe(self._root)["lock"]
        self._jobs: list[results.Job] = []
        self._plans: list[Planned] = []
        self._engine: Engine | None = None
        self._begun = False
        self._folder: Folder = None  # type: ignore[assignment]  # until `open`
        self._stopped: BaseException | None = None
        current.append(self)

    # ------------------------------------------------------------------------------------------- what a sweeper calls

    def refuse_many(self, jobs: int) -> None:
        if not jobs:
            raise VerbatimError("the sweep", expected="a job", found="none: a range without a number in it")
        if jobs > self._given.limit:
            raise VerbatimError(
                "the sweep", expected=f"at most {self._given.limit:,} jobs", found=f"{jobs:,}", then=f"if they are meant, add --limit {jobs}"
            )  # fmt: skip

    def open(self, words: Sequence[str]) -> Path:
        """The folder of the sweep that these words make with this code and lock: made, or gone on with."""
        what = [word for word in words if not word.startswith(results.ELSEWHERE)]
        command = [*launch.program(sys.orig_argv), *multirun.places, *what]
        identity = {"command": command, "code": self._code.tree, "lock": self._lock["digest"]}
        self._folder = Folder(self._root / Path(self._config.paths.sweeps).expanduser(), identity)
        # What a configuration is that lies elsewhere, or in a code that nobody knows, may have changed.
        known = folder.read(self._folder.path / RECIPES) if self._code.tree and not multirun.places else None
        self._planner = Planner(self._compose, getattr(self._task, "fingerprint", None), known or {})
        self._sealed = Sealed(self._runs, self._code.tree, self._lock["digest"])
        self._started = datetime.now(UTC)
        self._table = Table(self._folder.path, self._given.objective, self.goal)
        if self._folder.other:
            path, what_differs = self._folder.other
            self._table.say(f"{folders.show(path, self._root)} is of this command with another {what_differs}: its runs are of other recipes")  # fmt: skip
        return self._folder.path

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        if not self._folder:
            raise VerbatimError("hydra/sweeper", expected="grid or optuna", found="another", then="leave it out")
        first = len(self._jobs)
        for words in job_overrides:
            self._plans.append(self._planner.plan(words))
            self._jobs.append(results.Job(index=len(self._jobs), words=list(words)))
            self._table.planning(len(self._jobs))
        with contextlib.suppress(OSError):  # it only saves time
            self._folder.write(RECIPES, self._planner.remembered)
        todo = [job for job in self._jobs[first:] if not self._found(job)]
        self._begun = True
        app.begun.append(self._config)
        self._table.begin(self._jobs, todo, len(self._jobs) - first - len(todo), continued=self._folder.continued)
        with sigterm_raises():
            try:
                if todo:
                    self._run(todo)
            except (KeyboardInterrupt, Interrupted) as asked:
                self._stopped = asked
                raise
            finally:
                self._table.stop()
        return [self._returned(job) for job in self._jobs[first:]]

    def _returned(self, job: results.Job) -> JobReturn:
        done = JobReturn(overrides=job.words, status=JobStatus.COMPLETED if job.state == "sealed" else JobStatus.FAILED)
        done.return_value = job.value if job.state == "sealed" else RuntimeError(job.reason)
        return done

    # ------------------------------------------------------------------------------------------------------- the jobs

    def _found(self, job: results.Job) -> bool:
        """Whether the job has an outcome already. Two jobs of a sweep may have one recipe: the second waits for the first's."""
        same = self._sealed.of(self._plans[job.index])
        if not same or self._given.again:
            return False
        job.take(same[0], self._root, self._runs, self._given.objective)
        job.found = True
        self._compare(job)
        return True

    def _run(self, todo: list[results.Job]) -> None:
        self._engine = engine = self._engine or self._start_engine(todo)
        self._table.starting(min(engine.room, len(todo)))
        waiting, running, tries = list(reversed(todo)), dict[int, results.Job](), dict[int, int]()
        write_s = time.monotonic() + WRITE_S
        try:
            while waiting or running:
                starting: dict[int, results.Job] = {}
                while waiting and len(running) + len(starting) < engine.room:
                    job = waiting.pop()
                    if self._twin(job, [*running.values(), *starting.values()]):
                        waiting.insert(0, job)
                        break
                    if not self._found(job):
                        starting[job.index] = job
                        tries[job.index] = tries.get(job.index, 0) + 1
                if starting:
                    engine.start([self._job(job, again=tries[index] > 1) for index, job in starting.items()])
                    running |= starting
                for ended in engine.wait(WAIT_S):
                    job = running.pop(ended.index)
                    self._collect(job, ended)
                    if ended.lost and job.state != "sealed" and tries[job.index] <= self._given.retries:
                        self._table.again(job, ended.lost)
                        waiting.append(job)
                    else:
                        self._table.ended(job)
                self._table.draw(running.values(), self._folder)
                if (began_s := time.monotonic()) > write_s:
                    with contextlib.suppress(OSError):  # said in the end, where it is still so
                        self._folder.write(results.FILE, self.results())
                    ended_s = time.monotonic()
                    write_s = ended_s + max(WRITE_S, (ended_s - began_s) / WRITE_SHARE)
        except BaseException:
            self._table.stop()
            if running:
                self._table.say(f"ending {len(running)} jobs; each leaves a checkpoint …")
                engine.stop()
                for job in running.values():
                    self._collect(job, Ended(index=job.index, lost="it was asked to end before it had begun"))
                    job.state = "interrupted" if job.state == "lost" else job.state
            for job in todo:
                if job.state == "running":  # the engine never took it
                    job.state = "waiting"
            raise

    def _twin(self, job: results.Job, running: Any) -> bool:
        """Whether a job of the same recipe runs now."""
        mine = self._plans[job.index]
        return any((self._plans[r.index].configuration, self._plans[r.index].data) == (mine.configuration, mine.data) for r in running)  # fmt: skip

    def _start_engine(self, todo: list[results.Job]) -> Engine:
        if self._engine_name == "local":
            plans = [self._plans[job.index] for job in todo]
            for plan in plans:  # those whose recipes were remembered have not been composed here
                self._compose.prepare(plan.words)
            cores = max(plan.threads * plan.ranks for plan in plans)
            gpus = max(plan.gpus for plan in plans)
            return local.Local(self._task, self._compose.announce, self._given.at_once, cores, gpus)
        module, _, name = ENGINES[self._engine_name].rpartition(".")
        made: Engine = getattr(importlib.import_module(module), name)(**self._parameters)
        return made

    def _job(self, job: results.Job, *, again: bool) -> Job:
        """`again`: after it was lost; then its log goes on as well."""
        plan, at = self._plans[job.index], self._folder.at(job.index)
        at.unlink(missing_ok=True)
        if not again:
            self._folder.log(job.index).unlink(missing_ok=True)
        job.state, job.reason = "running", ""
        command = (sys.executable, *launch.program(sys.orig_argv), *multirun.places, *job.words)
        return Job(
            index=job.index, words=plan.words, command=command, folder=Path.cwd(), at=at, log=self._folder.log(job.index),
            threads=plan.threads * plan.ranks, environment=determinism.variables(plan.level, plan.threads),
        )  # fmt: skip

    def _collect(self, job: results.Job, ended: Ended) -> None:
        """What the run's own record says of it."""
        run = job.read(self._folder, self._root, self._runs, self._given.objective, ended)
        if not run or run.state != "sealed":
            return
        planned = (self._code.tree, self._lock["digest"], self._plans[job.index].configuration)
        if tuple(run.recipe_parts[part] for part in ("code", "lock", "configuration")) != planned:
            job.state = "refused"
            job.reason = "code, lock or configuration are not those that were planned: this is another recipe"
            return
        self._sealed.add(run)
        self._compare(job)

    def _compare(self, job: results.Job) -> None:
        """A recipe that is made again must give the same outcome."""
        for made in self._sealed.of(self._plans[job.index]):
            if made.recipe == job.recipe and made.outcome != job.outcome:
                job.different = f"{made.run} gave {made.outcome}"
                return

    # ------------------------------------------------------------------------------------------------------- the end

    def results(self) -> dict[str, Any]:
        return {
            "sweep": self._folder.path.name, "command": results.command(), "rerun": results.command(again=True), "started": f"{self._started:%Y-%m-%dT%H:%M:%SZ}",
            "finished": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", "objective": self._given.objective, "goal": self.goal,
            "jobs": [job.plain() for job in self._jobs],
        }  # fmt: skip

    def finish(self) -> int:
        """The last lines, and the exit code."""
        if self._engine:
            self._engine.close()
        if not self._begun:
            if self._folder:
                self._folder.leave()
            return 0
        everything = self.results()
        self._table.conclude(everything, stopped=self._stopped is not None)  # first: a full disk hides no answer
        self._folder.write(results.FILE, everything)
        results.write_report(self._folder.path, everything, self._root)
        self._folder.close()
        # A module that a late job was the first to load is not what its record says.
        if changed := code.changed(self._root):
            more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            self._table.say(f"{changed[0]}{more} changed while the jobs ran, and a late one may have loaded that: nox -s reproduce -- <run> makes sure", "bold red")  # fmt: skip
            return 1
        good = all(job.state == "sealed" and job.value is not None and not job.different for job in self._jobs)
        return 0 if good else 1


def finish() -> int:
    """Of the multirun that this process made: after Hydra is done with it, however it ended."""
    return max((launcher.finish() for launcher in current), default=0)
