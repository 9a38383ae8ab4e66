"""Trains one model on one data set and records the run: `python -m experiment.train [Hydra overrides]`, or `nox -s train`."""

import shlex
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

import verbatim
from experiment import schema
from verbatim import app, spawn, targets, tree
from verbatim.errors import VerbatimError
from verbatim.ranks import Ranks
from verbatim.recorder import Run

schema.register()


def fingerprint(data: DictConfig) -> str:
    """Of the data that a configuration names: a multirun asks, to find what has been run already."""
    return str(targets.make(data).fingerprint)


@hydra.main(version_base="1.3", config_path=app.CONFIGS, config_name="train")
@app.fingerprints(fingerprint)
@app.task
def main(config: DictConfig) -> float:
    """Returns the best epoch's validation value of `trainer.monitor`: what a sweep would optimise, never the test's."""
    refuse(config)
    spawn.ranks(ranks_of(config))
    overrides = list(HydraConfig.get().overrides.task)
    with verbatim.run(config, overrides) as run:
        data = targets.make(config.data)

        from experiment import trainer
        from experiment.batches import Batches, choose_device

        device = choose_device(config.trainer.device, "trainer.device", run.ranks.local)
        run.uses(data.fingerprint, data.files, name=data.name, device=str(device))
        model = targets.make(config.model, shape=data.shape, classes=len(data.classes)).to(device)
        optimizer = targets.make(config.optimizer, model.parameters())
        batches = Batches(data, device, config.trainer.workers)
        count = sum(p.numel() for p in model.parameters())
        run.progress.say(
            f"{run.show(run.folder)}: {type(model).__name__} of {count:,} parameters, {data.name}, {device}"
        )

        best = trainer.fit(model, optimizer, batches, config.trainer, config.seed, run)
        metrics, predictions = trainer.evaluate(model, batches, "test", config.trainer.batch_size, config.seed)
        outcome = run.finish(model.state_dict(), **metrics, **best, predictions=predictions)
    show(run, metrics, best, outcome)
    return float(best[f"validation_{config.trainer.monitor}"])


def refuse(config: DictConfig) -> None:
    """What the configuration alone shows to be wrong: before ranks are started, and before a run folder is claimed."""
    started = Ranks()  # by torchrun, or by this process's parent
    tree.refuse(config.trainer, started.world if started.world > 1 else ranks_of(config), config.determinism.level)
    if "path" in config.data and config.data.path is None:
        raise VerbatimError("paths.folder", expected="the folder of your images", found="none", then="add paths.folder=/path/to/images")  # fmt: skip


def ranks_of(config: DictConfig) -> int:
    """How many processes this machine starts for the run; a recorded configuration, made again, has no `machine`."""
    if config.trainer.parallel == "ddp" and config.trainer.ranks:
        return int(config.trainer.ranks)
    return int(OmegaConf.select(config, "machine.ranks", default=1))


def show(run: Run, metrics: dict[str, float], best: dict[str, Any], outcome: str) -> None:
    """The last lines: what came out, where it lies, and the command that makes it again."""
    folder = run.show(run.folder)
    rows = {name.replace("_", " "): f"{value:.4f}" for name, value in metrics.items()}
    run.progress.table(
        rows
        | {
            "best epoch": f"{best['best_epoch']} of {best['epochs']}",
            "outcome": outcome,
            "wall": f"{run.record.wall_s:.1f} s",
            "record": f"{folder}/record.json",
            "curves": f"{folder}/curves.svg",
            "again": f"nox -s reproduce -- {shlex.quote(folder)}",
        }
    )


if __name__ == "__main__":
    app.run(main)
