"""Compiles the locks with pip-tools. Runs in the tools' environment (`nox -s lock`); nothing else may write a lock.

Each lock is compiled in a scratch folder, checked, and only then moved over the old one: a failure leaves all of them as they were.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from verbatim import digest, lock
from verbatim.errors import VerbatimError

OPTIONS = (
    "--generate-hashes", "--strip-extras", "--quiet",
    "--allow-unsafe",  # torch needs setuptools
    # A lock names no place: where packages come from is the machine's business.
    "--no-emit-index-url", "--no-emit-find-links", "--no-emit-trusted-host", "--no-emit-options",
)  # fmt: skip

# Wheels that pip-compile can't see from x86_64, stated in a .in file as `# also NAME==VERSION --hash=sha256:…`.
_ALSO = re.compile(r"^# also (\S+)==(\S+) --hash=(sha256:[0-9a-f]{64})", re.MULTILINE)


def compile_locks(root: Path, upgrades: list[str]) -> list[str]:
    """Compile tools, cpu and cuda, and return what changed, a line each. Takes a minute; the first CUDA compile, several."""
    changes = []
    with tempfile.TemporaryDirectory(prefix="verbatim-lock-") as scratch:
        folder = Path(scratch) / "requirements"
        shutil.copytree(root / "requirements", folder)
        for name in ("tools", *lock.VARIANTS):
            print(f"compiling requirements/{name}.txt …", flush=True)
            if name == "cuda":
                _start_from_cpu(folder)
            _pip_compile(Path(scratch), name, upgrades)
            _seal(folder, name)
        problems = lock.check(folder)
        if problems:
            raise VerbatimError("requirements", expected="locks that agree", found="; ".join(problems))
        for name in ("tools", *lock.VARIANTS):
            changes += _replace(folder / f"{name}.txt", root / "requirements" / f"{name}.txt")
    return changes


def _pip_compile(folder: Path, name: str, upgrades: list[str]) -> None:
    environment = os.environ | {"CUSTOM_COMPILE_COMMAND": lock.COMPILE}
    command = [
        sys.executable,
        "-m",
        "piptools",
        "compile",
        *OPTIONS,
        *upgrades,
        "--output-file",
        f"requirements/{name}.txt",
    ]
    done = subprocess.run(
        [*command, f"requirements/{name}.in"], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = "\n    ".join(done.stderr.strip().splitlines()[-8:])
        raise VerbatimError(f"requirements/{name}.in", expected="requirements that can be met", found=f"\n    {last}")


def _start_from_cpu(folder: Path) -> None:
    """Let CUDA start from the CPU's pins, which pip-compile prefers: what isn't torch resolves to the same in both."""
    text = (folder / "cpu.txt").read_text(encoding="utf-8")
    kept = re.sub(r"^(?:torch|triton|nvidia-\S+|cuda-\S+)==.*\n(?:[ #].*\n)+", "", text, flags=re.MULTILINE)
    old = folder / "cuda.txt"
    if old.exists():  # its own GPU pins stay unless an upgrade is asked for
        kept += "".join(
            re.findall(r"^(?:torch|triton|nvidia-\S+|cuda-\S+)==.*\n(?: .*\n)+", old.read_text(), re.MULTILINE)
        )
    old.write_text(kept, encoding="utf-8")


def _seal(folder: Path, name: str) -> None:
    """Add the hashes stated by hand and the two digests; drop the machine's own marks."""
    path = folder / f"{name}.txt"
    text = re.sub(r"^# (?:inputs|pins) sha256:.*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    for package, version, extra in _ALSO.findall((folder / f"{name}.in").read_text(encoding="utf-8")):
        pin = f"{package}=={version} \\\n"
        if pin not in text:
            raise VerbatimError(
                f"requirements/{name}.in",
                expected=f"`# also {package}==…` to name the version that is locked",
                found=version,
            )
        if extra not in text:
            text = text.replace(pin, f"{pin}    --hash={extra} \\\n")
    path.write_text(text, encoding="utf-8")
    digests = f"# inputs {lock.inputs(folder / f'{name}.in')}\n# pins {lock.digest(lock.read(path))}\n"
    path.write_text(digests + text, encoding="utf-8")


def _replace(new: Path, old: Path) -> list[str]:
    """Move a lock over the old one in one step, and say how its pins changed."""
    before = {pin.name: pin for pin in lock.read(old)} if old.exists() else {}
    after = {pin.name: pin for pin in lock.read(new)}
    beside = old.with_suffix(".new")
    shutil.copyfile(new, beside)
    beside.replace(old)
    lines = []
    for name in sorted(before.keys() | after.keys()):
        one, other = before.get(name), after.get(name)
        if one and other and one.version == other.version:
            continue
        why = ", ".join(other.via) if other else ""
        lines.append(
            f"{old.name}: {name} {one.version if one else '–'} → {other.version if other else '–'}  {why}".rstrip()
        )
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="nox -s lock --", description="Compile requirements/*.in into locks with hashes."
    )
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions that the .in files allow")
    parser.add_argument("--upgrade-package", metavar="NAME", action="append", default=[], help="upgrade this one alone")
    parser.add_argument(
        "--check", action="store_true", help="compile nothing; say whether inputs and locks still agree"
    )
    options = parser.parse_args()
    root = Path(__file__).parents[2]
    try:
        if options.check:
            problems = lock.check(root / "requirements")
            print("\n".join(problems) or "requirements: inputs and locks agree")
            return 1 if problems else 0
        upgrades = ["--upgrade"] * options.upgrade + [f"--upgrade-package={name}" for name in options.upgrade_package]
        changes = compile_locks(root, upgrades)
    except VerbatimError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join(changes) or "no pin changed")
    print(
        "locks:",
        *(
            f"{n}.txt {digest.short(lock.digest(lock.read(root / 'requirements' / f'{n}.txt')))}"
            for n in ("tools", *lock.VARIANTS)
        ),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
