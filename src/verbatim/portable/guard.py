"""Stops a run at an operator that is not listed, by name; or notes it, so that the record claims less.

Every kernel of an unlisted operator is replaced by one that answers so. A listed operator keeps its own and pays nothing; putting the
2,000 replacements in place takes 30 ms.
"""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch

from verbatim.portable.operators import LISTED

# Dense tensors' kernels are registered under these keys; what is composed of other operators alone needs no guard.
DENSE = ("CPU", "CompositeExplicitAutograd", "CompositeExplicitAutogradNonFunctional")
# Tensors of these kinds have kernels of their own for everything, and none of those is listed.
OTHERS = ("SparseCPU", "SparseCsrCPU", "QuantizedCPU", "NestedTensorCPU")
_libraries: dict[tuple[str, str], Any] = {}
_known: set[str] = set()


def install(unlisted: Callable[[str], None], *, go_on: bool) -> None:
    """`unlisted(name)` is called at every use of an operator that is not listed, and may raise; `go_on`: after it, the operator runs."""
    _known.update(_dense())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that a kernel is replaced: meant
        for name in _known:
            if not listed(name):
                _replace(name, "CPU", unlisted, go_on)
        for key in OTHERS:
            for name in torch._C._dispatch_get_registrations_for_dispatch_key(key):
                _replace(name, key, unlisted, go_on)


def _dense() -> set[str]:
    return {name for key in DENSE for name in torch._C._dispatch_get_registrations_for_dispatch_key(key)}


def listed(name: str) -> bool:
    """`aten::add_.Tensor` is in the list as `add`."""
    space, _, operator = name.partition("::")
    base = operator.partition(".")[0]
    base = base if base.endswith("__") else base.removesuffix("_")
    return (base if space == "aten" else f"{space}::{base}") in LISTED


def came_later() -> list[str]:
    """Operators that an extension brought after the guard was in place: nobody has looked at those."""
    return sorted(name for name in _dense() - _known if not listed(name))


def _replace(name: str, key: str, unlisted: Callable[[str], None], go_on: bool) -> None:
    own = torch.library.get_kernel(name, key) if go_on else None

    def answer(*given: Any, **settings: Any) -> Any:
        unlisted(name)
        if own is None:
            return None
        given, settings = _wrapped(name, given, settings)
        return own.call_boxed(_keys(key), *given, **settings)

    space, _, operator = name.partition("::")
    if (space, key) not in _libraries:
        _libraries[space, key] = torch._C._dispatch_library("IMPL", space, key, __file__, 0)
    _libraries[space, key].impl(operator, key, answer, False)


@functools.cache
def _keys(key: str) -> Any:
    return torch._C.DispatchKeySet(torch._C._dispatch_key_parse(key))


def _wrapped(name: str, given: tuple[Any, ...], settings: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Where an operator takes a tensor and the caller gave a number, Python is handed the number: back to a tensor of the others' type."""
    schema = torch._C._get_schema(*name.partition(".")[::2])
    named = dict(zip((a.name for a in schema.arguments), given, strict=False)) | settings
    kinds = {a.name: str(a.type) for a in schema.arguments}
    tensors = [x for x in named.values() if isinstance(x, torch.Tensor) and x.is_floating_point()]
    numbers = {
        k: v
        for k, v in named.items()
        if kinds[k] in ("Tensor", "Optional[Tensor]") and isinstance(v, bool | int | float)
    }
    for key, value in numbers.items():
        dtype = tensors[0].dtype if tensors and isinstance(value, float) else None
        named[key] = torch.tensor(value, dtype=dtype)
    return tuple(named[a.name] for a, _ in zip(schema.arguments, given, strict=False)), {k: named[k] for k in settings}
