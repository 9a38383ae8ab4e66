"""How far runs lie apart that differ in nothing but their seed: mean, standard deviation, and what is known of the mean. It imports no
numpy or scipy: the terminal's table is not to wait for them (scipy.special alone takes 0.6 s)."""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

LEVEL = 0.95


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """Jobs of equal overrides but for `seed=`. `values`: one for each seed that gave one; `without`: how many jobs gave none.

    `sd` divides by n - 1. From `low` to `high` lies the 95 % interval of the mean by Student's t: None, as `sd`, for fewer than two.
    """

    words: tuple[str, ...]
    values: tuple[float, ...]
    without: int = 0
    mean: float | None = None
    sd: float | None = None
    low: float | None = None
    high: float | None = None


def is_seed(word: str) -> bool:
    return word.lstrip("+").startswith("seed=")


def swept(jobs: Sequence[dict[str, Any]]) -> bool:
    """Whether some jobs differ in nothing but their seed: without that there is no spread to tell."""
    seeds: dict[tuple[str, ...], set[str]] = {}
    for job in jobs:
        words, seed = _parted(job)
        seeds.setdefault(words, set()).add(seed)
    return any(len(found) > 1 for found in seeds.values())


def groups(jobs: Sequence[dict[str, Any]], goal: str = "minimize") -> list[Group]:
    """The best mean first, groups without a value last. A seed that was given twice counts once: it would give the same bits."""
    found: dict[tuple[str, ...], dict[str, float]] = {}
    without: dict[tuple[str, ...], int] = {}
    for job in jobs:
        words, seed = _parted(job)
        values = found.setdefault(words, {})
        if finite(job.get("value")):
            values.setdefault(seed, float(job["value"]))
        else:
            without[words] = without.get(words, 0) + 1
    sign = -1 if goal == "maximize" else 1
    made = [_group(words, tuple(values.values()), without.get(words, 0)) for words, values in found.items()]
    return sorted(made, key=lambda group: math.inf if group.mean is None else sign * group.mean)


def finite(value: Any) -> bool:
    """Past 1e300 a loss has diverged, and what is drawn or squared of it would overflow."""
    return isinstance(value, int | float) and abs(value) < 1e300  # not so for NaN


def _parted(job: dict[str, Any]) -> tuple[tuple[str, ...], str]:
    words = job["overrides"]
    return tuple(w for w in words if not is_seed(w)), next((w.lstrip("+") for w in reversed(words) if is_seed(w)), "")


def _group(words: tuple[str, ...], values: tuple[float, ...], without: int) -> Group:
    n = len(values)
    if not n:
        return Group(words=words, values=values, without=without)
    # Rounding could put the mean of equal values beside them.
    mean = min(max(math.fsum(value / n for value in values), min(values)), max(values))
    if n == 1:
        return Group(words=words, values=values, without=without, mean=mean)
    sd = math.hypot(*(value - mean for value in values)) / math.sqrt(n - 1)
    half = student(n - 1) * sd / math.sqrt(n)
    return Group(words=words, values=values, without=without, mean=mean, sd=sd, low=mean - half, high=mean + half)


@functools.cache
def student(freedom: int, level: float = LEVEL) -> float:
    """The t within which, to both sides of 0, Student's distribution of so many degrees of freedom has `level` of its mass.

    By Newton's method on the angle atan(t / sqrt(freedom)): the mass within it is concave, so that no step goes past the root.
    """
    angle, slope = 0.0, 2 / math.sqrt(math.pi) * math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2))
    while (step := (level - _within(angle, freedom)) / (slope * math.cos(angle) ** (freedom - 1))) > 1e-14 * angle:
        angle += step
    return math.tan(angle) * math.sqrt(freedom)


def _within(angle: float, freedom: int) -> float:
    """The mass within the angle: Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4."""
    cosine, odd = math.cos(angle), freedom % 2
    term, total = (cosine if odd else 1.0), 0.0
    for k in range(1 + odd, freedom, 2):
        total += term
        term *= cosine * cosine * k / (k + 1)
    return 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total
