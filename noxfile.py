#!/usr/bin/env python3.11
"""Verbatim: the same recipe gives the same outcome, bit for bit, or the first thing that differs is named.

Every task is a session; arguments of your own come after `--`:

    nox -s train                                  train on the bundled digits, and record the run
    nox -s train -- model=mlp optimizer.lr=0.01   any setting of configs/ can be set by its name
    nox                                           the checks: lint, drift and tests

Without nox, `python3.11 noxfile.py` does the same: it makes the tools' environment from requirements/tools.txt first.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parent


def tools(name: str = "tools") -> Path:
    """The Python that holds nox, uv and pip-tools from their lock (or, `audit`, pip-audit from its own); made where it is missing
    or older than the lock (10 s).

    The development image brings its own (`VERBATIM_TOOLS`), used for as long as the lock is the one it was built from.
    """
    folder, lock = ROOT / ".nox" / name, ROOT / "requirements" / f"{name}.txt"
    brought = Path(os.environ.get("VERBATIM_TOOLS", folder))
    if brought.joinpath(lock.name).exists() and brought.joinpath(lock.name).read_bytes() == lock.read_bytes():
        return brought / "bin" / "python"
    python, stamp = folder / "bin" / "python", folder / lock.name
    if not stamp.exists() or stamp.read_bytes() != lock.read_bytes():
        print(f"making .nox/{name} from requirements/{name}.txt …", flush=True)
        stamp.unlink(missing_ok=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        install = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--require-hashes"]
        subprocess.run([*install, "--no-deps", "--requirement", lock], check=True)
        stamp.write_bytes(lock.read_bytes())
    return python


if __name__ == "__main__":
    if sys.version_info[:2] != (3, 11):
        sys.exit(f"error: expected Python 3.11, found {sys.version.split()[0]}\n  next: python3.11 noxfile.py")
    try:
        python = tools()
    except subprocess.CalledProcessError as error:
        sys.exit(
            f"error: `{' '.join(map(str, error.cmd[:4]))} …` failed; it says why above\n  next: the same command again"
        )
    os.execv(python, [python, "-m", "nox", "--noxfile", __file__, *sys.argv[1:]])

import nox

sys.path.insert(0, str(ROOT / "src"))
from verbatim import extras, install
from verbatim import lock as lock_files
from verbatim.errors import VerbatimError

nox.needs_version = ">=2024.4.15"
nox.options.sessions = ["lint", "drift", "tests"]  # lint first: it makes the environment that drift looks at
nox.options.default_venv_backend = "none"
nox.options.error_on_missing_interpreters = False

ENVIRONMENT = Path(os.environ.get("VERBATIM_ENV", ROOT / ".venv"))
GRACE_S = 20.0  # Ctrl-C: what a run may take to seal its record before nox ends it
SWEEP_GRACE_S = 300.0  # a cluster may take minutes to end its jobs


@nox.session
def env(session: nox.Session) -> None:
    """Make or verify .venv from the lock: `nox -s env`, `-- cuda` (cpu, cuda or auto); `-- ray`, `-- trackers`: what is optional."""
    words = session.posargs if _asked_for("env") else []
    known = (*lock_files.VARIANTS, "auto", *lock_files.EXTRAS)
    if wrong := [word for word in words if word not in known]:
        if not {"--help", "-h"}.isdisjoint(wrong):
            return print(env.func.__doc__)
        session.error(f"{wrong[0]}: expected some of {', '.join(known)}, found no such thing\n  next: nox -s env")
    try:
        made = install.ensure(ROOT, *[word for word in words if word not in lock_files.EXTRAS][:1])
        session.log(f"{made.path}: {made.variant}, as locked")
        for word in words:
            if word in lock_files.EXTRAS:
                session.log(f"{extras.ensure(ROOT, word)}: as locked")
    except VerbatimError as error:
        session.error(str(error))


@nox.session(requires=["env"])
def train(session: nox.Session) -> None:
    """Train, test and record a run: `nox -s train -- model=cnn seed=3 trainer.epochs=5` (`-- --help` lists everything)."""
    _verdict(session, "-m", "experiment.train", *session.posargs)


@nox.session(requires=["env"])
def multirun(session: nox.Session) -> None:
    """Make many runs, one per combination: `nox -s multirun -- seed=0,1,2 optimizer.lr=1e-2,1e-3` (`-- --help`)."""
    _verdict(session, "-m", "experiment.train", "--multirun", *session.posargs, grace_s=SWEEP_GRACE_S)


@nox.session(requires=["env"])
def best(session: nox.Session) -> None:
    """Name the best run of a multirun, and what makes it again: `nox -s best`, of the latest; `-- <sweep>`."""
    _verdict(session, "-m", "verbatim", "best", *session.posargs)


@nox.session(requires=["env"])
def evaluate(session: nox.Session) -> None:
    """Test a run's weights again: `nox -s evaluate -- run=runs/<run>` (or run=latest)."""
    _verdict(session, "-m", "experiment.evaluate", *session.posargs)


@nox.session(requires=["env"])
def runs(session: nox.Session) -> None:
    """List recorded runs, newest first; same recipe but another outcome is flagged: `nox -s runs -- --help`."""
    _python(session, "-m", "verbatim", "runs", *session.posargs)


@nox.session(requires=["env"])
def report(session: nox.Session) -> None:
    """Write all runs, who reproduced them and what broke as a page for a browser: `nox -s report`."""
    _verdict(session, "-m", "verbatim", "report", *session.posargs)


@nox.session(requires=["env"])
def reproduce(session: nox.Session) -> None:
    """Make a run again from its record alone, and compare, bit for bit: `nox -s reproduce -- runs/<run>`, or `--in-image`."""
    _verdict(session, "-m", "verbatim", "reproduce", *session.posargs)


@nox.session(requires=["env"])
def pack(session: nox.Session) -> None:
    """Pack a run into one file that others can check and make again: `nox -s pack -- runs/<run>`, `-- runs/<run> --with data`."""
    _verdict(session, "-m", "verbatim", "pack", *session.posargs)


@nox.session(requires=["env"])
def verify(session: nox.Session) -> None:
    """Check a run, or an archive of one, to its last byte: `nox -s verify -- <run folder | archive>`."""
    _verdict(session, "-m", "verbatim", "verify", *session.posargs)


@nox.session(requires=["env"])
def compare(session: nox.Session) -> None:
    """Name the first thing that differs between two runs, and all others: `nox -s compare -- A B` (`-- --help`)."""
    _verdict(session, "-m", "verbatim", "compare", *session.posargs)


@nox.session(requires=["env"])
def build(session: nox.Session) -> None:
    """Build an image: `nox -s build -- [target] [cpu|cuda]`, targets base, locked, dev, train, evaluate; `--verify` twice."""
    _verdict(session, "-m", "verbatim", "build", *session.posargs)


@nox.session(requires=["env"])
def devcontainer(session: nox.Session) -> None:
    """Write the devcontainer.json files from their matrix: `nox -s devcontainer`, `nox -s devcontainer -- --check`."""
    _verdict(session, "-m", "verbatim", "devcontainer", *session.posargs)


@nox.session
def doctor(session: nox.Session) -> None:
    """Say what is here against what is pinned, and what mends it: `nox -s doctor`."""
    if not (ENVIRONMENT / "bin" / "python").exists():
        session.error(f"{ENVIRONMENT}: expected the locked environment, found nothing there\n  next: nox -s env")
    _verdict(session, "-m", "verbatim", "doctor", *session.posargs)


@nox.session(requires=["env"])
def portability(session: nox.Session) -> None:
    """Prove level portable here, against the digests of other machines: `nox -s portability`, `-- --emulate` on other CPUs, `-- --add`."""
    _verdict(session, "-m", "verbatim", "portability", *session.posargs)


@nox.session(requires=["env"])
def image_diff(session: nox.Session) -> None:
    """Name what differs between the contents of two images: `nox -s image_diff -- A B`."""
    _verdict(session, "-m", "verbatim", "image_diff", *session.posargs)


@nox.session(requires=["env"])
def train_in_image(session: nox.Session) -> None:
    """Train inside the built image, as you, with the GPU if there is one: `nox -s train_in_image -- seed=3`."""
    _python(session, "-m", "verbatim", "in_image", "train", *session.posargs)


@nox.session(requires=["env"])
def evaluate_in_image(session: nox.Session) -> None:
    """Test a run's weights inside the built image: `nox -s evaluate_in_image -- run=latest`."""
    _python(session, "-m", "verbatim", "in_image", "evaluate", *session.posargs)


@nox.session(requires=["env"])
def tests(session: nox.Session) -> None:
    """Run the tests: `nox -s tests`, `nox -s tests -- -k trace`."""
    _python(session, "-m", "pytest", *session.posargs)


@nox.session(requires=["env"])
def containers(session: nox.Session) -> None:
    """Test images and devcontainer on a real container engine, started where none runs (5 min): `nox -s containers -- -x`."""
    _python(session, "-m", "pytest", "tests/containers", *session.posargs)


@nox.session(requires=["env"])
def engines(session: nox.Session) -> None:
    """Test the Slurm and Ray launchers on real ones, started here (4 min): `nox -s engines -- -x`."""
    _python(session, "-m", "pytest", "tests/engines", *session.posargs)


@nox.session(requires=["env"])
def lint(session: nox.Session) -> None:
    """Check style and types: ruff, and mypy --strict."""
    _python(session, "-m", "ruff", "check", ".")
    _python(session, "-m", "ruff", "format", "--check", ".")
    _python(session, "-m", "mypy")


@nox.session
def lock(session: nox.Session) -> None:
    """Compile requirements/*.in into locks with hashes: `nox -s lock`, `nox -s lock -- --upgrade-package numpy`, or `--upgrade`."""
    session.run(
        str(tools()), "-m", "verbatim.compile", *session.posargs, env={"PYTHONPATH": str(ROOT / "src")}, external=True
    )


@nox.session
def drift(session: nox.Session) -> None:
    """Check that inputs, locks, environment, images and files agree: `nox -s drift`, `-- --deep`, `-- --upstream`, `-- lock twins`."""
    if "--upstream" in session.posargs:
        tools("audit")
    # By the Python of nox: the locked environment may have drifted so far that it does not start.
    command = [sys.executable, "-m", "verbatim", "drift", *(session.posargs if _asked_for("drift") else ())]
    path = f"{os.environ['PATH']}{os.pathsep}{Path(sys.executable).parent}"  # uv is beside nox
    try:
        session.run(*command, env={"PATH": path, "PYTHONPATH": str(ROOT / "src")}, external=True)
    except nox.command.CommandFailed as failed:
        if _asked_for("drift"):  # its exit code is its answer; nox would make 1 of every other
            sys.exit(failed.return_code or 1)
        raise


@nox.session(requires=["env"])
def sbom(session: nox.Session) -> None:
    """List what the locks ship, or an image, as CycloneDX, with licences: `nox -s sbom`, `nox -s sbom -- verbatim:train-cpu`."""
    if "--validate" in session.posargs:
        tools("audit")
    _python(session, "-m", "verbatim", "sbom", *session.posargs)


@nox.session(requires=["env"])
def bench(session: nox.Session) -> None:
    """Measure what recording costs, against bare torch, interleaved: `nox -s bench`, `nox -s bench -- start`."""
    _python(session, "tests/bench.py", *session.posargs)


def _python(session: nox.Session, *arguments: str, grace_s: float = GRACE_S) -> None:
    """Run the locked environment's Python, with a fixed hash seed and with byte code written (a start without takes 2.6 times).

    SIGTERM goes to it, and nox waits: left to itself nox would end at once, and leave it running.
    """
    signal.signal(signal.SIGTERM, _pass_on)
    path = f"{os.environ['PATH']}{os.pathsep}{Path(sys.executable).parent}"  # uv and nox, for what looks for them
    fixed = {"PATH": path, "PYTHONHASHSEED": os.environ.get("PYTHONHASHSEED", "0"), "PYTHONDONTWRITEBYTECODE": ""}
    python = str(ENVIRONMENT / "bin" / "python")
    session.run(python, *arguments, env=fixed, external=True, interrupt_timeout=grace_s, terminate_timeout=grace_s)


def _pass_on(number: int, _frame: FrameType | None) -> None:
    try:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    except OSError:  # a kernel that does not say: nox ends its child itself, after the grace
        raise KeyboardInterrupt from None
    for pid in children:
        os.kill(int(pid), number)


def _verdict(session: nox.Session, *arguments: str, grace_s: float = GRACE_S) -> None:
    """Like `_python`, for a command whose exit code is its answer: nox would turn 1 and 2 into 1, so nox ends with it."""
    try:
        _python(session, *arguments, grace_s=grace_s)
    except nox.command.CommandFailed as failed:
        sys.exit(failed.return_code or 1)


def _asked_for(name: str) -> bool:
    """Whether a session was named on the command line: arguments after `--` reach those that it requires as well."""
    return name in sys.argv[: sys.argv.index("--") if "--" in sys.argv else None]
