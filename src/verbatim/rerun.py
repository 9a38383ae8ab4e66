"""Starts a recorded run again in its restored tree, follows its trace while it is written, and ends it early when asked.

The recorded configuration goes to Hydra as a whole, as its primary configuration; overrides say nothing but where Hydra may write.
The script is the recorded one, so nothing here may need a feature that an older script lacks.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from verbatim import causes, determinism, record
from verbatim.errors import Interrupted, VerbatimError
from verbatim.record import Record
from verbatim.trace import HEADER_BYTES, Reader

POLL_S = 0.1
GRACE_S = 20.0  # what a run may take to seal its record when it is asked to end
NAME = "recorded"
# Hydra's own folders and logs: a run folder is claimed by the run itself.
QUIET = ("hydra.run.dir=.", "hydra.output_subdir=null", "hydra/job_logging=none", "hydra/hydra_logging=none")


def write_config(folder: Path, recipe_config: dict[str, Any], paths: dict[str, Any]) -> None:
    """The recipe's configuration, with the places of this machine where the record left them open. JSON, which is YAML whose
    strings are never taken for numbers."""

    def opened(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: opened(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [opened(inner) for inner in value]
        if isinstance(value, str):
            return re.sub(r"<(paths\.\w+)>", r"${\1}", value.replace("${", r"\${"))
        return value

    text = json.dumps(opened(recipe_config) | {"paths": paths}, indent=1, ensure_ascii=False)
    unprintable = r"[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]"  # YAML wants these escaped, JSON does not
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{NAME}.yaml").write_text(re.sub(unprintable, lambda m: f"\\u{ord(m[0]):04x}", text), encoding="utf-8")


def command(recorded: list[str], tree: Path, python: Path, configs: Path) -> list[str]:
    """The recorded interpreter options and program, with the recorded configuration instead of the overrides."""
    options, program = [], []
    for index, word in enumerate(recorded[1:], 1):
        if word == "-m":
            program = recorded[index : index + 2]
        elif word.endswith(".py"):
            program = [str(_script(tree, word))]
        elif word.startswith("-"):
            options.append(word)
            continue
        break
    if not program:
        raise VerbatimError(
            "the recorded command", expected="python -m <module>, or a .py file", found=" ".join(recorded)
        )
    return [str(python), *options, *program, "--config-dir", str(configs), "--config-name", NAME, *QUIET]


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
    return kept | recorded | {"PYTHONPATH": str(tree / "src")}


@dataclass(kw_only=True)
class Follower:
    """Watches one run. `recorded` is the trace that it should repeat; `folder` is the new run's, once it is known."""

    runs: Path
    original: Record
    recorded: Reader | None
    until: int | None = None
    fail_fast: bool = False
    folder: Path | None = None
    stopped: str = ""
    _before: set[str] = field(default_factory=set)
    _checked: bool = False

    def run(self, words: list[str], cwd: Path, environment: dict[str, str], started: Callable[[int], None]) -> int:
        """Run to the end, or until there is a reason to stop; the exit code. Its output goes where this process's goes."""
        self._before = set(os.listdir(self.runs)) if self.runs.is_dir() else set()
        marker = words[words.index("--config-dir") + 1]
        with _sigterm_raises():
            process = subprocess.Popen(words, cwd=cwd, env=environment)
            try:
                started(process.pid)
                while process.poll() is None:
                    time.sleep(POLL_S)
                    self._look(marker)
                    if self.stopped:
                        _end(process)
            except BaseException:
                _end(process)
                raise
        self._look(marker)
        return process.returncode

    def _look(self, marker: str) -> None:
        self.folder = self.folder or self._find(marker)
        if not self.folder:
            return
        if not self._checked:
            new = record.read(self.folder)
            if not new.recipe:
                return
            self._checked = True
            if new.recipe != self.original.recipe:
                self.stopped = "recipe"
                return
        path = self.folder / "trace.bin"
        if not self.recorded or not path.exists() or path.stat().st_size <= HEADER_BYTES:
            return
        new_trace = Reader(path)
        rows = min(new_trace.rows, self.recorded.rows)
        if rows and self.fail_fast and new_trace.chain(rows - 1) != self.recorded.chain(rows - 1):
            self.stopped = "differs"
        elif self.until is not None and new_trace.rows and new_trace.row(new_trace.rows - 1).step >= self.until:
            self.stopped = "until"

    def _find(self, marker: str) -> Path | None:
        """The run folder that is new and whose record was written by this very command."""
        for name in sorted(set(os.listdir(self.runs)) - self._before) if self.runs.is_dir() else ():
            with contextlib.suppress(VerbatimError):
                if marker in record.read(self.runs / name).command:
                    return self.runs / name
        return None

    def mismatch(self) -> causes.Difference | None:
        """What of the recipe is not the recorded one."""
        if not self.folder:
            return None
        found = causes.find(self.original, record.read(self.folder), self.runs)
        return next((difference for difference in found if difference.part in causes.RECIPE), None)


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Ask it to end, which seals its record; after the grace, end it."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(GRACE_S)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            process.kill()
            process.wait()


@contextlib.contextmanager
def _sigterm_raises() -> Iterator[None]:
    """SIGTERM ends the run that was started before it ends this process."""

    def interrupt(_number: int, _frame: Any) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
