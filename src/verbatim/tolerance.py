"""How far apart two runs are, in numbers: for machines that can't compute the same bits. It claims closeness and nothing else.

The measure is |a − b| / max(|a|, |b|), over the losses of the steps that both have and over the metrics that are numbers.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verbatim import integrity
from verbatim.comparison import Comparison
from verbatim.errors import VerbatimError


@dataclass(frozen=True, kw_only=True, slots=True)
class Apart:
    """The largest relative difference, and where it is."""

    relative: float
    where: str


def measure(found: Comparison, a: Path, b: Path) -> Apart:
    """Refused where there is nothing to measure."""
    left, right = (integrity.open_trace(integrity.folder_of(path), run) for path, run in ((a, found.a), (b, found.b)))
    pairs: list[tuple[str, Any, Any]] = []
    if left and right:
        pairs += [
            (f"the loss of step {one.step}", one.loss, other.loss) for one, other in zip(left, right, strict=False)
        ]
    pairs += [
        (name, value, found.b.metrics[name]) for name, value in found.a.metrics.items() if name in found.b.metrics
    ]
    apart = [
        Apart(relative=relative(one, other), where=name)
        for name, one, other in pairs
        if isinstance(one, int | float) and isinstance(other, int | float)
    ]
    if not apart:
        raise VerbatimError("--tolerance", expected="losses or metrics of both runs", found="none")
    return max(apart, key=lambda each: each.relative)


def relative(a: float, b: float) -> float:
    if a == b or (math.isnan(a) and math.isnan(b)):
        return 0.0
    if not (math.isfinite(a) and math.isfinite(b)):
        return math.inf
    return abs(a - b) / max(abs(a), abs(b))


def say(apart: Apart, most: float) -> str:
    said = "within" if apart.relative <= most else "not within"
    return (
        f"{said} the tolerance of {most:g}: {apart.where} is apart the most, by {apart.relative:.3g}. "
        "Close is not the same: no claim is made of any bit."
    )
