"""What it takes to start a recorded run again: configuration, command, process variables, environment and places.

The recorded configuration goes to Hydra as a whole, as its primary configuration; overrides say nothing but where Hydra may write.
The script is the recorded one, so nothing here may need a feature that an older script lacks.
"""

import contextlib
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from verbatim import determinism, digest, environment, install, lock, resume, scratch
from verbatim.errors import VerbatimError
from verbatim.follow import Process
from verbatim.record import Record

NAME = "recorded"
# Made again from its record: an unfinished run of the same recipe is left alone.
FRESH = {"VERBATIM_RESUME": resume.NEVER}
# Hydra's own folders and logs: a run folder is claimed by the run itself.
QUIET = ("hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=none", "hydra/hydra_logging=none")


@contextlib.contextmanager
def prepared(
    run: Record, root: Path, folder: Path, tree: Path, paths: dict[str, Any]
) -> Iterator[Callable[[], Process]]:
    """What starts the run on this machine. `folder` lives as long as the run does, even where this process is killed."""
    python = environment_of(run, tree, root)
    write_config(folder / "config", run.recipe_config, paths)
    words = command(run.command, tree, python, folder / "config")

    def start() -> Process:
        process = subprocess.Popen(words, cwd=tree, env=variables(run, tree))
        scratch.owned_by(folder, os.getpid(), process.pid)
        return process

    print(f"running      {' '.join(words[1:3])} with the recorded configuration", flush=True)
    yield start


def write_config(folder: Path, recipe_config: dict[str, Any], paths: dict[str, Any]) -> None:
    """The recipe's configuration, with the places of this machine where the record left them open. JSON, which is YAML whose
    strings are never taken for numbers."""

    def opened(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: opened(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [opened(inner) for inner in value]
        if isinstance(value, str):
            escaped = re.sub(r"(\\*)\$\{", r"\1\1\\${", value)  # backslashes before `${` count double there
            return re.sub(r"<(paths\.\w+)>", r"${\1}", escaped)
        return value

    text = json.dumps(opened(recipe_config) | {"paths": opened(paths)}, indent=1, ensure_ascii=False)
    unprintable = r"[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]"  # YAML wants these escaped, JSON does not
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{NAME}.yaml").write_text(re.sub(unprintable, lambda m: f"\\u{ord(m[0]):04x}", text), encoding="utf-8")


def command(recorded: list[str], tree: Path, python: Path, configs: Path) -> list[str]:
    """The recorded interpreter options and program, with the recorded configuration instead of the overrides."""
    words = program(recorded)
    if words[-1].endswith(".py"):
        words[-1] = str(_script(tree, words[-1]))
    return [str(python), *words, "--config-dir", str(configs), "--config-name", NAME, *QUIET]


def program(command: list[str]) -> list[str]:
    """Of a Python command, the interpreter's options and the module or script, without its arguments."""
    options: list[str] = []
    for index, word in enumerate(command[1:], 1):
        if word == "-m":
            return [*options, *command[index : index + 2]]
        if word.endswith(".py"):
            return [*options, word]
        if not word.startswith("-"):
            break
        options.append(word)
    raise VerbatimError(
        "the recorded command", expected="python -m <module>, or a .py file", found=" ".join(command[:3])
    )


def _script(tree: Path, name: str) -> Path:
    """The script in the restored tree, whatever folder it was started from."""
    parts = Path(name).parts
    for start in range(len(parts)):
        candidate = tree.joinpath(*parts[start:])
        if not Path(*parts[start:]).is_absolute() and ".." not in parts[start:] and candidate.is_file():
            return candidate
    raise VerbatimError("the recorded command", expected="its script in the recorded code", found=f"no {name} there")


def variables(run: Record, tree: Path) -> dict[str, str]:
    """This process's variables, but for those that reach the bits: these are the recorded ones, no more and no fewer."""
    kept = {key: value for key, value in os.environ.items() if key not in determinism.PROCESS_VARIABLES}
    recorded: dict[str, str] = run.environment.get("variables", {})
    return kept | recorded | FRESH | {"PYTHONPATH": str(tree / "src")}


def environment_of(run: Record, tree: Path, root: Path) -> Path:
    """The Python of an environment that holds what the recorded lock names: the project's own, or one made for this lock."""
    path = locked(run, tree)
    pins = lock.read(path)
    present = Path(os.environ.get("VERBATIM_ENV") or root / ".venv")
    if not lock.differences(pins, environment.distributions(environment.site_packages(present))):
        print(f"environment  {present}: as the recorded lock names it", flush=True)
        return present / "bin" / "python"
    own = root / ".nox" / "reproduce" / digest.short(run.lock["digest"])
    own.parent.mkdir(parents=True, exist_ok=True)
    print(
        f"environment  {present} is of another lock than {digest.short(run.lock['digest'])}: one of its own, {own}",
        flush=True,
    )
    return install.ensure(tree, path.stem, own).python


def locked(run: Record, tree: Path) -> Path:
    """The lock in the restored tree, found to be the recorded one."""
    path = tree / "requirements" / str(run.lock.get("file"))
    if (found := lock.digest(lock.read(path))) != run.lock["digest"]:
        raise VerbatimError(path, expected=f"the recorded lock, {run.lock['digest']}", found=found)
    return path


def folders(paths: dict[str, Any], root: Path) -> dict[str, Path]:
    """The places that hold what a run reads: all but that of the runs themselves."""
    return {name: root / Path(place).expanduser() for name, place in paths.items() if place and name != "runs"}


def places(run: Record, root: Path, given: list[str]) -> dict[str, Any]:
    """Where things lie on this machine: as given, as the project's configuration says, and as recorded where that is silent."""
    from omegaconf import OmegaConf

    config = root / "configs" / "base.yaml"
    loaded: Any = OmegaConf.load(config) if config.exists() else {}
    present: Any = OmegaConf.to_container(OmegaConf.create({"paths": loaded.get("paths", {})}), resolve=True)
    paths = dict(run.config.get("paths", {}))
    paths |= {key: value for key, value in present["paths"].items() if value is not None}
    for word in given:
        key, equals, value = word.partition("=")
        if not equals or not key.startswith("paths."):
            raise VerbatimError(word, expected="paths.<name>=<place>: all else is the record's", found=word)
        paths[key.removeprefix("paths.")] = value
    return paths | {"runs": str((root / Path(paths.get("runs", "runs")).expanduser()).resolve())}
