"""Matrix products."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from verbatim.portable.cases.inputs import FLOATS, Case, both_ways, made, short, whole

SHAPES = ((67, 129, 65), (8, 1025, 33), (1, 512, 130), (130, 7, 1))


def matrices() -> Iterator[tuple[str, Case]]:
    """A row, a column, sizes that leave a rest of every block, and two that are cut into slices."""
    for dtype in FLOATS:
        kind = short(dtype)
        for m, k, n in SHAPES:
            a, b, c = made(m, k, dtype=dtype), made(k, n, salt=1, dtype=dtype), made(n, salt=2, dtype=dtype)
            size = f"{m}x{k}x{n} {kind}"
            yield f"mm {size}", both_ways(torch.mm, a, b)
            yield f"linear {size}", both_ways(functional.linear, a, b.t().contiguous(), c)
            yield f"mv {size}", both_ways(torch.mv, a, b[:, 0].clone())
        yield f"addmm {kind}", both_ways(lambda s, a, b: torch.addmm(s, a, b, beta=0.5, alpha=0.25), *(made(*s, salt=i, dtype=dtype) for i, s in enumerate(((67, 65), (67, 129), (129, 65)))))  # fmt: skip
        yield f"baddbmm {kind}", both_ways(lambda s, a, b: torch.baddbmm(s, a, b, beta=0.5, alpha=0.25), *(made(*s, salt=i, dtype=dtype) for i, s in enumerate(((5, 17, 19), (5, 17, 33), (5, 33, 19)))))  # fmt: skip
        yield f"bmm {kind}", both_ways(torch.bmm, made(5, 17, 33, dtype=dtype), made(5, 33, 19, salt=1, dtype=dtype))
        yield (
            f"addmv {kind}",
            both_ways(torch.addmv, made(67, dtype=dtype), made(67, 129, dtype=dtype), made(129, dtype=dtype)),
        )
        yield f"dot {kind}", both_ways(torch.dot, made(10007, dtype=dtype), made(10007, salt=1, dtype=dtype))
    yield "vdot", both_ways(torch.vdot, made(1003), made(1003, salt=1))
    yield "mm of slices", both_ways(torch.mm, made(517, 513), made(513, 520, salt=1))
    yield "bmm of slices", both_ways(torch.bmm, made(24, 213, 130), made(24, 130, 217, salt=1))
    yield "mm nt", both_ways(lambda a, b: a @ b.t(), made(67, 129), made(65, 129, salt=1))
    yield "mm tn", both_ways(lambda a, b: a.t() @ b, made(129, 67), made(129, 65, salt=1))
    yield "mm strided", both_ways(lambda a, b: a[:, ::2] @ b[::2], made(67, 129), made(129, 65, salt=1))
    yield "mm with itself", both_ways(lambda a: a @ a.t(), made(67, 129))
    yield "bmm strided", both_ways(lambda a, b: a.transpose(1, 2) @ b[:, ::2], made(5, 17, 33), made(5, 34, 19, salt=1))
    yield "linear of sequences", both_ways(functional.linear, made(5, 17, 33), made(19, 33, salt=1), made(19, salt=2))
    yield "matmul of heads", both_ways(torch.matmul, made(3, 4, 17, 33), made(3, 4, 33, 9, salt=1))
    yield "einsum", both_ways(lambda a, b: torch.einsum("bij,kj->bki", a, b), made(5, 17, 33), made(19, 33, salt=1))
    yield "outer", both_ways(torch.outer, made(67), made(65, salt=1))
    yield (
        "empty products",
        lambda: [
            torch.mm(made(3, 0), made(0, 5)),
            torch.mm(made(0, 4), made(4, 5)),
            torch.bmm(made(2, 3, 0), made(2, 0, 5)),
        ],
    )
    yield (
        "whole matrices",
        lambda: [
            whole(7, 9, below=99) @ whole(9, 5, below=99),
            torch.bmm(whole(2, 7, 9, below=9), whole(2, 9, 5, below=9)),
        ],
    )
    a, b, s = made(17, 33), made(33, 19, salt=1), made(17, 19, salt=2)

    def into() -> list[Tensor]:
        outs = [torch.empty(0), torch.empty(19, 17).t(), torch.empty(0), torch.empty(0), torch.empty(0)]
        torch.mm(a, b, out=outs[0])
        torch.mm(a, b, out=outs[1])
        torch.addmm(s, a, b, out=outs[2])
        torch.bmm(a[None], b[None], out=outs[3])
        torch.mv(a, b[:, 0], out=outs[4])
        return [
            *outs,
            s.clone().addmm_(a, b, alpha=0.5),
            s[None].clone().baddbmm_(a[None], b[None]),
            s[:, 0].clone().addmv_(a, b[:, 1]),
            torch.addmv(s[:, 0], a, b[:, 1], out=torch.empty(0)),
            torch.baddbmm(s[None], a[None], b[None], out=torch.empty(0)),
            torch.dot(a[:, 0], s[:, 0], out=torch.empty(())),
        ]

    yield "products into what is there", into
