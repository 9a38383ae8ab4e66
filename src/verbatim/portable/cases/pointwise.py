"""One value at a time, and pairs of them."""

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from verbatim.portable.cases.inputs import FLOATS, FULL, Case, both_ways, made, positive, short, whole

ANYWHERE = (
    "abs", "ceil", "cos", "erf", "erfc", "exp", "exp2", "expm1", "floor", "frac", "neg", "reciprocal", "relu",
    "round", "sigmoid", "sign", "sin", "square", "tanh", "trunc",
)  # fmt: skip
WITHIN = ("erfinv",)  # [-1, 1]
ABOVE_ZERO = ("log", "log1p", "rsqrt", "sqrt")
RANGES: tuple[tuple[Iterable[str], Callable[..., Tensor], float], ...] = (
    (ANYWHERE, made, 8.0), (WITHIN, made, 1 - 2.0**-11), (ABOVE_ZERO, positive, 8.0),
)  # fmt: skip
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    **{name: getattr(functional, name) for name in (
        "celu", "elu", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "logsigmoid", "relu6", "selu", "silu", "softplus",
        "softshrink", "softsign", "tanhshrink",
    )},
}  # fmt: skip


def pointwise() -> Iterator[tuple[str, Case]]:
    """Odd lengths: vectors of 8 leave a rest. Every second value: no vectors at all. Three rows of a transposed matrix: both."""
    for names, make, scale in RANGES:
        for name in names:
            function = getattr(torch, name)
            for dtype in FLOATS:
                yield f"{name} {short(dtype)}", both_ways(function, make(1003, dtype=dtype) * scale)
            yield f"{name} strided", both_ways(lambda x, f=function: f(x[::2]), make(1003) * scale)
            yield f"{name} transposed", both_ways(lambda x, f=function: f(x.t()), make(37, 3) * scale)
    for name, function in ACTIVATIONS.items():
        for dtype in FLOATS:
            yield f"{name} {short(dtype)}", both_ways(function, made(1003, dtype=dtype) * 8)
        yield f"{name} strided", both_ways(lambda x, f=function: f(x[::2]), made(1003) * 8)
    for exponent in (0.5, 1.7, 2, 3, -1, -0.5):
        yield f"pow {exponent}", both_ways(lambda x, e=exponent: x.pow(e), positive(1003))
        yield f"pow {exponent} float64", both_ways(lambda x, e=exponent: x.pow(e), positive(1003, dtype=torch.float64))
    yield "functions into what is there", _into
    yield "logit", both_ways(torch.logit, positive(1003) * 0.9)
    yield "clamp", both_ways(lambda x: x.clamp(-0.3, 0.4), made(1003))
    yield "nan_to_num", both_ways(lambda x: torch.nan_to_num(x / x.round()), made(1003))


def _into() -> list[Tensor]:
    x = positive(1003, dtype=torch.float64)
    nn: Any = torch._C._nn
    outs = [torch.empty(0, dtype=torch.float64) for _ in range(8)]
    for function, out in zip((torch.sqrt, torch.log, torch.erfinv, nn.gelu, nn.elu, nn.softplus), outs, strict=False):
        function(x, out=out)
    torch.pow(x, 0.5, out=outs[6])
    torch.ops.aten.gelu_backward.grad_input(x, x, grad_input=outs[7])
    there = [
        x.clone().sqrt_(),
        x.clone().log_(),
        x.clone().erfinv_(),
        x.clone().pow_(0.5),
        functional.elu(-x, inplace=True),
    ]
    return [*outs, *there, nn.gelu_(x.clone())]


def special_values() -> Iterator[tuple[str, Case]]:
    """Zeros, subnormals, infinities and the largest numbers; what comes out as NaN is told apart from what does not, no more."""
    tiny = [2.0**-149, 2.0**-130, 2.0**-126]
    values = torch.tensor(
        [0.0, -0.0, *tiny, *(-x for x in tiny), 1e-20, 88.0, 89.0, -104.0, 3.4e38, float("inf"), float("-inf")] * 3
    )

    def case(name: str) -> Case:
        def run() -> list[Tensor]:
            out = getattr(torch, name)(values)
            return [out.isnan(), out.nan_to_num(nan=7.0)]

        return run

    for name in (*ANYWHERE, *WITHIN, *ABOVE_ZERO):
        yield f"{name} special", case(name)
    yield "add special", lambda: [values + values * 0.5]
    yield "mul special", lambda: [values * 0.3]
    yield "div special", lambda: [values / 3]


def pairs() -> Iterator[tuple[str, Case]]:
    two: dict[str, Callable[..., Any]] = {
        "add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": lambda a, b: a / (b.abs() + 1), "maximum": torch.maximum,
        "minimum": torch.minimum, "pow tensor": lambda a, b: (a.abs() + 0.5).pow(b),
        "add alpha": lambda a, b: torch.add(a, b, alpha=0.3), "lerp": lambda a, b: torch.lerp(a, b, 0.1), "fmod": lambda a, b: torch.fmod(a, b.abs() + 0.1),
        "lerp tensor": lambda a, b: torch.lerp(a, b, b.abs()), "addcmul": lambda a, b: torch.addcmul(a, a, b, value=0.3),
        "addcdiv": lambda a, b: torch.addcdiv(a, a, b.abs() + 1, value=0.3), "remainder": lambda a, b: torch.remainder(a, b.abs() + 0.1),
        "where": lambda a, b: torch.where(a > b, a, b), "copysign": torch.copysign, 
        "xlogy": lambda a, b: torch.xlogy(a, b.abs() + 0.1), "div floor": lambda a, b: torch.div(a, b.abs() + 0.1, rounding_mode="floor"),
        "div trunc": lambda a, b: torch.div(a, b.abs() + 0.1, rounding_mode="trunc"), "rsub": lambda a, b: (1 - a) * b,
        "fmax": torch.fmax, "fmin": torch.fmin,
    }  # fmt: skip
    for name, function in two.items():
        for dtype in FULL if name in ("xlogy",) else FLOATS:
            yield (
                f"{name} {short(dtype)}",
                both_ways(function, made(1003, dtype=dtype), made(1003, salt=1, dtype=dtype)),
            )
        yield f"{name} broadcast", both_ways(function, made(17, 1), made(33, salt=1))
        yield f"{name} strided", both_ways(lambda a, b, f=function: f(a[::2], b[::2]), made(1003), made(1003, salt=1))
    a, b = whole(1003, below=97), whole(1003, below=89, salt=1)
    for name in ("bitwise_and", "bitwise_or", "bitwise_xor", "eq", "ge", "gt", "le", "lt", "ne", "logical_and", "logical_or", "logical_xor"):  # fmt: skip
        yield name, functools.partial(lambda f: [f(a, b)], getattr(torch, name))
    yield (
        "whole numbers",
        lambda: [
            a + b,
            a * b,
            a // (b + 1),
            a % (b + 1),
            ~a,
            a << 3,
            a >> 1,
            -a,
            a.abs(),
            a.clamp(3, 50),
            a.bool().logical_not(),
        ],
    )
    yield (
        "kinds",
        lambda: [made(1003).to(t) for t in (torch.float64, torch.bfloat16, torch.float16, torch.int32, torch.bool)],
    )
    yield "isnan", lambda: [(x := made(99) / made(99).round()).isnan(), x.isfinite(), x.isinf()]
