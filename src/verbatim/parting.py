"""The first step at which two traces part, and what of that step: batch, loss, gradient or parameters. Never reads a whole trace.

A row's chain covers every row before it, so two chains that are equal end all doubt, and a binary search over a million steps
reads twenty rows. Where the chains can't be compared (another header, or a trace that starts at another step) the rows are, in
blocks.
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from verbatim import trace
from verbatim.trace import Reader, Row

WHAT = ("batch", "loss", "gradient", "parameters")  # in the order in which one causes the next
BLOCK_ROWS = 16384


@dataclass(frozen=True, kw_only=True, slots=True)
class Parting:
    """`compared` rows were the same; then row `a` and row `b` were not, in `what`. Without rows: one trace ended, or both did."""

    compared: int
    a: Row | None = None
    b: Row | None = None
    what: tuple[str, ...] = ()
    parameters_same_after: int | None = (
        None  # the last step before at which both took their digest, and it was the same
    )


def find(a: Reader, b: Reader, until: int | None = None) -> Parting:
    """Compare as far as both go; not past step `until`."""
    if not a.rows or not b.rows:
        return Parting(compared=0)
    start = max(a.row(0).step, b.row(0).step)
    skip_a, skip_b = start - a.row(0).step, start - b.row(0).step
    rows = min(a.rows - skip_a, b.rows - skip_b)
    if until is not None:
        rows = min(rows, until + 1 - start)
    if rows <= 0:
        return Parting(compared=0)
    if not skip_a and not skip_b and a.chain(-1) == b.chain(-1):
        at = _bisect(a, b, rows)
    else:
        at = _scan(a, b, skip_a, skip_b, rows)
    if at == rows:
        return Parting(compared=rows)
    left, right = a.row(skip_a + at), b.row(skip_b + at)
    what = tuple(_what(left, right))
    return Parting(compared=at, a=left, b=right, what=what, parameters_same_after=_last_same(a, b, start, left.step))


def _last_same(a: Reader, b: Reader, start: int, step: int) -> int | None:
    """The last step before `step` at which both took the parameters' digest."""
    every = math.lcm(a.parameters_every, b.parameters_every)
    last = (step - 1) // every * every if every else -1
    if last < start:
        return None
    rows = (reader.row(last - reader.row(0).step) for reader in (a, b))
    return last if all(map(_taken, rows)) else None


def _bisect(a: Reader, b: Reader, rows: int) -> int:
    """The first row whose chain differs, or `rows`: every row after it differs as well."""
    low, high = 0, rows
    while low < high:
        middle = (low + high) // 2
        if a.chain(middle) == b.chain(middle):
            low = middle + 1
        else:
            high = middle
    return low


def _scan(a: Reader, b: Reader, skip_a: int, skip_b: int, rows: int) -> int:
    import numpy as np

    def block(reader: Reader, start: int, count: int) -> Any:
        return np.frombuffer(reader.block(start, count), "<u8").reshape(count, trace.ROW_BYTES // 8)

    for start in range(0, rows, BLOCK_ROWS):
        count = min(BLOCK_ROWS, rows - start)
        left, right = block(a, skip_a + start, count), block(b, skip_b + start, count)
        unlike = left[:, :8] != right[:, :8]  # words 4 and 5 are the gradient's digest, 6 and 7 the parameters'
        whole, whole_too = left[:, 6:8].any(axis=1), right[:, 6:8].any(axis=1)
        other = unlike[:, :4].any(axis=1) | ((whole == whole_too) & unlike[:, 4:6].any(axis=1))
        other |= whole & whole_too & unlike[:, 6:].any(axis=1)
        if other.any():
            return start + int(other.argmax())
    return rows


def _what(a: Row, b: Row) -> Iterator[str]:
    """What of two rows differs. Digests that cover different tensors (one row took all, the other not) can't be compared."""
    comparable = {"gradient": _taken(a) == _taken(b), "parameters": _taken(a) and _taken(b)}
    for name in WHAT:
        left, right = getattr(a, name), getattr(b, name)
        if name == "loss":  # by its bits: a NaN is the same as itself
            left, right = struct.pack("<d", left), struct.pack("<d", right)
        if left != right and comparable.get(name, True):
            yield name
    if a.step != b.step:
        yield "step"


def _taken(row: Row) -> bool:
    return row.parameters != trace.NOT_TAKEN
