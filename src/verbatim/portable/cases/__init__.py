"""What level `portable` is proven by: every listed operator, forward and backward, on inputs that are the same on every machine.

Inputs are dyadic fractions hashed from integers; only the operator under test can differ. Each case gives the tensors that it
computed. The probe runs these cases before training; `nox -s portability` runs them under other CPUs, cores, threads and dispatch.
"""

import warnings
from collections.abc import Iterator

import torch

from verbatim import digest
from verbatim.portable.cases import large, layers, matrices, places, pointwise, reductions, updates
from verbatim.portable.cases.inputs import Case

GROUPS = (
    pointwise.pointwise, pointwise.special_values, pointwise.pairs, reductions.reductions, matrices.matrices, layers.layers, layers.losses,
    places.places, places.indices, places.draws, updates.updates, large.large,
)  # fmt: skip
VARIANTS = (
    " float64",
    " bfloat16",
    " float16",
    " strided",
    " transposed",
    " broadcast",
    " special",
    " wide row",
    " large",
    " slices",
    ", loop",
)


def digests(only: str = "", *, quick: bool = False) -> dict[str, str]:
    """Case → digest of all that it gives. `only`: those whose name holds this text; `quick`: each operator, without its variants."""
    found = {}
    with torch.random.fork_rng(devices=[]), torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # out= tensors that are resized, complex parts that are dropped: meant here
        for name, case in cases():
            if only in name and not (quick and name.endswith(VARIANTS)):
                torch.manual_seed(0)
                tensors = case()
                found[name] = digest.of_tensors({str(i): t for i, t in enumerate(tensors)}).removeprefix("sha256:")[:16]
    return found


def cases() -> Iterator[tuple[str, Case]]:
    for group in GROUPS:
        yield from group()
