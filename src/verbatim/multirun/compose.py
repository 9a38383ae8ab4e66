"""Composes the configuration of each job: what groups choose is composed once, values are set on a copy (1 ms instead of 40).

Hydra itself does the same two things in this order, each time anew. The second is a private function of its loader, held against
Hydra's own composition by a test.
"""

import copy
import functools
from collections.abc import Sequence
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict, read_write


class Composer:
    """`loader` is Hydra's, `master` the configuration of the command itself, without what it sweeps over."""

    def __init__(self, loader: Any, master: DictConfig) -> None:
        self._loader, self._master = loader, master
        self._parse = functools.cache(OverridesParser.create(config_loader=loader).parse_override)
        self._bases: dict[tuple[str, ...], tuple[DictConfig, DictConfig]] = {}

    def __call__(self, words: Sequence[str]) -> DictConfig:
        """The job's own part, as a task gets it. Raises what Hydra raises."""
        groups, values = self._split(words)
        config = copy.deepcopy(self._base(groups)[0])
        self._loader._apply_overrides_to_config(values, config)
        return config

    def prepare(self, words: Sequence[str]) -> None:
        """Before this process is forked: what the job will need besides its own values."""
        self._base(self._split(words)[0])

    def announce(self, words: Sequence[str]) -> DictConfig:
        """Compose, and let `HydraConfig` say what Hydra would. For a process that has this one job: what was composed is changed."""
        groups, values = self._split(words)
        config, own = self._base(groups)
        self._loader._apply_overrides_to_config(values, config)
        with read_write(own), open_dict(own):
            own.hydra.overrides.task = list(words)
        HydraConfig.instance().cfg = own  # type: ignore[assignment]
        return config

    def _split(self, words: Sequence[str]) -> tuple[tuple[str, ...], list[Override]]:
        """Words that choose what is read, and overrides that set values on it."""
        parsed = [(word, self._parse(word)) for word in words]
        groups = tuple(word for word, override in parsed if self._chooses(override))
        return groups, [override for _, override in parsed if not self._chooses(override)]

    def _chooses(self, override: Override) -> bool:
        """What decides which files are read, or takes something away."""
        key = override.key_or_group
        return override.is_delete() or key.startswith("hydra") or self._loader.repository.group_exists(key)

    def _base(self, groups: tuple[str, ...]) -> tuple[DictConfig, DictConfig]:
        """The configuration that the groups give: a job's part of it, and Hydra's own, as `HydraConfig.set_config` keeps it (which takes
        8 ms, by copying all)."""
        if groups not in self._bases:
            whole = self._loader.load_sweep_config(self._master, list(groups))
            part = copy.deepcopy(whole)
            with read_write(part), open_dict(part):
                del part["hydra"]
            own = OmegaConf.masked_copy(whole, "hydra")
            own.hydra._set_parent(whole)
            self._bases[groups] = part, own
        return self._bases[groups]
