"""Sums whose bits do not depend on how many ranks make them.

A batch is cut into shards, a power of two; each rank computes as many, one after another. Gradients are added pairwise, as a knock-out
tournament is drawn: shards 0 and 1, 2 and 3, then the winners. The lower rounds are a rank's own, the upper ones go over the network, and
every element is added in the same order, however many ranks there are.

The upper rounds are Rabenseifner's: a rank sends half of what it holds to its partner and adds what it receives to the other half, then
half of that; the way back collects. So each rank sends and receives 2 (R - 1) / R times the gradients, as little as a ring does, in
2 log2 R messages instead of 2 (R - 1). https://doi.org/10.1007/978-3-540-24685-5_1
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from verbatim.errors import VerbatimError

if TYPE_CHECKING:
    from torch import Tensor

Step = tuple[int, slice, slice, bool]


def schedule(rank: int, world: int, count: int) -> Iterator[Step]:
    """What a rank does for a sum of `count` values, one after another: its partner, what it gives, what it takes, and whether that is
    added to what it holds or replaces it."""
    spans, partners = [(0, count)], [rank ^ (1 << k) for k in range(world.bit_length() - 1)]
    for partner in partners:
        low, high = spans[-1]
        middle = (low + high) // 2
        keep, give = ((low, middle), (middle, high)) if rank < partner else ((middle, high), (low, middle))
        yield partner, slice(*give), slice(*keep), True
        spans.append(keep)
    for partner in reversed(partners):
        (low, high), (start, end) = spans.pop(), spans[-1]
        yield partner, slice(low, high), slice(high, end) if rank < partner else slice(start, low), False


def refuse(trainer: Any, world: int, level: str) -> None:
    """What the settings of a trainer (`parallel`, `shards`, `ranks`) and a number of ranks can't be together."""
    if trainer.parallel != "ddp":
        if trainer.ranks is not None:
            raise VerbatimError("trainer.ranks", expected="nothing, as the bits do not depend on it", found=trainer.ranks, then="add machine.ranks=… instead, or trainer.parallel=ddp")  # fmt: skip
        refuse_shards(trainer.shards, world)
        return
    if level == "portable":
        raise VerbatimError("trainer.parallel", expected="tree at level portable", found="ddp, whose sums depend on the ranks", then="add trainer.parallel=tree trainer.shards=…")  # fmt: skip
    if trainer.shards != 1:
        raise VerbatimError(
            "trainer.shards", expected="1 with trainer.parallel=ddp, which cuts a batch by ranks", found=trainer.shards, then="leave it out"
        )  # fmt: skip
    if trainer.ranks is None:
        raise VerbatimError(
            "trainer.ranks", expected="how many: with trainer.parallel=ddp it is part of the recipe", found="none",
            then=f"add trainer.ranks={world if world > 1 else '2, say'}",
        )  # fmt: skip
    if trainer.ranks != world:
        raise VerbatimError(
            "trainer.ranks", expected=f"{world}, the ranks that there are: with ddp their number is part of the recipe", found=trainer.ranks,
            then=f"add trainer.ranks={world}",
        )  # fmt: skip


def refuse_shards(shards: int, world: int) -> None:
    """Halves of halves: only then is the tree of one rank a branch of the whole tree."""
    if shards & (shards - 1):
        raise VerbatimError(
            "trainer.shards",
            expected="a power of two",
            found=shards,
            then=f"add trainer.shards={1 << shards.bit_length()}",
        )
    if world & (world - 1) or world > shards:
        most = ", ".join(str(1 << k) for k in range(shards.bit_length()))
        more = "" if world & (world - 1) else f", or add trainer.shards={world}: shards are part of the recipe"
        raise VerbatimError(
            "ranks",
            expected=f"one of {most}, for trainer.shards={shards}",
            found=world,
            then=f"start another number{more}",
        )


class Tree:
    """Adds lists of tensors that come one after another, pairwise: at most log2 of them are kept at a time."""

    def __init__(self) -> None:
        self._branches: list[tuple[int, list[Tensor]]] = []

    def add(self, leaf: "Sequence[Tensor]") -> None:
        import torch

        level, branch = 0, list(leaf)
        while self._branches and self._branches[-1][0] == level:
            left = self._branches.pop()[1]
            torch._foreach_add_(left, branch)
            level, branch = level + 1, left
        self._branches.append((level, branch))

    def take(self) -> "list[Tensor]":
        """The sum; a power of two of leaves were added."""
        ((_, branch),) = self._branches
        self._branches.clear()
        return branch
