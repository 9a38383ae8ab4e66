"""Optimizers, and what is done to gradients before them."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from verbatim.portable.cases.inputs import Case, made


def updates() -> Iterator[tuple[str, Case]]:
    """Three updates by each optimizer, of a matrix, a vector and a few values."""
    optimizers: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "sgd": lambda p, **k: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=1e-3, **k),
        "sgd nesterov": lambda p, **k: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True, **k),
        "adam": lambda p, **k: torch.optim.Adam(p, 1e-3, **k),
        "adam decayed": lambda p, **k: torch.optim.Adam(p, 1e-3, weight_decay=1e-2, amsgrad=True, **k),
        "adamw": lambda p, **k: torch.optim.AdamW(p, 1e-3, **k),
        "rmsprop": lambda p, **k: torch.optim.RMSprop(p, 1e-3, momentum=0.9, **k),
        "adagrad": lambda p, **k: torch.optim.Adagrad(p, 1e-2, **k),
    }  # fmt: skip
    ways: dict[str, dict[str, bool]] = {
        "loop": {"foreach": False},
        "foreach": {"foreach": True},
        "fused": {"fused": True},
    }

    for name, make in optimizers.items():
        for way, settings in ways.items():
            if not (way == "fused" and name == "rmsprop"):
                yield f"{name}, {way}", optimized(functools.partial(make, **settings), (129, 65), (513,), (7,))

    def clipped(by: Callable[..., Any]) -> Case:
        def run() -> list[Tensor]:
            parameters = [made(*shape).requires_grad_() for shape in ((129, 65), (513,), (7,))]
            for parameter in parameters:
                parameter.grad = made(*parameter.shape, salt=1)
            by(parameters, 0.5)
            return [p.grad for p in parameters if p.grad is not None]

        return run

    yield "clip_grad_norm_", clipped(torch.nn.utils.clip_grad_norm_)
    yield "clip_grad_value_", clipped(torch.nn.utils.clip_grad_value_)
    yield "parameters_to_vector", lambda: [torch.nn.utils.parameters_to_vector([made(7, 9), made(5)])]


def optimized(make: Callable[..., torch.optim.Optimizer], *shapes: tuple[int, ...]) -> Case:
    def run() -> list[Tensor]:
        parameters = [made(*shape).requires_grad_() for shape in shapes]
        optimizer = make(parameters)
        for step in range(3):
            for parameter in parameters:
                parameter.grad = made(*parameter.shape, salt=step + 1) * 0.1
            optimizer.step()
        state = [t for p in parameters for t in optimizer.state[p].values() if isinstance(t, Tensor)]
        return [*(p.detach() for p in parameters), *state]

    return run
