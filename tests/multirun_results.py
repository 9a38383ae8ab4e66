"""What a multirun leaves in results.json, as its launcher writes it, for any number of jobs: rates × models × seeds."""

import math

from verbatim.multirun import page as pages


def page(results, folder):
    """Of a sweep's folder two below the project, with curves in place of each run's epochs.csv."""
    return pages.page(results, folder, folder.absolute().parents[1], lambda job: job["epochs"])


RATES, MODELS, SEEDS = ("1e-4", "1e-3", "1e-2", "1e-1"), ("mlp", "cnn"), 3


def job(index, *words, value=None, state="sealed", reason="", epochs=4):
    run = f"20261124T220512Z-{index:08x}"
    curve = [
        {"epoch": e, "train_loss": value + math.exp(-e), "validation_loss": value + 2 * math.exp(-e)}
        for e in range(1, epochs + 1)
    ] if value is not None else []  # fmt: skip
    sealed = state == "sealed"
    return {
        "job": index, "overrides": list(words), "state": state, "run": run, "folder": f"runs/{run}", "value": value,
        "metrics": {"test_accuracy": 1 - value / 4} if sealed else {}, "epochs": curve, "wall_s": 3.25,
        "outcome": f"sha256:{index:064x}" if sealed else "", "recipe": f"sha256:{index:064x}", "reason": reason,
        "again": f"nox -s reproduce -- runs/{run}", "train": f"nox -s train -- {' '.join(words)}", "found": False, "different": "",
    }  # fmt: skip


def of(jobs, goal="minimize"):
    return {
        "sweep": "20261124T220512Z-1a2b3c4d", "rerun": "", "command": "nox -s multirun -- seed=0,1,2 optimizer.lr=1e-4,1e-3,1e-2,1e-1",
        "started": "2026-11-24T22:05:12Z", "finished": "2026-11-24T22:06:40Z", "objective": "validation_loss", "goal": goal,
        "jobs": jobs,
    }  # fmt: skip


def many(count=24, *, epochs=4):
    """The best is optimizer.lr=1e-2 model=cnn seed=0; one job in twelve, from the sixth on, failed."""
    jobs = []
    for index in range(count):
        seed, rate, model = index % SEEDS, RATES[index // SEEDS % len(RATES)], MODELS[index // 12 % len(MODELS)]
        value = 0.1 + abs(math.log10(float(rate)) + 2) / 2 + 0.2 * (model == "mlp") + 0.01 * seed + index // 24 / 1000
        words = ("trainer.epochs=4", f"optimizer.lr={rate}", f"model={model}", f"seed={seed}")
        failed = index % 12 == 5
        jobs.append(
            job(index, *words, state="failed", reason="the loss of step 12 is not finite: nan")
            if failed
            else job(index, *words, value=value, epochs=epochs)
        )
    return of(jobs)
