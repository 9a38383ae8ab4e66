"""The sweeper of `seed=0,1,2 optimizer.lr=1e-2,1e-3`: every combination, as Hydra's own, but counted before they are made."""

from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

from verbatim.errors import VerbatimError
from verbatim.multirun import plan


class Grid(BasicSweeper):
    """`params`: what a file of configs/sweep/ sweeps over; the command line has the last word."""

    def __init__(self, params: dict[str, Any] | None = None) -> None:
        super().__init__(max_batch_size=None, params=params)

    def sweep(self, arguments: list[str]) -> Any:
        launcher: Any = self.launcher
        words = [*self._parse_config(), *arguments]
        assert self.hydra_context  # noqa: S101 — Hydra sets it up first
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        parsed = parser.parse_overrides(words)
        for override in parsed:
            if override.is_sweep_override() and override.key_or_group == "sweep":
                raise VerbatimError(override.input_line, expected="one file of configs/sweep/", found="several", then="a command for each")  # fmt: skip
            if override.is_sweep_override() and not override.is_discrete_sweep():
                raise VerbatimError(override.input_line, expected="values, as 1,2,3 or range(1,4)", found="an interval", then="add hydra/sweeper=optuna, which searches one")  # fmt: skip
        overrides = [override for override in parsed if override.key_or_group != "sweep"]  # it has said what it says
        last = {override.get_key_element(): override for override in overrides}
        launcher.refuse_many(plan.count(last.values()))
        (jobs,) = self.split_arguments(overrides, None)
        launcher.open(words)
        return launcher.launch(jobs, 0)
