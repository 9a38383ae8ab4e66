"""Matrix products by OpenBLAS, cut into slices by their shape alone; `kernels` says why.

Each slice is one OpenBLAS call on one thread; workers take slices, and how many workers there are reaches no bit. Half precision is
computed in float32 and rounded once, whole numbers as whole numbers.
"""

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from verbatim.portable import blas, refuse_type

SLICED = (
    2**27
)  # multiplications from which a product is cut: 2.5 ms; handing a slice to a waking worker takes up to 0.1 ms
SLICES = 8
REAL, HALF = (torch.float32, torch.float64), (torch.bfloat16, torch.float16)

_pool: ThreadPoolExecutor | None = None


def share_out(workers: int) -> None:
    """So many threads take the slices of large products, from now on."""
    global _pool
    _pool = ThreadPoolExecutor(workers, "matmul") if workers > 1 else None


def _alone() -> None:
    """A forked child has none of its parent's threads, and would wait for them for ever."""
    global _pool
    _pool = None


os.register_at_fork(after_in_child=_alone)


def _multiply(a: Tensor, b: Tensor, c: Tensor, alpha: float = 1, beta: float = 0) -> Tensor:
    """c (M, N) = alpha · a (M, K) @ b (K, N) + beta · c; or a batch of them, (B, M, K) and (B, K, N)."""
    _refuse_unfit(a, b, c)
    if a._is_zerotensor() or b._is_zerotensor():  # without memory, as forward-mode gradients make them
        a, b = (torch.zeros_like(x) if x._is_zerotensor() else x for x in (a, b))
    if c.dtype not in REAL:
        return _multiply_others(a, b, c, alpha, beta)
    slices = _sliced(a, b, c) if c.numel() * a.shape[-1] >= SLICED else [(a, b, c)]
    multiply: Callable[..., None] = blas.gemm if c.dim() == 2 else _multiply_each
    if _pool is None or len(slices) == 1:
        for part in slices:
            multiply(*part, alpha, beta)
    else:
        inference = torch.is_inference_mode_enabled()  # of this thread

        def work(part: tuple[Tensor, Tensor, Tensor]) -> None:
            with torch.inference_mode(inference):
                multiply(*part, alpha, beta)

        list(_pool.map(work, slices))
    return c


def _refuse_unfit(a: Tensor, b: Tensor, c: Tensor) -> None:
    """As torch's own kernels would: BLAS reads as far as it is told, whatever lies there."""
    left, right = a.shape, b.shape
    fits = len(left) == len(right) == c.dim() and left[-1] == right[-2] and (len(left) == 2 or left[0] == right[0])
    if not fits:
        shapes = ("x".join(map(str, shape)) for shape in (left, right))
        raise RuntimeError(f"mat1 and mat2 shapes cannot be multiplied ({' and '.join(shapes)})")
    if a.dtype is not b.dtype:
        raise RuntimeError(f"expected mat1 and mat2 to have the same dtype, but got: {a.dtype} != {b.dtype}")


def _multiply_each(a: Tensor, b: Tensor, c: Tensor, alpha: float, beta: float) -> None:
    """By NumPy, which goes through a batch of small matrices faster than Python can."""
    if beta:
        product = torch.empty_like(c)
        _multiply_each(a, b, product, 1, 0)
        c.mul_(beta).add_(product, alpha=alpha)
        return
    left, right = (x.detach() if _plain(x) else x.detach().contiguous() for x in (a, b))
    with np.errstate(all="ignore"):  # as torch: what overflows is infinite, and no error
        np.matmul(left.numpy(), right.numpy(), out=c.numpy())
    if alpha != 1:
        c.mul_(alpha)


def _plain(x: Tensor) -> bool:
    """Whether BLAS can take its matrices as they lie."""
    rows, columns = x.stride()[-2:]
    return (columns == 1 and rows >= x.shape[-1]) or (rows == 1 and columns >= x.shape[-2])


def _sliced(a: Tensor, b: Tensor, c: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Along the longest side of the result, of which the batch is one."""
    shape = list(c.shape)
    side = shape.index(max(shape)) - len(shape)
    at = [shape[side] * i // SLICES for i in range(SLICES + 1)]
    parts = [(i, j - i) for i, j in itertools.pairwise(at)]
    left = [a if side == -1 else a.narrow(side, i, n) for i, n in parts]
    right = [b if side == -2 else b.narrow(side, i, n) for i, n in parts]
    return [(x, y, c.narrow(side, i, n)) for x, y, (i, n) in zip(left, right, parts, strict=True)]


def _multiply_others(a: Tensor, b: Tensor, c: Tensor, alpha: float, beta: float) -> Tensor:
    if c.dtype in HALF:
        return c.copy_(_multiply(a.float(), b.float(), c.float(), alpha, beta))
    if c.is_complex():
        raise refuse_type("matrices of real numbers", c)
    product, alpha, beta = torch.from_numpy(np.matmul(a.numpy(), b.numpy())), int(alpha), int(beta)
    return c.mul_(beta).add_(product, alpha=alpha) if beta else c.copy_(product.mul_(alpha))


def mm(a: Tensor, b: Tensor) -> Tensor:
    return _multiply(a, b, torch.empty((a.shape[0], b.shape[-1]), dtype=a.dtype))


def bmm(a: Tensor, b: Tensor) -> Tensor:
    return _multiply(a, b, torch.empty((a.shape[0], a.shape[1], b.shape[-1]), dtype=a.dtype))


def addmm(to: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    return _multiply(a, b, _started(to, a, (a.shape[0], b.shape[-1]), beta), alpha, beta)


def baddbmm(to: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    return _multiply(a, b, _started(to, a, (a.shape[0], a.shape[1], b.shape[-1]), beta), alpha, beta)


def _started(to: Tensor, a: Tensor, shape: tuple[int, ...], beta: float) -> Tensor:
    """What a product is added to; where nothing of it stays, not even a NaN does."""
    if to.dtype is not a.dtype:
        raise RuntimeError(f"expected self and mat1 to have the same dtype, but got: {to.dtype} != {a.dtype}")
    c = torch.empty(shape, dtype=a.dtype)
    return c.copy_(to) if beta else c


def mv(a: Tensor, x: Tensor) -> Tensor:
    return mm(a, x[:, None])[:, 0]


def addmv(to: Tensor, a: Tensor, x: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    return addmm(to[:, None] if to.dim() else to, a, x[:, None], beta=beta, alpha=alpha)[:, 0]


def dot(x: Tensor, y: Tensor) -> Tensor:
    return mm(x[None], y[:, None])[0, 0]
