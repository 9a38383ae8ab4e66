"""What is here: Python, distributions, OS, CPU, GPU, image. It describes; it installs and changes nothing."""

import functools
import json
import os
import platform
import re
import sys
import sysconfig
from pathlib import Path
from typing import Any

from verbatim import lock

STAMP = "verbatim.json"  # what the installer writes last: see `verbatim.install`
PYTHON = "3.11"


def place(root: Path) -> tuple[Path, bool]:
    """Where the locked environment lies, and whether it is an image's."""
    fixed = os.environ.get("VERBATIM_ENV", "")
    return (Path(fixed) if fixed else root / ".venv"), bool(fixed)


def read_stamp(path: Path) -> dict[str, str]:
    try:
        return dict(json.loads((path / STAMP).read_text()))
    except (OSError, ValueError):
        return {}


def site_packages(environment: Path | None = None) -> Path:
    """Where an environment's distributions lie; the running interpreter's without an argument."""
    if environment is None:
        return Path(sysconfig.get_path("purelib"))
    return environment / "lib" / "python3.11" / "site-packages"


def dist_infos(site: Path) -> list[tuple[str, str, Path]]:
    """Normalised name, version and metadata folder, read from the folder names that installers write (2 ms; `importlib.metadata`
    takes 100). One name may be there twice, after an upgrade that was interrupted."""
    found = []
    for entry in os.scandir(site) if site.is_dir() else ():
        name, dash, version = entry.name.removesuffix(".dist-info").partition("-")
        if dash and entry.name.endswith(".dist-info"):
            found.append((lock.normalise(name), version, Path(entry.path)))
    return sorted(found)


def distributions(site: Path) -> dict[str, str]:
    """Normalised name → version."""
    return {name: version for name, version, _ in dist_infos(site)}


def records(site: Path) -> dict[str, bytes]:
    """Metadata folder's name → RECORD, the installer's list of a distribution's files and their hashes; pip's own left out (3 ms)."""
    found = [(folder.name, folder / "RECORD") for name, _, folder in dist_infos(site) if name != "pip"]
    return {name: path.read_bytes() if path.is_file() else b"" for name, path in found}


def variant(installed: dict[str, str]) -> str:
    """`cpu` or `cuda`, by the torch that is installed."""
    return "cpu" if installed.get("torch", "").endswith("+cpu") else "cuda"


def has_nvidia_driver() -> bool:
    """By the kernel driver's own files, or WSL's; nothing is started."""
    return any(map(os.path.exists, ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/usr/lib/wsl/lib/libcuda.so.1")))


def describe(root: Path) -> dict[str, Any]:
    """Everything that can be known without torch. `lock.differences` is empty where what is installed is what is locked."""
    from verbatim import determinism  # here: the installer needs the rest, and an image installs before any other code

    installed, locked = _installed(root)
    return {
        "python": {
            "version": platform.python_version(),
            "implementation": platform.python_implementation(),
            "build": " ".join(platform.python_build()),
            "executable": sys.executable,
        },
        "lock": dict(locked),
        "distributions": dict(sorted(installed.items())),
        "image": _image(),
        **describe_machine(),
        "host": platform.node(),
        "process": {"pid": os.getpid(), "started_ticks": started_ticks(os.getpid())},
        "variables": {name: os.environ[name] for name in determinism.PROCESS_VARIABLES if name in os.environ},
    }


@functools.cache
def _installed(root: Path) -> tuple[dict[str, str], dict[str, Any]]:
    """Once, for this process and those forked from it: what they load is what there was when it began."""
    installed = distributions(site_packages())
    path = root / "requirements" / f"{variant(installed)}.txt"
    if not path.exists():
        return installed, {"file": path.name, "digest": "", "differences": [f"{path} is not there"]}
    pins = lock.read(path)
    return installed, {
        "file": path.name,
        "digest": lock.digest(pins),
        "differences": lock.differences(pins, installed),
    }


def describe_machine() -> dict[str, Any]:
    return {
        "os": {
            "name": _os_name(),
            "kernel": platform.release(),
            "machine": platform.machine(),
            "libc": "-".join(platform.libc_ver()),
        },
        "cpu": _cpu(),
    }


# Device, level and threads → what was measured in this process, or in the one it was forked from.
probes: dict[tuple[str, str, int], str] = {}


def describe_torch(device: str = "cpu", level: str = "exact") -> dict[str, Any]:
    """What only torch knows: its build, its threads, the GPU in use, the numerics probe (the level's own, where it has one).
    Imports torch."""
    import torch

    from verbatim.portable import witnesses
    from verbatim.probe import probe

    key = (device, level, torch.get_num_threads())
    if key not in probes:
        probes[key] = witnesses.probe(torch.get_num_threads()) if level == "portable" else probe()
    gpu = None
    if device.startswith("cuda"):
        properties = torch.cuda.get_device_properties(device)
        driver = Path("/proc/driver/nvidia/version")
        gpu = {
            "name": properties.name,
            "capability": f"{properties.major}.{properties.minor}",
            "memory_bytes": properties.total_memory,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
            "driver": driver.read_text().splitlines()[0] if driver.exists() else "",
        }
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "device": device,
        "gpu": gpu,
        "probe": probes[key],
    }


def started_ticks(pid: int) -> int:
    """When a process started, in clock ticks since boot: with the pid it names one process for good. 0 where it is gone.

    One that has ended and that nobody has waited for (in a container without an init, for ever) is gone as well.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return 0 if fields[0] in ("Z", "X") else int(fields[19])
    except (OSError, IndexError, ValueError):
        return 0


def _image() -> dict[str, str] | None:
    """The digest of the image that this container runs, where its starter passed it on."""
    content = os.environ.get("VERBATIM_IMAGE_DIGEST", "")
    return {"digest": content} if content else None


@functools.cache
def _os_name() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.system()


@functools.cache
def _cpuinfo() -> dict[str, str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = ""
    return dict(re.findall(r"^(.+?)\s*: (.*)$", text.partition("\n\n")[0], re.MULTILINE))


def _cpu() -> dict[str, Any]:
    fields = _cpuinfo()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "model": fields.get("model name", platform.processor() or platform.machine()),
        "vendor": fields.get("vendor_id", ""),
        "family": fields.get("cpu family", ""),
        "stepping": fields.get("stepping", ""),
        "flags": fields.get("flags", fields.get("Features", "")),
        "cores": cores,
    }
