"""Verbatim: same recipe, same outcome, bit for bit, or the first thing that differs is named.

The machinery: it knows runs, records, bits, locks and images; it knows no model and no data set. Importing it loads neither torch
nor Hydra.
"""

from typing import TYPE_CHECKING, Any

from verbatim.errors import VerbatimError

if TYPE_CHECKING:
    from verbatim.recorder import Run

__all__ = ["VerbatimError", "run"]


def run(config: Any, overrides: Any = ()) -> "Run":
    """A recorded run of `config`, for a `with` block: see `verbatim.recorder`."""
    from verbatim.recorder import Run

    return Run(config, overrides)
