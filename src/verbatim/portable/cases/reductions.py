"""Sums and what else makes few values of many."""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from verbatim.portable.cases.inputs import FLOATS, FULL, Case, both_ways, made, short, whole


def reductions() -> Iterator[tuple[str, Case]]:
    whole_: dict[str, Callable[..., Any]] = {
        "sum": torch.sum, "mean": torch.mean, "var": torch.var, "std": torch.std, "norm": lambda x, *d: torch.linalg.vector_norm(x, 2, *d), "amax": torch.amax,
        "amin": torch.amin, "logsumexp": lambda x, d: torch.logsumexp(x, d), "prod": lambda x, *d: torch.prod(1 + x * 2.0**-10, *d),
        "norm 1": lambda x, *d: torch.linalg.vector_norm(x, 1, *d), "norm inf": lambda x, *d: torch.linalg.vector_norm(x, float("inf"), *d),
        "softmax": lambda x, d: x.softmax(d), "log_softmax": lambda x, d: x.log_softmax(d), "cumsum": lambda x, d: x.cumsum(d),
        "max": lambda x, d: x.max(d)[0], "min": lambda x, d: x.min(d)[0], "mean square": lambda x, *d: x.square().mean(*d),
        "cumprod": lambda x, d: (1 + x * 2.0**-10).cumprod(d),
    }  # fmt: skip
    by_dimension = ("logsumexp", "softmax", "log_softmax", "cumsum", "max", "min", "cumprod")
    for name, function in whole_.items():
        for dtype in FLOATS if name in ("sum", "mean", "softmax", "log_softmax", "cumsum") else FULL:
            yield f"{name} rows {short(dtype)}", both_ways(lambda x, f=function: f(x, 1), made(33, 65, dtype=dtype))
        yield f"{name} columns", both_ways(lambda x, f=function: f(x, 0), made(129, 67))
        yield f"{name} one wide row", both_ways(lambda x, f=function: f(x, 1), made(1, 20011))
        yield f"{name} transposed", both_ways(lambda x, f=function: f(x.t(), 1), made(65, 33))
        if name not in by_dimension:
            yield f"{name} all", both_ways(function, made(10007))
            yield f"{name} all strided", both_ways(lambda x, f=function: f(x[::3]), made(10007))
    yield "var_mean", both_ways(lambda x: torch.var_mean(x, 1), made(33, 65))
    yield "sum 2 dimensions", both_ways(lambda x: x.sum((0, 2)), made(9, 17, 33))
    yield "mean 2 dimensions", both_ways(lambda x: x.mean((2, 3)), made(9, 17, 5, 7))
    yield (
        "mean channels last",
        both_ways(lambda x: x.contiguous(memory_format=torch.channels_last).mean((2, 3)), made(9, 17, 5, 7)),
    )
    x = made(33, 65)
    yield (
        "arg",
        lambda: [
            x.argmax(1),
            x.argmin(0),
            x.argmax(),
            *x.sort(1),
            *x.topk(7, 1),
            x.argsort(0),
            *x.median(1),
            *x.kthvalue(3, 1),
        ],
    )
    yield (
        "truth",
        lambda: [(x > 0).any(1), (x > 0).all(0), (x > 0).sum(), x.count_nonzero(1), (x > 0).all(), (x > 0).any()],
    )
    yield (
        "whole sums",
        lambda: [
            whole(1003, below=99).sum(),
            whole(33, 9, below=99).cumsum(0),
            whole(33, 9, below=99).amax(0),
            whole(99, below=9).bincount(),
        ],
    )
