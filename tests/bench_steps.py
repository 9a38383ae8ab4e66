"""One way to take training steps, for `nox -s bench`: `bench_steps.py MODEL WAY` runs an epoch for each line that it reads, and
prints its CPU seconds (other programs on the machine count little in them), or with `--wall` those of the clock.
"""

import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

MODELS = {
    "mlp": ["model=mlp"],
    "cnn": ["model=cnn"],
    "vit": ["experiment=digits_vit"],
    "vae": ["experiment=digits_vae"],
    "mlp of 10 million parameters": ["experiment=digits_mlp_10m"],
}
WAYS = ("bare loop", "recording", "not recording", "DataLoader", "DataLoader, 2 workers")
# The yardstick of level portable: torch as it is, with no instructions but those that portable may use; and as it is.
CAPPED = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
LEVELS = (
    "seeded, AVX2",
    "exact, AVX2",
    "portable",
    "portable, no guard",
    "portable, 2 workers",
    "seeded, all instructions",
)
BATCH = 64


def main(model: str, way: str, clock: Callable[[], float]) -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    level, _, how = way.partition(", ") if way in LEVELS else ("seeded", "", "")
    os.environ.update(CAPPED if how == "AVX2" else {})
    import hydra

    from experiment import schema
    from verbatim import app, determinism

    if level == "portable":  # the data are read before the run begins, and with them numpy
        os.environ.update(determinism.variables(level, 1))

    schema.register()
    with TemporaryDirectory() as folder, hydra.initialize_config_dir(app.CONFIGS, version_base="1.3"):
        workers = 2 if how == "2 workers" else 1
        settings = [
            f"determinism={level}",
            f"machine.workers={workers}",
            "machine.resume=never",
            f"paths.runs={folder}",
        ]
        config = hydra.compose(
            "train", [*MODELS[model], *settings, *([] if way in LEVELS else [f"trainer.batch_size={BATCH}"])]
        )
        data = hydra.utils.instantiate(config.data)
        print(-(-len(data.splits["train"]) // config.trainer.batch_size), flush=True)

        def answer(epoch: Callable[[], None]) -> None:
            for _ in sys.stdin:
                started = clock()
                epoch()
                print(clock() - started, flush=True)

        (_ours if way in LEVELS or "recording" in way else _by_hand)(way, config, data, answer)


def _cpu_s() -> float:
    """CPU seconds of this process and of the workers that have ended."""
    uses = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(use.ru_utime + use.ru_stime for use in uses)


def _ours(way: str, config: Any, data: Any, answer: Callable[[Callable[[], None]], None]) -> None:
    """`trainer.one_epoch`, as a run calls it; a trace file of its own for each epoch."""
    from verbatim import determinism, trace
    from verbatim.recorder import Run

    determinism.exported = lambda *_: []  # caps are meant here, and need no warning among the answers
    if way == "portable, no guard":
        nothing: Any = SimpleNamespace(install=lambda *_, **__: None, catch_up=list, replaced=list)
        sys.modules["verbatim.portable.guard"] = nothing
    with Run(config) as run:
        import torch

        from experiment import trainer
        from experiment.batches import Batches
        from experiment.parallel import Parallel

        run.uses(data.fingerprint, data.files)
        model, optimizer = _make(config, data)
        batches = Batches(data, torch.device("cpu"))
        run.watches(dict(model.named_parameters()), dict(model.named_buffers()))
        rate = trainer.Rate(optimizer, 10**9, "constant", 0)
        parallel = Parallel(model, config.trainer, run)
        if way == "not recording":
            run.trace = lambda *_: None  # type: ignore[method-assign]

        def epoch() -> None:
            path = Path(run.folder) / "bench.bin"
            path.unlink(missing_ok=True)
            run._trace = trace.Writer(path, parameters_every=config.trace.parameters_every)
            trainer.one_epoch(parallel, optimizer, batches, config.trainer, 0, trainer.Position(), rate, run)

        answer(epoch)
        run.progress.say = lambda _: None  # type: ignore[method-assign]
        run.finish({}, steps=1)


def _by_hand(way: str, config: Any, data: Any, answer: Callable[[Callable[[], None]], None]) -> None:
    """What a person would write: torch's own defaults."""
    import torch
    from torch.nn import functional
    from torch.utils.data import DataLoader, TensorDataset

    rows = data.splits["train"]
    x, y = torch.from_numpy(data.images[rows]).float() * data.scale, torch.from_numpy(data.labels[rows])
    model, made = _make(config, data)
    momentum = {"momentum": 0.9} if isinstance(made, torch.optim.SGD) else {}
    optimizer = type(made)(model.parameters(), lr=config.optimizer.lr, **momentum)
    loader = DataLoader(TensorDataset(x, y), BATCH, shuffle=True, num_workers=2 if "workers" in way else 0)

    def step(part_x: Any, part_y: Any) -> None:
        optimizer.zero_grad()
        functional.cross_entropy(model(part_x), part_y).backward()
        optimizer.step()

    def bare() -> None:
        order = torch.randperm(len(x))
        for i in range(0, len(x), BATCH):
            index = order[i : i + BATCH]
            step(x[index], y[index])

    def loaded() -> None:
        for part_x, part_y in loader:
            step(part_x, part_y)

    answer(bare if way == "bare loop" else loaded)


def _make(config: Any, data: Any) -> tuple[Any, Any]:
    import hydra
    import torch

    torch.manual_seed(0)
    model = hydra.utils.instantiate(config.model, shape=data.shape, classes=len(data.classes))
    return model, hydra.utils.instantiate(config.optimizer)(model.parameters())


if __name__ == "__main__":
    main(*sys.argv[1:3], time.perf_counter if "--wall" in sys.argv else _cpu_s)
