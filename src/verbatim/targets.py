"""Makes what a `_target_` of the configuration names; where its settings don't go with it, says which one, and what it takes.

Nothing here imports torch: a target does, where it needs it.
"""

import difflib
import importlib
import inspect
import pkgutil
import re
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from omegaconf import DictConfig, OmegaConf

from verbatim import folders, settings
from verbatim.errors import VerbatimError, mendable

HYDRAS = {"_target_", "_partial_", "_recursive_", "_convert_", "_args_"}
PLAIN: dict[str, Any] = {"int": int, "float": (int, float), "bool": bool, "str": str}
# What a value that does not fit raises in somebody's code, or torch's. Any other is a defect there, and keeps its traceback.
UNFIT = (TypeError, ValueError, RuntimeError)
CLASS = "a class that can be imported"


def make(node: DictConfig, *given: Any, **named: Any) -> Any:
    """What the node's `_target_` makes of its settings, and of what it is given besides."""
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    where = str(node._get_full_key(None))
    if not node.get("_target_"):
        raise VerbatimError(f"{where}._target_", expected=CLASS, found="none", then=f"add +{where}._target_=…")  # fmt: skip
    try:
        return instantiate(node, *given, **named, **({"_partial_": False} if given else {}))
    except InstantiationException as error:
        if mend := mendable(error) or _refused(error, node, where, len(given), named):
            raise mend from error
        raise


def _refused(error: Exception, node: DictConfig, where: str, given: int, named: Mapping[str, Any]) -> VerbatimError | None:  # fmt: skip
    """The setting that is wrong, as far as it can be known; None where it is the target's code that is."""
    from hydra._internal.utils import _locate

    key = re.search(r"full_key: (\S+)", str(error))
    inner = OmegaConf.select(node._get_root(), key[1]) if key and key[1] != where else None
    if key and isinstance(inner, DictConfig):  # a target among the settings of the node's own
        node, where, given, named = inner, key[1], 0, {}
    target = str(node["_target_"])
    try:
        made_of = _locate(target)
    except Exception:  # noqa: BLE001 — whatever its module raises
        return _no_target(f"{where}._target_", target)
    if isinstance(made_of, ModuleType):
        return VerbatimError(f"{where}._target_", expected=CLASS, found=f"{target}, a module", then=_lists(made_of))
    own = {str(key): value for key, value in node.items() if key not in HYDRAS}
    return _unlike(where, target, made_of, own, given, named) or _unfit(where, target, own, error.__cause__)


def _unlike(where: str, target: str, made_of: Any, own: Mapping[str, Any], given: int, named: Mapping[str, Any]) -> VerbatimError | None:  # fmt: skip
    """What the target's signature says of the settings."""
    try:
        signature = list(inspect.signature(made_of).parameters.values())
    except (TypeError, ValueError):  # it is no function; or one in C, that says nothing
        return None
    takes = {p.name: p for p in signature[given:] if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    settings_ = sorted(takes.keys() - named.keys())
    if not any(p.kind == p.VAR_KEYWORD for p in signature):
        if lacks := [name for name in named if name not in takes]:
            return VerbatimError(
                f"{where}._target_", expected=f"a class or function that takes {', '.join(named)}", found=f"{target}, without {lacks[0]}",
                then=f"give it {lacks[0]}, or choose another",
            )  # fmt: skip
        for key in own:
            if key not in takes:
                expected = (
                    f"one of {', '.join(settings_)}: what {target} takes"
                    if settings_
                    else f"nothing: {target} takes no settings"
                )
                then = settings.suggest(key, settings_, f"{where}.", f"leave {where}.{key} out")
                return VerbatimError(f"{where}.{key}", expected=expected, found=f"no `{key}` there", then=then)
    for name, parameter in takes.items():
        if parameter.default is inspect.Parameter.empty and name not in own and name not in named:
            return VerbatimError(f"{where}.{name}", expected=f"a value, which {target} needs", found="none", then=f"add +{where}.{name}=…")  # fmt: skip
    for key, value in own.items():
        kind = str(getattr(takes[key].annotation, "__name__", takes[key].annotation)) if key in takes else ""
        if kind in PLAIN and (not isinstance(value, PLAIN[kind]) or (isinstance(value, bool) and kind != "bool")):
            found = f"{value} (a {type(value).__name__})"
            return VerbatimError(f"{where}.{key}", expected=f"a value of type {kind}, as {target} says", found=found, then=f"add {where}.{key}=… of that type")  # fmt: skip
    return None


def _unfit(where: str, target: str, own: Mapping[str, Any], cause: BaseException | None) -> VerbatimError | None:
    """What the target raised itself. Nothing says which setting it is: all are named, and the place."""
    if not isinstance(cause, UNFIT):
        return None
    given = ", ".join(f"{key}={value}" for key, value in own.items()) or "no settings"
    says = str(cause).strip().partition("\n")[0]
    return VerbatimError(
        where, expected=f"settings that {target} can be made of", found=f"{given}: {type(cause).__name__}{_place(cause)}: {says}",
        then="change the one that it means; with a typed schema (README: a model of your own) a wrong one is refused by its key",
    )  # fmt: skip


def _no_target(where: str, target: str) -> VerbatimError:
    """How far the path leads, and what there is."""
    parts = target.split(".")
    for end in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:end])
        try:
            module = importlib.import_module(name)
            break
        except Exception as error:  # noqa: BLE001 — whatever it raises
            if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
                continue
            found = f"{name}, which can't be imported: {type(error).__name__}{_place(error)}: {error}"
            return VerbatimError(where, expected=CLASS, found=found, then="mend that")
    else:
        end, module = 0, None
    if module:
        options = [key for key, value in vars(module).items() if callable(value)]
        options += [found.name for found in pkgutil.iter_modules(getattr(module, "__path__", ()))]
    else:
        options = [key for key in sys.modules if "." not in key]
    like = {key.lower(): key for key in options if not key.startswith("_")}
    if close := difflib.get_close_matches(parts[end].lower(), like, 1, 0.5):
        then = f"did you mean {where}={'.'.join([*parts[:end], like[close[0]], *parts[end + 1 :]])}?"
    else:
        then = _lists(module) if module else f"add {where}=package.module.Class"
    return VerbatimError(where, expected=CLASS, found=target, then=then)


def _lists(module: ModuleType) -> str:
    name = module.__name__
    mine = [key for key, value in vars(module).items() if getattr(value, "__module__", "") == name and key[:1] != "_"]
    return f"{name} has {', '.join(mine[:12]) or 'none'}"


def _place(error: BaseException) -> str:
    """Where somebody's own code raised it, or called what did."""
    frames = [
        f
        for f in traceback.extract_tb(error.__traceback__)
        if "site-packages" not in f.filename and f.filename[:1] != "<"
    ]
    frames = [f for f in frames if f.filename not in (__file__, importlib.__file__)]
    return f" at {folders.show(Path(frames[-1].filename))}, line {frames[-1].lineno}" if frames else ""
