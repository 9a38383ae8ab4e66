"""Trackers: real runs, read back by TensorBoard's and MLflow's own readers; and that a run is the same with them, without, or failed by."""

import json
import re
import shutil
import subprocess
import sys

import pytest

from conftest import ENVIRONMENT, ROOT, python
from verbatim import extras, record

SMALL = ("model=mlp", "model.hidden=[8]", "trainer.max_steps=30", "trainer.epochs=2")
installed = pytest.mark.skipif(bool(extras.problems(ROOT, "trackers")), reason="not installed: nox -s env -- trackers")
EVENTS = """
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1])
events.Reload()
tensors = {tag: [(e.step, tensor_util.make_ndarray(e.tensor_proto)) for e in events.Tensors(tag)] for tag in events.Tags()["tensors"]}
print(json.dumps({tag: [(step, v.item() if v.dtype.kind == "f" else v.item().decode()) for step, v in rows] for tag, rows in tensors.items()}))
"""
STORE = """
from mlflow import MlflowClient
client = MlflowClient(sys.argv[1])
(experiment,) = [e for e in client.search_experiments() if e.name == "verbatim"]
print(json.dumps({r.info.run_name: {"status": r.info.status, "metrics": r.data.metrics, "params": r.data.params, "tags": r.data.tags,
    "losses": [(m.step, m.value) for m in client.get_metric_history(r.info.run_id, "train_loss")]} for r in client.search_runs([experiment.experiment_id])}))
"""


def read(code, *arguments):
    """What a tracker's own reader finds, in a process of its own."""
    head = "import json, sys, warnings; warnings.simplefilter('ignore'); from verbatim import extras; extras.use('trackers')\n"
    head += "from tensorboard.util import tensor_util\n" if code is EVENTS else ""
    done = python("-c", head + code, *map(str, arguments))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def epochs(folder):
    head, *rows = [line.split(",") for line in (folder / "epochs.csv").read_text().splitlines()]
    return {name: [float(row[i]) for row in rows] for i, name in enumerate(head)}


@pytest.fixture
def plain(train):
    """The same run without a tracker."""
    done = train(*SMALL)
    assert done.code == 0, done.err
    return done


@installed
def test_tensorboard_shows_every_epoch_and_what_came_out(train, plain):
    done = train(*SMALL, "tracker=tensorboard")
    found = read(EVENTS, done.folder / "tensorboard")

    assert done.err == ""
    assert (done.record.recipe, done.record.outcome) == (plain.record.recipe, plain.record.outcome)
    for name, values in epochs(done.folder).items():
        assert [value for _, value in found[f"epochs/{name}"]] == values
        assert [step for step, _ in found[f"epochs/{name}"]] == [1, 2]
    assert found["metrics/test_accuracy"][0][1] == done.record.metrics["test_accuracy"]
    texts = {
        tag.removesuffix("/text_summary"): rows[0][1] for tag, rows in found.items() if isinstance(rows[0][1], str)
    }
    assert texts["recipe"] == done.record.recipe
    assert texts["outcome"] == done.record.outcome
    assert texts["record"] == str(done.folder / "record.json")
    assert "lr: 0.003" in texts["config"]
    assert python("-m", "verbatim", "verify", str(done.folder)).returncode == 0


@installed
def test_mlflow_shows_every_epoch_and_what_came_out_of_runs_that_end_together(runs, tmp_path, plain):
    uri = f"sqlite:///{tmp_path / 'new' / 'mlflow.db'}"
    command = [
        sys.executable,
        "-m",
        "experiment.train",
        *SMALL,
        f"paths.runs={runs}",
        "tracker=mlflow",
        f"tracker.uri={uri}",
    ]
    processes = [
        subprocess.Popen([*command, f"seed={seed}"], cwd=ROOT, env=ENVIRONMENT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        for seed in (0, 1)
    ]  # fmt: skip
    assert [process.communicate()[1] for process in processes] == [b"", b""]
    found = read(STORE, uri)

    made = {f.name: record.read(f) for f in runs.iterdir() if f != plain.folder}
    assert found.keys() == made.keys()
    assert plain.record.recipe in {run.recipe for run in made.values()}
    assert plain.record.outcome in {run.outcome for run in made.values()}
    for name, run in made.items():
        says = found[name]
        assert says["status"] == "FINISHED"
        assert says["losses"] == [[i, loss] for i, loss in enumerate(epochs(runs / name)["train_loss"], 1)]
        assert says["metrics"]["test_accuracy"] == run.metrics["test_accuracy"]
        assert says["params"]["optimizer.lr"] == "0.003"
        assert says["params"]["seed"] == str(run.seed)
        assert says["tags"]["verbatim.recipe"] == run.recipe
        assert says["tags"]["verbatim.outcome"] == run.outcome
        assert says["tags"]["verbatim.record"] == str(runs / name / "record.json")


@installed
@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "nowhere://x", "sqlite:////proc/nowhere/mlflow.db"])
def test_a_tracker_that_is_away_fails_no_run(train, plain, uri):
    done = train(*SMALL, "tracker=mlflow", f"tracker.uri={uri}")

    assert done.code == 0, done.err
    assert done.record.state == "sealed"
    assert (done.record.recipe, done.record.outcome) == (plain.record.recipe, plain.record.outcome)
    says = " ".join(done.out.split())
    assert re.search(r"warning: mlflow does not show this run \(\w+: .+\); it is sealed all the same", says), says


def test_without_its_packages_a_run_is_refused_before_it_starts(tmp_path, runs):
    for name in ("src", "configs", "requirements"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    done = python("-m", "experiment.train", f"paths.runs={runs}", *SMALL, "tracker=tensorboard", PYTHONPATH=str(tmp_path / "src"))  # fmt: skip

    assert done.returncode == 2
    assert done.stderr == (
        "error: the packages of requirements/trackers.txt: expected all of them, as locked, found not there\n"
        "  next: nox -s env -- trackers\n"
    )
    assert not runs.exists()


def test_no_tracker_is_refused_by_a_wrong_name_alone(train):
    done = train(*SMALL, "tracker=wandb")

    assert done.code == 2
    assert "tracker: expected one of mlflow, none, tensorboard, found wandb" in " ".join(done.err.split())
