"""The operators whose own kernels give other bits elsewhere, rerouted: `operators.REROUTED` says by what, why, and what it costs.

How each was found: `nox -s portability -- --instructions`.
"""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from verbatim.portable import blas, functions, matrices

_library: Any = None


def install(workers: int) -> None:
    """Take the operators over, in this process. `workers`: threads for the slices of large products."""
    global _library
    matrices.share_out(workers)
    if _library is not None:
        return
    blas.load()
    functions.keep_own()
    _library = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that a kernel is replaced: meant
        for name, kernel in KERNELS.items():
            _library.impl(name, kernel, "CPU", allow_override=True)


def _out(kernel: Callable[..., Tensor], name: str = "out") -> Callable[..., Tensor]:
    """`op.out` from `op`; `name`: of the tensor that is written."""
    exact = kernel.__module__ == matrices.__name__  # torch's products are written to no other type

    def into(*given: Any, **settings: Any) -> Tensor:
        out: Tensor = settings.pop(name)
        result = kernel(*given, **settings)
        if exact and out.dtype is not result.dtype:
            raise RuntimeError(f"Expected out tensor to have dtype {result.dtype}, but got {out.dtype} instead")
        if out.shape != result.shape:
            out.resize_(result.shape)
        return _written(out, result)

    return into


def _in_place(kernel: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda to, *given, **settings: _written(to, kernel(to, *given, **settings))


def _written(to: Tensor, result: Tensor) -> Tensor:
    if not torch.can_cast(result.dtype, to.dtype):
        raise RuntimeError(f"result type {result.dtype} can't be cast to the desired output type {to.dtype}")
    return to.copy_(result)


PLAIN = (
    matrices.mm, matrices.bmm, matrices.addmm, matrices.baddbmm, matrices.mv, matrices.addmv, matrices.dot,
    functions.sqrt, functions.log, functions.erfinv, functions.gelu, functions.elu, functions.softplus,
)  # fmt: skip
IN_PLACE = ("addmm", "baddbmm", "addmv", "sqrt", "log", "erfinv", "gelu", "elu")
NORMAL = ("Tensor_float", "float_Tensor", "Tensor_Tensor")
KERNELS: dict[str, Callable[..., Tensor]] = {
    **{f.__name__: f for f in PLAIN},
    **{f"{f.__name__}.out": _out(f) for f in PLAIN},
    **{f"{f.__name__}_": _in_place(f) for f in PLAIN if f.__name__ in IN_PLACE},
    "vdot": matrices.dot,
    "pow.Tensor_Scalar": functions.power,
    "pow.Tensor_Scalar_out": _out(functions.power),
    "pow_.Scalar": _in_place(functions.power),
    "gelu_backward": functions.gelu_backward,
    "gelu_backward.grad_input": _out(functions.gelu_backward, "grad_input"),
    "normal_": functions.normal_,
    **{f"normal.{kind}": functions.normal for kind in NORMAL},
    **{f"normal.{kind}_out": _out(functions.normal) for kind in NORMAL},
}
