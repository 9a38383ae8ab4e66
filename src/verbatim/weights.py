"""Two files of weights, tensor by tensor and bit by bit: which differ, in how many values, by how much. Reads safetensors with
numpy, without torch; never rounds, and never takes two NaNs of the same bits for different.

Format: u64 length of a JSON header (name → dtype, shape, two offsets), the header, then the tensors' bytes.
https://huggingface.co/docs/safetensors/index
"""

import json
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from verbatim.errors import VerbatimError

HEADER_LIMIT_BYTES = 100 * 2**20  # the format's own
CHUNK = 2**20  # values at a time: memory does not grow with the tensor
# dtype → bytes, bits of the exponent, bits of the mantissa; whole numbers have no exponent.
FLOATS = {"F64": (8, 11, 52), "F32": (4, 8, 23), "F16": (2, 5, 10), "BF16": (2, 8, 7), "F8_E5M2": (1, 5, 2)}
SIZES = {"I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1, "F8_E4M3": 1}


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """A tensor as its file states it; `start` counts from the file's first byte."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    size_bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Apart:
    """How two tensors of one name differ. `max_ulp`: steps between neighbouring floats, over the finite pairs that differ."""

    name: str
    says: str
    count: int = 0
    of: int = 0
    max_ulp: int | None = None
    max_absolute: float | None = None
    nonfinite_a: int = 0
    nonfinite_b: int = 0
    first_index: tuple[int, ...] = ()
    first_a: float | int | None = None
    first_b: float | int | None = None


def read_header(path: Path) -> dict[str, Stored]:
    """What a file holds, in the order of its bytes; what does not fit the file is refused."""

    def refuse(found: object) -> VerbatimError:
        return VerbatimError(path, expected="a whole safetensors file", found=found)

    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else size
        if length > min(HEADER_LIMIT_BYTES, size - 8):
            raise refuse(f"{size} bytes, fewer than its header states")
        try:
            header = json.loads(file.read(length))
            entries = [
                (name, e["dtype"], e["shape"], *e["data_offsets"])
                for name, e in header.items()
                if name != "__metadata__"
            ]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise refuse(f"{type(error).__name__}: {error}") from None
    stored = {}
    for name, dtype, shape, start, end in entries:
        width = FLOATS[dtype][0] if dtype in FLOATS else SIZES.get(dtype) if isinstance(dtype, str) else None
        numbers = [*shape, start, end] if isinstance(shape, list) else [None]
        if width is None or not all(isinstance(n, int) and n >= 0 for n in numbers):
            raise refuse(f"{name} of type {dtype}, shape {shape}")
        if math.prod(shape) * width != end - start or 8 + length + end > size:
            raise refuse(f"{name}, whose bytes are not all there")
        stored[name] = Stored(dtype=dtype, shape=tuple(shape), start=8 + length + start, size_bytes=end - start)
    return dict(sorted(stored.items(), key=lambda item: item[1].start))


def compare(a: Path, b: Path) -> Iterator[Apart]:
    """Every tensor that differs, in the order of `a`, then those that only `b` has."""
    left, right = read_header(a), read_header(b)
    for name, one in left.items():
        other = right.get(name)
        if other is None:
            yield Apart(name=name, says="only in the first")
        elif (one.dtype, one.shape) != (other.dtype, other.shape):
            yield Apart(name=name, says=f"{one.dtype} {list(one.shape)} → {other.dtype} {list(other.shape)}")
        elif apart := _compare(name, one, a, other, b):
            yield apart
    yield from (Apart(name=name, says="only in the second") for name in right if name not in left)


def _compare(name: str, one: Stored, a: Path, other: Stored, b: Path) -> Apart | None:
    width = FLOATS[one.dtype][0] if one.dtype in FLOATS else SIZES[one.dtype]
    unsigned = np.dtype(f"<u{width}")
    count, ulp, absolute, nonfinite, first = 0, 0, 0.0, [0, 0], -1
    total = one.size_bytes // width
    for start in range(0, total, CHUNK):
        n = min(CHUNK, total - start)
        left = np.fromfile(a, unsigned, n, offset=one.start + start * width)
        right = np.fromfile(b, unsigned, n, offset=other.start + start * width)
        differs = left != right
        if one.dtype in FLOATS:
            nonfinite[0] += int((~_finite(left, one.dtype)).sum())
            nonfinite[1] += int((~_finite(right, one.dtype)).sum())
        if not differs.any():
            continue
        if first < 0:
            first = start + int(differs.argmax())
            first_a, first_b = (_value(x[first - start : first - start + 1], one.dtype) for x in (left, right))
        count += int(differs.sum())
        if one.dtype in FLOATS:
            both = differs & _finite(left, one.dtype) & _finite(right, one.dtype)
            ulp = max(ulp, _ulp(left[both], right[both], width))
            with np.errstate(over="ignore"):
                gap = np.abs(_floats(left[both], one.dtype) - _floats(right[both], one.dtype))
            absolute = max(absolute, float(gap.max(initial=0.0)))
    if not count:
        return None
    index = tuple(int(i) for i in np.unravel_index(first, one.shape))
    is_float = one.dtype in FLOATS
    digits = 9 if width <= 4 else 17  # as many as tell every value from its neighbours
    says = f"{count} of {total} values differ"
    says += f", by {ulp} ulp at most ({absolute:.3g})" if is_float and ulp else ""
    if any(nonfinite):
        says += f", NaN or infinite: {nonfinite[0]} and {nonfinite[1]}"
    says += f"; first at {list(index)}: {first_a:.{digits}g} → {first_b:.{digits}g}"
    return Apart(
        name=name, says=says, count=count, of=total, max_ulp=ulp if is_float else None,
        max_absolute=absolute if is_float else None, nonfinite_a=nonfinite[0], nonfinite_b=nonfinite[1],
        first_index=index, first_a=first_a, first_b=first_b,
    )  # fmt: skip


def _finite(bits: Any, dtype: str) -> Any:
    _, exponent, mantissa = FLOATS[dtype]
    mask = bits.dtype.type(((1 << exponent) - 1) << mantissa)
    return (bits & mask) != mask


def _ulp(a: Any, b: Any, width: int) -> int:
    """Floats in the order of their values are whole numbers in order, once the negative ones are mirrored; −0 is next to +0."""
    if not a.size:
        return 0
    sign = np.uint64(1 << (8 * width - 1))
    left, right = (np.where(x & sign, sign - (x & (sign - np.uint64(1))) - np.uint64(1), x + sign)
                   for x in (a.astype(np.uint64), b.astype(np.uint64)))  # fmt: skip
    return int((np.maximum(left, right) - np.minimum(left, right)).max())


def _floats(bits: Any, dtype: str) -> Any:
    if dtype == "BF16":
        return (bits.astype("<u4") << 16).view("<f4").astype("<f8")
    if dtype == "F8_E5M2":  # the upper half of a float16
        return (bits.astype("<u2") << 8).view("<f2").astype("<f8")
    return bits.view(f"<f{bits.dtype.itemsize}").astype("<f8")


def _value(bits: Any, dtype: str) -> float | int:
    if dtype in FLOATS:
        return float(_floats(bits, dtype)[0])
    if dtype.startswith("I"):
        return int(bits.view(f"<i{bits.dtype.itemsize}")[0])
    return int(bits[0])
