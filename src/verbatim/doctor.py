"""What is here against what is pinned, a line each, with the command that mends it: `nox -s doctor`. It changes nothing.

All that takes time goes on at once, and what has not answered after `LIMIT_S` counts as not checked.
"""

import argparse
import os
import platform
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from verbatim import devcontainer, digest, engine, environment, extras, install, ledger, lock, record
from verbatim.drift import locks
from verbatim.errors import VerbatimError

LIMIT_S = 1.4  # for the probe: `nox -s doctor` ends within 2 s
ROOM_BYTES = 5 * 10**9  # an environment and its successor
MEMORY_BYTES = 2 * 10**9
OK, DIFFERS, UNCHECKED = "ok", "differs", "not checked"
PROBE = """
from verbatim import determinism
settings = determinism.Determinism(level="exact", threads=1)
determinism.set_variables(settings)
determinism.set_switches(settings, 0)
from verbatim.probe import probe
print(probe())
"""
WELCOME = """
Welcome. Three commands to try:

    nox -s train          train on the bundled digits, and record the run (5 s)
    nox -s runs           what was recorded
    nox -l                every other task
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    what: str
    state: str
    here: str
    then: str = ""


def check(root: Path) -> list[Line]:
    """Every line, in the order in which they are shown."""
    probe = subprocess.Popen(
        [sys.executable, "-c", PROBE], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    began = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        engine_line = pool.submit(_engine)
        installed = environment.distributions(environment.site_packages())
        lines = [
            _image(),
            _python(),
            *_locked(root, installed),
            *_extras(root),
            _gpu(installed),
            _git(root),
            _devcontainer(root),
        ]
        lines += [_disk(root), _memory(), engine_line.result()]
    return [*lines, _probe(probe, began, root)]


def _image() -> Line:
    if known := os.environ.get("VERBATIM_IMAGE_DIGEST", ""):
        return Line(what="image", state=OK, here=f"content {known}")
    if os.environ.get("VERBATIM_ENV", ""):
        return Line(
            what="image",
            state=UNCHECKED,
            here="the project's own, started by an editor: its digest is not known inside",
        )
    return Line(
        what="image", state=UNCHECKED, here="none: this is no container of the project's", then="reopen in container"
    )


def _python() -> Line:
    here = platform.python_version()
    same = here.startswith(f"{install.PYTHON}.")
    return Line(
        what="Python",
        state=OK if same else DIFFERS,
        here=f"{here}, {sys.executable}",
        then="" if same else "nox -s env",
    )


def _locked(root: Path, installed: dict[str, str]) -> list[Line]:
    variant = environment.variant(installed)
    try:
        pins = lock.read(root / "requirements" / f"{variant}.txt")
        apart, drift = lock.differences(pins, installed), locks.sentences(root / "requirements")
    except VerbatimError as error:
        return [Line(what="lock", state=DIFFERS, here=error.message.partition("\n")[0], then=error.then)]
    mend = "rebuild the container" if os.environ.get("VERBATIM_ENV", "") else "nox -s env"
    says = f"{len(pins)} of {len(pins)} as requirements/{variant}.txt has them" if not apart else "; ".join(apart[:3])
    return [
        Line(what="distributions", state=DIFFERS if apart else OK, here=says, then=mend if apart else ""),
        Line(
            what="lock", state=DIFFERS if drift else OK, then="nox -s lock" if drift else "",
            here="; ".join(drift[:3]) or f"{variant} {digest.short(lock.digest(pins))}, agrees with its inputs and its twin",
        ),
    ]  # fmt: skip


def _extras(root: Path) -> list[Line]:
    """Optional packages, where they are installed."""
    lines = []
    for name in lock.EXTRAS:
        if extras.place(root, name).is_dir():
            apart = extras.problems(root, name)
            here = "; ".join(apart[:3]) or f"as requirements/{name}.txt has them"
            lines.append(Line(what=name, state=DIFFERS if apart else OK, here=here, then=extras.mend(name) if apart else ""))  # fmt: skip
    return lines


def _gpu(installed: dict[str, str]) -> Line:
    variant = environment.variant(installed)
    if not environment.has_nvidia_driver():
        return Line(what="GPU", state=OK, here=f"none, and the {variant} environment needs none")
    path = Path("/proc/driver/nvidia/version")
    driver = path.read_text().partition("\n")[0] if path.exists() else "a driver"
    if variant == "cpu":
        return Line(
            what="GPU", state=DIFFERS, here=f"{driver}, and an environment without CUDA", then="nox -s env -- cuda"
        )
    runtime = next((version for name, version in installed.items() if name.startswith("nvidia-cuda-runtime")), "")
    return Line(what="GPU", state=OK, here=f"{driver}; CUDA {runtime or 'of torch ' + installed.get('torch', '')}")


def _git(root: Path) -> Line:
    command = ["git", "rev-parse", "--short", "HEAD"]
    try:
        result = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return Line(what="git", state=DIFFERS, here="not installed: runs can't record their code", then="install git")
    if result.returncode:
        last = result.stderr.strip().splitlines()
        return Line(
            what="git",
            state=DIFFERS,
            here=last[-1] if last else "no commit",
            then="git init && git add . && git commit",
        )
    return Line(what="git", state=OK, here=f"at {result.stdout.strip()}")


def _devcontainer(root: Path) -> Line:
    names = devcontainer.drifted(root)
    if names:
        here = f"{', '.join(names)}: not what the matrix gives"
        return Line(what="devcontainer", state=DIFFERS, here=here, then="nox -s devcontainer")
    return Line(what="devcontainer", state=OK, here=f"{len(devcontainer.MATRIX)} files, as the matrix gives them")


def _disk(root: Path) -> Line:
    free = shutil.disk_usage(root).free
    return Line(
        what="disk", state=OK if free >= ROOM_BYTES else DIFFERS, here=f"{free / 1e9:.0f} GB free",
        then="" if free >= ROOM_BYTES else f"free some: {ROOM_BYTES / 1e9:.0f} GB are enough",
    )  # fmt: skip


def _memory() -> Line:
    fields = dict(line.split(":") for line in _text("/proc/meminfo").splitlines() if ":" in line)
    available = int(fields.get("MemAvailable", "0 kB").split()[0]) * 1024
    limit = _text("/sys/fs/cgroup/memory.max").strip()  # a container's own
    if limit.isdigit():
        available = min(available, int(limit))
    if not available:
        return Line(what="memory", state=UNCHECKED, here="this system does not say")
    enough = available >= MEMORY_BYTES
    return Line(
        what="memory", state=OK if enough else DIFFERS, here=f"{available / 1e9:.0f} GB to be had",
        then="" if enough else "end other programs, or give the container more",
    )  # fmt: skip


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _engine() -> Line:
    try:
        with engine.connect() as client, engine.refusals("the container engine"):
            info = client.info()
    except VerbatimError as error:
        return Line(what="engine", state=UNCHECKED, here=f"{error.found}; only images need one", then=error.then)
    gpu = engine.gpus(info) or "GPUs to give"
    return Line(what="engine", state=OK, here=f"{info['ServerVersion']}, {info['Driver']}; {gpu}")


def _probe(running: "subprocess.Popen[str]", began: float, root: Path) -> Line:
    """The numerics probe of this machine against that of the newest run recorded on it."""
    try:
        found = running.communicate(timeout=max(0.05, LIMIT_S - (time.monotonic() - began)))[0].strip()
    except subprocess.TimeoutExpired:
        running.kill()
        running.communicate()
        return Line(
            what="probe",
            state=UNCHECKED,
            here=f"torch took more than {LIMIT_S} s to load",
            then="the same command again",
        )
    if running.returncode:
        return Line(what="probe", state=DIFFERS, here="torch does not load", then="nox -s env")
    for run in ledger.read(root / "runs"):
        if isinstance(run, record.Record) and _alike(run):
            same = run.environment["probe"] == found
            says = f"{digest.short(found)}, {'as' if same else 'not as'} in {run.run}"
            return Line(
                what="probe", state=OK if same else DIFFERS, here=says,
                then="" if same else f"compare a new run with {run.run}: these machines compute other bits",
            )  # fmt: skip
    return Line(
        what="probe",
        state=UNCHECKED,
        here=f"{digest.short(found)}, and no run here to compare with",
        then="nox -s train",
    )


def _alike(run: record.Record) -> bool:
    """The probe depends on the thread count and the device's kind: only such a run can be compared."""
    here = run.environment
    return bool(here.get("probe")) and here.get("threads") == 1 and run.level == "exact"


COLOURS = {OK: "green", DIFFERS: "bold red", UNCHECKED: "dim"}


def main(arguments: list[str], root: Path) -> int:
    parser = argparse.ArgumentParser(
        prog="nox -s doctor --", description="What is here against what is pinned. Exit code 1 where something differs."
    )
    parser.add_argument("--welcome", action="store_true", help="end with a short welcome")
    options = parser.parse_args(arguments)
    lines = check(root)
    show(lines)
    if options.welcome:
        print(WELCOME)
    return 1 if any(line.state == DIFFERS for line in lines) else 0


def show(lines: list[Line]) -> None:
    from rich.table import Table
    from rich.text import Text

    from verbatim.progress import console

    table = Table.grid(padding=(0, 2))
    for line in lines:
        here = Text(line.here)
        if line.then:
            here.append(f"\nnext: {line.then}", style="cyan")
        table.add_row(Text(line.what, "bold"), Text(line.state, COLOURS[line.state]), here)
    console().print(table)
