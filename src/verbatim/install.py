"""Makes `.venv` from a lock, or verifies the one that is there. Needs nothing but the standard library.

An image makes its own with `python -m verbatim.install --into /opt/venv --variant cpu`, before any other code is there.

What says that an environment is whole: a stamp, written last and removed first, that names the lock it was made from, *and* the
distributions found in it, compared with the lock every time. A stamp alone would miss a later `pip install`; distributions alone
would miss an install that was interrupted between two files.
"""

import argparse
import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from verbatim import digest, environment, lock, trim
from verbatim.errors import VerbatimError

STAMP, PYTHON = environment.STAMP, environment.PYTHON
# Where the CPU builds of torch lie; a lock names no place, so the one who installs does.
CPU_WHEELS = "https://download.pytorch.org/whl/cpu/torch/"


@dataclass(frozen=True, kw_only=True, slots=True)
class Environment:
    path: Path
    variant: str

    @property
    def python(self) -> Path:
        return self.path / "bin" / "python"


def ensure(root: Path, choice: str = "", own: Path | None = None) -> Environment:
    """The locked environment, verified (about 10 ms) or made. `choice`: `cpu`, `cuda`, or empty for what the machine has.

    In the project's image (`VERBATIM_ENV` names its environment) it is verified and never installed into. `own` is another
    place for it, beside the project's own: for the lock of an older run.
    """
    path, fixed = (own, False) if own else environment.place(root)
    stamp = environment.read_stamp(path)
    chosen = choice or os.environ.get("VERBATIM_VARIANT", "") or stamp.get("chosen", "")
    variant = choose(stamp["variant"] if fixed and stamp and not chosen else chosen)
    pins = lock.read_sealed(root / "requirements" / f"{variant}.txt")
    if fixed:
        problems = _problems(path, stamp, pins)
        if problems:
            raise VerbatimError(
                path,
                expected="the environment that the lock names",
                found=listed(problems),
                then="rebuild the container",
            )
        return Environment(path=path, variant=variant)
    if _problems(path, stamp, pins):
        with alone(path):
            again = environment.read_stamp(path)
            if problems := _problems(path, again, pins):  # another session may have made it meanwhile
                _make(root, path, variant, "" if choice == "auto" else choice, pins, problems)
    return Environment(path=path, variant=variant)


def choose(chosen: str) -> str:
    """`cpu` or `cuda`: as asked, or what this machine has."""
    if chosen in ("", "auto"):
        linux_x86 = (platform.system(), platform.machine()) == ("Linux", "x86_64")
        return "cuda" if linux_x86 and environment.has_nvidia_driver() else "cpu"
    if chosen not in lock.VARIANTS:
        raise VerbatimError("variant", expected="cpu, cuda or auto", found=chosen, then="nox -s env -- cpu")
    return chosen


def _problems(path: Path, stamp: dict[str, str], pins: list[lock.Pin]) -> list[str]:
    if not (path / "bin" / "python").exists():
        return ["not there"]
    if not stamp:
        return ["its installation did not finish"]
    if stamp.get("lock") != lock.digest(pins):
        return ["made from another lock"]
    return lock.differences(pins, environment.distributions(environment.site_packages(path)))


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """One installer at a time; the kernel lets go of the lock when its holder dies."""
    import fcntl

    with path.with_name(f"{path.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another session is making the environment: waiting for it …", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make(
    root: Path, path: Path, variant: str, chosen: str, pins: list[lock.Pin], problems: list[str], *, image: bool = False
) -> None:
    if (platform.system(), platform.machine()) not in (("Linux", "x86_64"), ("Linux", "aarch64")):
        raise VerbatimError(
            "this machine", expected="Linux on x86_64 or aarch64", found=f"{platform.system()} on {platform.machine()}",
            then="reopen the folder in its container, or in WSL",
        )  # fmt: skip
    started = time.monotonic()
    uv = find_uv()
    print(
        f"{path.name}: {listed(problems)}; making it from requirements/{variant}.txt with {'uv' if uv else 'pip'} …",
        flush=True,
    )
    (path / STAMP).unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="verbatim-env-") as scratch:
        # The one package that comes as source only (antlr4-python3-runtime) is built by the setuptools of the same lock.
        builder = Path(scratch) / "builder.txt"
        builder.write_text(_extract(root / "requirements" / f"{variant}.txt", "setuptools"))
        steps = _steps(uv, path, [builder, root / "requirements" / f"{variant}.txt"])
        variables = process_variables(variant)
        for step in steps:
            if subprocess.run(step, cwd=root, env=variables, check=False).returncode:
                raise VerbatimError(
                    f"requirements/{variant}.txt", expected="an environment", found=f"`{' '.join(step[:4])} …` failed",
                    then="read what it says above; with everything whole, `nox -s env` goes on from here",
                )  # fmt: skip
    site = environment.site_packages(path)
    if image:  # code lies where PYTHONPATH says, and every byte travels
        print(f"{path.name}: {trim.trim(site) / 2**20:.0f} MiB that no run can use taken out", flush=True)
    else:
        # So that `python -m experiment.train`, editors and test runners find the code, whatever starts them.
        (site / "verbatim.pth").write_text(f"{root / 'src'}\n")
    if not uv:
        _compile(path / "bin" / "python", site, variables)
    left = lock.differences(pins, environment.distributions(site))
    if left:
        raise VerbatimError(path, expected="what the lock names", found=listed(left), then="rm -r .venv && nox -s env")
    stamp = {
        "variant": variant, "chosen": chosen, "lock": lock.digest(pins), "python": platform.python_version(),
        "records": digest.of_parts(environment.records(environment.site_packages(path)).items()),
    }  # fmt: skip
    beside = path / f"{STAMP}.new"
    beside.write_text(json.dumps(stamp, indent=1) + "\n")
    beside.replace(path / STAMP)
    print(
        f"{path.name}: {len(pins)} distributions, lock {digest.short(stamp['lock'])}, {time.monotonic() - started:.0f} s",
        flush=True,
    )


def _compile(python: Path, site: Path, variables: dict[str, str]) -> None:
    """Byte code on several cores, where pip takes one; files for other Pythons do not compile, and need not.

    All of it anew (-f): setuptools has been imported by then, and what an import wrote is keyed by the file's time.
    """
    subprocess.run([python, "-m", "compileall", "-qq", "-f", "-j", "0", site], env=variables, check=False)


def _steps(uv: str, path: Path, locks: list[Path]) -> list[list[str]]:
    """The commands that make an environment anew. Byte code is compiled now: without it every start takes 2.6 times as long."""
    python, base = str(path / "bin" / "python"), _base_python()
    pinned = ["--quiet", "--no-build-isolation", "--no-deps", "--require-hashes"]
    if uv:
        make = [uv, "venv", "--quiet", "--clear", "--no-project", "--python", base, str(path)]
        install = [uv, "pip", "install", "--python", python, *pinned, "--compile-bytecode"]
        return [make, *([*install, "--requirement", str(file)] for file in locks)]
    make = [base, "-m", "venv", "--clear", str(path)]
    # --use-pep517: the pip of Debian's Python 3.11 would leave an .egg-info, which says nothing of where it came from.
    install = [python, "-m", "pip", "--disable-pip-version-check", "install", *pinned, "--use-pep517", "--no-compile"]
    return [make, *([*install, "--requirement", str(file)] for file in locks)]


def process_variables(variant: str) -> dict[str, str]:
    variables = dict(os.environ)
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    links = variables.get("PIP_FIND_LINKS", "")
    if not links and variant == "cpu":
        links = variables["PIP_FIND_LINKS"] = CPU_WHEELS
    if links:  # uv has its own variable, separated by commas
        variables.setdefault("UV_FIND_LINKS", ",".join(links.split()))
    return variables


def find_uv() -> str:
    """uv from the tools' environment or the PATH; empty where there is none, or where `VERBATIM_INSTALLER=pip` asks for pip."""
    if os.environ.get("VERBATIM_INSTALLER", "") == "pip":
        return ""
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if beside.exists() else shutil.which("uv") or ""


def _base_python() -> str:
    if platform.python_version().startswith(f"{PYTHON}."):
        return getattr(sys, "_base_executable", sys.executable)
    found = shutil.which(f"python{PYTHON}")
    if not found:
        raise VerbatimError(
            "python",
            expected=f"Python {PYTHON}",
            found=platform.python_version(),
            then=f"install python{PYTHON} (Debian: apt-get install python{PYTHON} python{PYTHON}-venv)",
        )
    return found


def _extract(path: Path, name: str) -> str:
    """The lines of one pin."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    start = next(pin.line for pin in lock.read(path) if pin.name == name) - 1
    end = next(i for i in range(start + 1, len(lines) + 1) if i == len(lines) or not lines[i][0].isspace())
    return "".join(lines[start:end])


def listed(problems: list[str]) -> str:
    return "; ".join(problems[:3]) + (f"; and {len(problems) - 3} more" if len(problems) > 3 else "")


def main() -> int:
    """For the image's Dockerfile: the environment, made once, with nothing asked of the machine."""
    parser = argparse.ArgumentParser(
        prog="python -m verbatim.install", description="Make an environment from its lock."
    )
    parser.add_argument("--into", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--variant", choices=lock.VARIANTS, required=True)
    options = parser.parse_args()
    root = Path(__file__).resolve().parents[2]
    try:
        pins = lock.read_sealed(root / "requirements" / f"{options.variant}.txt")
        _make(root, options.into, options.variant, options.variant, pins, ["not there"], image=True)
    except VerbatimError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
