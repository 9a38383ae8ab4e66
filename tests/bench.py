"""What recording costs, against bare torch: `nox -s bench`, `nox -s bench -- levels ranks`.

Everything is measured in turns (A B A B …) in one run, and medians and ratios are printed: these hold on a noisy machine, single
times do not. Nothing here fails on a number; `kills`, which is not among the default parts, fails on another outcome.
"""

import argparse
import hashlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BARE = """
import torch
model = torch.nn.Linear(64, 10)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
x, y = torch.randn(32, 64), torch.randint(0, 10, (32,))
for _ in range(4):
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()
"""


def interleaved(ways: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each way, in turns; the first round warms up and is not counted."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for round_ in range(rounds + 1):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            if round_:
                times[name].append(time.perf_counter() - started)
    return times


def show(title: str, times: dict[str, list[float]], base: str, unit: float = 1e3, name: str = "ms") -> None:
    """A table: median, range, and the median of the ratios to `base` round by round."""
    print(f"\n{title}\n{'':34}{'median':>10}{'min':>10}{'max':>10}   {'ratio to ' + base}")
    for way, seconds in times.items():
        ratio = statistics.median(a / b for a, b in zip(seconds, times[base], strict=True))
        values = (statistics.median(seconds), min(seconds), max(seconds))
        print(f"{way:34}" + "".join(f"{v * unit:10.2f}" for v in values) + f" {name}  {ratio:.3f}")


def start(rounds: int) -> None:
    """Wall time of whole commands: a one-step run against a script that imports torch and takes four steps."""
    environment = os.environ | {"PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": ""}
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "bare.py"
        script.write_text(BARE)
        one = ["trainer.max_steps=1", f"paths.runs={folder}/runs"]
        python = sys.executable

        def command(*words: str) -> Callable[[], object]:
            return lambda: subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, check=True)

        nox = os.environ.get("VERBATIM_NOX", str(ROOT / ".nox" / "tools" / "bin" / "python"))
        ways = {
            "bare torch script, 4 steps": command(python, str(script)),
            "python -m experiment.train": command(python, "-m", "experiment.train", *one),
            "nox -s train": command(nox, "-m", "nox", "-s", "train", "--", *one),
            "nox alone (nox -s env)": command(nox, "-m", "nox", "-s", "env"),
            "train --help": command(python, "-m", "experiment.train", "--help"),
            "a wrong override": lambda: subprocess.run(
                [python, "-m", "experiment.train", "optimizer.lrr=1"],
                cwd=ROOT,
                env=environment,
                capture_output=True,
                check=False,
            ),
            "runs": command(python, "-m", "verbatim", "runs", f"{folder}/runs"),
        }
        times = interleaved(ways, rounds)
    show("start (whole processes)", times, "bare torch script, 4 steps")
    ratio = statistics.median(
        a / b for a, b in zip(times["nox -s train"], times["python -m experiment.train"], strict=True)
    )
    print(f"nox -s train / python -m experiment.train: {ratio:.3f}")


def steps(rounds: int) -> None:
    """Epochs at level `seeded`: this trainer, with and without recording, and loops written by hand, each in a process of its own."""
    from bench_steps import WAYS

    for model in ("mlp", "cnn", "mlp of 10 million parameters"):
        count, times = _epochs(model, WAYS, rounds)
        show(f"steps of {model}, digits ({count} steps of 64), CPU time", times, "bare loop", 1e3 / count, "ms/step")
        print(f"recording / not recording: {_ratio(times, 'recording', 'not recording'):.3f}")


def _epochs(model: str, ways: Sequence[str], rounds: int, *words: str) -> tuple[int, dict[str, list[float]]]:
    """Steps of an epoch, and seconds of each way in turns, each in a process of its own; the first round warms up."""
    command = [sys.executable, str(ROOT / "tests" / "bench_steps.py"), model]
    with ExitStack() as stack:
        started = {
            way: stack.enter_context(
                subprocess.Popen([*command, way, *words], cwd=ROOT, stdin=-1, stdout=-1, text=True)
            )
            for way in ways
        }
        count = max(int(process.stdout.readline()) for process in started.values())  # type: ignore[union-attr]
        times: dict[str, list[float]] = {way: [] for way in ways}
        for round_ in range(rounds + 1):
            for way, process in started.items():
                print("go", file=process.stdin, flush=True)
                seconds = float(process.stdout.readline())  # type: ignore[union-attr]
                if round_:
                    times[way].append(seconds)
        for process in started.values():
            process.stdin.close()  # type: ignore[union-attr]
    return count, times


def _ratio(times: dict[str, list[float]], one: str, other: str) -> float:
    return statistics.median(a / b for a, b in zip(times[one], times[other], strict=True))


def levels(rounds: int) -> None:
    """What level `portable` costs: recorded epochs of every model, by the clock, at one thread."""
    from bench_steps import CAPPED, LEVELS, MODELS

    base, ratios = LEVELS[0], []
    wide = "avx512f" in Path("/proc/cpuinfo").read_text()
    for model in MODELS:
        count, times = _epochs(model, LEVELS if wide else LEVELS[:-1], rounds, "--wall")
        show(f"level portable, {model}", times, base, 1e3 / count, "ms/step")
        ratios.append(_ratio(times, "portable", base))
        print(
            f"guard: {_ratio(times, 'portable', 'portable, no guard'):.3f}; two workers against one: {_ratio(times, 'portable, 2 workers', 'portable'):.3f}"
        )
    print(
        f"\nportable / seeded under {CAPPED}: geometric mean {statistics.geometric_mean(ratios):.3f}, most {max(ratios):.3f}"
    )


def checkpoints(rounds: int) -> None:
    """What a checkpoint at the end of every epoch costs the default run, whole trainings in turns; and what one takes."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "experiment.train", f"paths.runs={folder}", "machine.resume=never"]

        def train(*words: str) -> Callable[[], object]:
            return lambda: subprocess.run([*command, *words], cwd=ROOT, capture_output=True, check=True)

        ways = {
            "no checkpoints": train("machine.checkpoints=0"),
            "every epoch": train("machine.checkpoints=0.9"),
            "at most 3% of the time": train(),
        }
        show("checkpoints, the default run of 20 epochs", interleaved(ways, rounds), "no checkpoints")


def ranks(rounds: int) -> None:
    """Steps of the 10-million-parameter model on two ranks: gradients added in the fixed tree, against DistributedDataParallel."""
    from bench_ranks import main

    main(rounds)


def kills(rounds: int) -> None:
    """Trainings ended at random moments, as often as rounds are asked for, and sweeps, a tenth as often; all must end as if nothing had
    happened."""
    import bench_kills
    import bench_multirun

    if code := bench_kills.main(rounds) or bench_multirun.kills(-(-rounds // 10)):
        sys.exit(code)


def multirun(rounds: int) -> None:
    """Jobs per second of this launcher and of others, on tiny jobs; then a thousand, made and found again."""
    from bench_multirun import main, many

    main(max(1, rounds // 3))
    many()


def fingerprint(rounds: int) -> None:
    """How fast parameters are digested, against reading the same memory, one core."""
    import numpy as np
    import xxhash

    data = np.arange(2**24, dtype=np.float32)  # 64 MiB, more than any cache
    ways = {
        "reading (np.max)": lambda: data.max(),
        "xxh3_128": lambda: xxhash.xxh3_128_digest(data),
        "sha256": lambda: hashlib.sha256(data).digest(),
    }
    times = interleaved(ways, rounds)
    show("fingerprint of 64 MiB", times, "reading (np.max)")
    print(f"xxh3_128 reads at {_ratio(times, 'reading (np.max)', 'xxh3_128'):.2f} of the rate of memory")


def repeat(rounds: int) -> None:
    """One recipe, again and again, at level `exact`: how many distinct outcomes."""
    sys.path.insert(0, str(ROOT / "src"))
    from verbatim import ledger, record

    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "experiment.train", f"paths.runs={folder}", "trainer.epochs=2"]
        for _ in range(max(rounds, 20)):
            subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
        found = [run for run in ledger.read(Path(folder)) if isinstance(run, record.Record)]
        outcomes = {run.outcome for run in found}
    print(f"\nrepeats: {len(found)} runs of {len({run.recipe for run in found})} recipe, {len(outcomes)} outcome(s)")


def drift(_rounds: int) -> None:
    """What asking for drift costs, beside uv and pip-compile."""
    from bench_drift import main

    print("\ndrift (whole processes)")
    main()


if __name__ == "__main__":
    parts: dict[str, Callable[[int], None]] = {
        f.__name__: f for f in (start, steps, levels, checkpoints, ranks, multirun, fingerprint, repeat, drift, kills)
    }
    parser = argparse.ArgumentParser(prog="nox -s bench --", description=__doc__)
    default = [part for part in parts if part != "kills"]  # 200 take minutes: `kills -n 200`
    parser.add_argument("part", nargs="*", default=default, help=f"any of: {', '.join(parts)} (default: all but kills)")
    parser.add_argument("-n", type=int, default=9, metavar="ROUNDS", help="rounds of each comparison (default: 9)")
    options = parser.parse_args()
    for unknown in set(options.part) - parts.keys():
        parser.error(f"part: expected any of {', '.join(parts)}, found {unknown}")
    for part in options.part:
        parts[part](options.n)
