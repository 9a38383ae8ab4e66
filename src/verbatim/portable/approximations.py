"""Shows that no listed operator depends on what is not the same everywhere: `nox -s portability -- --instructions` (3 min, 1 GB below the
temporary folder, needs objdump).

    approximate instructions   RCPPS, RSQRTPS and their kin give 11 to 14 bits, and which ones is each maker's own choice: Intel's and
                               AMD's manuals give a bound of the error, no value.
    functions of the C library that have changed since glibc 2.28, the oldest that torch's wheels run on: 2.35 has another `hypot`, 2.41
                               other hyperbolic and inverse functions, `erf`, `expm1`, `log1p`. `exp`, `log`, `pow`, `sin`, `cos` have not.

In a copy of torch's library the first are replaced by an invalid instruction, and the names of the second by ones that no library has;
every case runs in a process of its own, and one that dies has used one. As a control, `torch.atan` and `torch.sinh`, which are not
listed for these reasons, must die.
"""

import functools
import mmap
import os
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from verbatim.errors import VerbatimError

APPROXIMATE = re.compile(
    r"^\s*([0-9a-f]+):\s+v?(?:rcp|rsqrt)(?:ps|ss|14ps|14ss|14pd|14sd|28ps|28ss|28pd|28sd)\b", re.MULTILINE
)
INVALID = b"\x0f\x0b"  # UD2
NAMES = "acos acosh asin asinh atan atan2 atanh cbrt cosh erf erfc expm1 hypot lgamma log10 log1p sinh tan tanh tgamma"
CHANGED = {name + kind for name in NAMES.split(" ") for kind in ("", "f")}  # of float64, and of float32
LIBRARY = "libtorch_cpu.so"
CONTROLS = ("atan", "sinh")
LOST = 127  # how the dynamic linker ends a process that calls what it can't find


def main(root: Path, say: Callable[[str], None]) -> list[str]:
    """The cases that use one."""
    if not shutil.which("objdump"):
        raise VerbatimError(
            "--instructions",
            expected="objdump, which reads machine code",
            found="none here",
            then="apt-get install binutils",
        )
    import importlib.util

    spec = importlib.util.find_spec("torch")
    torch = Path(spec.origin).parent if spec and spec.origin else Path()
    with tempfile.TemporaryDirectory(prefix="verbatim-portability-") as folder:
        copy = Path(folder) / "torch"
        shutil.copytree(torch, copy, copy_function=_link, symlinks=True)
        library = copy / "lib" / LIBRARY
        library.unlink()
        shutil.copyfile(torch / "lib" / LIBRARY, library)
        say(f"reading {LIBRARY} …")
        say(
            f"{_spoil(library)} approximate instructions and {_rename(library)} functions are made invalid; running every case …"
        )
        environment = os.environ | {
            "PYTHONPATH": f"{folder}:{root / 'src'}",
            "PYTHONWARNINGS": "ignore",
            "PYTHONHASHSEED": "0",
        }
        done = subprocess.run(
            [sys.executable, "-m", __name__], cwd=root, env=environment, capture_output=True, text=True, check=False
        )
    died = done.stdout.splitlines()
    if done.returncode or died[-2:] != list(CONTROLS):
        found = done.stderr.strip()[-200:] or "they lived"
        raise VerbatimError("--instructions", expected=f"the controls, {' and '.join(CONTROLS)}, to die", found=found)
    say(f"the controls, {' and '.join(CONTROLS)}, died, as they must")
    return died[:-2]


def _link(source: str, target: str) -> None:
    """The other 500 MB stay where they are."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _spoil(library: Path) -> int:
    """Write an invalid instruction over each approximate one; how many there were."""
    listing = subprocess.Popen(
        ["objdump", "--disassemble", "--no-show-raw-insn", str(library)], stdout=subprocess.PIPE, text=True
    )
    addresses = [int(match[1], 16) for line in listing.stdout or () if (match := APPROXIMATE.match(line))]
    if listing.wait():
        raise VerbatimError(library, expected="a library that objdump reads", found=f"exit code {listing.returncode}")
    with library.open("r+b") as file, mmap.mmap(file.fileno(), 0) as bytes_:
        start, count = (
            struct.unpack_from("<Q", bytes_, 32)[0],
            struct.unpack_from("<H", bytes_, 56)[0],
        )  # ELF64: e_phoff, e_phnum
        segments = [struct.unpack_from("<IIQQQQQQ", bytes_, start + 56 * i) for i in range(count)]
        for address in addresses:
            for kind, _, offset, virtual, _, size, _, _ in segments:
                if kind == 1 and virtual <= address < virtual + size:  # PT_LOAD
                    bytes_[offset + address - virtual : offset + address - virtual + 2] = INVALID
    return len(addresses)


def _rename(library: Path) -> int:
    """Give each changed function, where it is imported, a name that no library has; how many there were.

    The first letter is the one to change: `asinf` and `sinf` share their end, and `sinf` stays.
    """
    count = 0
    with library.open("r+b") as file, mmap.mmap(file.fileno(), 0) as bytes_:
        start, size, number = (
            struct.unpack_from("<Q", bytes_, 40)[0],
            *struct.unpack_from("<HH", bytes_, 58),
        )  # e_shoff, e_shentsize, e_shnum
        sections = [struct.unpack_from("<IIQQQQIIQQ", bytes_, start + size * i) for i in range(number)]
        symbols = next(section for section in sections if section[1] == 11)  # SHT_DYNSYM
        names = sections[symbols[6]][4]  # sh_link, sh_offset
        for at in range(symbols[4], symbols[4] + symbols[5], 24):
            name_at, section = struct.unpack_from("<IxxH", bytes_, at)
            where = names + name_at
            if section == 0 and bytes_[where : bytes_.find(b"\0", where)].decode() in CHANGED:
                bytes_[where : where + 1] = b"#"
                count += 1
    return count


def _run() -> None:
    """Every case in a child of its own; prints the names of those that died of what was made invalid."""
    from verbatim import determinism

    sys.setdlopenflags(os.RTLD_LAZY)  # a function is looked for when it is called
    settings = determinism.Determinism(level="portable", threads=1, unlisted="warn")
    determinism.set_variables(settings)
    determinism.set_switches(settings, 0, lambda _: None)

    import torch

    from verbatim.portable.cases import cases

    x = torch.linspace(-9, 9, 1003)
    controls: list[tuple[str, Any]] = [(name, functools.partial(getattr(torch, name), x)) for name in CONTROLS]
    for name, case in [*cases(), *controls]:
        child = os.fork()
        if not child:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            torch.manual_seed(0)
            case()
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        if os.waitstatus_to_exitcode(status) in (-signal.SIGILL, LOST):
            print(name, flush=True)


if __name__ == "__main__":
    _run()
