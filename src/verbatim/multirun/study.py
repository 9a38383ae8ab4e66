"""The sweeper of a search: Optuna proposes what to try next, by what the trials before gave. `hydra/sweeper=optuna`, on Optuna 4.

The space is written as Hydra writes sweeps: `a,b,c`, `choice(a,b)`, `range(1,9)`, `interval(1e-4,1e-1)`, `int(interval(1,8))`, and
`tag(log,interval(1e-4,1e-1))` for a logarithmic scale. Job N is trial N.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.sweeper import Sweeper

from verbatim import settings
from verbatim.errors import VerbatimError
from verbatim.multirun import fork, sweeper, trials
from verbatim.multirun.trials import Domain, Plan

FILE = "study.db"
SPACE = "a,b,c; choice(…); range(…) of whole numbers; interval(…), or int(interval(…)); tag(log,…)"


class Launcher(Protocol):
    """What a search needs of Hydra's launcher, besides being one."""

    goal: str  # minimize or maximize

    def refuse_many(self, jobs: int) -> None: ...

    def open(self, words: Sequence[str]) -> Path: ...

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]: ...


class Study(Sweeper):
    """`n_trials`: all trials together, those of a killed sweep and those that failed included; null: the whole grid. `at_once`: trials
    of a batch, proposed together; the next batch knows the results of the whole one before. `params`: as for Grid."""

    def __init__(self, n_trials: int | None = None, at_once: int = 1, sampler: str = "tpe", seed: int = 0, params: dict[str, Any] | None = None) -> None:  # fmt: skip
        self._n_trials, self._at_once, self._sampler, self._seed = n_trials, at_once, sampler, seed
        self._params = params or {}

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
        self._loader = hydra_context.config_loader
        self._launcher: Launcher = Plugins.instance().instantiate_launcher(  # type: ignore[assignment]
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> list[JobReturn]:
        sweeper.refuse_foreign(self._launcher)
        words = [*(f"{key}={value}" for key, value in self._params.items()), *arguments]
        last = {override.get_key_element(): override for override in sweeper.settings(words, self._loader)}.values()
        fixed = [override.input_line or "" for override in last if not override.is_sweep_override()]
        plan = self._plan([domain(override) for override in last if override.is_sweep_override()])
        self._launcher.refuse_many(plan.total)
        own = [f"hydra.sweeper.{name}={getattr(plan, name)}" for name in ("sampler", "seed", "at_once")]
        path = self._launcher.open([*words, *own]) / FILE
        returned: list[JobReturn] = []
        told: dict[int, float | None] = {}
        while True:
            first = len(returned)
            # In a child: Optuna loads numpy, which must not be loaded where jobs are forked from.
            jobs = fork.ask(functools.partial(trials.advance, path, plan, told, first))
            if not jobs:
                return returned
            new = self._launcher.launch([[*fixed, *job] for job in jobs], initial_job_idx=first)
            returned += new
            told = {first + index: _value(job) for index, job in enumerate(new)}

    def _plan(self, domains: list[Domain]) -> Plan:
        if not domains:
            raise VerbatimError("the search", expected=f"a setting to search: {SPACE}", found="fixed values alone", then="for example 'optimizer.lr=tag(log,interval(1e-4,1e-1))'")  # fmt: skip
        for name, value, least in (("n_trials", self._n_trials, 1), ("at_once", self._at_once, 1), ("seed", self._seed, 0)):  # fmt: skip
            if value is not None and (not isinstance(value, int) or value < least):
                key, good = f"hydra.sweeper.{name}", {"n_trials": 20, "at_once": 4, "seed": 0}[name]
                raise VerbatimError(key, expected=f"a whole number of at least {least}", found=value, then=f"add {key}={good}, say")  # fmt: skip
        if self._sampler not in trials.SAMPLERS:
            then = settings.suggest(str(self._sampler), trials.SAMPLERS, "hydra.sweeper.sampler=", "add hydra.sweeper.sampler=tpe, say")  # fmt: skip
            raise VerbatimError("hydra.sweeper.sampler", expected=f"one of {', '.join(trials.SAMPLERS)}", found=self._sampler, then=then)  # fmt: skip
        total = self._n_trials
        if self._sampler == "grid":
            if no := next((d.key for d in domains if not d.count), ""):
                raise VerbatimError(no, expected="values that can be counted, for sampler=grid", found="an interval", then="give values, as 1,2,3, or another sampler")  # fmt: skip
            total = min(trials.points(domains), total or trials.points(domains))
        if total is None:
            raise VerbatimError("hydra.sweeper.n_trials", expected="a number of trials", found="none", then="add hydra.sweeper.n_trials=20")  # fmt: skip
        return Plan(
            domains=tuple(domains), sampler=self._sampler, seed=self._seed, at_once=self._at_once, total=total, goal=self._launcher.goal
        )  # fmt: skip


def domain(override: Override) -> Domain:
    """What one setting may be, from what was typed."""
    key, value, typed = override.get_key_element(), override.value(), override.input_line
    tags: set[str] = getattr(value, "tags", set())
    log = "log" in tags
    if override.is_hydra_override():
        raise VerbatimError(typed, expected="one value: Hydra's own settings can't be searched", found="a sweep")
    if getattr(value, "shuffle", False):
        raise VerbatimError(typed, expected="values as they are: a search has its own order", found="shuffle(…)")
    if tags - {"log"} or (log and not isinstance(value, IntervalSweep)):
        raise VerbatimError(typed, expected="tag(log,interval(…)), the one tag there is", found=f"tag({','.join(sorted(tags))},…)")  # fmt: skip
    if isinstance(value, IntervalSweep):
        low, high = value.start, value.end
        if low is None or high is None or not low < high or (log and low <= 0):
            raise VerbatimError(typed, expected=f"an interval from a lower to a higher number{', above 0' * log}", found=f"interval({low},{high})")  # fmt: skip
        return Domain(key=key, low=low, high=high, log=log, whole=isinstance(low, int) and isinstance(high, int))
    if isinstance(value, RangeSweep) and isinstance(numbers := value.range(), range):
        if not numbers:
            raise VerbatimError(typed, expected="a range with a number in it", found="an empty one")
        low, high = sorted((numbers[0], numbers[-1]))
        return Domain(key=key, low=low, high=high, step=abs(numbers.step), whole=True)
    choices = tuple(dict.fromkeys(override.sweep_string_iterator()))
    if not choices:
        raise VerbatimError(typed, expected="values to choose from", found="none")
    return Domain(key=key, choices=choices)


def _value(job: JobReturn) -> float | None:
    """What a job is worth; None where it failed, or where it has no number to show."""
    return job.return_value if job.status == JobStatus.COMPLETED and isinstance(job.return_value, int | float) else None
