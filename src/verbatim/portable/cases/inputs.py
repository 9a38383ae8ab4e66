"""Inputs that are the same on every machine, and the two ways through an operator."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Case = Callable[[], Sequence[Tensor]]
FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
FULL = (torch.float32, torch.float64)


def made(*shape: int, salt: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Values in [-1, 1), step 2**-11 (exact in float16; of bfloat16 rounded to nearest), by a multiplicative hash of the position."""
    return _hashed(torch.Size(shape).numel(), salt).to(dtype, copy=True).view(shape)


@functools.cache
def _hashed(n: int, salt: int) -> Tensor:
    x = (torch.arange(n, dtype=torch.int64) + 1 + salt * 1_000_003) * -7046029254386353131  # 2**64 / golden ratio, odd
    x = (x ^ (x >> 29)) * -4658895280553007687
    x = (x ^ (x >> 32)) & 0xFFF
    return (x.double() - 2048).mul_(2.0**-11)


def positive(*shape: int, salt: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """In [2**-11, 1]."""
    return made(*shape, salt=salt, dtype=torch.float64).add_(1 + 2.0**-10).mul_(0.5).to(dtype)


def whole(*shape: int, below: int, salt: int = 0) -> Tensor:
    """int64 in [0, below)."""
    return (made(*shape, salt=salt, dtype=torch.float64) * 2048 + 2048).long().remainder_(below)


def both_ways(function: Callable[..., Any], *inputs: Tensor) -> Case:
    """Forward, and the gradients of every floating-point input for a fixed gradient of the output."""

    def case() -> list[Tensor]:
        leaves = [x.clone().requires_grad_() if x.is_floating_point() else x for x in inputs]
        out = function(*leaves)
        outs = [t for t in (out if isinstance(out, tuple) else (out,)) if t.is_floating_point()]
        # A scalar's gradient: for any other, torch loads its symbolic shapes (and sympy) to compare two shapes, 0.3 s.
        total = torch.stack([(t * made(*t.shape, salt=9, dtype=t.dtype)).double().sum() for t in outs]).sum()
        return [*outs, *torch.autograd.grad(total, [x for x in leaves if x.requires_grad])]

    return case


def short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
