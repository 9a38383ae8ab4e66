"""The state of every generator that a training script may draw from: Python's, NumPy's, torch's, each GPU's. Without pickle."""

import random
import sys
from typing import Any


def states() -> dict[str, Any]:
    """Tensors and plain values, for a checkpoint. NumPy's only where it is loaded."""
    import torch

    version, words, gauss = random.getstate()
    found: dict[str, Any] = {"python": (version, torch.tensor(words), gauss), "torch": torch.get_rng_state()}
    if "numpy" in sys.modules:
        kind, keys, *rest = sys.modules["numpy"].random.get_state()
        found["numpy"] = (kind, torch.from_numpy(keys.astype("int64")), *rest)
    if torch.cuda.is_available():
        found["cuda"] = torch.cuda.get_rng_state_all()
    return found


def restore(found: dict[str, Any]) -> None:
    import torch

    version, words, gauss = found["python"]
    random.setstate((version, tuple(words.tolist()), gauss))
    torch.set_rng_state(found["torch"])
    if "numpy" in found:
        import numpy

        kind, keys, *rest = found["numpy"]
        numpy.random.set_state((kind, keys.numpy().astype("uint32"), *rest))
    if "cuda" in found and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(found["cuda"])
