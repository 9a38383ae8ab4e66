"""Tests a run's weights again: `nox -s evaluate -- run=runs/<run>`. Weights are read as safetensors only; a pickle is refused."""

from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from experiment import schema
from verbatim import app, determinism, digest, folders, ledger, record, targets
from verbatim.errors import VerbatimError
from verbatim.progress import Progress

schema.register()


@hydra.main(version_base="1.3", config_path=app.CONFIGS, config_name="evaluate")
@app.task
def main(config: DictConfig) -> None:
    runs = folders.runs_folder(config.paths.runs)
    folder = ledger.latest(runs) if config.run == "latest" else ledger.find(config.run, runs, folders.ROOT)
    recorded = record.read(folder)
    refuse(folder, recorded)
    trained = OmegaConf.create(recorded.config)
    trained.paths = config.paths  # where things lie is this machine's business
    wanted = determinism.Determinism(
        level=recorded.level,
        threads=trained.determinism.threads,
        unlisted=OmegaConf.select(trained, "determinism.unlisted", default="refuse"),
        workers=determinism.cores(),
    )
    determinism.set_variables(wanted)
    data = targets.make(trained.data, fingerprint=recorded.data["fingerprint"])
    determinism.set_switches(wanted, recorded.seed, lambda _: None)

    from experiment import trainer
    from experiment.batches import Batches, choose_device

    # Level portable is the CPU's: only there are the predictions those that were recorded.
    auto = "cpu" if wanted.level == "portable" and config.device == "auto" else config.device
    device = choose_device(auto, "device")
    model = targets.make(trained.model, shape=data.shape, classes=len(data.classes))
    model.load_state_dict(load(folder, config.weights, recorded, model.state_dict()))
    batches = Batches(data, device, trained.trainer.workers)
    metrics, predictions = trainer.evaluate(
        model.to(device), batches, config.split, trained.trainer.batch_size, recorded.seed
    )
    rows: dict[str, Any] = {
        "run": folder.name,
        "images": f"{batches.size(config.split)} of {data.name}, {config.split}",
    }
    rows |= {name.replace("_", " "): f"{value:.4f}" for name, value in metrics.items()}
    same = {True: "the same as recorded", False: f"recorded: {recorded.metrics.get('predictions')}"}
    says = same[predictions == recorded.metrics["predictions"]] if _comparable(config, recorded) else ""
    Progress().table(rows | {"predictions": f"{predictions}  {says}"})


def refuse(folder: Path, recorded: record.Record) -> None:
    """A run that can't be tested here: of another script, whose data and model nobody here can make; or one that read no data."""
    lacks = [name for name in ("data", "model") if "_target_" not in (recorded.config.get(name) or ())]
    if lacks:
        raise VerbatimError(
            f"run={folder.name}", expected="a run that experiment.train made", found=f"one of another script: its configuration names no {lacks[0]}",
            then="test its weights by that script; nox -s runs lists other runs",
        )  # fmt: skip
    if "fingerprint" not in recorded.data:
        raise VerbatimError(
            f"run={folder.name}", expected="a run with weights", found=f"none: it is {recorded.state}, and read no data", then="nox -s runs lists other runs"
        )  # fmt: skip


def _comparable(config: DictConfig, recorded: record.Record) -> bool:
    return config.split == "test" and config.weights == "model.safetensors" and recorded.state == "sealed"


def load(folder: Path, name: str, recorded: record.Record, expected: dict[str, Any]) -> dict[str, Any]:
    """Tensors from a file of the run folder, after its digest is found to be the recorded one and its names to fit the model."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / name
    then = f"train again: the record of {recorded.run} has all that it takes"
    if path.suffix != ".safetensors":
        raise VerbatimError(
            path,
            expected="weights as .safetensors",
            found=f"a {path.suffix or 'nameless'} file, which may run code when loaded",
        )
    if not path.exists():
        raise VerbatimError(path, expected="weights", found=f"none (the run is {recorded.state})", then=then)
    if name in recorded.files and (found := digest.of_file(path)) != recorded.files[name]:
        raise VerbatimError(
            path, expected=recorded.files[name], found=f"{found}: the file was changed after the run", then=then
        )
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise VerbatimError(path, expected="a whole safetensors file", found=error, then=then) from None
    wrong = sorted(
        k
        for k in expected.keys() | tensors.keys()
        if k not in tensors or k not in expected or tensors[k].shape != expected[k].shape
    )
    if wrong:
        raise VerbatimError(
            path, expected="the tensors of the recorded model", found=f"a difference at {wrong[0]}", then=then
        )
    return tensors


if __name__ == "__main__":
    app.run(main)
