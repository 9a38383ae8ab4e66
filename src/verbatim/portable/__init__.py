"""Level `portable`: the same bits on every x86-64 CPU that has AVX2 and FMA, on any number of cores and workers.

`operators` is what it covers, `kernels` (by `blas`) what is rerouted and why, `guard` what stops a run at anything else, `cases` the
proof of each operator, `witnesses` who computed the same digests. Importing this loads nothing of torch.
"""

import multiprocessing
import os
import platform
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from verbatim.errors import VerbatimError

# Read once, when a library loads. Each caps one library at the instructions that every supported CPU has.
VARIABLES = {
    "MKL_CBWR": "COMPATIBLE",  # Intel's "conditional numerical reproducibility": one code path, whatever the CPU
    "ATEN_CPU_CAPABILITY": "avx2",  # torch's own kernels; `default` would change the random numbers of initialisation
    "ONEDNN_MAX_CPU_ISA": "AVX2",  # convolutions
    "OPENBLAS_CORETYPE": "Haswell",  # matrix products, rerouted
    "OPENBLAS_NUM_THREADS": "1",  # a product is cut into slices by its shape, each on one thread
}
# These would lift a cap, or let a library round inputs to bfloat16.
ABSENT = ("DNNL_MAX_CPU_ISA", "DNNL_DEFAULT_FPMATH_MODE", "ONEDNN_DEFAULT_FPMATH_MODE")
THREADS = (1, 2, 4, 8)  # for which digests are kept
LEVEL = "determinism=portable"


def refuse_machine() -> None:
    """An error where the CPU can't give the level; a GPU never can."""
    found = platform.machine()
    if found not in ("x86_64", "AMD64"):
        raise VerbatimError(
            LEVEL,
            expected="an x86-64 CPU",
            found=f"{found}, whose bits nobody has compared",
            then="choose determinism=exact",
        )
    try:
        flags = Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split()
    except OSError:
        raise VerbatimError(
            LEVEL, expected="Linux, to see what the CPU has", found=sys.platform, then="run it in the container"
        ) from None
    if missing := [name for name in ("avx2", "fma") if name not in flags]:
        raise VerbatimError(LEVEL, expected="a CPU with AVX2 and FMA", found=f"one without {' and '.join(missing)}", then="choose determinism=exact")  # fmt: skip


def refuse_cpu() -> None:
    """As `refuse_machine`, by asking the CPU itself, through NumPy: under an emulator the kernel lists another's. Before torch loads,
    which would die of it."""
    import numpy

    features: dict[str, bool] = numpy._core._multiarray_umath.__cpu_features__  # type: ignore[attr-defined]
    if missing := [name for name in ("AVX2", "FMA3") if not features.get(name)]:
        raise VerbatimError(LEVEL, expected="a CPU with AVX2 and FMA", found=f"one without {' and '.join(missing)}", then="choose determinism=exact")  # fmt: skip


def refuse_type(expected: str, found: Any) -> VerbatimError:
    return VerbatimError(LEVEL, expected=expected, found=f"a tensor of {found.dtype}", then="choose determinism=exact")


def refuse_device(device: str) -> None:
    if not device.startswith("cpu"):
        raise VerbatimError(
            LEVEL, expected="device cpu", found=f"{device}: no two kinds of GPU are known to compute the same bits",
            then="choose determinism=exact, or trainer.device=cpu",
        )  # fmt: skip


def install(workers: int, threads: int, note: Callable[[str], None] | None) -> None:
    """Reroute and guard, in this process, once torch is loaded. `note` takes the names of unlisted operators; None: they are refused."""
    import torch

    from verbatim.portable import guard, kernels

    kernels.install(workers)
    # Attention of many products, each of them rerouted, instead of one kernel that calls MKL.
    torch.backends.cuda.enable_flash_sdp(False)
    if threads > 1:
        warm_up()
    # Nor one kernel for a whole encoder layer, which is taken where no gradient is asked for.
    torch.backends.mha.set_fastpath_enabled(False)
    seen, process = set[str](), os.getpid()

    def unlisted(name: str) -> None:
        if note is None:
            raise refusal(name)
        if os.getpid() != process:  # a data loader's worker: the record would not hear of it
            raise refusal(name, then="choose determinism=exact, or use it in the process that trains")
        if name not in seen:
            seen.add(name)
            note(name)

    guard.install(unlisted, go_on=note is not None)
    _refuse_compiled(torch)
    _refuse_spawned(torch)


def _refuse_compiled(torch: Any) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise VerbatimError(LEVEL, expected="operators that torch runs one by one", found="torch.compile, whose code is made for this CPU", then="choose determinism=exact")  # fmt: skip

    torch.compile = refuse

    def asked(name: str) -> Any:
        if name.startswith("__"):  # `inspect` asks every module for its file
            raise AttributeError(name)
        refuse()

    compiler: Any = types.ModuleType("torch._inductor.compile_fx")  # what every other way to it loads
    compiler.__getattr__ = asked
    sys.modules[compiler.__name__] = compiler


def _refuse_spawned(torch: Any) -> None:
    """A data loader's worker that is no copy of this process has neither guard nor rerouted operators."""
    made = torch.utils.data.dataloader._MultiProcessingDataLoaderIter
    start = made.__init__

    def checked(self: Any, loader: Any, *given: Any) -> None:
        method = (loader.multiprocessing_context or multiprocessing).get_start_method()
        if method != "fork":
            raise VerbatimError(LEVEL, expected="data loader's workers that are forked", found=f"multiprocessing_context={method}: they would compute by other kernels", then="leave it out, or num_workers=0")  # fmt: skip
        start(self, loader, *given)

    made.__init__ = checked


def came_by_another_way() -> list[str]:
    """Unlisted operators, and kernels of listed ones, that the guard did not see come, and that may have been used."""
    from verbatim.portable import guard

    return [*guard.catch_up(), *guard.replaced()]


def warm_up() -> None:
    """The first call of an MKL vector function, made by several threads at once, can silently give results of low precision:
    https://github.com/pytorch/pytorch/issues/188792. So each is called once, with one element."""
    import torch

    for name in ("cos", "erf", "erfc", "erfinv", "exp", "log", "log1p", "sin", "tanh", "trunc"):
        for dtype in (torch.float32, torch.float64):
            getattr(torch, name)(torch.full((1,), 0.5, dtype=dtype))


def refusal(name: str, then: str = "") -> VerbatimError:
    """Where the operator was called from, and what to do instead."""
    from verbatim.portable.operators import INSTEAD, WRITE

    base = name.partition("::")[2].partition(".")[0].removesuffix("_")
    why = f" ({INSTEAD[base]})" if base in INSTEAD else ""
    write = f"write {WRITE[base][1]}; or " if base in WRITE else ""
    return VerbatimError(
        f"{LEVEL}{_place()}", expected="an operator that docs/determinism.md lists", found=f"{name}{why}",
        then=write + (then or "choose determinism=exact, or add determinism.unlisted=warn: the record then claims exact"),
    )  # fmt: skip


def _place() -> str:
    """The innermost line that is neither torch's nor ours; none in the backward pass of another thread."""
    frame = sys._getframe(1)
    ours = str(Path(__file__).parents[1])
    while frame and (frame.f_code.co_filename.startswith(ours) or "site-packages" in frame.f_code.co_filename):
        frame = frame.f_back  # type: ignore[assignment]
    if not frame or not os.path.exists(frame.f_code.co_filename):
        return ""
    return f", {os.path.relpath(frame.f_code.co_filename)}:{frame.f_lineno}"
