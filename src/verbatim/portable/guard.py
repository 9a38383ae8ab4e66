"""Stops a run at an operator that is not listed, by name; or notes it, so that the record claims less.

Every kernel of an unlisted operator is replaced by one that answers so. A listed operator keeps its own and pays nothing; putting the
2,000 replacements in place takes 45 ms. What torch composes of other operators alone needs no guard.
"""

import functools
import importlib.machinery
import re
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from verbatim.portable.operators import LISTED

# Under these keys are kernels that a dense tensor on the CPU may come to; each → where an answer comes before them.
KEYS = {
    "CPU": "CPU", "CompositeExplicitAutograd": "CPU", "CompositeExplicitAutogradNonFunctional": "CPU",
    "CompositeImplicitAutograd": "CPU", "Autograd": "AutogradCPU", "AutogradCPU": "AutogradCPU", "BackendSelect": "BackendSelect",
}  # fmt: skip
DENSE = ("CPU", "CompositeExplicitAutograd", "CompositeExplicitAutogradNonFunctional")
# Of torch's own, what is under other keys is composed of operators that are under `DENSE`, or goes on to them.
TORCH = re.compile(
    r"(aten|c10d|debug_mode_ops|debugprims|export|inductor|mkl|mkldnn|mkldnn_prepacked|onednn|prim|prims|profiler|quantization|quantized"
    r"|rngprims|sparse|symm_mem|_c10d_functional|_c10d_functional_autograd|_dtensor|_quantized|_test)::"
)
# Tensors of these kinds have kernels of their own for everything, and none of those is listed.
OTHERS = ("SparseCPU", "SparseCsrCPU", "QuantizedCPU", "NestedTensorCPU")
# They pass for composed of others, and compute by a library of their own.
NATIVE = re.compile(r"aten::(fbgemm_|quantized_|_wrapped_quantized_)")
_libraries: dict[tuple[str, str], Any] = {}
_known: dict[str, set[str]] = {}
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
    _replace([name for name in composed if NATIVE.match(name) and name not in _known["CPU"]], "CPU")
    for key in OTHERS:
        _replace(torch._C._dispatch_get_registrations_for_dispatch_key(key), key)
    _watch()


def catch_up() -> list[str]:
    """Guard what has been registered since the last call; its unlisted names."""
    late = set()
    for key, where in KEYS.items():
        known = _known.setdefault(key, set())
        new = {*torch._C._dispatch_get_registrations_for_dispatch_key(key)} - known
        known |= new
        names = [name for name in new if not listed(name) and (key in DENSE or not TORCH.match(name))]
        _replace(names, where)
        late.update(names)
    return sorted(late)


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

    for owner, way in ((importlib.machinery.ExtensionFileLoader, "exec_module"), (torch.ops, "load_library")):
        setattr(owner, way, then_catch_up(getattr(owner, way)))
    own: Callable[..., Any] = torch.library.Library.impl

    @functools.wraps(own)
    def impl(library: Any, operator: Any, function: Any, dispatch_key: str = "", **settings: Any) -> Any:
        result = own(library, operator, function, dispatch_key, **settings)
        key = dispatch_key or library.dispatch_key or "CompositeImplicitAutograd"
        if key in KEYS:
            _registered(f"{library.ns}::{_text(operator).rpartition('::')[2]}", key, function)
        return result

    setattr(torch.library.Library, "impl", impl)  # noqa: B010 — mypy takes it for another type


def _text(operator: Any) -> str:
    if isinstance(operator, str):
        return operator
    schema = operator._schema
    return f"{schema.name}.{schema.overload_name}" if schema.overload_name else str(schema.name)


def _registered(name: str, key: str, function: Any) -> None:
    """A kernel that may stand in the place of an answer, or of one that is listed."""
    _known[key].add(name)
    if not listed(name):
        _replace([name], KEYS[key])
    elif not str(getattr(function, "__module__", "")).startswith(("torch.", "verbatim.portable.")):
        _unlisted(f"{name}, whose kernel was replaced")


def replaced() -> list[str]:
    """Listed operators whose kernels are neither torch's nor ours: what a library brought that was loaded by a way nobody watches."""
    built = re.search(r"registered at (\S*?)build/aten/", torch._C._dispatch_dump("aten::mul.Tensor"))
    ours = (built[1] if built else "", str(Path(torch.__file__ or "").parent), str(Path(__file__).parent))
    kernel = re.compile(r"^(?:CPU|AutogradCPU|BackendSelect): registered at (\S+)", re.MULTILINE)
    origins = (
        (name, origin)
        for name in _known["CPU"]
        if listed(name)
        for origin in kernel.findall(torch._C._dispatch_dump(name))
    )
    return sorted(f"{name} of {origin}" for name, origin in origins if not origin.startswith(ours))


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
            _known.setdefault(key, set()).add(name)  # the answer is not news


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
    keys = torch._C.DispatchKeySet(torch._C._dispatch_key_parse(key))
    return keys if key in OTHERS else keys | torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)


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
