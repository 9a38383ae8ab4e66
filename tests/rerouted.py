"""What level `portable` reroutes, in many shapes and layouts: tests compute it there, in a process of its own, and here by plain torch.

Values are multiples of 1/16 where a product must be exact: then every sum is one in float32 too, and all orders give the same bits.
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional

from verbatim.errors import VerbatimError
from verbatim.portable.cases.inputs import made

Group = Callable[[torch.dtype], Iterator[tuple[str, Tensor]]]
DTYPES = {str(d).removeprefix("torch."): d for d in (torch.float32, torch.float64, torch.bfloat16, torch.float16)}


def exact(*shape: int, salt: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return (made(*shape, salt=salt, dtype=torch.float64) * 16).round_().div_(16).to(dtype)


# ------------------------------------------------------------------------------------------------------------ products

LAYOUTS: dict[str, Callable[[int, int, int, torch.dtype], Tensor]] = {
    "plain": lambda m, n, s, d: exact(m, n, salt=s, dtype=d),
    "transposed": lambda m, n, s, d: exact(n, m, salt=s, dtype=d).t(),
    "columns apart": lambda m, n, s, d: exact(m, 2 * n, salt=s, dtype=d)[:, ::2],
    "rows apart": lambda m, n, s, d: exact(m, n + 3, salt=s, dtype=d)[:, 1 : n + 1],
    "both apart": lambda m, n, s, d: exact(3 * m, 2 * n, salt=s, dtype=d)[::3, 1::2],
    "one row": lambda m, n, s, d: exact(1, n, salt=s, dtype=d).expand(m, n),
    "one column": lambda m, n, s, d: exact(m, 1, salt=s, dtype=d).expand(m, n),
    "overlapping": lambda m, n, s, d: exact(m + n, salt=s, dtype=d).as_strided((m, n), (1, 1)),
}


def layouts(dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """Rows and columns of one, which have any stride, among them."""
    for m, k, n in ((5, 7, 3), (1, 7, 3), (5, 1, 3), (5, 7, 1), (1, 7, 1), (1, 1, 1)):
        for left, make_left in LAYOUTS.items():
            for right, make_right in LAYOUTS.items():
                a, b = make_left(m, k, 1, dtype), make_right(k, n, 2, dtype)
                yield f"{m}x{k}x{n} {left} {right}", a @ b
                yield f"2 of {m}x{k}x{n} {left} {right}", torch.bmm(a.expand(2, m, k), torch.stack([b, -b]))


def sizes(dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    for m, k, n in ((67, 129, 65), (8, 1025, 33), (0, 4, 5), (3, 0, 5), (3, 4, 0), (1, 4, 0), (0, 0, 0)):
        a, b = exact(m, k, salt=1, dtype=dtype), exact(k, n, salt=2, dtype=dtype)
        s = exact(m, n, dtype=dtype)
        yield f"mm {m}x{k}x{n}", torch.mm(a, b)
        yield f"addmm {m}x{k}x{n}", torch.addmm(s, a, b, beta=0.5, alpha=2)
        for batch in (3, 0):
            yield f"bmm {batch} of {m}x{k}x{n}", torch.bmm(a.expand(batch, m, k), b.expand(batch, k, n))
            yield (
                f"baddbmm {batch} of {m}x{k}x{n}",
                torch.baddbmm(s, a.expand(batch, m, k), b.expand(batch, k, n), beta=0.5, alpha=2),
            )
        yield f"mv {m}x{k}", torch.mv(a, exact(k, dtype=dtype))
    for n in (0, 1, 1023):
        yield f"dot {n}", torch.dot(exact(n, salt=1, dtype=dtype), exact(2 * n, salt=2, dtype=dtype)[::2])
        yield f"vdot {n}", torch.vdot(exact(n, salt=1, dtype=dtype), exact(n, salt=2, dtype=dtype))


def added(dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """What a product is added to is broadcast, or (beta=0) not even looked at."""
    a, b = exact(5, 7, salt=1, dtype=dtype), exact(7, 3, salt=2, dtype=dtype)
    many = a.expand(2, 5, 7), torch.stack([b, -b])
    nothing = torch.full((5, 3), math.nan, dtype=dtype)
    for shape in ((), (3,), (1, 3), (5, 1), (5, 3)):
        yield f"addmm to {shape}", torch.addmm(exact(*shape, dtype=dtype), a, b, beta=0.25, alpha=-2)
        yield f"baddbmm to {shape}", torch.baddbmm(exact(*shape, dtype=dtype), *many, beta=0.25, alpha=-2)
    yield "baddbmm to each", torch.baddbmm(exact(2, 1, 1, dtype=dtype), *many)
    for shape in ((), (1,), (5,)):
        yield f"addmv to {shape}", torch.addmv(exact(*shape, dtype=dtype), a, b[:, 0], beta=0.5, alpha=2)
    yield "addmm to nothing", torch.addmm(nothing, a, b, beta=0)
    yield "baddbmm to nothing", torch.baddbmm(nothing, *many, beta=0, alpha=0.5)
    yield "addmm of nothing", torch.addmm(nothing, a[:, :0], b[:0], beta=0)


def written(dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """Into what is there: of any layout, a part of something, too small, an input."""
    a, b, s = exact(5, 7, salt=1, dtype=dtype), exact(7, 3, salt=2, dtype=dtype), exact(5, 3, dtype=dtype)
    square = exact(6, 6, dtype=dtype)
    outs = {"small": s.new_empty(0), "transposed": s.new_empty(3, 5).t(), "apart": s.new_empty(10, 6)[::2, ::2]}
    for name, out in outs.items():
        for what, given in {"mm": torch.mm(a, b, out=out), "addmm": torch.addmm(s, a, b, out=out)}.items():
            assert given is out
            yield f"{what} {name}", out.clone()
    around = torch.zeros(7, 9, dtype=dtype)
    torch.mm(a, b, out=around[1:6, 2:5])
    yield "a part", around
    yield "bmm", torch.bmm(a[None], b[None], out=s.new_empty(1, 5, 3))
    yield "baddbmm", torch.baddbmm(s, a[None], b[None], out=s.new_empty(0))
    yield "mv", torch.mv(a, b[:, 0], out=s.new_empty(10)[::2])
    yield "addmv", torch.addmv(s[:, 0], a, b[:, 0], out=s.new_empty(5))
    yield "dot", torch.dot(a[0], b[:, 0], out=s.new_empty(()))
    yield "addmm_", s.clone().addmm_(a, b, alpha=0.5)
    yield "addmm_ transposed", s.t().clone().t().addmm_(a, b, beta=0.5)
    yield "addmm_ by itself", square.clone().addmm_(square, square)
    yield "baddbmm_", s.expand(2, 5, 3).clone().baddbmm_(a.expand(2, 5, 7), b.expand(2, 7, 3))
    yield "addmv_", s.clone()[:, 1].addmv_(a, b[:, 1], beta=2)


def composed(dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """What is built of one product, and its gradients."""
    x, w, b = (exact(*shape, salt=i, dtype=dtype).requires_grad_() for i, shape in enumerate(((4, 5, 7), (3, 7), (3,))))
    for name, out in {
        "linear": functional.linear(x, w, b),
        "linear without bias": functional.linear(x[0], w),
        "matmul": torch.matmul(x, w.t()),
        "matrix and vector": torch.matmul(x, w[0]),
        "vector and matrix": torch.matmul(w[0], x.transpose(1, 2)),
        "einsum": torch.einsum("bij,kj->bki", x, w),
        "tensordot": torch.tensordot(x, w, dims=([2], [1])),
        "with itself": x[0] @ x[0].t(),
        "outer": torch.outer(b, w[0]),
        "inner": torch.inner(x[0], w),
    }.items():
        yield name, out.detach()
        gradients = torch.autograd.grad(out, (x, w, b), exact(*out.shape, salt=5, dtype=dtype), allow_unused=True)
        yield from ((f"{name}, gradient {i}", g) for i, g in enumerate(gradients) if g is not None)


def sliced(dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """Above the limit from which a product is cut into slices: along its rows, its columns, its batch."""
    for m, k, n in ((1030, 517, 260), (260, 517, 1030)):
        a, b = exact(m, k, salt=1, dtype=dtype), exact(n, k, salt=2, dtype=dtype).t()
        yield f"mm {m}x{k}x{n}", a @ b
        yield f"mm {m}x{k}x{n} apart", exact(m, 2 * k, dtype=dtype)[:, ::2] @ b
        yield f"addmm {m}x{k}x{n}", torch.addmm(exact(n, dtype=dtype), a, b, beta=0.5, alpha=2)
    for batch, m, k, n in ((300, 67, 130, 65), (3, 520, 257, 350), (3, 350, 257, 520)):
        a, b = exact(batch, m, k, salt=1, dtype=dtype), exact(batch, n, k, salt=2, dtype=dtype).transpose(1, 2)
        yield f"bmm {batch} of {m}x{k}x{n}", torch.bmm(a, b)
        with torch.inference_mode():
            yield f"baddbmm {batch} of {m}x{k}x{n}", torch.baddbmm(exact(n, dtype=dtype), a, b, beta=0.5, alpha=2)


def rounded(dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """Sums that are not exact: their order shows."""
    yield "small", made(67, 1129, dtype=dtype) @ made(1129, 65, salt=1, dtype=dtype)
    yield "rows", made(1030, 517, dtype=dtype) @ made(517, 260, salt=1, dtype=dtype)
    yield "columns", made(260, 517, dtype=dtype) @ made(517, 1030, salt=1, dtype=dtype)
    yield "batch", torch.bmm(made(100, 113, 130, dtype=dtype), made(100, 130, 117, salt=1, dtype=dtype))


# ----------------------------------------------------------------------------------------------------------- functions

FUNCTIONS: dict[str, tuple[Callable[[Tensor], Tensor], float, float]] = {  # of values from … to …
    "sqrt": (torch.sqrt, 0, 64),
    "pow 0.5": (lambda x: x.pow(0.5), 0, 64),
    "pow 1.5": (lambda x: x.pow(1.5), 0, 8),
    "log": (torch.log, 2**-11, 64),
    "erfinv": (torch.erfinv, -0.99, 0.99),
    "gelu": (functional.gelu, -8, 8),
    "gelu tanh": (lambda x: functional.gelu(x, approximate="tanh"), -8, 8),
    "elu": (lambda x: functional.elu(x, 1.5), -8, 8),
    "selu": (functional.selu, -8, 8),
    "celu": (lambda x: functional.celu(x, 0.5), -8, 8),
    "softplus": (functional.softplus, -30, 30),
    "softplus sharp": (lambda x: functional.softplus(x, 2, 10), -30, 30),
}
SPECIAL = (0.0, -0.0, 1e-45, -1e-45, 1e-40, 1e-30, 1.0, -1.0, 88.0, -104.0, 3e38, -3e38, math.inf, -math.inf, math.nan)
FORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "plain": lambda x: x,
    "of 7": lambda x: x[:7],
    "of 1": lambda x: x[3],
    "of none": lambda x: x[:0],
    "apart": lambda x: x[::3],
    "transposed": lambda x: x[:999].view(27, 37).t(),
    "repeated": lambda x: x[:9, None].expand(9, 5),
    "channels last": lambda x: x[:960].view(2, 10, 6, 8).contiguous(memory_format=torch.channels_last),
}


def values(least: float, most: float, dtype: torch.dtype, n: int = 1003) -> Tensor:
    """The same in any type that is compared: numbers of bfloat16."""
    x = (made(n, dtype=torch.float64) + 1) / 2 * (most - least) + least
    return x.bfloat16().double().clamp(least, most).to(dtype)


def functions(name: str, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    function, least, most = FUNCTIONS[name]
    for form, given in FORMS.items():
        x = given(values(least, most, dtype)).detach()
        yield form, function(x)
        leaf = x.clone().requires_grad_()
        if leaf.numel() and least >= 0:
            leaf = (x + 1).requires_grad_()  # the slope of a root at 0 is infinite
        out = function(leaf)
        yield f"{form}, gradient", torch.autograd.grad(out, leaf, torch.ones_like(out) / 2)[0]


def special(dtype: torch.dtype) -> Tensor:
    """In every lane of a vector and after its end."""
    return torch.tensor(SPECIAL, dtype=torch.float64).to(dtype).repeat(3)


def functions_written(dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """Into what is there, or into itself."""
    x, nn = values(2**-11, 0.99, dtype), torch._C._nn
    for name, function in {
        "sqrt": torch.sqrt, "log": torch.log, "erfinv": torch.erfinv, "gelu": nn.gelu, "elu": nn.elu, "softplus": nn.softplus,
        "pow": lambda x, out: torch.pow(x, 0.5, out=out),
    }.items():  # fmt: skip
        for where, out in {"small": x.new_empty(0), "apart": x.new_empty(2 * len(x))[::2]}.items():
            function(x, out=out)
            yield f"{name} {where}", out
    yield "sqrt_", x.clone().sqrt_()
    yield "log_", x.clone().log_()
    yield "erfinv_", x.clone().erfinv_()
    yield "pow_", x.clone().pow_(0.5)
    yield "gelu_", nn.gelu_(x.clone())
    yield "elu_", functional.elu(-x, inplace=True)
    yield "sqrt_ apart", x.repeat_interleave(2)[::2].sqrt_()
    yield "wider", torch.sqrt(torch.full((3,), 4.0), out=torch.empty(0, dtype=torch.float64))


def draws() -> Iterator[tuple[str, Tensor]]:
    """Normal numbers, drawn the rerouted ways."""
    for kind, dtype in DTYPES.items():
        yield f"strided {kind}", torch.empty(20_000, dtype=dtype)[::2].normal_().clone()
        yield f"plain {kind}", torch.empty(10_000, dtype=dtype).normal_()
        yield f"few at a time {kind}", torch.cat([torch.randn(5, dtype=dtype) for _ in range(2000)])
    yield "shifted", (torch.empty(10_000, dtype=torch.float64).normal_(3, 0.5) - 3) / 0.5
    mean, std = made(10_000), made(10_000, salt=1) + 1.5
    yield "by mean", torch.normal(mean, 2.0) / 2 - mean / 2
    yield "by deviation", (torch.normal(3.0, std) - 3) / std
    yield "by both", (torch.normal(mean, std) - mean) / std
    yield "by both, into", (torch.normal(mean, std, out=torch.empty(0)) - mean) / std


# ------------------------------------------------------------------------------------------------------------ misfits


def _misfits() -> dict[str, Callable[[], Tensor]]:
    one, wide, whole = torch.ones, torch.float64, torch.int64
    return {
        "mm": lambda: torch.mm(one(2, 3), one(4, 5)),
        "mm of a batch": lambda: torch.mm(one(2, 3, 4), one(4, 5)),
        "mm of a vector": lambda: torch.mm(one(3), one(3, 5)),
        "mm of two types": lambda: torch.mm(one(2, 3), one(3, 5, dtype=wide)),
        "mm with whole numbers": lambda: torch.mm(one(2, 3), one(3, 5, dtype=whole)),
        "linear": lambda: functional.linear(one(2, 3), one(5, 4), one(5)),
        "linear of two types": lambda: functional.linear(one(2, 4, dtype=wide), one(5, 4), one(5)),
        "bmm": lambda: torch.bmm(one(2, 3, 4), one(2, 5, 4)),
        "bmm of other batches": lambda: torch.bmm(one(2, 3, 4), one(3, 4, 4)),
        "bmm of one and many": lambda: torch.bmm(one(2, 3, 4), one(1, 4, 4)),
        "bmm of matrices": lambda: torch.bmm(one(3, 4), one(4, 4)),
        "bmm of two types": lambda: torch.bmm(one(2, 3, 4), one(2, 4, 4, dtype=wide)),
        "addmm": lambda: torch.addmm(one(3, 3), one(2, 3), one(3, 5)),
        "addmm of two types": lambda: torch.addmm(one(5, dtype=wide), one(2, 3), one(3, 5)),
        "addmm_": lambda: one(5).addmm_(one(2, 3), one(3, 5)),
        "baddbmm": lambda: torch.baddbmm(one(4), one(2, 3, 4), one(2, 4, 5)),
        "mv": lambda: torch.mv(one(3, 3), one(4)),
        "mv of a matrix": lambda: torch.mv(one(3, 3), one(3, 3)),
        "addmv": lambda: torch.addmv(one(4), one(3, 3), one(3)),
        "dot": lambda: torch.dot(one(3), one(4)),
        "dot of matrices": lambda: torch.dot(one(3, 3), one(3, 3)),
        "dot of two types": lambda: torch.dot(one(3), one(3, dtype=wide)),
        "into whole numbers": lambda: torch.mm(one(2, 3), one(3, 5), out=torch.empty(2, 5, dtype=whole)),
        "sqrt_ of whole numbers": lambda: one(3, dtype=whole).sqrt_(),
        "sqrt into whole numbers": lambda: torch.sqrt(one(3), out=torch.empty(3, dtype=whole)),
        "gelu of whole numbers": lambda: functional.gelu(one(3, dtype=whole)),
        "gelu by another name": lambda: functional.gelu(one(3, dtype=wide), approximate="tan"),
        "elu of whole numbers": lambda: functional.elu(one(3, dtype=whole)),
        "softplus of whole numbers": lambda: functional.softplus(one(3, dtype=whole)),
        "normal_ of whole numbers": lambda: torch.empty(3, dtype=whole).normal_(),
        "normal_, deviation below 0": lambda: torch.empty(3).normal_(0, -1),
        "normal, deviation below 0": lambda: torch.normal(one(3), -one(3)),
    }


def misfits() -> dict[str, str]:
    """What each answers: the name of its exception, or nothing."""
    found = {}
    for name, call in _misfits().items():
        try:
            call()
            found[name] = ""
        except (RuntimeError, VerbatimError) as error:
            found[name] = type(error).__name__
    return found


# ---------------------------------------------------------------------------------------------------- what is compared

PRODUCTS: dict[str, Group] = {f.__name__: f for f in (layouts, sizes, added, written, composed, sliced)}


def everything() -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for kind, dtype in DTYPES.items():
        for name, group in PRODUCTS.items():
            if not (name == "sliced" and dtype in (torch.bfloat16, torch.float16)):
                found |= {f"{name}/{kind}/{what}": x for what, x in group(dtype)}
        for name in FUNCTIONS:
            found |= {f"{name}/{kind}/{what}": x for what, x in functions(name, dtype)}
            found[f"special/{name}/{kind}"] = FUNCTIONS[name][0](special(dtype))
        found |= {f"functions written/{kind}/{what}": x for what, x in functions_written(dtype)}
    return found


def of_workers() -> dict[str, Tensor]:
    """What worker threads may not change."""
    return {
        f"{group.__name__}/{kind}/{what}": x
        for kind in ("float32", "float64")
        for group in (sliced, rounded)
        for what, x in group(DTYPES[kind])
    }
