"""The trials of a search, kept by Optuna in an SQLite file, and what to try next.

The same seed and the same results give the same trials, wherever a sweep was killed between: each trial's sampler is made anew, from
the seed and the trial's number; a batch is proposed by the results of all batches before it and of none in it, also where it was cut
short and more trials were asked for later; a trial is written whole or not at all; and one that was running when its sweep was killed is
run again as it is.
"""

import dataclasses
import json
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verbatim import digest
from verbatim.errors import VerbatimError

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

SAMPLERS = ("tpe", "random", "grid")
NAME = "sweep"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Domain:
    """What a setting may be: one of `choices`, as people would type them, or a number from `low` to `high`, both included."""

    key: str
    choices: tuple[str, ...] = ()
    low: float = 0
    high: float = 0
    step: int = 1
    log: bool = False
    whole: bool = False

    @property
    def count(self) -> int:
        """How many values; 0 where they can't be counted."""
        return len(self.values()) if self.choices or self.whole else 0

    def values(self) -> Sequence[Any]:
        return self.choices or range(int(self.low), int(self.high) + 1, self.step)

    def distribution(self) -> "BaseDistribution":
        from optuna import distributions

        if self.choices:
            return distributions.CategoricalDistribution(self.choices)
        if self.whole:
            return distributions.IntDistribution(int(self.low), int(self.high), log=self.log, step=self.step)
        return distributions.FloatDistribution(self.low, self.high, log=self.log)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    domains: tuple[Domain, ...]
    sampler: str
    seed: int
    at_once: int
    total: int
    goal: str

    def identity(self) -> dict[str, Any]:
        """What makes it this search: one with more trials goes on with it."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        del plain["total"]
        return plain


def points(domains: Iterable[Domain]) -> int:
    return math.prod(domain.count for domain in domains)


def advance(path: Path, plan: Plan, told: Mapping[int, float | None], first: int) -> list[list[str]]:
    """Write what the trials so far gave (None: failed), and return those to run now, from the number `first` on, as overrides: those
    that have ended, whose runs need only be found, and the batch that has not. Empty where all `plan.total` are told."""
    study = _open(path, plan)
    _tell(study, told)
    space = {domain.key: domain.distribution() for domain in plan.domains}
    trials, end = study.get_trials(deepcopy=False), first
    while end < plan.total:
        start, end = end, min((end // plan.at_once + 1) * plan.at_once, plan.total)
        if end > len(trials):
            if start > first:  # what those gave is told first: one that had failed may have been run again
                end = start
                break
            _propose(study, plan, range(start, end), told, space)
            trials = study.get_trials(deepcopy=False)
        if not all(trial.state.is_finished() for trial in trials[start:end]):
            break
    return [
        [f"{domain.key}={_text(trial.params[domain.key])}" for domain in plan.domains] for trial in trials[first:end]
    ]


def _open(path: Path, plan: Plan) -> "Study":
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(storage=f"sqlite:///{path}", study_name=NAME, direction=plan.goal, load_if_exists=True)
    mine = plan.identity()
    known = study.user_attrs.get("plan")
    if known is None and not study.get_trials(deepcopy=False):
        study.set_user_attr("plan", mine)
    elif known != mine:
        other = [name for name in mine if (known or {}).get(name) != mine[name]]
        raise VerbatimError(path, expected="the study of this search", found=f"one of another {', '.join(other)}", then=f"mv {path.parent} {path.parent}.old")  # fmt: skip
    return study


def _tell(study: "Study", told: Mapping[int, float | None]) -> None:
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False)
    for number, value in sorted(told.items()):
        if trials[number].state.is_finished():  # before the sweep was killed
            continue
        if value is None or not math.isfinite(value):
            study.tell(number, state=TrialState.FAIL)
        else:
            study.tell(number, float(value))


def _propose(
    study: "Study", plan: Plan, batch: range, told: Mapping[int, float | None], space: "dict[str, BaseDistribution]"
) -> None:
    """Write those trials of a batch that are not there yet, each in one transaction: one that is there has all its values."""
    from optuna.trial import TrialState, create_trial

    trials = study.get_trials(deepcopy=False)
    known = _known(trials[: batch.start], plan, told)
    for number in batch:
        params = trials[number].params if number < len(trials) else _params(known, plan, number, space)
        trial = create_trial(state=TrialState.RUNNING, params=params, distributions=space)
        known.add_trial(trial)
        if number >= len(trials):
            study.add_trial(trial)


def _known(trials: "Sequence[FrozenTrial]", plan: Plan, told: Mapping[int, float | None]) -> "Study":
    """In memory, what the batch may know. A trial that failed may have been run again since, and given a value, which Optuna no longer
    takes."""
    import optuna

    known = optuna.create_study(direction=plan.goal)
    for number, trial in enumerate(trials):
        value = told.get(number)
        if trial.state is optuna.trial.TrialState.FAIL and value is not None and math.isfinite(value):
            trial = optuna.trial.create_trial(params=trial.params, distributions=trial.distributions, value=value)
        known.add_trial(trial)
    return known


def _params(known: "Study", plan: Plan, number: int, space: "dict[str, BaseDistribution]") -> dict[str, Any]:
    if plan.sampler == "grid":
        return _point(plan.domains, number)
    import optuna

    seed = int(digest.of_value([plan.seed, number]).removeprefix("sha256:")[:8], 16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler: optuna.samplers.BaseSampler = (
            optuna.samplers.TPESampler(seed=seed, constant_liar=True)  # trials of the batch count as bad: no two alike
            if plan.sampler == "tpe"
            else optuna.samplers.RandomSampler(seed=seed)
        )
    trial = optuna.trial.create_trial(state=optuna.trial.TrialState.RUNNING)
    trial.number = number
    return {key: sampler.sample_independent(known, trial, key, one) for key, one in space.items()}


def _point(domains: "Sequence[Domain]", number: int) -> dict[str, Any]:
    """Of all combinations in order, the last setting changing fastest; none but this one is made."""
    found = {}
    for domain in reversed(domains):
        number, place = divmod(number, domain.count)
        found[domain.key] = domain.values()[place]
    return {domain.key: found[domain.key] for domain in domains}


def _text(value: Any) -> str:
    """As Hydra reads it, and as what was written to the file and read again would be."""
    return value if isinstance(value, str) else repr(value)
