"""Trainings that are ended at random moments, again and again, and go on: `nox -s bench -- kills -n 200`.

Two of three are killed (SIGKILL), the third is asked to end (SIGTERM). Moments are drawn by a seed: after so many steps of this start,
0 among them (it is still loading then), and a while. What each run ends with is held against a run that nobody disturbed.
"""

import random
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from killing import KILLED, start, train
from verbatim import record

SETTINGS = ("trainer.epochs=6", "machine.checkpoints=0.5")  # 120 steps
CONFIGURATIONS = {
    "cnn, adam": (),
    "cnn, batch norm, 4 shards": ("model.batch_norm=true", "model.dropout=0.1", "trainer.shards=4"),
    "mlp, sgd, portable": ("model=mlp", "optimizer=sgd", "determinism=portable"),
    "vit, adamw, schedule": (
        "model=vit", "model.depth=2", "model.dropout=0.1", "optimizer=adamw", "trainer.schedule=cosine", "trainer.warmup_steps=10",
        "trainer.clip_norm=1.0", "trainer.accumulate=2", "trainer.patience=3",
    ),
    "vae, adam": ("model=vae",),
}  # fmt: skip
STEPS, LATER_S = 50, 0.05  # at most, until a start is ended
IN_A_ROW = 10  # kills of one run, after which it may end


@dataclass
class Tally:
    runs: int = 0
    kills: int = 0
    terms: int = 0
    resumed: int = 0
    different: list[str] = field(default_factory=list)


def main(kills: int) -> int:
    """The exit code: 1 where any outcome is another."""
    began, share = time.monotonic(), -(-kills // len(CONFIGURATIONS))
    print(
        f"\n{'ended at random moments':28}{'runs':>6}{'SIGKILL':>9}{'SIGTERM':>9}{'went on':>9}{'identical':>11}",
        flush=True,
    )
    with TemporaryDirectory() as folder, ThreadPoolExecutor(len(CONFIGURATIONS)) as pool:
        tallies = list(pool.map(partial(_configuration, Path(folder), kills=share), CONFIGURATIONS))
    different = [line for tally in tallies for line in tally.different]
    ended = sum(tally.kills + tally.terms for tally in tallies)
    print(f"{ended} ended in {time.monotonic() - began:.0f} s; {len(different)} with another outcome")
    print("".join(f"different: {line}\n" for line in different), end="")
    return 1 if different else 0


def _configuration(folder: Path, name: str, kills: int) -> Tally:
    overrides, tally, draws = (*SETTINGS, *CONFIGURATIONS[name]), Tally(), random.Random(name)
    at = folder / name.replace(" ", "_").replace(",", "")
    whole = _sealed(at / "whole", train(at / "whole", *overrides).said)
    while tally.kills + tally.terms < kills:
        tally.runs += 1
        runs = at / str(tally.runs)
        for _ in range(min(IN_A_ROW, kills - tally.kills - tally.terms)):
            term = not draws.randrange(3)
            started = start(runs, *overrides)
            started.end(
                signal.SIGTERM if term else signal.SIGKILL,
                steps=draws.randint(0, STEPS),
                later_s=draws.uniform(0, LATER_S),
            )
            code = started.process.returncode
            if _all_sealed(runs):  # it was done before, whether or not it had said so
                break
            if code not in (*KILLED, -signal.SIGTERM):  # the last: Python's own start answers so
                tally.different.append(f"{name}: exit code {code}: {started.said}")
            tally.terms, tally.kills = tally.terms + term, tally.kills + (not term)
        else:
            started = train(runs, *overrides)
        run = _sealed(runs, started.said)
        tally.resumed += len(run.resumed)
        if (run.recipe, run.outcome) != (whole.recipe, whole.outcome):
            tally.different.append(f"{name}: {run.outcome}, undisturbed {whole.outcome}")
    same = tally.runs - len(tally.different)
    print(f"{name:28}{tally.runs:6}{tally.kills:9}{tally.terms:9}{tally.resumed:9}{same:8} of {tally.runs}", flush=True)
    return tally


def _all_sealed(runs: Path) -> list[record.Record]:
    found = [record.read(folder) for folder in runs.iterdir() if (folder / record.FILE).exists()]
    return [run for run in found if run.state == "sealed"]


def _sealed(runs: Path, what: str) -> record.Record:
    (run,) = _all_sealed(runs) or sys.exit(f"error: no sealed run: {what}")
    return run
