"""Keeps torch's compiler out of runs that compile nothing: loading it takes as long as loading torch, and eager code asks for it.

torch/optim/optimizer.py runs `import torch._dynamo` in every step, only to mark graph breaks for a compiler, and torch/_compile.py
asks it once for a wrapper. A stand-in answers those two and becomes the real module at any other question, `torch.compile` among
them. This knows private names, so it is done for the torch versions it was checked with; with others it does nothing.
"""

import importlib
import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any

CHECKED = ("2.13.",)
NAME = "torch._dynamo"


class _StandIn(types.ModuleType):
    """Eager answers; `__getattr__` is reached for every other name."""

    # torch.distributed asks for this when ranks join; what is not loaded has nothing to clear.
    trace_rules = types.SimpleNamespace(clear_lru_cache=lambda: None)

    def graph_break(self, msg: str = "") -> None: ...

    def disable(self, fn: Callable[..., Any], recursive: bool = True, **_: Any) -> Callable[..., Any]:
        _disabled.append(fn)
        return fn

    def __getattr__(self, name: str) -> Any:
        if name == "__file__":  # `inspect` asks every module for it, also in the middle of an import
            raise AttributeError(name)
        return getattr(_load(), name)


class _Submodules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """`import torch._dynamo.config` while the stand-in stands: load the real package, and hand out what that loaded."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not name.startswith(f"{NAME}.") or not isinstance(sys.modules.get(NAME), _StandIn):
            return None
        _load()
        return importlib.machinery.ModuleSpec(name, self) if name in sys.modules else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        module = sys.modules[spec.name]
        self._own_spec = module.__spec__
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        module.__spec__ = self._own_spec  # the import system has put ours there


_disabled: list[Callable[..., Any]] = []
_submodules = _Submodules()


def defer_dynamo() -> bool:
    """Put the stand-in in place, before the first optimizer. False where torch is another version or has it loaded already."""
    import torch

    if NAME in sys.modules or not torch.__version__.startswith(CHECKED):
        return False
    stand_in = _StandIn(NAME)
    sys.modules[NAME] = stand_in
    torch._dynamo = stand_in
    sys.meta_path.insert(0, _submodules)
    return True


def use_deterministic_algorithms(mode: bool) -> None:
    """`torch.use_deterministic_algorithms`, without the import of torch._inductor by which it tells the compiler as well."""
    import torch

    if isinstance(sys.modules.get(NAME), _StandIn):
        torch._C._set_deterministic_algorithms(mode, warn_only=False)
    else:
        torch.use_deterministic_algorithms(mode)


def _load() -> types.ModuleType:
    """Replace the stand-in by the real module, and let every function that it had wrapped ask again."""
    import torch

    if isinstance(sys.modules.get(NAME), _StandIn):
        sys.meta_path.remove(_submodules)
        del sys.modules[NAME]
        torch.__dict__.pop("_dynamo", None)
        for function in _disabled:
            function.__dict__.pop("__dynamo_disable", None)
        _disabled.clear()
        torch._dynamo = importlib.import_module(NAME)
        torch.use_deterministic_algorithms(torch.are_deterministic_algorithms_enabled())  # now the compiler hears of it
    return sys.modules[NAME]
