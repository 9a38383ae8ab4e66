"""The training steps of `nox -s bench`: the real trainer against loops that a person would write by hand."""

import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = "1"
for name in ("OMP_DYNAMIC", "MKL_DYNAMIC"):
    os.environ[name] = "FALSE"

import hydra
import torch
from torch.nn import functional

from experiment import schema, trainer
from experiment.batches import Batches
from verbatim import app, trace
from verbatim.recorder import Run

MODELS = {"cnn": ["model=cnn"], "mlp of 10 million parameters": ["experiment=digits_mlp_10m"]}


def measure(name: str, rounds: int, interleaved: Callable[..., Any]) -> tuple[dict[str, list[float]], int]:
    """Seconds of one epoch by each way, same model, batch and data; and the steps of an epoch."""
    schema.register()
    overrides = [*MODELS[name], "determinism=seeded", "trainer.epochs=1", "trainer.batch_size=64"]
    with TemporaryDirectory() as folder, hydra.initialize_config_dir(app.CONFIGS, version_base="1.3"):
        config = hydra.compose("train", [*overrides, f"paths.runs={folder}"])
        data = hydra.utils.instantiate(config.data)
        run = Run(config)
        run.progress.say = lambda _: None  # type: ignore[method-assign]
        with run:
            run.uses(data.fingerprint, data.files)
            batches = Batches(data, torch.device("cpu"))
            rows = data.splits["train"]
            x = torch.from_numpy(data.images[rows]).float() * data.scale
            y = torch.from_numpy(data.labels[rows])
            made = {way: _make(config, data) for way in ("ours", "silent", "bare", "loader")}
            made["default"] = (
                made["bare"][0],
                type(made["bare"][1])(made["bare"][0].parameters(), lr=config.optimizer.lr),
            )
            silent = _Silent()
            ways = {
                "bare loop": lambda: _bare(*made["default"], x, y),
                "bare loop, fused optimizer": lambda: _bare(*made["bare"], x, y),
                "this trainer, recording": lambda: _ours(*made["ours"], batches, config, run, Path(folder)),
                "this trainer, not recording": lambda: _ours(*made["silent"], batches, config, silent, Path(folder)),
                "bare loop through a DataLoader": lambda: _loader(*made["loader"], x, y),
            }
            times = interleaved(ways, rounds)
            run.finish({}, steps=1)
    return times, -(-len(x) // 64)


def _make(config: Any, data: Any) -> tuple[Any, Any]:
    torch.manual_seed(0)
    model = hydra.utils.instantiate(config.model, shape=data.shape, classes=len(data.classes))
    return model, hydra.utils.instantiate(config.optimizer)(model.parameters())


class _Silent:
    """A run that records nothing."""

    def __init__(self) -> None:
        self.watches = self.trace = lambda *_: None

        class Progress:
            step = staticmethod(lambda *_: None)

        self.progress = Progress()


def _ours(model: Any, optimizer: Any, batches: Batches, config: Any, run: Any, folder: Path) -> None:
    """The steps of one epoch, as `trainer.fit` takes them; a trace file of its own each time."""
    if isinstance(run, Run):
        path = folder / "bench-trace.bin"
        path.unlink(missing_ok=True)
        run._trace = trace.Writer(path, parameters_every=config.trace.parameters_every)
    run.watches(dict(model.named_parameters()), dict(model.named_buffers()))
    rate = trainer.Rate(optimizer, 10**9, "constant", 0)
    trainer.one_epoch(model, optimizer, batches, config.trainer, 0, 1, 0, rate, run)


def _bare(model: Any, optimizer: Any, x: torch.Tensor, y: torch.Tensor) -> None:
    model.train()
    order = torch.randperm(len(x))
    for i in range(0, len(x), 64):
        index = order[i : i + 64]
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(x[index]), y[index])
        loss.backward()
        optimizer.step()


def _loader(model: Any, optimizer: Any, x: torch.Tensor, y: torch.Tensor) -> None:
    model.train()
    for part_x, part_y in torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), 64, shuffle=True):
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(part_x), part_y)
        loss.backward()
        optimizer.step()
