"""The trace, `trace.bin`: one fixed-size row per training step, chained, so that the first step at which two runs differ is found at once.

File format, all little-endian. A header of 64 bytes:

    0   16 bytes  magic, b"verbatim trace 1"
    16  u32       bytes per row, 96
    20  u32       every so many steps, all parameters and all gradients are digested (0: never)
    24  8 bytes   zero
    32  32 bytes  sha256 of the 32 bytes before: the start of the chain

then rows of 96 bytes:

    0   u64       step, counted from 0
    8   f64       loss of the step's batch
    16  16 bytes  xxh3_128 of the batch's sample indices, as int64
    32  16 bytes  xxh3_128 of the gradients after clipping, in the order of the model's parameters: of all of them in steps that
                  digest everything, of those up to 64 KiB each in the steps between
    48  16 bytes  xxh3_128 of every parameter and buffer after the update; zero in the steps between
    64  32 bytes  sha256 of the chain so far (the previous row's, or the header's) and the 64 bytes before

Each row is one write to an unbuffered file: a killed process leaves every row that it finished, and a torn last row is recognised
by its length or its chain.

Why the steps between leave large gradients out: reading 40 MB takes 4 ms, 5% of a step of ten million parameters. What is wrong in a
layer's backward pass shows in its bias or its neighbours' small tensors at once, and in the loss of the step after.
"""

import hashlib
import mmap
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import xxhash

from verbatim import digest
from verbatim.errors import VerbatimError

if TYPE_CHECKING:
    from torch import Tensor

FILE = "trace.bin"
MAGIC = b"verbatim trace 1"
HEADER = struct.Struct("<16sII8x")
BODY = struct.Struct("<Qd16s16s16s")
HEADER_BYTES, ROW_BYTES = 64, 96
NOT_TAKEN = bytes(16)
SMALL_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Row:
    step: int
    loss: float
    batch: bytes
    gradient: bytes
    parameters: bytes


class Writer:
    """Appends rows. `digest` is the chain after the last row: it covers every row before it."""

    def __init__(self, path: Path, *, parameters_every: int) -> None:
        header = HEADER.pack(MAGIC, ROW_BYTES, parameters_every)
        self._chain = hashlib.sha256(header).digest()
        self._file = path.open("xb", buffering=0)
        self._file.write(header + self._chain)
        self.rows = 0

    def append(self, step: int, loss: float, batch: bytes, gradient: bytes, parameters: bytes = NOT_TAKEN) -> None:
        body = BODY.pack(step, loss, batch, gradient, parameters)
        chain = hashlib.sha256(self._chain + body).digest()
        written = self._file.write(body + chain)
        if written != ROW_BYTES:  # a full disk can take part of a row
            raise OSError(28, "No space left on device", self._file.name)
        self._chain = chain
        self.rows += 1

    @classmethod
    def go_on(cls, path: Path, *, rows: int, digest: str) -> Self:
        """The writer of a trace that has these rows, and perhaps more, of steps that will be made again: those are cut off."""
        refuse_others(path, rows=rows, digest=digest)
        os.truncate(path, HEADER_BYTES + rows * ROW_BYTES)
        writer = cls.__new__(cls)
        writer._chain, writer.rows = bytes.fromhex(digest.removeprefix("sha256:")), rows
        writer._file = path.open("ab", buffering=0)
        return writer

    @property
    def digest(self) -> str:
        return "sha256:" + self._chain.hex()

    def close(self) -> None:
        self._file.close()


class Reader:
    """Reads rows by number, in constant time; the file is mapped, never read whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        size = path.stat().st_size
        with path.open("rb") as file:
            header = file.read(HEADER_BYTES)
            if (
                len(header) < HEADER_BYTES
                or header[:16] != MAGIC
                or hashlib.sha256(header[:32]).digest() != header[32:]
            ):
                raise VerbatimError(
                    path, expected="a trace (its first 64 bytes are its header)", found=repr(header[:16])
                )
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.parameters_every: int = HEADER.unpack(header[:32])[2]
        self.rows = (size - HEADER_BYTES) // ROW_BYTES
        if self.rows and not self._whole(self.rows - 1):
            self.rows -= 1  # torn by a crash

    def chain(self, index: int) -> bytes:
        """The chain after row `index`; -1 is the header's."""
        end = HEADER_BYTES + (index + 1) * ROW_BYTES
        return self._map[end - 32 : end]

    def row(self, index: int) -> Row:
        start = HEADER_BYTES + index * ROW_BYTES
        return Row(*BODY.unpack(self._map[start : start + BODY.size]))

    def block(self, start: int, count: int) -> bytes:
        """`count` rows as they lie, by a plain read: pages of the map that were touched would stay in memory."""
        with self.path.open("rb") as file:
            file.seek(HEADER_BYTES + start * ROW_BYTES)
            return file.read(count * ROW_BYTES)

    def __iter__(self) -> Iterator[Row]:
        return map(self.row, range(self.rows))

    @property
    def digest(self) -> str:
        return self.digest_of(self.rows)

    def digest_of(self, rows: int) -> str:
        """The chain after so many rows."""
        return "sha256:" + self.chain(rows - 1).hex()

    def verify(self, rows: int | None = None) -> None:
        """Check the chain of every row (or of the first so many); the first that does not follow from the one before is named."""
        for index in range(self.rows if rows is None else min(rows, self.rows)):
            if not self._whole(index):
                raise VerbatimError(
                    f"{self.path}, row {index}", expected="a row that continues the chain", found="a changed row"
                )

    def _whole(self, index: int) -> bool:
        start = HEADER_BYTES + index * ROW_BYTES
        return hashlib.sha256(self.chain(index - 1) + self._map[start : start + 64]).digest() == self.chain(index)


def refuse_others(path: Path, *, rows: int, digest: str) -> None:
    """An error where a trace does not begin with these rows: after a power cut it may be shorter, or have an end of zeros."""
    found = Reader(path) if path.exists() else None
    if found:
        found.verify(rows)
    if not found or found.rows < rows or found.digest_of(rows) != digest:
        raise VerbatimError(
            path, expected=f"the {rows} rows that the checkpoint goes with", found=f"{found.rows} rows, or others" if found else "no file",
            then="add machine.resume=never",
        )  # fmt: skip


class ModelDigest:
    """Digests of a model's gradients and parameters, taken every step: bytes are hashed where they lie, without a copy.

    A GPU's tensors, and those whose elements are not in row-major order, are copied first.
    """

    def __init__(self, parameters: "Mapping[str, Tensor]", buffers: "Mapping[str, Tensor]") -> None:
        self._parameters = list(parameters.values())
        self._small = [p for p in self._parameters if p.nbytes <= SMALL_BYTES]
        self._state = [*self._parameters, *buffers.values()]

    def gradient(self, *, all_: bool) -> bytes:
        """A parameter that took no part in the step counts as such."""
        hasher = xxhash.xxh3_128()
        for parameter in self._parameters if all_ else self._small:
            gradient = parameter.grad
            hasher.update(b"none" if gradient is None else _array(gradient))
        return hasher.digest()

    def state(self) -> bytes:
        hasher = xxhash.xxh3_128()
        for tensor in self._state:
            hasher.update(_array(tensor.detach()))
        return hasher.digest()


def of_indices(indices: Any) -> bytes:
    """xxh3_128 of sample indices: an int64 tensor or array of shape (N,)."""
    return xxhash.xxh3_128_digest(indices.numpy() if hasattr(indices, "numpy") else indices)


def _array(tensor: "Tensor") -> Any:
    """What xxhash reads. `digest.tensor_bytes` takes any tensor, but 5 µs for each; most need but one call."""
    if tensor.is_contiguous() and tensor.device.type == "cpu" and tensor.dtype.itemsize > 2:
        return tensor.numpy()
    return digest.tensor_bytes(tensor)
