"""What moves, picks or draws values."""

import functools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from verbatim.portable.cases.inputs import FULL, Case, both_ways, made, positive, short, whole


def places() -> Iterator[tuple[str, Case]]:
    """What moves values and computes none."""
    x = made(5, 6, 7)
    yield "views", lambda: [x.t_() if x.dim() == 2 else x.transpose(0, 2).contiguous(), x.permute(2, 0, 1).reshape(-1), x[1:, ::2], x.unfold(2, 3, 2), x.diagonal(0, 0, 1), x.unsqueeze(0).squeeze(0), x.expand(2, 5, 6, 7), x.narrow(1, 1, 3), x.select(0, 1), x.view(torch.int32), x.movedim(0, 1), x.swapaxes(0, 1), x.as_strided((3, 3), (1, 2)), x.view_as(x), x.reshape(30, 7).t()]  # fmt: skip
    yield (
        "pieces",
        lambda: [
            torch.cat([x, x], 1),
            torch.stack([x, x]),
            *x.split(2),
            *x.chunk(3, 2),
            *x.unbind(0),
            *x.tensor_split(2, 1),
            torch.hstack([x, x]),
        ],
    )
    yield (
        "turns",
        lambda: [
            x.flip(0),
            x.roll(2, 1),
            x.repeat(2, 1, 1),
            x.tile(2),
            x.rot90(),
            torch.tril(x),
            torch.triu(x, 1),
            x.repeat_interleave(2, 0),
        ],
    )
    yield (
        "part",
        both_ways(
            lambda x: (x[1:, ::2] * 2, x[0] * 2, x.diagonal(0, 0, 1) * 2, x.unfold(2, 3, 2) * 2, *x.split([2, 3])), x
        ),
    )
    yield "masked_scatter", both_ways(lambda x, y: x.masked_scatter(x > 0, y), x, made(5, 6, 7, salt=1))
    yield "equal", lambda: [torch.tensor([torch.equal(x, x), torch.equal(x, -x)]), torch.ops.aten.alias(x)]
    yield "padding", both_ways(lambda x: functional.pad(x, (1, 2, 0, 1)) + 1, x)
    yield "padding reflected", both_ways(lambda x: functional.pad(x, (1, 2), mode="reflect"), x)
    yield "padding replicated", both_ways(lambda x: functional.pad(x, (1, 2), mode="replicate"), x)
    yield "made", lambda: [torch.zeros(3), torch.ones(3), torch.full((3,), 0.3), torch.arange(0, 1, 0.1), torch.linspace(0, 1, 33), torch.eye(5), torch.tensor([1.5]), torch.zeros_like(x), torch.ones_like(x), torch.full_like(x, 2.0), x.new_zeros(3), x.new_full((2,), 1.5), x.new_ones(2), torch.empty_like(x).fill_(3), torch.diag(made(5)), x.new_empty(2).zero_(), torch.logspace(0, 1, 9), torch.scalar_tensor(2.5)]  # fmt: skip
    yield "copies", lambda: [x.clone(), x.detach(), x.contiguous(memory_format=torch.contiguous_format), torch.empty(5, 6, 7).copy_(x), x.double(), x.t().contiguous() if x.dim() == 2 else x, torch.empty(3).set_(made(3).untyped_storage(), 0, (3,), (1,)), torch.meshgrid(made(3), made(4), indexing="ij")[0]]  # fmt: skip


def indices() -> Iterator[tuple[str, Case]]:
    at, x = whole(1003, below=65), made(65, 9)
    many = made(1003, 9, salt=1)
    wide = at[:, None].expand(-1, 9)
    mask = x > 0
    yield "index", both_ways(lambda x: x[at], x)
    yield "index_select", both_ways(lambda x: x.index_select(0, at), x)
    yield "gather", both_ways(lambda x: x.gather(0, wide), x)
    yield "take_along_dim", both_ways(lambda x: x.take_along_dim(wide, 0), x)
    yield "masked", both_ways(lambda x: (x.masked_fill(mask, 0.5), x[mask], x.masked_select(mask)), x)
    yield "index_add", both_ways(lambda x, y: x.index_add(0, at, y), x, many)
    yield "scatter_add", both_ways(lambda x, y: x.scatter_add(0, wide, y), x, many)
    yield "index_put accumulated", both_ways(lambda x, y: x.index_put((at,), y, accumulate=True), x, many)
    yield (
        "index_put",
        lambda: [
            x.index_put((torch.arange(65).flip(0),), made(65, 9, salt=1)),
            x.index_fill(0, at[:3], 0.5),
            x.index_copy(0, torch.arange(7), made(7, 9)),
        ],
    )
    yield (
        "scatter",
        lambda: [
            torch.zeros(33, 65).scatter(1, whole(33, 1, below=65), 1.0),
            x.scatter(0, torch.arange(9)[None], made(1, 9)),
            x.scatter_reduce(0, wide, many, "amax"),
        ],
    )
    yield (
        "one_hot",
        lambda: [
            functional.one_hot(at, 65),
            at.unique(),
            mask.nonzero(),
            torch.where(mask)[0],
            torch.bucketize(made(33), made(9).sort()[0]),
            torch.isin(at, whole(5, below=65)),
        ],
    )


def draws() -> Iterator[tuple[str, Case]]:
    for n in (10, 1003):
        for dtype in FULL:
            yield f"drawn {n} {short(dtype)}", functools.partial(_drawn, n, dtype)
        yield f"whole draws {n}", functools.partial(_whole_draws, n)
        yield f"drawn like {n}", functools.partial(_drawn_like, n)
    for name in ("kaiming_normal_", "kaiming_uniform_", "xavier_normal_", "xavier_uniform_", "trunc_normal_"):
        yield name, functools.partial(_initialised, getattr(nn.init, name))
    yield "layers as made", _layers_as_made


def _drawn(n: int, dtype: torch.dtype) -> list[Tensor]:
    empty = functools.partial(torch.empty, n, dtype=dtype)
    drawn = [torch.rand(n, dtype=dtype), torch.randn(n, dtype=dtype), empty().uniform_(-1, 2), empty().normal_(1, 2)]
    drawn += [
        empty().bernoulli_(0.3),
        functional.dropout(torch.ones(n, dtype=dtype), 0.1),
        torch.bernoulli(positive(n, dtype=dtype)),
    ]
    return drawn


def _whole_draws(n: int) -> list[Tensor]:
    return [torch.randperm(n), torch.randint(0, 1000, (n,))]


def _drawn_like(n: int) -> list[Tensor]:
    x = made(n)
    return [
        torch.randn_like(x),
        torch.rand_like(x),
        torch.randint_like(x, 9),
        torch.normal(x, 1.0),
        torch.normal(0.0, positive(n)),
        torch.normal(x, positive(n)),
        torch.normal(x, 1.0, out=torch.empty(0)),
        torch.normal(0.0, positive(n), out=torch.empty(0)),
        torch.normal(x, positive(n), out=torch.empty(0)),
    ]


def _initialised(fill: Callable[[Tensor], Tensor]) -> list[Tensor]:
    return [fill(torch.empty(33, 65))]


def _layers_as_made() -> list[Tensor]:
    made_now = (nn.Linear(33, 65), nn.Conv2d(3, 13, 3), nn.Embedding(17, 9), nn.LayerNorm(9))
    return [p.detach() for layer in made_now for p in layer.parameters()]
