"""Optional packages, of an optional lock: `nox -s env -- ray`, `nox -s env -- trackers`.

They lie in a folder of their own, `.nox/extra/<name>`, never in the environment, which holds what its lock names and nothing else. A
process that needs them puts that folder behind its `sys.path`: what the environment has always comes first.
"""

import importlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

from verbatim import digest, environment, install, lock
from verbatim.errors import VerbatimError
from verbatim.folders import ROOT


def place(root: Path, name: str) -> Path:
    return root / ".nox" / "extra" / name


def use(name: str, root: Path = ROOT, *, children: bool = False) -> None:
    """Let this process import what an optional lock holds, and with `children` the processes that it starts as well. Refused where it
    is not installed as that lock names it."""
    if found := problems(root, name):
        raise VerbatimError(
            f"the packages of requirements/{name}.txt", expected="all of them, as locked", found=install.listed(found),
            then=mend(name),
        )  # fmt: skip
    folder = str(place(root, name))
    if folder not in sys.path:
        sys.path.append(folder)
        importlib.invalidate_caches()
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if children and folder not in paths:
        os.environ["PYTHONPATH"] = os.pathsep.join([*filter(None, paths), folder])


def ensure(root: Path, name: str) -> Path:
    """Those packages, verified (some milliseconds) or installed anew."""
    if name not in lock.EXTRAS:
        raise VerbatimError(name, expected=f"one of {', '.join(lock.EXTRAS)}", found=name, then=mend(lock.EXTRAS[0]))
    path = place(root, name)
    if problems(root, name):
        path.parent.mkdir(parents=True, exist_ok=True)
        with install.alone(path):
            if found := problems(root, name):  # another session may have installed them meanwhile
                _make(root, name, found)
    return path


def mend(name: str) -> str:
    return f"nox -s env -- {name}"


def problems(root: Path, name: str) -> list[str]:
    """What is not as the lock names it. The stamp is written last and removed first, so a half-made folder has none."""
    path = place(root, name)
    if not path.is_dir():
        return ["not there"]
    pins, stamp = lock.read_sealed(root / "requirements" / f"{name}.txt"), environment.read_stamp(path)
    if not stamp:
        return ["their installation did not finish"]
    if stamp.get("lock") != lock.digest(pins):
        return ["made from another lock"]
    return lock.differences(pins, environment.distributions(path))


def _make(root: Path, name: str, found: list[str]) -> None:
    path, file = place(root, name), root / "requirements" / f"{name}.txt"
    started, uv = time.monotonic(), install.find_uv()
    print(f"{name}: {install.listed(found)}; installing requirements/{name}.txt …", flush=True)
    (path / environment.STAMP).unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)
    # Wheels alone: what a source's build would do, no lock says.
    pinned = ["--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:", "--target", str(path)]
    if uv:
        command = [uv, "pip", "install", "--python", sys.executable, *pinned, "--compile-bytecode"]
    else:
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", *pinned]
    command += ["--requirement", str(file)]
    if subprocess.run(command, cwd=root, env=install.process_variables(name), check=False).returncode:
        raise VerbatimError(file, expected="an installation", found=f"`{' '.join(command[:3])} …` failed", then=f"read what it says above; then {mend(name)}")  # fmt: skip
    (path / ".lock").unlink(missing_ok=True)  # uv's, for the time of the installation
    pins = lock.read_sealed(file)
    if left := lock.differences(pins, environment.distributions(path)):
        raise VerbatimError(path, expected="what the lock names", found=install.listed(left), then=mend(name))
    stamp = {
        "lock": lock.digest(pins), "python": platform.python_version(),
        "records": digest.of_parts(environment.records(path).items()),
    }  # fmt: skip
    beside = path / f"{environment.STAMP}.new"
    beside.write_text(json.dumps(stamp, indent=1) + "\n")
    beside.replace(path / environment.STAMP)
    print(f"{name}: {len(pins)} distributions, {time.monotonic() - started:.0f} s", flush=True)
