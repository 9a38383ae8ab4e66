"""What the page of a multirun draws: an axis for each setting that was swept, and learning curves, thinned. The browser only scales them."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from verbatim.multirun.spread import finite

CURVES = 200  # drawn at most: more are not told apart
NUMBERS = 30_000  # of all curves and columns together: about 130 KiB
FINE = 1000  # steps from the bottom of a picture to its top
FEW = 8  # so many values all get a label of their own
LONG = 8  # characters of a number beside an axis
FAR = 1.5  # decades, from which on one bad run would leave the good ones no room on a linear scale
ABSENT = "–"
LOG, LINEAR = re.compile(r"\btag\(\s*log\b"), re.compile(r"\b(interval|range)\(")  # as Hydra writes what is to be tried


@dataclass(frozen=True, slots=True)
class Axis:
    """`at`: where each value lies, 0 to `FINE`, None for those that have none. `kind`: linear, log or category.

    One that can be drawn either way has `at` and `ticks` of the logarithmic scale, `kind` as it is drawn at first, `linear`, the ticks
    of the other, and `span`, the logarithm of highest by lowest: with that the browser places the values there."""

    name: str
    kind: str
    ticks: list[tuple[int, str]]
    at: list[int | None]
    linear: list[tuple[int, str]] = field(default_factory=list)
    span: float = 0.0

    def plain(self) -> dict[str, Any]:
        """Without what it has not, and without `at`."""
        both = {"linear": self.linear, "span": round(self.span, 6)} if self.linear else {}
        return {"name": self.name, "kind": self.kind, "ticks": self.ticks, **both}


def settings(words: Sequence[str]) -> dict[str, str]:
    """`+optimizer.lr=1e-2` → optimizer.lr: 1e-2. Of a word given twice the last counts, as Hydra does it."""
    parts = (word.lstrip("+").partition("=") for word in words)
    return {name: value if equals else "yes" for name, equals, value in parts}


def swept(jobs: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """The settings that are not the same in all jobs, and what each job has: `ABSENT` where it does not say."""
    found = [settings(job["overrides"]) for job in jobs]
    names = dict.fromkeys(name for one in found for name in one)
    columns = {name: [one.get(name, ABSENT) for one in found] for name in names}
    return {name: column for name, column in columns.items() if len(set(column)) > 1}


def same(jobs: Sequence[dict[str, Any]]) -> list[str]:
    """The overrides that all jobs have."""
    return [word for word in jobs[0]["overrides"] if all(word in job["overrides"] for job in jobs)] if jobs else []


def axis_of_words(name: str, words: Sequence[str], asked: str = "") -> Axis:
    """A scale where every word is a number, else one point for each: also for 0, 1e-5, 1e-3, that no scale tells apart. `asked`: what
    the multirun was told to try; an interval says what its scale is, whatever was drawn of it."""
    numbers = [_number(word) for word in words]
    sizes = sorted(abs(number) for number in set(numbers) if number)
    decades = 0.0 if LOG.search(asked) else math.inf if LINEAR.search(asked) else None
    if None not in numbers and not (decades is None and 0.0 in numbers and len(sizes) < FEW and _decades_apart(sizes)):
        few = {number: brief(word) for number, word in zip(numbers, words, strict=True) if number is not None}
        whole = all(number is None or number.is_integer() for number in numbers)
        if decades is None:
            decades = 2 if whole else 1
        return axis(name, numbers, few if len(few) <= FEW else None, decades=decades)
    points = sorted(
        dict.fromkeys(words), key=lambda word: (_number(word) is None, _number(word) or 0.0, _natural(word))
    )
    place = {word: round((i + 0.5) / len(points) * FINE) for i, word in enumerate(points)}
    return Axis(name, "category", [(at, word) for word, at in place.items()], [place[word] for word in words])


def axis(
    name: str, values: Sequence[float | None], labels: dict[float, str] | None = None, *, decades: float = 2
) -> Axis:
    """On a logarithmic scale where the values span so many decades or more. `labels`: of all values, where they are few."""
    there = [value for value in values if finite(value) and value is not None]
    low, high = min(there, default=0.0), max(there, default=0.0)
    if high - low <= max(1e-12 * max(abs(low), abs(high)), 1e-300):
        return Axis(name, "linear", [(FINE // 2, f"{low:.4g}")], [FINE // 2 if finite(v) else None for v in values])
    log = low > 0 and _decades_apart([low, high], decades)

    def place(value: float) -> int:
        of = math.log if log else float
        return round((of(value) - of(low)) / (of(high) - of(low)) * FINE)

    marks = labels or (_decades(low, high) if log else _steps(low, high))
    ticks = [(place(value), text) for value, text in sorted(marks.items())]
    at = [place(value) if value is not None and finite(value) else None for value in values]
    return Axis(name, "log" if log else "linear", ticks, at)


def either(name: str, values: Sequence[float | None]) -> Axis:
    """Of what was measured: on a scale of the reader's choice where all values are above 0."""
    log, linear = axis(name, values, decades=0), axis(name, values, decades=math.inf)
    if log.kind != "log":
        return linear
    there = [value for value in values if finite(value) and value is not None]
    low, high = min(there), max(there)
    kind = "log" if _decades_apart([low, high], FAR) else "linear"
    return replace(log, kind=kind, linear=linear.ticks, span=math.log(high) - math.log(low))


def _decades_apart(positive: Sequence[float], decades: float = 2) -> bool:
    return len(positive) > 1 and math.log10(positive[-1]) - math.log10(positive[0]) > decades - 1e-9


def brief(word: str) -> str:
    """What a search drew has 17 digits; as a person would round it, also where it is the value of a `name=value`. A whole number is
    kept: of a seed every digit counts."""
    name, equals, value = word.rpartition("=")
    number = _number(value) if len(value) > LONG and not value.lstrip("+-").isdigit() else None
    return word if number is None else f"{name}{equals}{number:.4g}"


def _natural(word: str) -> list[str | int]:
    """So that [16,32] comes before [128,16]: words and numbers take turns in it."""
    return [int(part) if place % 2 else part for place, part in enumerate(re.split(r"([0-9]{1,15})", word))]


def _number(word: str) -> float | None:
    try:
        value = float(word)
    except ValueError:
        return None
    return value if finite(value) else None


def _steps(low: float, high: float) -> dict[float, str]:
    """Three to seven round values within, with as many digits as tell them apart."""
    power = 10.0 ** math.floor(math.log10((high - low) / 4))
    step = next(power * factor for factor in (1, 2, 5, 10) if (high - low) / (power * factor) <= 6)
    if low.is_integer() and high.is_integer():  # epochs, say: none lies between two
        step = max(1.0, step)
    largest = max(abs(low), abs(high))
    digits = max(1, math.ceil(math.log10(largest / step)) + 1)
    form = f".{max(0, -math.floor(math.log10(step) + 1e-9))}f" if largest < 1e6 and step > 1e-7 else f".{digits}g"
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return {min(max(i * step, low), high): f"{i * step + 0.0:{form}}" for i in range(first, last + 1)}


def _decades(low: float, high: float) -> dict[float, str]:
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    every = max(1, math.ceil((last - first + 1) / FEW))
    powers: dict[float, str] = {min(max(10.0**i, low), high): f"{10.0**i:g}" for i in range(first, last + 1, every)}
    if len(powers) > 2:
        return powers
    between = [factor * 10.0**i for i in range(first - 1, last + 1) for factor in (1, 2, 5)]
    marks = {mark: f"{mark:g}" for mark in between if low <= mark <= high} | powers
    return marks if len(marks) > 2 else _steps(low, high)


def curves(
    jobs: Sequence[dict[str, Any]],
    ranked: Sequence[int],
    objective: str,
    epochs: Callable[[dict[str, Any]], list[dict[str, Any]]],
) -> dict[str, Any]:
    """Of the first `CURVES` of `ranked` (places in `jobs`) that have `epochs`. `every`: of so many epochs one is drawn, and the last.

    `metrics`: the objective first; `lines[k]` belongs to job `jobs[k]`, whose epochs lie at `x[k]`, or `x[0]` where they all
    have the same.
    """
    drawn, rows, of = [], [], 0
    for index in ranked:
        if curve := epochs(jobs[index]):
            of += 1
            if of <= CURVES:  # of a thousand jobs, only what is drawn is kept
                drawn.append(index)
                rows.append(curve)
    found = dict.fromkeys(name for job in rows for row in (job[0], job[-1]) for name in row if name != "epoch")
    names = sorted(found, key=lambda name: (name != objective, not name.startswith("validation")))
    longest = max((len(job) for job in rows), default=0)
    room = max(10, NUMBERS // max(1, len(rows) * len(names)))
    every = math.ceil(longest / room)
    rows = [[row for i, row in enumerate(job) if (len(job) - 1 - i) % every == 0] for job in rows]
    lengths = [len(job) for job in rows]
    across = axis("epoch", [_value(row.get("epoch")) for job in rows for row in job], decades=math.inf)
    x = _parted(across.at, lengths)
    metrics = []
    for name in names:
        up = either(name, [_value(row.get(name)) for job in rows for row in job])
        metrics.append(up.plain() | {"lines": _parted(up.at, lengths)})
    return {"jobs": drawn, "of": of, "every": every, "ticks": across.ticks,
            "x": x[:1] if all(one == x[0] for one in x) else x, "metrics": metrics}  # fmt: skip


def _value(value: Any) -> float | None:
    return float(value) if finite(value) else None


def _parted(flat: Sequence[int | None], lengths: Sequence[int]) -> list[list[int | None]]:
    taken = iter(flat)
    return [[next(taken) for _ in range(length)] for length in lengths]
