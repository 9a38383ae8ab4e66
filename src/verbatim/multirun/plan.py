"""What a sweep is to do: of each job all that its recipe is made of, before it starts, so that a sealed run of it is found."""

import dataclasses
import json
import math
import re
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Self

from hydra.core.override_parser.types import RangeSweep
from omegaconf import OmegaConf

from verbatim import determinism, digest, ledger, record, settings
from verbatim.errors import VerbatimError
from verbatim.multirun import compose, fork
from verbatim.record import Record

LOOK_S = 1.0  # between two looks at the runs: of a thousand, one takes 5 ms
ASKS = re.compile(r"\$\{[\w.]+:")  # what a resolver gives, as ${oc.env:LR}, may be another value the next time


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """`configuration`: the digest of the recipe's configuration, level and seed. `data`: the data's fingerprint, empty where it can't
    be known before the job reads them. `threads`: of each of its `ranks`. `gpus`: how many it would use, were there any."""

    words: tuple[str, ...]
    configuration: str
    data: str
    level: str
    threads: int
    ranks: int
    gpus: int


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
        configuration, data, level, threads, ranks, gpus = self.remembered.get(key) or self._composed(words, key)
        determinism.refuse_contradictions(level, threads)
        if self._fingerprint and data not in self._data:
            try:
                self._data[data] = fork.ask(lambda: self._read(words))
            except VerbatimError:  # data that are not there are no reason to give up the others: the job will say so
                self._data[data] = ""
        return Planned(
            words=tuple(words), configuration=configuration, data=self._data.get(data, ""), level=level, threads=threads, ranks=ranks, gpus=gpus
        )  # fmt: skip

    def _composed(self, words: Sequence[str], key: str) -> list[Any]:
        config = self._compose(words)
        settings.check(config)
        recipe = settings.recipe_config(config)
        level = config.determinism.level
        ranks = OmegaConf.select(config, "machine.ranks", default=1) * (OmegaConf.select(config, "trainer.ranks") or 1)
        made = [
            record.configuration(recipe, level, config.seed), digest.of_value(recipe.get("data")), level, config.determinism.threads, ranks,
            0 if level == "portable" or OmegaConf.select(config, "trainer.device") == "cpu" else ranks,
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
        self._runs, self._code, self._lock = runs, code, lock
        self._by_recipe: dict[tuple[str, str], list[Made]] = {}
        self._seen: dict[str, int] = {}  # folder → when its record was written, in ns
        self._looked_s = -math.inf

    def of(self, planned: Planned) -> list[Made]:
        """Newest first. Others, another multirun say, may seal runs at any time: the folder is looked at once a second."""
        if self._code and time.monotonic() - self._looked_s > LOOK_S:
            self._look()
            self._looked_s = time.monotonic()
        return self._by_recipe.get((planned.configuration, planned.data), [])

    def _look(self) -> None:
        for folder in sorted(self._runs.iterdir()) if self._runs.is_dir() else ():
            try:
                written = (folder / record.FILE).stat().st_mtime_ns
                if self._seen.get(folder.name) == written:
                    continue
                self._seen[folder.name] = written
                self.add(record.read(folder))
            except (OSError, VerbatimError):  # not a run; or not yet, or no longer: what can't be read can't be taken
                continue

    def add(self, run: Record) -> None:
        parts = run.recipe_parts
        if run.state == "sealed" and (parts["code"], parts["lock"]) == (self._code, self._lock):
            for data in (parts["data"], ""):  # under its data and without
                same = self._by_recipe.setdefault((parts["configuration"], data), [])
                if run.run not in (made.run for made in same):
                    same.insert(0, Made.of(run))


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
