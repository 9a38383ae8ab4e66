"""How a batch is shared out: in shards, whose gradients are added in one fixed order whatever the number of ranks; or as DDP does.

A shard goes through the model by itself, so batch norm is over shards; what a shard changes of a buffer (running statistics) is averaged,
by the same tree. https://docs.pytorch.org/docs/stable/generated/torch.nn.parallel.DistributedDataParallel.html
"""

import itertools
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from verbatim import tree
from verbatim.errors import VerbatimError
from verbatim.recorder import Run


class Parallel:
    """`cut` gives a rank its shards of a batch; `loss`, `shard_done` and `step_done` go around the backward passes of a step."""

    def __init__(self, model: Any, config: DictConfig, run: Run) -> None:
        self.model, self._run, self._ranks = model, run, run.ranks
        self._ddp, self._accumulate = config.parallel == "ddp", config.accumulate
        self._wrapped: nn.Module | None = None
        world = self._ranks.world
        tree.refuse(config, world, run.record.level)
        self.shards = world if self._ddp else config.shards
        if self._ddp:
            own = _Loss(model)
            self._wrapped = self._ranks.call(nn.parallel.DistributedDataParallel, own) if world > 1 else own
        self._tree = tree.Tree()
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._buffers = [b for b in model.buffers() if b.is_floating_point()]
        self._counters = [b for b in model.buffers() if not b.is_floating_point()]
        self._alone = self.shards == 1 or self._ddp
        self._before: list[Tensor] = []
        self._counted: list[Tensor] = []

    def cut(self, count: int) -> list[slice]:
        """Which of a batch's samples are this rank's, a slice for each of its shards; of a short batch some are empty, not the first."""
        if self._ddp and count < self.shards * self._accumulate:  # every rank must call as many times
            raise VerbatimError(
                "trainer.batch_size", expected=f"a last batch of {self.shards * self._accumulate} images or more, one for each part on each rank",
                found=f"{count} left", then="choose another trainer.batch_size",
            )  # fmt: skip
        mine = self.shards // self._ranks.world
        start = self._ranks.rank * mine
        ends = [-(-count * i // self.shards) for i in range(start, start + mine + 1)]  # rounded up
        return list(itertools.starmap(slice, itertools.pairwise(ends)))

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """The mean loss of these samples, for `backward`."""
        if not self._alone and not self._before:
            self._before = [b.clone() for b in (*self._buffers, *self._counters)]
        loss: Tensor = self._ranks.call(self._wrapped, x, y) if self._wrapped else self.model.loss(x, y)[0]
        return (
            loss * self._ranks.world if self._ddp else loss
        )  # DDP takes the mean of the ranks' gradients; parts count by their size

    def backward(self, loss: Tensor) -> None:
        """DDP speaks with the other ranks meanwhile."""
        if self._ddp:
            self._ranks.call(loss.backward)
        else:
            loss.backward()  # type: ignore[no-untyped-call]

    def shard_done(self) -> None:
        """Put this shard's gradients, and what it made of the buffers, on the tree; the next shard starts from where this one did."""
        if self._alone:
            return
        leaf = [p.grad if p.grad is not None else torch.zeros_like(p) for p in self._parameters]
        if self._buffers:
            leaf += [b / self.shards for b in self._buffers]
        self._tree.add(leaf)
        for parameter in self._parameters:
            parameter.grad = None
        for buffer, before in zip(self._buffers, self._before, strict=False):
            buffer.copy_(before)
        if self._counters and self._before:
            self._counted = self._counted or [b.clone() for b in self._counters]
            for buffer, before in zip(self._counters, self._before[len(self._buffers) :], strict=True):
                buffer.copy_(before)

    def step_done(self, losses: list[float]) -> float:
        """Gradients and buffers are the whole batch's now, on every rank; returns its loss. `losses`: of this rank's shards."""
        if not self._alone:
            leaf = self._tree.take()
            for dtype in dict.fromkeys(t.dtype for t in leaf) if self._ranks.world > 1 else ():
                places = [i for i, t in enumerate(leaf) if t.dtype is dtype]
                # In the order of their memory, which optimizers take for granted: a gradient lies as its parameter does.
                flat = self._ranks.sum(torch.cat([leaf[i].as_strided((leaf[i].numel(),), (1,)) for i in places]))
                starts = itertools.accumulate((leaf[i].numel() for i in places), initial=0)
                for i, start in zip(places, starts, strict=False):
                    leaf[i] = flat.as_strided(leaf[i].shape, leaf[i].stride(), start)
            for parameter, gradient in zip(self._parameters, leaf, strict=False):
                parameter.grad = gradient
            for buffer, mean in zip(self._buffers, leaf[len(self._parameters) :], strict=True):
                buffer.copy_(mean)
            for buffer, counted in zip(self._counters, self._counted, strict=False):
                buffer.copy_(counted)
            self._before, self._counted = [], []
        # What was counted is as the first shard says: others may be empty, or cut into fewer parts. DDP's buffers are the first rank's.
        for buffer in (*self._buffers, *self._counters) if self._ddp else self._counters:
            self._ranks.broadcast(buffer)
        total = sum(self._run.together(*losses))
        return total / self._ranks.world if self._ddp else total


class _Loss(nn.Module):
    """DDP looks after what goes through `forward`."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.model.loss(x, y)[0]  # type: ignore[no-any-return]
