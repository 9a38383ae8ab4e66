"""Functions of one value at a time, and draws, that would differ between CPUs or C libraries; `kernels` says why.

What torch's own kernel gives without such a function is left to it: contiguous float32, mostly.
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from verbatim.portable import refuse_type
from verbatim.portable.matrices import HALF, REAL

OWN = ("pow.Tensor_Scalar", "log", "gelu", "gelu_backward", "erfinv", "normal_")
_own: dict[str, Any] = {}  # torch's kernels of what is rerouted for some values only
_CPU = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)


def keep_own() -> None:
    """Before they are replaced."""
    _own.update({name: torch.library.get_kernel(f"aten::{name}", "CPU") for name in OWN})


def sqrt(x: Tensor) -> Tensor:
    if x.dtype not in REAL:
        if x.is_complex():
            raise refuse_type("the root of real numbers", x)
        return sqrt(x.float()).to(x.dtype) if x.dtype in HALF else sqrt(x.to(torch.get_default_dtype()))
    out = torch.empty_like(x)
    with np.errstate(invalid="ignore"):
        np.sqrt(x.detach().numpy(), out=out.numpy())
    return out


def _wide(x: Tensor) -> Tensor:
    """Half precision is computed in float32."""
    if x.dtype not in (*REAL, *HALF):
        raise refuse_type("floating-point numbers", x)
    return x.float() if x.dtype in HALF else x


def power(x: Tensor, exponent: float) -> Tensor:
    return sqrt(x) if exponent == 0.5 else _own["pow.Tensor_Scalar"].call_boxed(_CPU, x, exponent)


def log(x: Tensor) -> Tensor:
    return torch.xlogy(1.0, x) if x.dtype is torch.float64 else _own["log"].call_boxed(_CPU, x)


def erfinv(x: Tensor) -> Tensor:
    return torch.erfinv(x.float()).to(x.dtype) if x.dtype in HALF else _own["erfinv"].call_boxed(_CPU, x)


def gelu(x: Tensor, *, approximate: str = "none") -> Tensor:
    """https://arxiv.org/abs/1606.08415, exactly or by its tanh."""
    if x.dtype is torch.float32 and approximate == "none":
        return _own["gelu"].call_boxed(_CPU, x.contiguous(), approximate=approximate)  # type: ignore[no-any-return]
    wide = _wide(x)
    return (wide * _cumulative(wide, approximate)).to(x.dtype)


def gelu_backward(gradient: Tensor, x: Tensor, *, approximate: str = "none") -> Tensor:
    if x.dtype is torch.float32 and approximate == "none":
        return _own["gelu_backward"].call_boxed(_CPU, gradient.contiguous(), x.contiguous(), approximate=approximate)  # type: ignore[no-any-return]
    wide = _wide(x)
    share = _cumulative(wide, approximate)
    if approximate == "none":
        slope = (-0.5 * wide.square()).exp() / math.sqrt(2 * math.pi)
    else:
        slope = 2 * share * (1 - share) * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * wide.square())
    return (gradient * (share + wide * slope)).to(x.dtype)


def _cumulative(x: Tensor, approximate: str) -> Tensor:
    """The share of x that gelu lets through: the normal distribution's cumulative, or what stands in for it."""
    if approximate == "none":
        return 0.5 * (1 + (x * math.sqrt(0.5)).erf())
    if approximate != "tanh":
        raise RuntimeError("approximate argument must be either none or tanh.")
    return 0.5 * (1 + (math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)).tanh())


def elu(x: Tensor, alpha: float = 1, scale: float = 1, input_scale: float = 1) -> Tensor:
    wide = _wide(x)
    return torch.where(wide > 0, wide * scale, (wide * input_scale).expm1() * (alpha * scale)).to(x.dtype)


def softplus(x: Tensor, beta: float = 1, threshold: float = 20) -> Tensor:
    wide = _wide(x)
    return torch.where(wide * beta > threshold, wide, (wide * beta).exp().log1p() / beta).to(x.dtype)


def normal_(x: Tensor, mean: float = 0, std: float = 1, *, generator: torch.Generator | None = None) -> Tensor:
    """Of few values, or of other types, torch's starts from `log1p` of the C library; here from two uniforms and `log`."""
    if x.dtype is torch.float32 and x.is_contiguous() and x.numel() >= 16:
        return _own["normal_"].call_boxed(_CPU, x, mean, std, generator=generator)  # type: ignore[no-any-return]
    if not x.is_floating_point():
        raise refuse_type("draws of real numbers", x)
    if std < 0:
        raise RuntimeError(f"normal expects std >= 0.0, but found std {std}")
    first, second = torch.rand((2, *x.shape), dtype=torch.float64, generator=generator)
    return x.copy_((-2 * (1 - first).log()).sqrt() * (2 * math.pi * second).cos() * std + mean)


def normal(mean: Any, std: Any = 1, *, generator: torch.Generator | None = None) -> Tensor:
    """Of as many values as the tensors among `mean` and `std` have."""
    shape = np.broadcast_shapes(*(x.shape for x in (mean, std) if isinstance(x, Tensor)))
    like = mean if isinstance(mean, Tensor) else std
    if isinstance(std, Tensor):
        if (std < 0).any():
            raise RuntimeError("normal expects all elements of std >= 0.0")
    elif std < 0:
        raise RuntimeError(f"normal expects std >= 0.0, but found std {std}")
    drawn = torch.empty(shape, dtype=like.dtype).normal_(generator=generator)
    return drawn.mul_(std).add_(mean)
