"""Compiles the locks with pip-tools. Runs in the tools' environment (`nox -s lock`); nothing else may write a lock.

All of them are compiled in a scratch folder, sealed, and checked, by the offline checks of drift and by uv's resolver where uv is
there. Only then are they moved over the old ones: a failure leaves all as they were. A lock that comes out the same is not touched.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from verbatim import changes, digest, environment, inputs, install, lock, record
from verbatim.drift import locks
from verbatim.errors import VerbatimError

OPTIONS = (
    "--generate-hashes", "--strip-extras", "--quiet",
    "--allow-unsafe",  # torch needs setuptools
    # A lock names no place: where packages come from is the machine's business.
    "--no-emit-index-url", "--no-emit-find-links", "--no-emit-trusted-host", "--no-emit-options",
)  # fmt: skip
_PIN = re.compile(r"^([A-Za-z0-9][\w.-]*)==.*\\\n(?:[ \t].*\n?)+", re.MULTILINE)


def compile_locks(root: Path, *, upgrade: bool = False, packages: tuple[str, ...] = ()) -> list[str]:
    """Compile every lock, and return what changed, a line each. Takes a minute; the first CUDA compile, several."""
    source = root / "requirements"
    names = lock.names(source)
    with tempfile.TemporaryDirectory(prefix="verbatim-lock-") as scratch:
        folder = Path(scratch) / "requirements"
        shutil.copytree(source, folder)
        for name in names:
            inputs.read(source / f"{name}.in")  # refused here, with line and column, before a minute has gone
            _this_side(folder / f"{name}.txt")
        before = _read(folder)
        _known(packages, before, folder)
        for name in names:
            print(f"compiling requirements/{name}.txt …", flush=True)
            if name == "cuda":
                _start_from_cpu(folder, upgrade)
            _pip_compile(folder, name, _upgrades(name, before, upgrade, packages))
            if name in lock.EXTRAS:
                _part(folder, name)
            _seal(folder, name)
        _accept(folder)
        for name in names:
            text = (folder / f"{name}.txt").read_bytes()
            old = source / f"{name}.txt"
            if not old.exists() or old.read_bytes() != text:
                record.write_atomically(old, text)
        return changes.between(before, _read(folder), folder)


def _this_side(path: Path) -> None:
    """After a merge, start from this side's pins; what was written by hand since is no place to start from either way."""
    if path.exists():
        text = path.read_text(encoding="utf-8-sig", errors="replace")
        ours = re.sub(
            r"^<{7}.*\n((?:.*\n)*?)(?:\|{7}(?:.*\n)*?)?={7}\n(?:.*\n)*?>{7}.*\n?", r"\1", text, flags=re.MULTILINE
        )
        path.write_text(ours, encoding="utf-8")


def _read(folder: Path) -> dict[str, list[lock.Pin]]:
    """The locks that are there and whole; one that is broken is made anew, from nothing."""
    found = {}
    for name in lock.names(folder):
        path = folder / f"{name}.txt"
        try:
            found[name] = lock.read(path)
        except VerbatimError as error:
            if path.exists():
                print(
                    f"{error.where.replace(str(folder), 'requirements')}: {error.found}; compiling it anew", flush=True
                )
                path.unlink()
    return found


def _known(packages: tuple[str, ...], before: dict[str, list[lock.Pin]], folder: Path) -> None:
    known = {pin.name for pins in before.values() for pin in pins}
    known |= {w.name for name in lock.names(folder) for w in inputs.read(folder / f"{name}.in").wanted}
    for package in packages:
        if lock.normalise(re.split(r"[=<>!~\[;@ ]", package, maxsplit=1)[0]) not in known:
            raise VerbatimError(f"--upgrade-package {package}", expected="a package that a lock names", found="none of that name", then="add it to requirements/project.in first")  # fmt: skip


def _upgrades(name: str, before: dict[str, list[lock.Pin]], upgrade: bool, packages: tuple[str, ...]) -> list[str]:
    """CUDA takes from the CPU lock whatever both have, so only what is its own is ever upgraded in it."""
    if name == "cuda":
        return [f"--upgrade-package={package}" for package in packages if lock.GPU_ONLY.fullmatch(lock.normalise(re.split(r"[=<>!~\[]", package, maxsplit=1)[0]))]  # fmt: skip
    there = {pin.name for pin in before.get(name, [])}
    here = [p for p in packages if lock.normalise(re.split(r"[=<>!~\[]", p, maxsplit=1)[0]) in there]
    return ["--upgrade"] * upgrade + [f"--upgrade-package={package}" for package in here]


def _pip_compile(folder: Path, name: str, upgrades: list[str]) -> None:
    variables = install.process_variables(name) | {"CUSTOM_COMPILE_COMMAND": lock.COMPILE}
    files = ["--output-file", f"requirements/{name}.txt", f"requirements/{name}.in"]
    command = [sys.executable, "-m", "piptools", "compile", *OPTIONS, *beside(name), *upgrades, *files]
    done = subprocess.run(command, cwd=folder.parent, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        last = "\n    ".join(done.stderr.strip().splitlines()[-8:])
        raise VerbatimError(f"requirements/{name}.in", expected="requirements that can be met", found=f"\n    {last}", then="loosen what it names; no lock was changed")  # fmt: skip


def _start_from_cpu(folder: Path, upgrade: bool) -> None:
    """Let CUDA start from the CPU's pins, which pip-compile prefers: what isn't torch resolves to the same in both.

    Its own GPU pins stay as well, unless everything is to be the newest.
    """
    cpu, cuda = folder / "cpu.txt", folder / "cuda.txt"
    shared = _PIN.sub(
        lambda m: "" if lock.GPU_ONLY.fullmatch(lock.normalise(m[1])) else m[0], cpu.read_text(encoding="utf-8")
    )
    own = "" if upgrade or not cuda.exists() else "".join(
        match[0] for match in _PIN.finditer(cuda.read_text(encoding="utf-8")) if lock.GPU_ONLY.fullmatch(lock.normalise(match[1]))
    )  # fmt: skip
    cuda.write_text(shared + own, encoding="utf-8")


def beside(name: str) -> list[str]:
    """For pip-compile and for uv: an optional lock is compiled within the versions of the CPU lock, which are CUDA's as well."""
    return ["--constraint", "requirements/cpu.txt"] if name in lock.EXTRAS else []


def _part(folder: Path, name: str) -> None:
    """Leave to the CPU lock what it has, and say which versions of it the others were compiled beside."""
    path, has = folder / f"{name}.txt", {pin.name for pin in lock.read(folder / "cpu.txt")}
    text = path.read_text(encoding="utf-8")
    shared = [pin for pin in lock.parse(path, text) if pin.name in has]
    own = _PIN.sub(lambda match: "" if lock.normalise(match[1]) in has else match[0], text)
    path.write_text(own + "".join(f"# beside {pin.name}=={pin.version}\n" for pin in shared), encoding="utf-8")


def _seal(folder: Path, name: str) -> None:
    """Add the hashes stated by hand and the two digests, in place of those that were there."""
    path, source = folder / f"{name}.txt", inputs.read(folder / f"{name}.in")
    text = re.sub(r"^# (?:inputs|pins) sha256:.*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    for wanted in (
        source.wanted
    ):  # pip-compile writes `===` or `==` by chance of where it had the version from; see cuda.in for why
        if any(one.operator == "===" for one in wanted.requirement.specifier):
            text = re.sub(rf"^({re.escape(wanted.name)})==(?!=)", r"\1===", text, flags=re.MULTILINE)
    for also in source.also:
        pin = f"{also.name}=={also.version} \\\n"
        if pin not in text:
            locked = next((p.version for p in lock.parse(path, text) if p.name == also.name), "no pin of it")
            raise VerbatimError(
                also.where, expected=f"`# also {also.name}==…` to name the version that is locked, {locked}", found=also.version,
                then="give that version and its wheel's hash, or take the line out",
            )  # fmt: skip
        block = next(match[0] for match in _PIN.finditer(text) if match[0].startswith(pin))
        text = text.replace(block, _with(block, also.hash))
    head = f"# inputs {source.digest}\n# pins {lock.digest(lock.parse(path, text))}\n"
    path.write_text(head + text, encoding="utf-8")


def _with(block: str, hashed: str) -> str:
    """One pin with one hash more, sorted: pip-compile keeps what a lock had, so without an order a second run would give another."""
    first, hashes, rest = (
        block.partition("\n")[0],
        re.findall(r"--hash=(\S+)", block),
        re.findall(r"^ +#.*\n", block, re.MULTILINE),
    )
    lines = " \\\n".join(f"    --hash={value}" for value in sorted({*hashes, hashed}))
    return f"{first}\n{lines}\n{''.join(rest)}"


def _accept(folder: Path) -> None:
    """Refuse locks that are half made, apart, or that another resolver would not give."""
    if says := locks.sentences(folder):
        raise VerbatimError(
            "requirements",
            expected="locks that agree",
            found="; ".join(says[:5]),
            then="run it again; no lock was changed",
        )
    for name in lock.names(folder) if (uv := install.find_uv()) else ():
        path = folder / f"{name}.txt"
        other = _uv_compile(uv, folder, name)
        pins = {pin.name: pin.version for pin in lock.read(path)} | lock.beside(path)
        apart = [
            f"{n} {pins.get(n, '–')}, uv {other.get(n, '–')}"
            for n in sorted(pins.keys() | other.keys())
            if pins.get(n) != other.get(n)
        ]
        if apart:
            raise VerbatimError(f"requirements/{name}.txt", expected="the same pins from pip-tools and from uv", found="; ".join(apart[:5]), then="report it; no lock was changed")  # fmt: skip


def _uv_compile(uv: str, folder: Path, name: str) -> dict[str, str]:
    """What uv resolves, starting from the new lock: where that is whole and holds no more than it must, the same pins."""
    copy = folder / f".{name}.uv.txt"
    shutil.copyfile(folder / f"{name}.txt", copy)
    command = [
        uv,
        "pip",
        "compile",
        "--quiet",
        "--no-config",
        "--python-version",
        environment.PYTHON,
        "--no-header",
        "--no-annotate",
        *beside(name),
    ]
    command += ["--output-file", str(copy), f"requirements/{name}.in"]
    done = subprocess.run(
        command, cwd=folder.parent, env=install.process_variables(name), capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = "\n    ".join(done.stderr.strip().splitlines()[-8:])
        raise VerbatimError(f"requirements/{name}.in", expected="requirements that uv can meet as well", found=f"\n    {last}", then="VERBATIM_INSTALLER=pip nox -s lock leaves uv out")  # fmt: skip
    found = re.findall(r"^([A-Za-z0-9][\w.-]*)===?(\S+)", copy.read_text(encoding="utf-8"), re.MULTILINE)
    return {lock.normalise(package): version for package, version in found}


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
    root = Path(__file__).resolve().parents[2]
    try:
        if options.check:
            from verbatim import drift

            return drift.main(["inputs", "lock", "variants"], root)
        changed = compile_locks(root, upgrade=options.upgrade, packages=tuple(options.upgrade_package))
    except VerbatimError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join(changed) or "no pin changed")
    folder = root / "requirements"
    made = {name: digest.short(lock.digest(lock.read(folder / f"{name}.txt"))) for name in lock.names(folder)}
    print("locks:", ", ".join(f"{name}.txt {short}" for name, short in made.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
