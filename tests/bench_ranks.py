"""Two ranks, the 10-million-parameter model: the fixed tree against DistributedDataParallel, for `nox -s bench -- ranks`.

As a program of its own (`bench_ranks.py WAY`) it is one rank: it takes some steps for each line that it reads.
"""

import math
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

ROOT = Path(__file__).resolve().parents[1]
WAYS = {"DDP": ["trainer.parallel=ddp", "trainer.ranks=2"], "tree": ["trainer.shards=2"]}
STEPS = 5


def main(rounds: int) -> None:
    from bench import show

    times: dict[str, list[float]] = {way: [] for way in WAYS}
    with ExitStack() as stack:
        started = {way: _start(way, stack) for way in WAYS}
        for processes in started.values():
            for process in processes:
                process.stdout.readline()
        for round_ in range(rounds + 1):
            for way, processes in started.items():
                for process in processes:
                    print("go", file=process.stdin, flush=True)
                seconds = max(float(process.stdout.readline()) for process in processes)
                if round_:
                    times[way].append(seconds)
        for processes in started.values():
            for process in processes:
                process.stdin.close()
    show("steps of 10 million parameters on two ranks", times, "DDP", 1e3 / STEPS, "ms/step")
    model = statistics.median(times["tree"])
    print(f"tree: {model / STEPS * 1e3:.1f} ms a step")
    scaling()


def _start(way: str, stack: ExitStack) -> list["subprocess.Popen[str]"]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "PYTHONHASHSEED": "0"}
    return [
        stack.enter_context(
            subprocess.Popen(
                [sys.executable, __file__, way],
                cwd=ROOT,
                env=os.environ | common | {"RANK": str(rank)},
                stdin=-1,
                stdout=-1,
                text=True,
            )
        )
        for rank in range(2)
    ]


def rank(way: str) -> None:
    import hydra

    from experiment import schema
    from verbatim import app
    from verbatim.recorder import Run

    schema.register()
    with TemporaryDirectory() as folder, hydra.initialize_config_dir(app.CONFIGS, version_base="1.3"):
        settings = [
            "experiment=digits_mlp_10m",
            "determinism=seeded",
            "machine.resume=never",
            f"paths.runs={folder}",
            *WAYS[way],
        ]
        config = hydra.compose("train", settings)
        data = hydra.utils.instantiate(config.data)
        with Run(config) as run:
            import torch

            from experiment import trainer
            from experiment.batches import Batches
            from experiment.parallel import Parallel

            run.uses(data.fingerprint, data.files)
            model = hydra.utils.instantiate(config.model, shape=data.shape, classes=len(data.classes))
            optimizer = hydra.utils.instantiate(config.optimizer)(model.parameters())
            batches = Batches(data, torch.device("cpu"))
            run.watches(dict(model.named_parameters()), dict(model.named_buffers()))
            parallel, position = Parallel(model, config.trainer, run), trainer.Position()
            rate = trainer.Rate(optimizer, 0, "constant", 0)
            print("ready", flush=True)
            for _ in sys.stdin:
                position.batch, rate.total = 0, position.step + STEPS
                began = time.perf_counter()
                trainer.one_epoch(parallel, optimizer, batches, config.trainer, 0, position, rate, run)
                print(time.perf_counter() - began, flush=True)
            run.progress.say = lambda _: None  # type: ignore[method-assign]
            run.finish(model.state_dict(), steps=1)


# ------------------------------------------------------------------------------------------------------------ scaling


def scaling() -> None:
    """The written model, and the schedule itself: bytes and messages that each rank sends, for 40 MB of gradients.

    The tree sends |g| (1/2 + 1/4 + … + 1/R) on the way up and as much on the way back: 2 (R − 1)/R |g|, in 2 log2 R messages.
    A ring sends as many bytes, in 2 (R − 1) messages. Time is messages · latency + bytes / bandwidth.
    """
    size, latency_s, bandwidth = 40e6, 20e-6, 3e9
    print(
        f"\n{'ranks':>6}{'MB sent, model':>16}{'schedule':>12}{'messages':>10}{'ring':>8}{'tree ms':>10}{'ring ms':>10}  (20 us, 3 GB/s)"
    )
    for world in (2, 4, 8, 16, 64, 256, 1024):
        sent, messages = simulate(world, int(size // 4))
        bytes_ = 2 * (world - 1) / world * size
        cost: Callable[[int], float] = lambda n, b=bytes_: (n * latency_s + b / bandwidth) * 1e3
        ring = 2 * (world - 1)
        print(
            f"{world:6}{bytes_ / 1e6:16.1f}{sent * 4 / 1e6:12.1f}{messages:10}{ring:8}{cost(2 * int(math.log2(world))):10.1f}{cost(ring):10.1f}"
        )


def simulate(world: int, values: int) -> tuple[int, int]:
    """The most values that a rank sends, and in how many messages, by the schedule that `verbatim.ranks` goes by."""
    from verbatim.tree import schedule

    steps = [list(schedule(rank, world, values)) for rank in range(world)]
    sent = [sum(give.stop - give.start for _, give, _, _ in each) for each in steps]
    return max(sent), max(len(each) for each in steps)


def virtual_sum(each: list["np.ndarray[Any, Any]"]) -> list["np.ndarray[Any, Any]"]:
    """Sums over virtual ranks, in place, `each` one's values (N,): the schedule of `verbatim.ranks`, one message after another."""
    from verbatim.tree import schedule

    world = len(each)
    steps = [schedule(rank, world, len(each[0])) for rank in range(world)]
    for now in zip(*steps, strict=True):
        given = [values[give].copy() for values, (_, give, _, _) in zip(each, now, strict=True)]
        for values, (partner, _, take, adds) in zip(each, now, strict=True):
            values[take] = values[take] + given[partner] if adds else given[partner]
    return each


if __name__ == "__main__":
    rank(sys.argv[1])
