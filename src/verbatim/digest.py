"""Digests of files, plain values and tensors. What is sealed is sha256; what is taken every step is xxh3_128, which is 15x faster.

Every digest that people see is written `sha256:<64 hex digits>`.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

SHORT = 12  # hex digits that tables show; records hold all 64


def of_bytes(data: bytes | memoryview) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def of_file(path: Path) -> str:
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def of_value(value: Any) -> str:
    """Digest of a JSON value in its canonical form: keys sorted, no spaces, floats by their shortest exact text, no NaN."""
    return of_bytes(canonical(value))


def canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def of_parts(parts: Iterable[tuple[str, Any]]) -> str:
    """Digest of named buffers in the order given. Each is framed by its name and length, so that no byte can move to a neighbour."""
    sha = hashlib.sha256()
    for name, buffer in parts:
        view = memoryview(buffer).cast("B") if len(memoryview(buffer)) else memoryview(b"")
        sha.update(canonical([name, view.nbytes]))
        sha.update(view)
    return "sha256:" + sha.hexdigest()


def of_tensors(tensors: "Mapping[str, Tensor]") -> str:
    """Digest of a state dict, buffers included: name, dtype, shape and little-endian bytes of each tensor, by sorted name."""
    return of_parts((f"{name} {t.dtype} {list(t.shape)}", tensor_bytes(t)) for name, t in sorted(tensors.items()))


def tensor_bytes(tensor: "Tensor") -> memoryview:
    """The tensor's bytes in row-major order; no copy for a contiguous one on the CPU."""
    import torch

    flat = tensor.detach().cpu().contiguous().reshape(-1)
    array: Any = flat.view(torch.uint8).numpy()
    return memoryview(array) if flat.numel() else memoryview(b"")


def short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:SHORT]
