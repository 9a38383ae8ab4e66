"""Batches of a data set on a device: from tensors where the images fit in memory, from loader processes where they do not.

Both ways give the same samples in the same order with the same bits.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiment.data import Data
from verbatim.errors import VerbatimError


def choose_device(name: str, key: str, number: int = 0) -> torch.device:
    """`auto` is the GPU where there is one. `cuda` without one is an error: nothing falls back silently. `number`: of this machine's."""
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise VerbatimError(
            key, expected="a GPU that torch can use", found=f"none (torch {torch.__version__})",
            then=f"add {key}=cpu, or run `nvidia-smi` and `nox -s env -- cuda`",
        )  # fmt: skip
    if not available or name == "cpu":
        return torch.device("cpu")
    return torch.device("cuda", number % torch.cuda.device_count())


Batch = tuple[Tensor, Tensor, Tensor]  # indices into the split, x, y
Cut = Callable[[int], list[slice]]  # of the number of samples in a batch


class Batches:
    """x is float32 (B, C, H, W) in [0, 1], y int64 (B,), both on `device`; indices are int64 (B,) into the split, on the CPU."""

    def __init__(self, data: Data, device: torch.device, workers: int = 0) -> None:
        self.device, self._workers, self._scale = device, workers, data.scale
        self._data = data
        self._in_memory = isinstance(data.images, np.ndarray)
        self._tensors: dict[str, tuple[Tensor, Tensor]] = {}

    def size(self, split: str) -> int:
        return len(self._data.splits[split])

    def epoch(
        self,
        split: str,
        batch_size: int,
        *,
        seed: int,
        epoch: int,
        cut: Cut = lambda count: [slice(0, count)],
        skip: int = 0,
    ) -> Iterator[tuple[Tensor, list[Batch | None]]]:
        """The indices of each batch, and the shards of it that `cut` says are ours (None: an empty one); `skip` batches are left out.

        Shuffled by a generator of its own, so that the order depends on seed and epoch alone.
        """
        drawn_from = hashlib.sha256(f"order {seed} {epoch}".encode()).digest()[:8]
        generator = torch.Generator().manual_seed(int.from_bytes(drawn_from, "little") >> 1)
        order = torch.randperm(self.size(split), generator=generator)
        whole = torch.split(order, batch_size)[skip:]
        shards = [[batch[part] for part in cut(len(batch))] for batch in whole]
        ours = self._take(split, [shard for batch in shards for shard in batch if len(shard)])
        for batch, cuts in zip(whole, shards, strict=True):
            yield batch, [next(ours) if len(shard) else None for shard in cuts]

    def in_order(self, split: str, batch_size: int) -> Iterator[Batch]:
        return self._take(split, torch.split(torch.arange(self.size(split)), batch_size))

    def _take(self, split: str, batches: Sequence[Tensor]) -> Iterator[Batch]:
        if self._in_memory:
            images, labels = self._load(split)
            for indices in batches:
                at = indices.to(self.device, non_blocking=True)
                yield indices, images[at], labels[at]
            return
        rows = self._data.splits[split]
        loader: Any = torch.utils.data.DataLoader(
            Rows(self._data.images, self._data.labels, rows),  # type: ignore[arg-type]
            batch_sampler=[b.tolist() for b in batches],
            num_workers=self._workers,
        )
        for indices, (x, y) in zip(batches, loader, strict=True):
            yield indices, x.to(self.device).float().mul_(self._scale), y.to(self.device)

    def _load(self, split: str) -> tuple[Tensor, Tensor]:
        """The whole split on the device, once."""
        if split not in self._tensors:
            rows = self._data.splits[split]
            pixels: Any = self._data.images
            images = torch.from_numpy(pixels[rows]).to(self.device).float().mul_(self._scale)
            self._tensors[split] = images, torch.from_numpy(self._data.labels[rows]).to(self.device)
        return self._tensors[split]


class Rows:
    """What a loader process reads: image and label of one row of a split."""

    def __init__(self, images: Any, labels: "np.ndarray[Any, Any]", rows: "np.ndarray[Any, Any]") -> None:
        self._images, self._labels, self._rows = images, labels, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        row = int(self._rows[index])
        return torch.from_numpy(np.ascontiguousarray(self._images[row])), int(self._labels[row])
