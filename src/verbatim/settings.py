"""Typed settings: the ranges of a configuration's values, and what Hydra refuses, said in one form.

A schema is a dataclass registered with Hydra; a range is the metadata of its field, made by `number`. Nothing here imports torch.
"""

import dataclasses
import difflib
import inspect
import math
import re
from collections.abc import Iterable
from typing import Any

from hydra.errors import InstantiationException, OverrideParseException
from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from verbatim.errors import VerbatimError


def number(
    default: Any,
    *,
    above: float | None = None,
    least: float | None = None,
    below: float | None = None,
    most: float | None = None,
) -> Any:
    """A dataclass field with a range: `above` and `below` exclude their bound, `least` and `most` include it.

    For a list the range is that of each item. NaN and infinity are outside every range.
    """
    bounds = {"above": above, "least": least, "below": below, "most": most}
    metadata = {name: bound for name, bound in bounds.items() if bound is not None}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def choice(default: str | None, *options: str) -> Any:
    """A dataclass field that takes one of `options`."""
    return dataclasses.field(default=default, metadata={"options": options})


def check(config: DictConfig, prefix: str = "") -> None:
    """Refuse a value that is missing or out of its range, naming the key, what was expected and what was found."""
    kind = OmegaConf.get_type(config)
    fields = {f.name: f for f in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else {}
    for key in config:
        where = f"{prefix}{key!s}"
        if OmegaConf.is_missing(config, key):
            raise VerbatimError(where, expected="a value", found="none", then=f"add {where}=…")
        value = config[key]
        if isinstance(value, DictConfig):
            check(value, f"{where}.")
        elif str(key) in fields and fields[str(key)].metadata:
            _check_value(where, value, fields[str(key)])


# Where and how a run is made, followed and judged, not what: no part of the recipe.
ELSEWHERE = ("paths", "machine", "multirun", "tracker")


def recipe_config(config: DictConfig) -> dict[str, Any]:
    """The configuration without `ELSEWHERE`: a value that refers to a path keeps its reference, so that it is the same everywhere."""
    masked: Any = OmegaConf.to_container(config, resolve=False)
    recipe = {key: value for key, value in masked.items() if key not in ELSEWHERE}
    if "${" not in str(recipe):  # most often nothing refers to anything: 3 ms less
        return recipe
    masked["paths"] = {key: f"<paths.{key}>" for key in config.paths}
    plain: Any = OmegaConf.to_container(OmegaConf.create(masked), resolve=True)
    return {key: value for key, value in plain.items() if key not in ELSEWHERE}


def _check_value(where: str, value: Any, field: dataclasses.Field[Any]) -> None:
    if value is None:  # only an Optional field takes null: OmegaConf has refused it elsewhere
        return
    rule = field.metadata
    if options := rule.get("options"):
        if value not in options:
            then = suggest(value, options, f"{where}=", f"add {where}={options[0]}, say")
            raise VerbatimError(where, expected=f"one of {', '.join(options)}", found=value, then=then)
        return
    for item in value if isinstance(value, ListConfig) else [value]:
        inside = (
            math.isfinite(item)
            and ("above" not in rule or item > rule["above"])
            and ("least" not in rule or item >= rule["least"])
            and ("below" not in rule or item < rule["below"])
            and ("most" not in rule or item <= rule["most"])
        )
        if not inside:
            raise VerbatimError(where, expected=f"{_kind(item)} {_range(rule)}", found=item, then=_add(where, field))


def _add(where: str, field: dataclasses.Field[Any] | None) -> str:
    """What to type for a value that fits: the field's default, or its least where it has none."""
    if field is None:
        return SHOW
    made = field.default_factory
    value = made() if made is not dataclasses.MISSING else field.default
    optional = value is None
    if optional or value in (dataclasses.MISSING, MISSING):
        rule = field.metadata
        value = rule.get("least", rule["above"] + 1 if "above" in rule else "…")
    return f"add {where}={_typed(value)}, say{', or leave it out' if optional else ''}"


def _typed(value: Any) -> str:
    """A value as it is typed on the command line."""
    plain = {None: "null", True: "true", False: "false"}
    if value is None or isinstance(value, bool):
        return plain[value]
    return f"[{','.join(map(_typed, value))}]" if isinstance(value, list) else str(value)


def described(config: DictConfig, indent: str = "") -> str:
    """The configuration as YAML, each key with the comment that its field has in the schema's source: what `--help` shows."""
    says = comments(OmegaConf.get_type(config) or dict)
    plain: Any = OmegaConf.to_container(config, resolve=False)
    lines = []
    for key, value in plain.items():
        if key == "hydra" and not indent:
            continue
        node = isinstance(value, dict) and value
        line = f"{indent}{key}:{'' if node else ' ' + _typed(value)}"
        lines.append(f"{line:<38}  # {says[key]}" if key in says else line)
        if node:
            lines.append(described(config._get_node(key), f"{indent}  "))  # type: ignore[arg-type]
    return "\n".join(lines)


def comments(schema: type) -> dict[str, str]:
    """Field → the comment beside it, of a dataclass and of those that it is made from; with what the field may be, where that is listed."""
    found: dict[str, str] = {}
    for kind in filter(dataclasses.is_dataclass, reversed(schema.__mro__)):
        options = {f.name: f.metadata.get("options", ()) for f in dataclasses.fields(kind)}
        for field in re.split(r"^    (?=\w+: )", inspect.getsource(kind), flags=re.MULTILINE)[1:]:
            if said := re.search(r"# (.+)", field):
                name = field.partition(":")[0]
                found[name] = "; ".join(filter(None, (", ".join(options[name]), said[1])))
    return found


def _kind(value: Any) -> str:
    return "a whole number" if isinstance(value, int) else "a number"


def _range(rule: Any) -> str:
    words = {"above": "above", "least": "of at least", "below": "below", "most": "of at most"}
    return " and ".join(f"{words[name]} {rule[name]:g}" for name in words if name in rule)


def explain(error: Exception) -> VerbatimError:
    """What Hydra or OmegaConf refused, as key, expected, found and next."""
    if isinstance(error, InstantiationException) and error.__cause__:
        key = re.search(r"full_key: (\S+)", str(error))
        return VerbatimError(
            key[1] if key else "configuration",
            expected="settings that its _target_ takes",
            found=error.__cause__,
            then=SHOW,
        )
    if isinstance(error, OverrideParseException):
        return _explain_typed(str(error.override))
    inner = error
    while not isinstance(inner, OmegaConfBaseException) and isinstance(inner.__cause__, Exception):
        inner = inner.__cause__
    if isinstance(inner, OmegaConfBaseException) and inner.full_key:
        return _explain_key(inner)
    text = str(error)
    if match := re.search(r"Could not find '([^']+)'\s+Available options in '[^']+':((?:\n\t[^\n]+)+)", text):
        group, _, name = match[1].rpartition("/")
        options = sorted({*match[2].split()} - FOREIGN.get(group, set()))
        then = suggest(name, options, f"{group}=")
        return VerbatimError(group, expected=f"one of {', '.join(options)}", found=name, then=then)
    if match := re.search(r"Could not override '([^']+)'", text):
        return VerbatimError(match[1], expected="a key or a group of the configuration", found="no such key", then=SHOW)
    return VerbatimError("configuration", expected="one that composes", found=_first_line(text), then=SHOW)


SHOW = "add `--cfg job` to see every key and its value"
# Hydra's own, which it offers and a multirun refuses.
FOREIGN = {"hydra/launcher": {"basic"}, "hydra/sweeper": {"basic"}}
TYPES = {"Integer": "a whole number", "Float": "a number", "bool": "true or false"}


def _explain_typed(word: str) -> VerbatimError:
    """What is wrong with a word that Hydra's grammar does not take: its own message speaks of the grammar."""
    key, equals, value = word.partition("=")
    if not equals:
        return VerbatimError(
            word, expected="key=value", found="no =", then=f"add {word}=…, or see nox -s train -- --help"
        )
    left: list[str] = []  # brackets that are to be closed
    for mark in re.sub(r"'[^']*'|\"[^\"]*\"", "", value):
        if mark in "([{":
            left.append(")]}"["([{".index(mark)])
        elif left and mark == left[-1]:
            left.pop()
    if left:
        closed = f"{value.rstrip(', ')}{''.join(reversed(left))}"
        return VerbatimError(
            key, expected="a value with its brackets closed", found=value, then=f"did you mean '{key}={closed}'?"
        )
    return VerbatimError(
        key,
        expected="a value that Hydra can read",
        found=value,
        then=f"where it is text with marks of its own, add \"{key}='…'\"",
    )


def _explain_key(error: OmegaConfBaseException) -> VerbatimError:
    where, name, text = str(error.full_key), str(error.key), _first_line(str(error))
    typed = dataclasses.is_dataclass(error.object_type)
    fields = {f.name: f for f in dataclasses.fields(error.object_type)} if typed else {}  # type: ignore[arg-type]
    field = fields.get(name)
    if match := re.match(
        r"Value '(.*?)' (?:of type '(\w+)' )?(?:could not be converted to|is not a subclass of|is not a valid) (\w+)",
        text,
    ):
        limits = f" {_range(field.metadata)}" if field and field.metadata and match[3] in ("Integer", "Float") else ""
        found = f"{match[1]} (a {match[2]})" if match[1] and match[2] else match[1] or "nothing after the ="
        expected = TYPES.get(match[3], f"a value of type {match[3]}") + limits
        return VerbatimError(where, expected=expected, found=found, then=_add(where, field))
    if re.search(r"not Optional|Non optional", text):
        return VerbatimError(where, expected="a value", found="null", then=_add(where, field))
    if "is not a ListConfig" in text:
        return VerbatimError(where, expected="a list, as [1,2]", found="a single value", then=_add(where, field))
    if re.search(r"Key '.*' (?:is )?not in", text):
        known = fields or (error.parent_node if isinstance(error.parent_node, DictConfig) else {})
        options = sorted(str(key) for key in known if not str(key).startswith("_"))
        expected = f"one of {', '.join(options)}" if options else "a key of the configuration"
        group = "/".join(where.split(".")[:2])
        other = f"add {group}=…: its settings come with it" if group in FOREIGN else SHOW
        then = suggest(name, options, where.removesuffix(name), other)
        return VerbatimError(where, expected=expected, found=f"no key `{name}` there", then=then)
    return VerbatimError(where, expected="a value that fits", found=text, then=SHOW)


def suggest(name: str, options: Iterable[str], prefix: str, otherwise: str = SHOW) -> str:
    """The option that somebody meant who typed `name`; `otherwise` where none is like it."""
    close = difflib.get_close_matches(name, list(options), 1, 0.5)
    return f"did you mean {prefix}{close[0]}?" if close else otherwise


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0] if text.strip() else "an error without a message"
