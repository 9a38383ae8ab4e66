"""What makes two runs compute the same bits: process variables, set before torch loads, and torch's own switches, set after.

A level is what the record claims. It is never lowered silently: what can't be had is an error.

seeded    every generator seeded, the thread count fixed. Operators may still pick an algorithm by timing (on GPUs).
exact     the same bits on the same kind of machine: nothing is picked by timing, operators that cannot repeat are refused.
portable  the same bits on any x86-64 CPU with AVX2 and FMA: what differs between CPUs is capped or rerouted, and an operator that
          nobody has compared is refused (`verbatim.portable`).

Sources: https://docs.pytorch.org/docs/stable/notes/randomness.html, CUDA's cuBLAS page on `CUBLAS_WORKSPACE_CONFIG`.
"""

import gc
import os
import random
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from verbatim import allocator, eager, portable
from verbatim.errors import VerbatimError

LEVELS = ("seeded", "exact", "portable")

# Read once, when a library loads: a record lists each, set by us or by the user.
PROCESS_VARIABLES = (
    "ATEN_CPU_CAPABILITY", "CUBLAS_WORKSPACE_CONFIG", "GLIBC_TUNABLES", "MKL_CBWR", "MKL_DYNAMIC", "MKL_ENABLE_INSTRUCTIONS",
    "MKL_NUM_THREADS", "NPY_DISABLE_CPU_FEATURES", "NVIDIA_TF32_OVERRIDE", "OMP_DYNAMIC", "OMP_NUM_THREADS", "ONEDNN_MAX_CPU_ISA",
    "OPENBLAS_CORETYPE", "OPENBLAS_NUM_THREADS", "PYTHONHASHSEED", *portable.ABSENT,
)  # fmt: skip
SHARE = "VERBATIM_CORES"
# Launchers set these, and the recipe has the last word. Any other that says otherwise was set by a person, who is asked.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_DYNAMIC", "MKL_DYNAMIC")


@dataclass(frozen=True, kw_only=True, slots=True)
class Determinism:
    """`threads` is part of the recipe: another count cuts sums elsewhere and changes the bits of most layers. `workers`, which share
    out large matrix products at level `portable`, change nothing and are no part of it. `unlisted`: `refuse` or `warn`."""

    level: str
    threads: int
    unlisted: str = "refuse"
    workers: int = 1

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise VerbatimError(
                "determinism.level", expected=" or ".join(LEVELS), found=self.level, then="choose determinism=exact"
            )
        available = cores()
        if self.threads > available:  # measured 12 to 48 times slower, and a sign of a recipe made for another machine
            raise VerbatimError(
                "determinism.threads",
                expected=f"at most {available}, the cores that {'each rank' if _local_ranks() > 1 else 'this process'} may use",
                found=self.threads,
                then=f"add determinism.threads={available} (another thread count gives other bits: it is part of the recipe)",
            )
        if self.level == "portable":
            portable.refuse_machine()
            if self.threads not in portable.THREADS:
                raise VerbatimError("determinism.threads", expected=f"one of {', '.join(map(str, portable.THREADS))} at level portable", found=self.threads)  # fmt: skip


def cores() -> int:
    """Those that this process may use: all that the system gives it, or its share among the jobs of a multirun, and among the ranks on
    this machine."""
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(here, int(os.environ.get(SHARE, here))) // _local_ranks())


def _local_ranks() -> int:
    """As torchrun sets it."""
    said = os.environ.get("LOCAL_WORLD_SIZE", "1")
    return max(1, int(said)) if said.isdecimal() else 1


def fix_hash_seed() -> None:
    """Start this process anew with `PYTHONHASHSEED=0` unless one is set: the order of sets of strings depends on it.

    The interpreter reads it at its own start, so this comes before anything else (about 20 ms; sessions set it already).
    """
    if _hashes_are_random():
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def refuse_random_hashes() -> None:
    if _hashes_are_random():
        raise VerbatimError(
            "PYTHONHASHSEED", expected="a number, before Python starts", found="none, so that sets of strings have another order each time",
            then="start the script by verbatim.app.run, or with PYTHONHASHSEED=0 before its command",
        )  # fmt: skip


def _hashes_are_random() -> bool:
    return os.environ.get("PYTHONHASHSEED", "random") == "random"


def variables(level: str, threads: int) -> dict[str, str]:
    """The process variables of a level."""
    wanted = {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": str(threads),
        # A library that lowers its own thread count under load would change how sums are cut.
        "OMP_DYNAMIC": "FALSE",
        "MKL_DYNAMIC": "FALSE",
    }
    if level == "portable":
        wanted |= portable.VARIABLES
    if level == "exact":
        # cuBLAS repeats its bits only with a fixed workspace; two buffers of 4 MiB are the documented choice.
        wanted["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    return wanted


def set_variables(settings: Determinism) -> None:
    """Set the process variables. Torch must not be loaded, or must have been loaded under these very values."""
    wanted = variables(settings.level, settings.threads)
    refuse_contradictions(settings.level, settings.threads)
    wrong = {name: os.environ.get(name) for name, value in wanted.items() if os.environ.get(name) != value}
    if wrong and "torch" in sys.modules:
        name = min(wrong)
        by = importer("torch")
        raise VerbatimError(
            f"determinism={settings.level}",
            expected=f"{name}={wanted[name]} before torch is imported",
            found=f"torch imported already{by and f' by {by}'}, under {name}={wrong[name]}",
            then="import torch inside `with verbatim.run(config)`, or in the functions that it calls",
        )
    os.environ.update(wanted)
    if settings.level == "portable":
        portable.refuse_cpu()


def refuse_contradictions(level: str, threads: int) -> None:
    """What a person exported and what the level needs are not the same: neither is taken silently."""
    wanted = variables(level, threads)
    absent = dict.fromkeys(portable.ABSENT if level == "portable" else ())
    for name, value in ({k: v for k, v in wanted.items() if k not in THREAD_VARIABLES} | absent).items():
        if name in os.environ and os.environ[name] != value:
            expected = f"{name}={value}, or nothing" if value else f"no {name}"
            raise VerbatimError(
                f"determinism={level}", expected=expected, found=f"{name}={os.environ[name]}", then=f"unset {name}"
            )


def exported(level: str, threads: int) -> list[str]:
    """Variables that may reach the bits, and that nothing here sets: the level says nothing of them, and the recipe does not know them."""
    known = {*variables(level, threads), *THREAD_VARIABLES, "PYTHONHASHSEED"}
    return [f"{name}={os.environ[name]}" for name in PROCESS_VARIABLES if name in os.environ and name not in known]


def importer(package: str) -> str:
    """The first module that holds the package or something of it, and its file; empty where only functions import it."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] != package and any(_is_of(package, value) for value in list(vars(module).values())):
            return f"{name} ({getattr(module, '__file__', None) or 'typed in'})"
    return ""


def _is_of(package: str, value: object) -> bool:
    name = (
        value.__name__ if isinstance(value, types.ModuleType) else value.__module__ if isinstance(value, type) else ""
    )
    return str(name).partition(".")[0] == package


def load_torch() -> None:
    """Import torch (about 1.3 s), and nothing that a run does not need. The process variables must be set."""
    allocator.keep_freed_memory()
    gc.disable()  # the collector finds nothing in a million objects that stay: 0.1 s of the import
    import torch  # noqa: F401

    gc.enable()
    gc.freeze()
    eager.defer_dynamo()


def set_switches(settings: Determinism, seed: int, note: Callable[[str], None] | None = None) -> None:
    """Seed every generator and set torch's switches. Imports torch. `note` is told of each unlisted operator, where
    `determinism.unlisted` is `warn`."""
    load_torch()
    import torch

    random.seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed % 2**32)
    if torch.version.cuda:
        torch.manual_seed(seed)  # seeds every GPU as well
    else:  # torch.manual_seed takes 2 ms for kinds of devices that there are none of
        torch.default_generator.manual_seed(seed)
    hold_threads(settings.threads)
    exact = settings.level != "seeded"
    # Raises where an operator has no repeatable form. Costs nothing measurable on CPU (0.96 to 1.03 of the step).
    eager.use_deterministic_algorithms(exact)
    # cuDNN's autotuner picks an algorithm by timing: another pick, other bits.
    torch.backends.cudnn.benchmark = not exact
    torch.backends.cudnn.deterministic = exact
    # TF32 rounds inputs to 10 bits; off so that the level does not depend on the GPU's generation.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    if settings.level == "portable":
        portable.install(settings.workers, settings.threads, note if settings.unlisted == "warn" else None)


def hold_threads(threads: int) -> None:
    """Set them, and refuse other numbers from here on: one that is set and put back between two looks would not be seen."""
    import torch

    own, process = getattr(torch.set_num_threads, "own", torch.set_num_threads), os.getpid()
    if torch.get_num_threads() != threads:
        own(threads)

    def set_num_threads(number: int) -> None:
        if number != threads and os.getpid() == process:  # a data loader's worker sets 1
            raise _changed("torch.set_num_threads", threads, number)
        own(number)

    set_num_threads.own = own  # type: ignore[attr-defined]
    torch.set_num_threads = set_num_threads  # type: ignore[assignment]


def refuse_changes(settings: Determinism) -> None:
    """What was set when the run began must be so still: other bits would come of it, and the record would not say so."""
    import torch

    if (found := torch.get_num_threads()) != settings.threads:
        raise _changed("torch.set_num_threads", settings.threads, found)
    if settings.level == "seeded":
        return
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    for name, wanted, now in (
        ("torch.use_deterministic_algorithms", True, torch.are_deterministic_algorithms_enabled()),
        ("torch.use_deterministic_algorithms(warn_only=…)", False, torch.is_deterministic_algorithms_warn_only_enabled()),
        ("torch.backends.cudnn.benchmark", False, cudnn.benchmark), ("torch.backends.cudnn.deterministic", True, cudnn.deterministic),
        ("torch.backends.cudnn.allow_tf32", False, cudnn.allow_tf32), ("torch.backends.cuda.matmul.allow_tf32", False, matmul.allow_tf32),
    ):  # fmt: skip
        if now != wanted:
            raise _changed(name, wanted, now)


def _changed(name: str, wanted: Any, found: Any) -> VerbatimError:
    return VerbatimError(
        name, expected=f"{wanted}, as the recipe says", found=f"{found}, set while the run went on",
        then="leave it to determinism.threads and determinism.level",
    )  # fmt: skip
