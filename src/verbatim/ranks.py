"""Several processes that make one run together: how they meet, what they must agree on, what they tell one another.

Ranks are started by torchrun (or by anything that sets RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT). What they add up has the same bits
however many they are: `verbatim.tree` says in which order.
"""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from verbatim.ending import LOST
from verbatim.errors import VerbatimError
from verbatim.tree import schedule

if TYPE_CHECKING:
    from torch import Tensor


class LostError(VerbatimError):
    """Another rank is gone. One alone need say so."""


T = TypeVar("T")
PIECE = 2**20  # values of a message
MEET_S = 600.0  # what ranks may take to come: some read their data longer than others


class Ranks:
    """This process among its like. One alone needs no process group, and nothing here costs it anything."""

    def __init__(self) -> None:
        self.rank = _number("RANK", 0)
        self.world = _number("WORLD_SIZE", 1)
        self.local = _number("LOCAL_RANK", 0)

    @property
    def first(self) -> bool:
        """Whether it is this rank that writes and speaks."""
        return self.rank == 0

    def watch(self) -> None:
        """From here on this rank can be told that another has ended."""
        if self.world > 1:
            signal.signal(LOST, self._lose)

    def join(self, device: str) -> None:
        """Find the others. `device`: `cpu` by gloo, `cuda` by NCCL."""
        if self.world == 1:
            return
        for name in ("MASTER_ADDR", "MASTER_PORT"):
            if name not in os.environ:
                raise VerbatimError(name, expected="it, as torchrun sets it", found="RANK and WORLD_SIZE alone", then="start the ranks by torchrun, or by machine.ranks=…")  # fmt: skip
        import torch.distributed as dist

        backend = "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo"
        self._meet(lambda: dist.init_process_group(backend, rank=self.rank, world_size=self.world))

    def _meet(self, join: Callable[[], None]) -> None:
        """In a thread: where a rank never comes, torch waits for half an hour, and no signal would be seen to."""
        failed: list[BaseException] = []

        def run() -> None:
            try:
                join()
            except BaseException as error:  # noqa: BLE001 — raised below
                failed.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        deadline_s = time.monotonic() + MEET_S
        while thread.is_alive():
            thread.join(0.05)
            if time.monotonic() > deadline_s:
                raise self._lost(f"some that have not come within {MEET_S:.0f} s")
        if failed:
            self.call(_raise, failed[0])

    def _lose(self, *_: Any) -> None:
        raise self._lost("one that has ended")

    def _lost(self, found: str) -> LostError:
        return LostError(
            f"rank {self.rank}", expected=f"all {self.world} ranks to answer", found=found,
            then="see which rank ended first, and why; the same command goes on from the last checkpoint",
        )  # fmt: skip

    def leave(self) -> None:
        if self.world > 1:
            import torch.distributed as dist

            if dist.is_initialized():
                dist.destroy_process_group()

    # ----------------------------------------------------------------------------------------------------- agreement

    def agree(self, what: Mapping[str, str]) -> None:
        """Every rank has the same values (digests) under these names; the first name and rank that differ are an error on all."""
        said = [json.loads(text) for text in self.gather_text(json.dumps(dict(what)))]
        for name in what:
            for rank, values in enumerate(said):
                if values[name] != said[0][name]:
                    raise VerbatimError(
                        f"rank {rank}", expected=f"the {name} of rank 0, {said[0][name]}", found=values[name],
                        then="start every rank with the same command, from the same checkout and environment",
                    )  # fmt: skip

    # ------------------------------------------------------------------------------------------------------ messages

    def gather_text(self, text: str) -> list[str]:
        """What each rank says, in the order of the ranks."""
        return [bytes(b).decode() for b in self.gather_bytes(text.encode())]

    def gather_bytes(self, data: bytes) -> list[bytes]:
        if self.world == 1:
            return [data]
        import torch

        sizes = [int(n) for n in self.gather(torch.tensor([len(data)]))]
        mine = torch.zeros(max(1, *sizes), dtype=torch.uint8)
        mine[: len(data)] = torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else 0
        return [bytes(row[:n].tolist()) for row, n in zip(self.gather(mine).view(self.world, -1), sizes, strict=True)]

    def gather(self, mine: "Tensor") -> "Tensor":
        """(N,) of each rank → (world · N,), in the order of the ranks."""
        if self.world == 1:
            return mine
        import torch.distributed as dist

        out = mine.new_empty(self.world * mine.numel())
        self.call(lambda: dist.all_gather_single(out, mine))
        return out

    def broadcast(self, tensor: "Tensor") -> "Tensor":
        """Rank 0's values, in place."""
        if self.world > 1:
            import torch.distributed as dist

            self.call(lambda: dist.broadcast(tensor, 0))
        return tensor

    def broadcast_bytes(self, data: bytes) -> bytes:
        """Rank 0's."""
        if self.world == 1:
            return data
        import torch

        size = int(self.broadcast(torch.tensor([len(data)])))
        buffer = (
            torch.frombuffer(bytearray(data), dtype=torch.uint8)
            if self.first and data
            else torch.empty(size, dtype=torch.uint8)
        )
        return self.broadcast(buffer).numpy().tobytes() if size else b""

    def sum(self, flat: "Tensor") -> "Tensor":
        """Adds (N,) over the ranks, in place, pairwise in a fixed order. Their number must be a power of two."""
        if self.world == 1:
            return flat
        for partner, give, take, adds in schedule(self.rank, self.world, flat.numel()):
            if adds:
                received = flat.new_empty(take.stop - take.start)
                self._exchange(flat[give], received, partner, add_to=flat[take])
            else:
                self._exchange(flat[give], flat[take], partner)
        return flat

    def _exchange(self, give: "Tensor", take: "Tensor", partner: int, add_to: "Tensor | None" = None) -> None:
        """In pieces, so that one is added while the next is on its way. `batch_isend_irecv` takes three times as long by gloo, and is
        what NCCL needs, whose messages would wait for one another."""
        import torch
        import torch.distributed as dist

        def message() -> None:
            takes, gives = torch.split(take, PIECE), torch.split(give, PIECE)
            if give.is_cuda:
                operations = [dist.P2POp(dist.irecv, x, partner) for x in takes] + [
                    dist.P2POp(dist.isend, x, partner) for x in gives
                ]
                works: list[Any] = dist.batch_isend_irecv(operations)
            else:
                works = [dist.irecv(x, partner, tag=i) for i, x in enumerate(takes)]
                works += [dist.isend(x, partner, tag=i) for i, x in enumerate(gives)]
            sums = torch.split(add_to, PIECE) if add_to is not None else ()
            for i, work in enumerate(works):
                work.wait()
                if i < len(sums) and not give.is_cuda:
                    sums[i].add_(takes[i])
            if give.is_cuda and add_to is not None:
                add_to.add_(take)

        self.call(message)

    def call(self, function: Callable[..., T], *given: Any) -> T:
        """What speaks with other ranks: where it fails by the connection (gloo), or by a watchdog (NCCL), one of them is gone."""
        try:
            return function(*given)
        except RuntimeError as error:
            if self.world == 1 or not _is_of_the_network(error):
                raise
            says = str(error).partition("] ")[2].partition(". This is typically")[0] or str(error)
            raise self._lost(says.strip().splitlines()[0]) from error


def _raise(error: BaseException) -> NoReturn:
    raise error


def _is_of_the_network(error: RuntimeError) -> bool:
    import torch.distributed as dist

    return isinstance(error, dist.DistError) or "gloo/" in str(error)


def _number(name: str, default: int) -> int:
    try:
        return int(os.environ.get(name) or default)
    except ValueError:
        raise VerbatimError(
            name, expected="a whole number, as torchrun sets it", found=os.environ[name], then=f"unset {name}"
        ) from None
