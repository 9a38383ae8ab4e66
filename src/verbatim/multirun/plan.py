"""What a sweep is to do: of each job all that its recipe is made of, before it starts, so that a sealed run of it is found."""

import dataclasses
import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Self

from hydra.core.override_parser.types import RangeSweep
from omegaconf import OmegaConf

from verbatim import digest, ledger, settings
from verbatim.multirun import compose, fork
from verbatim.record import Record

ASKS = re.compile(r"\$\{[\w.]+:")  # what a resolver gives, as ${oc.env:LR}, may be another value the next time


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """`configuration`: the digest of the recipe's configuration, level and seed. `data`: the data's fingerprint, empty where it can't
    be known before the job reads them. `threads`: the cores that all its ranks keep busy."""

    words: tuple[str, ...]
    configuration: str
    data: str
    level: str
    threads: int
    ranks: int


class Planner:
    """`fingerprint` gives that of the data which a configuration's node `data` names; None where the task can't say.

    `known` is what `remembered` was after an earlier plan with the same code, lock and places: 1,000 jobs take 3 s to compose.
    """

    def __init__(
        self, composer: compose.Composer, fingerprint: Callable[[Any], str] | None, known: dict[str, Any]
    ) -> None:
        self._compose, self._fingerprint, self.remembered = composer, fingerprint, known
        self._data: dict[str, str] = {}

    def plan(self, words: Sequence[str]) -> Planned:
        key = json.dumps(list(words))
        configuration, data, level, threads, ranks = self.remembered.get(key) or self._composed(words, key)
        if self._fingerprint and data not in self._data:
            self._data[data] = fork.ask(lambda: self._read(words))
        return Planned(
            words=tuple(words), configuration=configuration, data=self._data.get(data, ""), level=level, threads=threads, ranks=ranks
        )  # fmt: skip

    def _composed(self, words: Sequence[str], key: str) -> list[Any]:
        config = self._compose(words)
        settings.check(config)
        recipe = settings.recipe_config(config)
        level = config.determinism.level
        ranks = OmegaConf.select(config, "machine.ranks", default=1) * (OmegaConf.select(config, "trainer.ranks") or 1)
        made = [
            digest.of_value([recipe, level, config.seed]), digest.of_value(recipe.get("data")), level, config.determinism.threads, ranks
        ]  # fmt: skip
        raw: Any = OmegaConf.to_container(config, resolve=False)
        if not ASKS.search(str([raw[name] for name in recipe])):
            self.remembered[key] = made
        return made

    def _read(self, words: Sequence[str]) -> str:
        """In a process of its own: numpy must not be loaded before a job's variables are set."""
        assert self._fingerprint  # noqa: S101 — see `plan`
        return self._fingerprint(self._compose(words).data)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Made:
    """What a multirun keeps in memory of a run. Its record has the rest: those of a thousand runs would take 30 MiB."""

    run: str
    state: str
    reason: str
    metrics: dict[str, Any]
    wall_s: float
    recipe: str
    outcome: str

    @classmethod
    def of(cls, run: Record) -> Self:
        return cls(
            run=run.run, state=ledger.state(run), reason=run.reason, metrics=run.metrics, wall_s=run.wall_s, recipe=run.recipe, outcome=run.outcome
        )  # fmt: skip


class Sealed:
    """The sealed runs of a folder, by what their recipes are made of. Code that git does not know (`code` is empty) is like no other."""

    def __init__(self, runs: Path, code: str, lock: str) -> None:
        self._by_recipe: dict[tuple[str, str], list[Made]] = {}
        for run in ledger.each(runs, newest_first=False) if code else ():
            if isinstance(run, Record) and run.state == "sealed":
                parts = run.recipe_parts
                if (parts["code"], parts["lock"]) == (code, lock):
                    self.add(run)

    def add(self, run: Record) -> None:
        """Newest first, under its data and without."""
        parts, made = run.recipe_parts, Made.of(run)
        for data in (parts["data"], ""):
            self._by_recipe.setdefault((parts["configuration"], data), []).insert(0, made)

    def of(self, planned: Planned) -> list[Made]:
        return self._by_recipe.get((planned.configuration, planned.data), [])


def count(overrides: Iterable[Any]) -> int:
    """How many jobs Hydra's overrides make, without making them."""
    total = 1
    for override in overrides:
        if override.is_sweep_override():
            value = override.value()
            if isinstance(value, RangeSweep) and value.step:
                total *= max(0, math.ceil(((value.stop or 0) - (value.start or 0)) / value.step))
            else:
                total *= sum(1 for _ in override.sweep_iterator())
    return total
