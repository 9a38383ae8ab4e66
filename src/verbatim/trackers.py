"""Trackers: a sealed run shown by TensorBoard or MLflow. What they show is read from the run's record; nothing is read from them.

A tracker reaches no bit: it is no part of the recipe, nothing of it is loaded before the run is sealed, and where it fails the run says
so and is as good as before. What it needs is installed by `nox -s env -- trackers`; without, a run is refused before it starts.
"""

import contextlib
import datetime
import fcntl
import logging
import os
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from verbatim import extras
from verbatim.record import FILE, Record

FOLDER = "tensorboard"
STORE, SQLITE = "mlruns", "sqlite:///"
BATCH = 100  # entries that MLflow takes at once
# A server that is away is given up after seconds, not after minutes. And MLflow tells its makers nothing.
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10", "MLFLOW_DISABLE_TELEMETRY": "true"}  # fmt: skip


def chosen(config: DictConfig) -> str:
    """The tracker's name; empty for none, and for a configuration that knows of none."""
    return OmegaConf.select(config, "tracker.name") or ""


def check(config: DictConfig) -> None:
    """Refuse a tracker that is not installed, while nothing has begun."""
    if chosen(config):
        extras.use("trackers")


def publish(config: DictConfig, root: Path, folder: Path, run: Record, rows: Sequence[Mapping[str, Any]]) -> str:
    """Show a sealed run, its epochs in `rows`. Returns why that could not be done, or nothing."""
    if not (name := chosen(config)):
        return ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if name == "tensorboard":
                _tensorboard(folder, run, rows)
            else:
                _mlflow(config.tracker.uri or "", config.tracker.experiment, root, folder, run, rows)
    except Exception as error:  # noqa: BLE001 — whatever becomes of the tracker, the run is sealed
        says = (str(error).strip().splitlines() or [""])[0]
        return f"{name} does not show this run ({type(error).__name__}: {says[:200]}); it is sealed all the same"
    return ""


def _digests(run: Record, folder: Path) -> dict[str, str]:
    return {"recipe": run.recipe, "outcome": run.outcome, "level": run.level, "record": str(folder / FILE), **run.recipe_parts}  # fmt: skip


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items() if isinstance(value, int | float)}


def _tensorboard(folder: Path, run: Record, rows: Sequence[Mapping[str, Any]]) -> None:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder / FOLDER)) as writer:
        for row in rows:
            for name, value in _numbers(row).items():
                writer.add_scalar(f"epochs/{name}", value, int(row["epoch"]), new_style=True, double_precision=True)
        for name, value in _numbers(run.metrics).items():
            writer.add_scalar(f"metrics/{name}", value, 0, new_style=True, double_precision=True)
        for name, text in _digests(run, folder).items():
            writer.add_text(name, text)
        writer.add_text("config", f"```yaml\n{OmegaConf.to_yaml(OmegaConf.create(run.recipe_config))}```")


def _mlflow(uri: str, experiment: str, root: Path, folder: Path, run: Record, rows: Sequence[Mapping[str, Any]]) -> None:  # fmt: skip
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, RunTag

    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.WARNING)
    uri = uri or f"{SQLITE}{root / STORE / 'mlflow.db'}"
    store = Path(uri.removeprefix(SQLITE)).parent if uri.startswith(SQLITE) else None
    with _alone(store) if store else contextlib.nullcontext():
        client = MlflowClient(uri)
        known = client.get_experiment_by_name(experiment)
        location = str(store / "artifacts") if store else None
        owner = known.experiment_id if known else client.create_experiment(experiment, location)
        started, ended = _ms(run.started), _ms(run.finished)
        made = client.create_run(owner, start_time=started, run_name=run.run).info.run_id
        last = len(rows)
        metrics = [
            Metric(name, value, ended, int(row["epoch"])) for row in rows for name, value in _numbers(row).items()
        ]
        metrics += [Metric(name, value, ended, last) for name, value in _numbers(run.metrics).items()]
        params = [Param(key, str(value)) for key, value in _flat(run.recipe_config)]
        tags = [RunTag(f"verbatim.{name}", text) for name, text in _digests(run, folder).items()]
        for start in range(0, max(len(metrics), len(params)), BATCH):
            end = start + BATCH
            client.log_batch(made, metrics[start:end], params[start:end], [] if start else tags)
        client.set_terminated(made, end_time=ended)


@contextlib.contextmanager
def _alone(store: Path) -> Iterator[None]:
    """One run at a time makes or changes the file; the jobs of a multirun end together."""
    store.mkdir(parents=True, exist_ok=True)
    with (store / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _ms(when: str) -> int:
    return int(datetime.datetime.fromisoformat(when).timestamp() * 1000) if when else int(time.time() * 1000)


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """`optimizer.lr` and its value, for every value."""
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _flat(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", inner
