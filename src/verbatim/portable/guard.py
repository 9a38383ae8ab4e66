"""Stops a run at an operator that is not listed, by name; or notes it, so that the record claims less.

Every kernel of an unlisted operator is replaced by one that answers so. A listed operator keeps its own and pays nothing; putting the
2,000 replacements in place takes 45 ms. What is composed of other operators alone needs no guard.
"""

import functools
import importlib.machinery
import re
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch

from verbatim.portable.operators import LISTED

# Dense tensors' kernels are registered under these keys.
DENSE = ("CPU", "CompositeExplicitAutograd", "CompositeExplicitAutogradNonFunctional")
# Tensors of these kinds have kernels of their own for everything, and none of those is listed.
OTHERS = ("SparseCPU", "SparseCsrCPU", "QuantizedCPU", "NestedTensorCPU")
# They pass for composed of others, and compute by a library of their own.
NATIVE = re.compile(r"aten::(fbgemm_|quantized_|_wrapped_quantized_)")
_libraries: dict[tuple[str, str], Any] = {}
_known: set[str] = set()
_unlisted: Callable[[str], None]
_go_on = False


def install(unlisted: Callable[[str], None], *, go_on: bool) -> None:
    """`unlisted(name)` is called at every use of an operator that is not listed, and may raise; `go_on`: after it, the operator runs. A
    second call changes these two alone."""
    global _unlisted, _go_on
    first, _unlisted, _go_on = not _known, unlisted, go_on
    if not first:
        return
    catch_up()
    composed = torch._C._dispatch_get_registrations_for_dispatch_key("CompositeImplicitAutograd")
    native = [name for name in composed if NATIVE.match(name) and name not in _known]
    _known.update(native)
    _replace(native, "CPU")
    for key in OTHERS:
        _replace(torch._C._dispatch_get_registrations_for_dispatch_key(key), key)
    _watch()


def catch_up() -> list[str]:
    """Guard what has been registered since the last call; its unlisted names."""
    new = {name for key in DENSE for name in torch._C._dispatch_get_registrations_for_dispatch_key(key)} - _known
    _known.update(new)
    late = sorted(name for name in new if not listed(name))
    _replace(late, "CPU")
    return late


def _watch() -> None:
    """Torch's own modules, extensions and scripts bring operators whenever they are loaded: these are guarded at once, before their first
    use."""

    def then_catch_up(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapped(*given: Any, **settings: Any) -> Any:
            result = function(*given, **settings)
            catch_up()
            return result

        return wrapped

    ways: tuple[tuple[Any, str], ...] = (
        (torch.library.Library, "impl"), (importlib.machinery.ExtensionFileLoader, "exec_module"), (torch.ops, "load_library")
    )  # fmt: skip
    for owner, name in ways:
        setattr(owner, name, then_catch_up(getattr(owner, name)))


def listed(name: str) -> bool:
    """`aten::add_.Tensor` is in the list as `add`."""
    space, _, operator = name.partition("::")
    base = operator.partition(".")[0]
    base = base if base.endswith("__") else base.removesuffix("_")
    return (base if space == "aten" else f"{space}::{base}") in LISTED


def _replace(names: Iterable[str], key: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that a kernel is replaced: meant
        for name in names:
            space, _, operator = name.partition("::")
            if (space, key) not in _libraries:
                _libraries[space, key] = torch._C._dispatch_library("IMPL", space, key, __file__, 0)
            _libraries[space, key].impl(operator, key, _answer(name, key), False)


def _answer(name: str, key: str) -> Callable[..., Any]:
    own = torch.library.get_kernel(name, key)

    def answer(*given: Any, **settings: Any) -> Any:
        _unlisted(name)
        if not _go_on:
            return None
        given, settings = _wrapped(name, given, settings)
        return own.call_boxed(_keys(key), *given, **settings)

    return answer


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
