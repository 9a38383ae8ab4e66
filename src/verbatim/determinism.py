"""What makes two runs compute the same bits: process variables, set before torch loads, and torch's own switches, set after.

A level is what the record claims. It is never lowered silently: what can't be had is an error.

seeded    every generator seeded, the thread count fixed. Operators may still pick an algorithm by timing (on GPUs).
exact     the same bits on the same kind of machine: nothing is picked by timing, operators that cannot repeat are refused.
portable  the same bits on any supported machine; not built yet, and refused by name.

Sources: https://docs.pytorch.org/docs/stable/notes/randomness.html, CUDA's cuBLAS page on `CUBLAS_WORKSPACE_CONFIG`.
"""

import gc
import os
import random
import sys
from dataclasses import dataclass

from verbatim import allocator, eager
from verbatim.errors import VerbatimError

LEVELS = ("seeded", "exact")

# Read once, when a library loads: a record lists each, set by us or by the user.
PROCESS_VARIABLES = (
    "ATEN_CPU_CAPABILITY", "CUBLAS_WORKSPACE_CONFIG", "MKL_CBWR", "MKL_DYNAMIC", "MKL_NUM_THREADS", "NVIDIA_TF32_OVERRIDE",
    "OMP_DYNAMIC", "OMP_NUM_THREADS", "ONEDNN_MAX_CPU_ISA", "OPENBLAS_CORETYPE", "OPENBLAS_NUM_THREADS", "PYTHONHASHSEED",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Determinism:
    """`threads` is part of the recipe: another count cuts sums elsewhere and changes the bits of most layers."""

    level: str
    threads: int

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise VerbatimError(
                "determinism.level", expected=" or ".join(LEVELS), found=self.level, then="choose determinism=exact"
            )
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        if self.threads > cores:  # measured 12 to 48 times slower, and a sign of a recipe made for another machine
            raise VerbatimError(
                "determinism.threads",
                expected=f"at most {cores}, the cores that this process may use",
                found=self.threads,
                then=f"add determinism.threads={cores} (another thread count gives other bits: it is part of the recipe)",
            )


def fix_hash_seed() -> None:
    """Start this process anew with `PYTHONHASHSEED=0` unless one is set: the order of sets of strings depends on it.

    The interpreter reads it at its own start, so this comes before anything else (about 20 ms; sessions set it already).
    """
    if os.environ.get("PYTHONHASHSEED", "random") == "random":
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def variables(settings: Determinism) -> dict[str, str]:
    """The process variables of a level."""
    threads = str(settings.threads)
    wanted = {
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        # A library that lowers its own thread count under load would change how sums are cut.
        "OMP_DYNAMIC": "FALSE",
        "MKL_DYNAMIC": "FALSE",
    }
    if settings.level == "exact":
        # cuBLAS repeats its bits only with a fixed workspace; two buffers of 4 MiB are the documented choice.
        wanted["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    return wanted


def set_variables(settings: Determinism) -> None:
    """Set the process variables. Torch must not be loaded, or must have been loaded under these very values."""
    wanted = variables(settings)
    wrong = {name: os.environ.get(name) for name, value in wanted.items() if os.environ.get(name) != value}
    if wrong and "torch" in sys.modules:
        name = min(wrong)
        raise VerbatimError(
            f"determinism={settings.level}",
            expected=f"{name}={wanted[name]} before torch is imported",
            found=f"torch imported already, under {name}={wrong[name]}",
            then="import torch inside `with verbatim.run(config)`, or in the functions that it calls",
        )
    os.environ.update(wanted)


def set_switches(settings: Determinism, seed: int) -> None:
    """Seed every generator and set torch's switches. Imports torch (about 1.3 s)."""
    allocator.keep_freed_memory()
    gc.disable()  # the collector finds nothing in a million objects that stay: 0.1 s of the import
    import torch

    gc.enable()
    gc.freeze()
    eager.defer_dynamo()
    random.seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed % 2**32)
    torch.manual_seed(seed)  # seeds every GPU as well
    if torch.get_num_threads() != settings.threads:
        torch.set_num_threads(settings.threads)
    exact = settings.level == "exact"
    # Raises where an operator has no repeatable form. Costs nothing measurable on CPU (0.96 to 1.03 of the step).
    eager.use_deterministic_algorithms(exact)
    # cuDNN's autotuner picks an algorithm by timing: another pick, other bits.
    torch.backends.cudnn.benchmark = not exact
    torch.backends.cudnn.deterministic = exact
    # TF32 rounds inputs to 10 bits; off so that the level does not depend on the GPU's generation.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
