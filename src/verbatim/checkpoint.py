"""Checkpoints of a run: everything that training needs to go on as if nothing had happened. No pickle is written or read.

A folder `checkpoints` in the run's own, and in it, for each step that is kept:

    <step, 10 digits>.<xxh3_128 of the file's bytes>.safetensors     tensors, and as its metadata `state`: the rest, as JSON
    <step, 10 digits>.<name>                                         a hard link to a file that the run had saved by then

A file has its name only once it is written whole, and its name says what its bytes must be: a torn or changed one is recognised, and the
one before it is taken. Flushing to the disk costs milliseconds, so it is done every `FLUSH_S` and when the run is asked to end; what was
flushed stays until a later one was flushed, so that power may fail at any moment.

Plain values nest in the JSON as they are, but for what JSON can't tell apart: {"tensor": name, "shape": [...], "strides": [...]},
{"tuple": [...]}, {"dict": [[key, value], ...]}. A tensor's values lie in the order of its memory.
"""

import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from verbatim import trace
from verbatim.digest import short
from verbatim.errors import VerbatimError

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = "checkpoints"
KEPT = 2
FLUSH_S = 10.0
EVERY_S = 10.0  # between two within an epoch
NAME = re.compile(r"(\d{10})\.([0-9a-f]{32})\.safetensors")


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    step: int
    path: Path


def found(folder: Path) -> list[Checkpoint]:
    """Of a run's folder, newest first; none where there are none."""
    try:
        names = os.listdir(folder / FOLDER)
    except OSError:
        return []
    matches = [match for name in names if (match := NAME.fullmatch(name))]
    return [
        Checkpoint(step=int(m[1]), path=folder / FOLDER / m[0])
        for m in sorted(matches, key=lambda m: m[0], reverse=True)
    ]


def newest_whole(folder: Path, recipe: str, note: Callable[[str], None]) -> tuple[bytes, dict[str, Any]] | None:
    """The newest whose bytes are what its name says, and whose saved files and trace are what it says, and what it holds; `note` is told
    of those that are not. One of another recipe is refused."""
    there = found(folder)
    for i, checkpoint in enumerate(there):
        try:
            data = checkpoint.path.read_bytes()
            if xxhash.xxh3_128_hexdigest(data) == NAME.fullmatch(checkpoint.path.name)[2]:  # type: ignore[index]
                state = decode(data)
                if state["recipe"] != recipe:
                    raise VerbatimError(folder / FOLDER, expected=f"a checkpoint of recipe {short(recipe)}", found=f"one of {short(state['recipe'])}", then="add machine.resume=never")  # fmt: skip
                wrong = _wrong(checkpoint, state, folder)
            else:
                wrong = f"{checkpoint.path}: damaged"
        except OSError as error:
            wrong = f"{error.filename}: {error.strerror}"
        if not wrong:
            return data, state
        note(f"{wrong}; {'the checkpoint before it is taken' if i + 1 < len(there) else 'the run starts anew'}")
    return None


def _wrong(checkpoint: Checkpoint, state: dict[str, Any], folder: Path) -> str:
    for name, digest in state["saved"].items():
        path = checkpoint.path.with_name(f"{checkpoint.step:010d}.{name}")
        if xxhash.xxh3_128_hexdigest(path.read_bytes()) != digest:
            return f"{path}: damaged"
    try:
        trace.refuse_others(folder / trace.FILE, **state["trace"])
    except VerbatimError as error:
        return str(error).partition("\n")[0]
    return ""


class Writer:
    """Writes a run's checkpoints, and removes those that are no longer needed. `share`: the part of the time that they may take."""

    def __init__(self, folder: Path, share: float) -> None:
        self._folder, self._at, self._share = folder, folder / FOLDER, share
        self._written_s, self._cost_s = time.monotonic(), 0.0
        self._flushed_s = float("-inf")
        self._flushed: Checkpoint | None = None

    def due(self, *, epoch: bool) -> bool:
        """At the end of an epoch, and within one every `EVERY_S`, while the last one's cost is within the share."""
        since_s = time.monotonic() - self._written_s
        return since_s * self._share >= self._cost_s and (epoch or since_s >= EVERY_S)

    def write(self, step: int, state: dict[str, Any], saved: Iterable[str], *, flush: bool = False) -> None:
        """`saved`: names of files of the run that belong to this moment. `flush`: to the disk, before this returns."""
        began_s = time.monotonic()
        data = encode(state)
        self._at.mkdir(exist_ok=True)
        path = self._at / f"{step:010d}.{xxhash.xxh3_128_hexdigest(data)}.safetensors"
        flush = flush or time.monotonic() - self._flushed_s > FLUSH_S
        for name in saved:
            _link(self._folder / name, self._at / f"{step:010d}.{name}")
        beside = self._at / ".new"  # one process writes here: what a killed one left is written over
        try:
            with beside.open("wb") as file:
                file.write(data)
                file.flush()
                if flush:
                    os.fsync(file.fileno())
            if flush:
                _flush(self._folder / trace.FILE)
            beside.replace(path)
        except OSError:
            beside.unlink(missing_ok=True)
            raise
        made = Checkpoint(step=step, path=path)
        if flush:
            _flush(self._at)
            self._flushed, self._flushed_s = made, time.monotonic()
        self._prune(made)
        self._written_s = time.monotonic()
        self._cost_s = self._written_s - began_s

    def _prune(self, made: Checkpoint) -> None:
        """Keep the newest few, and the last that was flushed. What is of a later step is of a time line that was left."""
        steps = sorted({c.step for c in found(self._folder) if c.step <= made.step}, reverse=True)
        kept = steps[:KEPT] + ([self._flushed.step] if self._flushed else [])
        for name in os.listdir(self._at):
            if name[:10].isdigit() and (int(name[:10]) not in kept or (NAME.fullmatch(name) and int(name[:10]) == made.step and name != made.path.name)):  # fmt: skip
                (self._at / name).unlink(missing_ok=True)


def remove(folder: Path) -> None:
    """The run is sealed: nothing has to go on."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)


def restore_saved(folder: Path, step: int, saved: Iterable[str]) -> None:
    """Put the files of that moment back in place."""
    for name in saved:
        source = folder / FOLDER / f"{step:010d}.{name}"
        if not (folder / name).exists() or not source.samefile(folder / name):
            beside = folder / f".{name}.{os.getpid()}"
            shutil.copyfile(source, beside)
            beside.replace(folder / name)


def _link(source: Path, target: Path) -> None:
    """A second name for the bytes that are there now; a copy where the file system has no hard links."""
    target.unlink(missing_ok=True)
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copyfile(source, target)


def _flush(path: Path) -> None:
    with contextlib.suppress(OSError):  # some file systems can't, of a folder
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


# ------------------------------------------------------------------------------------------------------------ format


def encode(state: dict[str, Any]) -> bytes:
    """Nested dicts, lists and tuples of tensors, numbers, strings, booleans and None, as the bytes of a safetensors file."""
    from safetensors.torch import save

    tensors: dict[str, Tensor] = {}
    plain = _plain(state, "state", tensors, set())
    return save(tensors, {"state": json.dumps(plain)})


def decode(data: bytes) -> dict[str, Any]:
    from safetensors.torch import load

    length = int.from_bytes(data[:8], "little")
    state = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["state"])
    value: dict[str, Any] = _whole(state, load(data))
    return value


def _plain(value: Any, where: str, tensors: "dict[str, Tensor]", storages: set[int]) -> Any:
    import torch

    if isinstance(value, torch.Tensor):
        if value.layout != torch.strided or value.dtype == torch.complex128:  # safetensors has no name for these
            raise _refused(where, "a dense tensor of a type that safetensors has", f"{value.layout}, {value.dtype}")
        laid = value.detach()
        # In the order of its memory: an optimizer's state must come back as its parameter lies (channels last, say).
        strides = laid.stride()
        order = sorted(range(laid.dim()), key=lambda d: (-strides[d], d))
        if not laid.permute(order).is_contiguous():  # an expanded or sliced one has no layout of its own
            laid = laid.contiguous()
        flat = laid.as_strided((laid.numel(),), (1,))
        name = f"{len(tensors)} {where}"  # by itself `where` is ambiguous: keys may have dots
        memory = flat.untyped_storage().data_ptr()
        tensors[name] = flat.clone() if memory in storages else flat  # the format wants each by itself
        storages.add(memory)
        return {"tensor": name, "shape": list(laid.shape), "strides": list(laid.stride())}
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, bool | int | float | str | None):
                raise _refused(f"{where}, a key", "a number or a string", type(key).__name__)
        return {"dict": [[key, _plain(inner, f"{where}.{key}", tensors, storages)] for key, inner in value.items()]}
    if isinstance(value, list | tuple):
        items = [_plain(inner, f"{where}.{i}", tensors, storages) for i, inner in enumerate(value)]
        return items if isinstance(value, list) else {"tuple": items}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise _refused(where, "tensors, numbers, strings, and dicts, lists and tuples of them", type(value).__name__)


def _refused(where: str, expected: str, found: str) -> VerbatimError:
    then = "give run.keeps what has a state_dict of these"
    return VerbatimError(f"checkpoint, {where}", expected=expected, found=found, then=then)


def _whole(value: Any, tensors: "dict[str, Tensor]") -> Any:
    if isinstance(value, list):
        return [_whole(inner, tensors) for inner in value]
    if not isinstance(value, dict):
        return value
    ((kind, inner), *_) = value.items()
    if kind == "tensor":
        own = tensors[inner].clone()  # aligned as torch does
        return own.as_strided(value["shape"], value["strides"])
    if kind == "tuple":
        return tuple(_whole(i, tensors) for i in inner)
    return {key: _whole(i, tensors) for key, i in inner}
