"""The sweeper of `seed=0,1,2 optimizer.lr=1e-2,1e-3`: every combination, as Hydra's own, but counted before they are made."""

from collections.abc import Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

from verbatim.errors import VerbatimError
from verbatim.multirun import plan


class Grid(BasicSweeper):
    """`params`: what a file of configs/sweep/ sweeps over; the command line has the last word."""

    def __init__(self, params: dict[str, Any] | None = None) -> None:
        super().__init__(max_batch_size=None, params=params)

    def sweep(self, arguments: list[str]) -> Any:
        launcher: Any = self.launcher
        refuse_foreign(launcher)
        words = [*self._parse_config(), *arguments]
        assert self.hydra_context  # noqa: S101 — Hydra sets it up first
        overrides = settings(words, self.hydra_context.config_loader)
        for override in overrides:
            if override.is_sweep_override() and not override.is_discrete_sweep():
                raise VerbatimError(override.input_line, expected="values, as 1,2,3 or range(1,4)", found="an interval", then="add hydra/sweeper=optuna, which searches one")  # fmt: skip
        last = {override.get_key_element(): override for override in overrides}
        launcher.refuse_many(plan.count(last.values()))
        (jobs,) = self.split_arguments(overrides, None)
        launcher.open(words)
        return launcher.launch(jobs, 0)


def refuse_foreign(launcher: Any) -> None:
    if not hasattr(launcher, "refuse_many"):
        raise VerbatimError("hydra/launcher", expected="local, slurm or ray", found=type(launcher).__name__, then="leave it out")  # fmt: skip


def settings(words: Sequence[str], loader: Any) -> list[Override]:
    """What was typed, parsed. `sweep=…` goes on to the jobs: its file may say more than what is swept over."""
    parsed = OverridesParser.create(config_loader=loader).parse_overrides(list(words))
    for override in parsed:
        if override.is_sweep_override() and override.key_or_group == "sweep":
            raise VerbatimError(override.input_line, expected="one file of configs/sweep/", found="several", then="a command for each")  # fmt: skip
    return parsed
