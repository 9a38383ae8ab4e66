"""The OpenBLAS that NumPy brings, called directly: C = alpha·A·B + beta·C for float32 and float64 tensors.

NumPy's own `matmul` would do, but costs 8 µs more a call, which is a tenth of a step of the smallest model. The library is found through
NumPy's extension module, which is linked to it, so no file is named that a release may rename.
"""

import ctypes
from typing import Any

import torch
from torch import Tensor

from verbatim.errors import VerbatimError

ROW_MAJOR, AS_IT_IS, TRANSPOSED = 101, 111, 112
_gemm: dict[torch.dtype, Any] = {}


def load() -> None:
    """Find `gemm`. `OPENBLAS_CORETYPE` and `OPENBLAS_NUM_THREADS` were read when NumPy was first imported."""
    import numpy

    module: Any = numpy._core._multiarray_umath  # type: ignore[attr-defined]
    size, pointer, flag = ctypes.c_int64, ctypes.c_void_p, ctypes.c_int
    try:
        library = ctypes.CDLL(module.__file__)
        library.scipy_openblas_get_corename64_.restype = ctypes.c_char_p
        core = library.scipy_openblas_get_corename64_().decode()
        for dtype, letter, real in ((torch.float32, "s", ctypes.c_float), (torch.float64, "d", ctypes.c_double)):
            call = library[f"scipy_cblas_{letter}gemm64_"]
            call.argtypes = (
                flag,
                flag,
                flag,
                size,
                size,
                size,
                real,
                pointer,
                size,
                pointer,
                size,
                real,
                pointer,
                size,
            )
            call.restype = None
            _gemm[dtype] = call
    except (AttributeError, OSError) as error:
        raise VerbatimError(
            "determinism=portable", expected="the OpenBLAS of NumPy's own wheel", found=error, then="nox -s env makes the locked environment"
        ) from None  # fmt: skip
    if core != "Haswell" or library.scipy_openblas_get_num_threads64_() != 1:
        raise VerbatimError(
            "determinism=portable", expected="OpenBLAS with its Haswell kernels on one thread", found=f"those of {core}",
            then="import numpy after `with verbatim.run(config)`, or not before OPENBLAS_CORETYPE=Haswell OPENBLAS_NUM_THREADS=1 are set",
        )  # fmt: skip


def gemm(a: Tensor, b: Tensor, c: Tensor, alpha: float = 1, beta: float = 0) -> None:
    """a (M, K), b (K, N), of any strides; c (M, N) is written, and lies row by row. The interpreter is free meanwhile."""
    (m, k), n = a.shape, b.shape[1]
    if not k:
        c.mul_(beta) if beta else c.zero_()
        return
    how_a, a, row_a = _laid(a)
    how_b, b, row_b = _laid(b)
    _gemm[c.dtype](
        ROW_MAJOR, how_a, how_b, m, n, k, alpha, a.data_ptr(), row_a, b.data_ptr(), row_b, beta, c.data_ptr(), c.stride(0) if m > 1 else n
    )  # fmt: skip


def _laid(x: Tensor) -> tuple[int, Tensor, int]:
    """How BLAS is to read it, and the distance of its rows (or columns): copied only where neither lie side by side."""
    rows, columns = x.stride()
    if columns == 1 and rows >= x.shape[1]:
        return AS_IT_IS, x, rows
    if rows == 1 and columns >= x.shape[0]:
        return TRANSPOSED, x, columns
    return AS_IT_IS, x.contiguous(), x.shape[1]
