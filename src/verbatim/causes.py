"""How two records differ before the first step: image, Python, lock, code, config, data, hardware, probe. Reads records alone.

What a run did not get to state (it crashed before) is not compared, and never reported as a difference.
"""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from verbatim import code, digest
from verbatim.record import Record

# The order in which a difference can cause the next.
PARTS = ("image", "python", "lock", "code", "config", "data", "hardware", "probe", "step", "tensor", "metric", "end")
RECIPE = ("lock", "code", "config", "data")
OUTCOME = ("step", "tensor", "metric", "end")


class Nothing(Enum):
    """A key that one side does not have, which is not the same as a key that holds null."""

    HERE = "nothing"


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """One difference. `a` and `b` are what each side holds; `says` is for what two values can't say."""

    part: str
    where: str
    a: Any = Nothing.HERE
    b: Any = Nothing.HERE
    says: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.says or f'{show(self.a)} → {show(self.b)}'}"


def show(value: Any) -> str:
    """A value as a table holds it: digests short, everything else as JSON."""
    if isinstance(value, Nothing):
        return str(value.value)
    if isinstance(value, str):
        return digest.short(value) if value.startswith("sha256:") else value
    return json.dumps(value, ensure_ascii=False)


def find(a: Record, b: Record, root: Path) -> Iterator[Difference]:
    """Every difference, the first cause first. `root` is the repository that is asked for the code of both."""
    one, other = a.environment, b.environment
    yield from values("image", "image", one.get("image"), other.get("image"), known=bool(one and other))
    yield from values("python", "", _python(one), _python(other), known=bool(one and other))
    yield from values("lock", "", one.get("distributions"), other.get("distributions"))
    yield from values("lock", "torch, as loaded", one.get("torch"), other.get("torch"))
    yield from values("lock", f"requirements/{a.lock.get('file')}", a.lock.get("digest"), b.lock.get("digest"))
    yield from _code(a.code, b.code, root)
    yield from _config(a, b)
    yield from _data(a.data, b.data)
    yield from _hardware(one, other)
    yield from values("probe", "numerics probe", one.get("probe"), other.get("probe"))


def values(part: str, where: str, a: Any, b: Any, *, known: bool | None = None) -> Iterator[Difference]:
    """Key by key. Values are the same when their JSON is: 1, 1.0 and true are three. Unless `known`, None is what was not stated."""
    if known if known is not None else a not in (None, "") and b not in (None, ""):
        yield from (Difference(part=part, where=path, a=one, b=other) for path, one, other in walk(a, b, where))


def walk(a: Any, b: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    """(path, a, b) wherever two trees differ. A list is one value; a key that holds a dot is quoted, so that no two paths are the same."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in [*a, *(key for key in b if key not in a)]:
            name = json.dumps(key) if path and "." in key else key
            yield from walk(a.get(key, Nothing.HERE), b.get(key, Nothing.HERE), f"{path}.{name}" if path else name)
    elif Nothing.HERE in (a, b) or digest.canonical(a) != digest.canonical(b):
        yield path, a, b


def _python(environment: dict[str, Any]) -> Any:
    found = environment.get("python")
    return {key: value for key, value in found.items() if key != "executable"} if isinstance(found, dict) else found


def _config(a: Record, b: Record) -> Iterator[Difference]:
    yield from values("config", "", a.recipe_config, b.recipe_config)
    if digest.canonical(a.recipe_config) == digest.canonical(b.recipe_config):
        yield from values("config", "seed", a.seed, b.seed)
        yield from values("config", "determinism.level", a.level, b.level)


def _data(a: dict[str, Any], b: dict[str, Any]) -> Iterator[Difference]:
    if not a or not b:
        return
    yield from values("data", "name", a.get("name"), b.get("name"))
    files = list(values("data", "", a.get("files"), b.get("files")))
    yield from files
    if a.get("fingerprint") != b.get("fingerprint"):
        says = "" if files else "every file is the same, what was made of them is not (split, size, classes or scale)"
        yield Difference(part="data", where="fingerprint", a=a.get("fingerprint"), b=b.get("fingerprint"), says=says)


def _hardware(a: dict[str, Any], b: dict[str, Any]) -> Iterator[Difference]:
    for name in ("device", "gpu", "cpu_capability", "threads", "variables", "cpu", "os"):
        known = name in a and name in b
        for difference in values("hardware", name, a.get(name), b.get(name), known=known):
            if difference.where == "cpu.flags":  # a hundred words: only those that one side lacks
                left, right = set(str(difference.a).split()), set(str(difference.b).split())
                says = " ".join(
                    [*(f"−{flag}" for flag in sorted(left - right)), *(f"+{f}" for f in sorted(right - left))]
                )
                difference = Difference(part="hardware", where="cpu.flags", a=difference.a, b=difference.b, says=says)
            yield difference


def _code(a: dict[str, Any], b: dict[str, Any], root: Path) -> Iterator[Difference]:
    """File by file where the repository holds both trees."""
    left, right = a.get("tree", ""), b.get("tree", "")
    if left == right or not a or not b:
        return
    whole = Difference(part="code", where="git tree", a=left or Nothing.HERE, b=right or Nothing.HERE)
    for side in (a, b):
        if not side.get("tree"):
            yield Difference(
                part="code", where="git tree", a=whole.a, b=whole.b, says=f"not captured: {side.get('reason')}"
            )
            return
    try:
        lines = git_diff(root, left, right, "--numstat", "-z").split("\0")
    except (subprocess.CalledProcessError, FileNotFoundError):
        yield whole
        return
    for line in filter(None, lines):
        added, removed, name = line.split("\t", 2)
        yield Difference(part="code", where=name, says="binary" if added == "-" else f"+{added} −{removed}")
    if not any(lines):
        yield whole


def git_diff(root: Path, a: str, b: str, *options: str) -> str:
    """`git diff` between two recorded trees, by git alone: no driver, filter or colour of the user's."""
    plain = ("--no-ext-diff", "--no-textconv", "--no-renames", "--no-color")
    return code.git(root, "diff", *plain, *options, f"{a}^{{tree}}", f"{b}^{{tree}}", "--")
