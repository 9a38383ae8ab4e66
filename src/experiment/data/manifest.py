"""Holds a folder to a `sha256sum` file. It must never write one: what is pinned is a person's choice."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from experiment.data.data import first_difference
from verbatim.errors import VerbatimError

LINE = re.compile(r"([0-9a-f]{64}) [ *](?:\./)?(.+)")


def read(path: Path) -> dict[str, str]:
    """Digest by name from lines such as `<64 hex digits>  cat/1.png`."""
    try:
        lines = path.read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise VerbatimError(path, expected="a file that sha256sum wrote", found=error) from error
    listed: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        match = LINE.fullmatch(line.rstrip("\r"))
        if match and match[2] not in listed:
            listed[match[2]] = f"sha256:{match[1]}"
        elif line.strip():
            expected = "each file once" if match else "a sha256, two spaces and a file's name"
            raise VerbatimError(f"{path}:{number}", expected=expected, found=line.strip())
    return listed


def check(root: Path, files: Mapping[str, str], path: Path, listed: Mapping[str, str]) -> None:
    """Refuses the first of `files` in `root`, by name, that is changed, missing or not `listed` in `path`."""
    name = first_difference(listed, files)
    if name is None:
        return
    expected, found = listed.get(name), files.get(name)
    if expected is None:
        expected, found = f"a line for it in {path}", "none"
    here, there = shlex.quote(str(root.absolute())), shlex.quote(str(path.absolute()))
    then = f"restore it, or pin what is there: cd {here} && sha256sum */* > {there}"
    raise VerbatimError(root / name, expected=expected, found=found or "no file", then=then)
