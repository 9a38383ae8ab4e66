"""The operators whose own kernels give other bits elsewhere, rerouted: what, why, and what it costs.

    matrix products    MKL's are the same on every CPU only in its slowest mode (`MKL_CBWR=COMPATIBLE`: 1.8 to 3.1 times a step of the
                       models here). OpenBLAS, which NumPy brings, is told which kernels to take (`OPENBLAS_CORETYPE=Haswell`: AVX2 and
                       FMA, the same blocks on every CPU) and is as fast as MKL; what is left is the way through Python, 8 us a call.
    sqrt, pow 0.5      MKL's, in that mode, starts from an approximate reciprocal root, an instruction whose result AMD and Intel
                       define differently. NumPy's is the instruction that IEEE 754 rounds. 6 us a call.
    log of float64     MKL's starts from an approximate reciprocal: one value in a million differed.
    gelu, elu,         Of other types than float32, of tensors that are not contiguous, at the ends of vectors, or always: they call
    softplus, erfinv,  `erf`, `tanh`, `expm1`, `log1p` of the C library, which glibc 2.41 computes otherwise than those before. The same
    small normal       formulas by torch's vector functions: 2 to 5 times the time of that operator, nothing for gelu of float32.

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

    def into(*given: Any, **settings: Any) -> Tensor:
        out: Tensor = settings.pop(name)
        result = kernel(*given, **settings)
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
