"""Enough values that torch shares them out among threads: what differs here depends on their number."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.nn import functional

from verbatim.portable.cases.inputs import Case, both_ways, made, positive, whole
from verbatim.portable.cases.pointwise import ACTIVATIONS, RANGES
from verbatim.portable.cases.updates import optimized


def large() -> Iterator[tuple[str, Case]]:
    """Enough values that torch would share them out among threads: what differs here depends on their number."""
    n = 200_003
    for names, make, scale in RANGES:
        for name in names:
            yield f"{name} large", both_ways(getattr(torch, name), make(n) * scale)
    for name in ("gelu", "gelu_tanh", "silu", "softplus", "elu"):
        yield f"{name} large", both_ways(ACTIVATIONS[name], made(n) * 8)
    yield "pow large", both_ways(lambda x: x.pow(1.7), positive(n))
    two: dict[str, Callable[..., Any]] = {
        "add": torch.add, "mul": torch.mul, "div": lambda a, b: a / (b.abs() + 1), "addcmul": lambda a, b: torch.addcmul(a, a, b, value=0.3),
        "lerp": lambda a, b: torch.lerp(a, b, 0.1), "dot": torch.dot,
    }  # fmt: skip
    for name, function in two.items():
        yield f"{name} large", both_ways(function, made(n), made(n, salt=1))
    for name in ("sum", "mean", "var", "prod", "amax", "logsumexp", "softmax", "log_softmax", "cumsum"):
        function = getattr(torch, name)
        if name in ("sum", "mean", "var", "amax"):
            yield f"{name} all large", both_ways(function, made(n))
        for shape in ((601, 333), (33, 6001)):
            for dimension, what in enumerate(("columns", "rows")):
                yield (
                    f"{name} {what} {'x'.join(map(str, shape))} large",
                    both_ways(lambda x, f=function, d=dimension: f(1 + x * 2.0**-8, d), made(*shape)),
                )
    for m, k, n_ in ((257, 513, 255), (64, 4097, 10), (1025, 64, 192)):
        yield f"mm {m}x{k}x{n_} large", both_ways(torch.mm, made(m, k), made(k, n_, salt=1))
    yield "bmm large", both_ways(torch.bmm, made(65, 33, 64), made(65, 64, 33, salt=1))
    yield (
        "attention large",
        both_ways(functional.scaled_dot_product_attention, *(made(8, 4, 65, 32, salt=i) for i in range(3))),
    )
    for name, (shape_x, shape_w, settings) in {
        "3x3": ((17, 13, 31, 31), (29, 13, 3, 3), {"padding": 1}),
        "1x1": ((16, 64, 15, 15), (96, 64, 1, 1), {}),
    }.items():
        yield (
            f"conv2d {name} large",
            both_ways(lambda x, w, s=settings: functional.conv2d(x, w, **s), made(*shape_x), made(*shape_w, salt=1)),
        )
    for shape in ((601, 333), (33, 6001)):
        size = "x".join(map(str, shape))
        yield (
            f"layer_norm {size} large",
            both_ways(
                lambda x, w, b: functional.layer_norm(x, x.shape[-1:], w, b),
                made(*shape),
                made(shape[1]),
                made(shape[1]),
            ),
        )
        yield (
            f"cross_entropy {size} large",
            both_ways(lambda x, r=shape: functional.cross_entropy(x, whole(r[0], below=r[1])).view(1), made(*shape)),
        )
    x = made(17, 16, 33, 33)
    yield (
        "batch_norm large",
        both_ways(lambda x, w, b: functional.batch_norm(x, None, None, w, b, training=True), x, positive(16), made(16)),
    )
    yield "group_norm large", both_ways(lambda x: functional.group_norm(x, 4), x)
    yield "max_pool2d large", both_ways(lambda x: functional.max_pool2d(x, 2), x)
    yield "adaptive_avg_pool2d large", both_ways(lambda x: functional.adaptive_avg_pool2d(x, 2), x)
    yield "bilinear large", both_ways(lambda x: functional.interpolate(x, scale_factor=2, mode="bilinear"), x)
    at, many = whole(20011, below=997), made(20011, 33)
    yield "embedding large", both_ways(lambda w: functional.embedding(at, w), made(997, 33))
    yield "index_add large", both_ways(lambda y: torch.zeros(997, 33).index_add(0, at, y), many)
    yield (
        "scatter_add large",
        both_ways(lambda y: torch.zeros(997, 33).scatter_add(0, at[:, None].expand(-1, 33), y), many),
    )
    yield (
        "index_put accumulated large",
        both_ways(lambda y: torch.zeros(997, 33).index_put((at,), y, accumulate=True), many),
    )
    yield (
        "drawn large",
        lambda: [
            torch.rand(n),
            torch.randn(n),
            torch.empty(n).bernoulli_(0.3),
            torch.randperm(n),
        ],
    )
    yield "updates large", optimized(lambda p: torch.optim.AdamW(p, 1e-3, fused=True), (513, 513))
    yield "momentum large", optimized(lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, fused=True), (513, 513))
