"""Random draws keyed by (seed, step, sample): the same for a sample whatever batch, shard, rank, thread or device it is computed on.

    with keyed.by(seed, step, indices):     a step's samples, in the order of the batch
        keyed.dropout(x, 0.1)               x (B, …): each sample has a stream of its own at each place where draws are made

Bits come from SplitMix64 (Steele, Lea and Flood 2014, https://doi.org/10.1145/2660193.2660195), a counter hashed with 64-bit whole
numbers: no float, no state, nothing to keep in a checkpoint. Half the speed of torch's own dropout. Outside of `by`, torch's generator
is used.
"""

import contextlib
import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from verbatim.errors import VerbatimError

GOLDEN = -7046029254386353131  # 2**64 / golden ratio, odd, as signed
FIRST, SECOND = -4658895280553007687, -7723592293110705685
BITS = {torch.bfloat16: 8, torch.float16: 11}  # that the type holds; of more, the highest would be rounded to 1


@dataclass(slots=True)
class _Key:
    """`streams`: int64 (B,), one for each sample; `places`: how many draws this forward pass has made."""

    streams: Tensor
    places: int = 0


_current: _Key | None = None


@contextlib.contextmanager
def by(seed: int, step: int, samples: Tensor) -> Iterator[None]:
    """`samples`: what names each sample of the batch, int64 (B,), on the CPU or on the device of the model."""
    global _current
    start = int.from_bytes(hashlib.sha256(f"{seed} {step}".encode()).digest()[:8], "little", signed=True)
    before, _current = _current, _Key(_mixed(samples * GOLDEN + start))
    try:
        yield
    finally:
        _current = before


def dropout(x: Tensor, rate: float) -> Tensor:
    """x (B, …) with each value zeroed at this rate, below 1, and the others scaled so that the expectation stays."""
    if not rate:
        return x
    if _current is None:
        return functional.dropout(x, rate)
    kept = _bits(_current, x.shape, x.device) >= int(rate * 2**32) - 2**31
    return x * (kept.to(x.dtype) / (1 - rate))


def uniform_like(x: Tensor) -> Tensor:
    """In [0, 1), step 2**-24 (of half precision, its own); shape, type and device of x (B, …)."""
    if _current is None:
        return torch.rand_like(x)
    bits = BITS.get(x.dtype, 24)
    drawn = (_bits(_current, x.shape, x.device) >> (32 - bits)) & (2**bits - 1)
    return drawn.to(torch.float32).mul_(2.0**-bits).to(x.dtype)  # type: ignore[no-any-return]


def normal_like(x: Tensor) -> Tensor:
    """Standard normal, by Box and Muller's transform of two uniforms; shape, type and device of x (B, …)."""
    if _current is None:
        return torch.randn_like(x)
    wide = x.new_empty((1,), dtype=torch.float32).expand(x.shape)
    radius = (-2 * (1 - uniform_like(wide)).log()).sqrt()
    return (radius * (2 * math.pi * uniform_like(wide)).cos()).to(x.dtype)


def _bits(key: _Key, shape: torch.Size, device: torch.device) -> Tensor:
    """int32 of that shape, all bits random: two of each hash."""
    if torch._C._current_autograd_node() is not None:
        raise VerbatimError(
            "verbatim.keyed", expected="draws in the forward pass", found="one while gradients are computed: an activation that was not kept is computed again, and would be drawn anew",
            then="leave draws out of torch.utils.checkpoint",
        )  # fmt: skip
    key.places += 1
    if not shape.numel():  # a rank without samples; strides of nothing can't be viewed as another type
        return torch.empty(shape, dtype=torch.int32, device=device)
    each = shape[1:].numel()
    streams = _mixed(key.streams.to(device) + _wrapped(key.places * GOLDEN))
    counter = torch.arange(1, each // 2 + 2, device=device).mul_(GOLDEN)
    hashed = _mixed(streams[:, None] + counter)  # (B, each / 2)
    return hashed.view(torch.int32)[:, :each].reshape(shape)


def _mixed(z: Tensor) -> Tensor:
    """The finalizer, in place; a shift of signed numbers brings the sign along, which the mask takes off again."""
    z.bitwise_xor_((z >> 30).bitwise_and_(2**34 - 1)).mul_(FIRST)
    z.bitwise_xor_((z >> 27).bitwise_and_(2**37 - 1)).mul_(SECOND)
    return z.bitwise_xor_((z >> 31).bitwise_and_(2**33 - 1))


def _wrapped(number: int) -> int:
    """As 64 bits hold it, signed."""
    return (number + 2**63) % 2**64 - 2**63
