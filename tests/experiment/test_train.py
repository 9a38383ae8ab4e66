import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET

import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import ENVIRONMENT, ROOT
from verbatim import digest, record, trace


def differing_rows(one, other):
    """Which kinds of value differ anywhere in two traces."""
    rows = list(zip(trace.Reader(one / "trace.bin"), trace.Reader(other / "trace.bin"), strict=True))
    return {name for name in trace.Row.__slots__ for a, b in rows if getattr(a, name) != getattr(b, name)}


def test_the_default_run_learns_the_digits_and_is_recorded(train):
    done = train("trainer.max_steps=null")
    run = done.record

    assert (done.code, done.err) == (0, "")
    assert run.metrics["test_accuracy"] > 0.97
    assert run.state == "sealed"
    assert set(run.files) == {
        "config.yaml",
        "curves.svg",
        "epochs.csv",
        "last.safetensors",
        "model.safetensors",
        "trace.bin",
    }
    assert all(digest.of_file(done.folder / name) == value for name, value in run.files.items())
    assert run.weights == digest.of_tensors(load_file(done.folder / "model.safetensors"))
    assert run.trace["rows"] == run.metrics["steps"] == 20 * 20
    assert run.data["fingerprint"].startswith("sha256:f454f7b4")
    assert run.data["files"] == {"digits.csv.gz": run.data["files"]["digits.csv.gz"]}
    assert run.code["tree"]
    assert run.environment["cpu"]["flags"]
    assert run.environment["distributions"]["torch"] == torch.__version__
    last = done.out.splitlines()[-8:]
    assert [line.split("  ")[0] for line in last] == [
        "test loss", "test accuracy", "best epoch", "outcome", "wall", "record", "curves", "again",
    ]  # fmt: skip
    assert run.outcome in done.out


def test_the_curves_are_a_picture_of_every_epoch(train):
    done = train("trainer.epochs=3", "trainer.max_steps=null")
    rows = list(csv.DictReader((done.folder / "epochs.csv").read_text().splitlines()))
    svg = ET.parse(done.folder / "curves.svg").getroot()
    lines = [e.get("points").split() for e in svg.iter("{http://www.w3.org/2000/svg}polyline")]

    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert list(rows[0]) == ["epoch", "train_loss", "validation_loss", "validation_accuracy", "lr"]
    assert [len(points) for points in lines] == [3, 3, 3]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """One run that others are held against."""
    runs = tmp_path_factory.mktemp("base")
    command = [
        sys.executable,
        "-m",
        "experiment.train",
        f"paths.runs={runs}",
        "trainer.max_steps=30",
        "trainer.epochs=2",
    ]
    subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, check=True, capture_output=True)
    return next(runs.iterdir())


def again(train, *overrides):
    return train("trainer.max_steps=30", "trainer.epochs=2", *overrides)


def test_the_same_recipe_has_the_same_outcome(train, base):
    for _ in range(2):
        done = again(train)

        assert done.record.recipe == record.read(base).recipe
        assert done.record.outcome == record.read(base).outcome
        assert (done.folder / "trace.bin").read_bytes() == (base / "trace.bin").read_bytes()
        assert (done.folder / "model.safetensors").read_bytes() == (base / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("override", "differ"),
    [
        ("seed=1", {"batch", "loss", "gradient", "parameters"}),
        ("optimizer.lr=0.002", {"loss", "gradient", "parameters"}),
        ("optimizer=sgd", {"loss", "gradient", "parameters"}),
        ("data.split_seed=1", {"loss", "gradient", "parameters"}),
        ("model.dropout=0.1", {"loss", "gradient", "parameters"}),
        ("model.channels=[32,64,64]", {"loss", "gradient", "parameters"}),
        ("trainer.clip_norm=0.01", {"loss", "gradient", "parameters"}),
        ("trainer.schedule=cosine", {"loss", "gradient", "parameters"}),
    ],
)
def test_a_changed_setting_changes_recipe_and_outcome_where_it_should(train, base, override, differ):
    done, first = again(train, override), record.read(base)

    assert done.record.recipe != first.recipe
    assert done.record.outcome != first.outcome
    assert done.record.lock == first.lock
    assert done.record.code["tree"] == first.code["tree"]
    assert (done.record.data["fingerprint"] != first.data["fingerprint"]) == override.startswith("data.")
    assert differing_rows(done.folder, base) == differ


def test_a_place_is_no_part_of_recipe_or_outcome(train, base, tmp_path):
    done = again(train, f"paths.data={tmp_path}/elsewhere")

    assert (done.record.recipe, done.record.outcome) == (record.read(base).recipe, record.read(base).outcome)


def test_loader_workers_and_trace_interval_leave_the_weights_alone(train, base):
    done = again(train, "trace.parameters_every=3")

    assert done.record.weights == record.read(base).weights
    assert done.record.recipe != record.read(base).recipe


def test_a_changed_source_line_changes_the_code_and_with_it_the_recipe_alone(train, base):
    marker = ROOT / "src" / "experiment" / f"untracked_{os.getpid()}.py"
    marker.write_text("# a file that git does not know\n")
    try:
        done = again(train)
    finally:
        marker.unlink()

    assert done.record.code["tree"] != record.read(base).code["tree"]
    assert done.record.recipe != record.read(base).recipe
    assert done.record.outcome == record.read(base).outcome


@pytest.mark.parametrize("model", ["mlp", "cnn", "vit", "vae"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_models_and_optimizers_combine(train, model, optimizer):
    done = train(f"model={model}", f"optimizer={optimizer}", "optimizer.lr=0.001")

    assert done.code == 0, done.err
    assert done.record.trace["rows"] == 5


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "experiment").glob("digits_*.yaml")), ids=lambda p: p.stem)
def test_every_offline_experiment_runs(train, path):
    done = train(f"experiment={path.stem}", "trainer.max_steps=2")

    assert done.code == 0, done.err


def test_a_batch_in_parts_gives_the_gradient_of_the_whole(train, base):
    """To rounding: the sums are cut elsewhere. A partial last batch is cut too."""
    one = [row.loss for row in trace.Reader(base / "trace.bin")]
    parts = [row.loss for row in trace.Reader(again(train, "trainer.accumulate=3").folder / "trace.bin")]

    assert parts == pytest.approx(one, rel=1e-4)


def test_mixed_precision_trains(train):
    assert train("trainer.amp=true").record.state == "sealed"


def test_training_stops_early_and_tests_with_the_best_weights(train):
    done = train("trainer.max_steps=null", "trainer.epochs=60", "trainer.patience=2", "optimizer.lr=0.05", "model=mlp")
    run = done.record
    rows = list(csv.DictReader((done.folder / "epochs.csv").read_text().splitlines()))
    losses = [float(row["validation_loss"]) for row in rows]

    assert run.metrics["epochs"] == len(rows) < 60
    assert run.metrics["best_epoch"] == losses.index(min(losses)) + 1 == len(rows) - 2
    assert run.metrics["validation_loss"] == min(losses)
    best, last = (load_file(done.folder / f"{name}.safetensors") for name in ("model", "last"))
    assert digest.of_tensors(best) == run.weights != digest.of_tensors(last)


REFUSED = {
    "trainer.batch_size=5000": "trainer.batch_size: expected at most 1258, the training images that there are, found 5000",
    "trainer.device=cuda": "trainer.device: expected a GPU that torch can use, found none",
    "model=vae trainer.monitor=accuracy": "trainer.monitor: expected loss: this model has no accuracy, found accuracy",
    "optimizer.lr=1e30": "the loss of step 1: expected a finite number, found nan",
    "+model.foo=1": "model.foo: expected one of batch_norm, channels, dropout: what experiment.models.Cnn takes, found no `foo` there",
    "model._target_=experiment.models.Cn": "model._target_: expected a class that can be imported, found experiment.models.Cn\n  next: did you mean model._target_=experiment.models.Cnn?",
    "optimizer._target_=torch.optim.SGD": "optimizer.betas: expected one of ",
    "data.fingerprint=sha256:00": "data.fingerprint: expected sha256:00, found sha256:f454f7b4",
    "data=mnist data.url=http://127.0.0.1:9": "http://127.0.0.1:9/train-images-idx3-ubyte.gz: expected a download of",
}


@pytest.mark.parametrize("overrides", REFUSED)
def test_what_cannot_be_trained_is_refused_and_sealed_as_failed(train, tmp_path, overrides):
    if "cuda" in overrides and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    done = train(*overrides.split(), f"paths.data={tmp_path}/cache")

    assert done.code == 2
    assert f"error: {REFUSED[overrides]}" in done.err
    assert "Error executing job" not in done.err  # Hydra's own line
    assert "Traceback" not in done.err
    assert done.record.state == "failed"


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("data=folder", "paths.folder: expected the folder of your images, found none\n  next: add paths.folder="),
        ("machine.resume=foo", "machine.resume=foo: expected a run with checkpoints, auto or never, found nothing there"),
    ],
)  # fmt: skip
def test_what_the_settings_alone_show_leaves_no_run(train, override, says):
    done = train(override)

    assert (done.code, done.folder) == (2, None)
    assert done.err.startswith(f"error: {says}")


def test_sigterm_seals_the_record(runs):
    command = [sys.executable, "-m", "experiment.train", f"paths.runs={runs}", "trainer.epochs=5000"]
    process = subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    while not list(runs.glob("*/epochs.csv")):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=30)
    (folder,) = runs.iterdir()
    run = record.read(folder)

    assert process.returncode == 143
    assert (run.state, run.reason.split(" at ")[0]) == ("interrupted", "SIGTERM")
    assert f"interrupted at step {run.reason.rsplit(' ', 1)[1]}" in out
    assert trace.Reader(folder / "trace.bin").rows == run.trace["rows"]


def test_a_crashed_script_is_not_hidden(train):
    """A defect keeps its traceback, and exit code 1: only what a person can mend is said in one line."""
    done = train("model._target_=builtins.dict")  # what it makes is no model

    assert done.code == 1
    assert "AttributeError: 'dict' object has no attribute 'to'" in done.err
    assert done.record.state == "failed"


# ------------------------------------------------------------------------------------------------------ evaluation


def evaluate(*arguments):
    command = [sys.executable, "-m", "experiment.evaluate", *arguments]
    return subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False)


def test_evaluation_gives_the_recorded_metrics_and_predictions(base):
    done = evaluate(f"run={base}")
    run = record.read(base)

    assert done.returncode == 0, done.stderr
    assert f"{run.metrics['test_accuracy']:.4f}" in done.stdout
    assert f"{run.metrics['predictions']}  the same as recorded" in done.stdout


def test_evaluation_of_a_vae_is_seeded_too(train):
    done = train("model=vae")

    assert "the same as recorded" in evaluate(f"run={done.folder}").stdout


def test_another_split_or_other_weights_give_other_predictions(base):
    assert "the same as recorded" not in evaluate(f"run={base}", "split=validation").stdout
    assert evaluate(f"run={base}", "weights=last.safetensors").returncode == 0


@pytest.fixture
def copy(base, tmp_path):
    import shutil

    return shutil.copytree(base, tmp_path / base.name)


def flip(path, offset=-1):
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def test_tampered_weights_are_refused(copy):
    flip(copy / "model.safetensors")
    done = evaluate(f"run={copy}")

    assert done.returncode == 2
    assert f"{copy}/model.safetensors: expected sha256:" in done.stderr
    assert "the file was changed after the run" in done.stderr


def test_a_pickle_is_refused(copy):
    torch.save({"a": torch.ones(1)}, copy / "model.pt")
    done = evaluate(f"run={copy}", "weights=model.pt")

    assert done.returncode == 2
    assert "expected weights as .safetensors, found a .pt file, which may run code when loaded" in done.stderr


def test_weights_of_another_model_are_refused(copy):
    state = load_file(copy / "model.safetensors")
    state.pop("head.bias")
    save_file(state, copy / "other.safetensors")
    done = evaluate(f"run={copy}", "weights=other.safetensors")

    assert done.returncode == 2
    assert "expected the tensors of the recorded model, found a difference at head.bias" in done.stderr


def test_truncated_weights_are_refused(copy):
    path = copy / "other.safetensors"
    path.write_bytes((copy / "model.safetensors").read_bytes()[:1000])

    assert "expected a whole safetensors file" in evaluate(f"run={copy}", "weights=other.safetensors").stderr


@pytest.mark.parametrize(
    ("run", "says"),
    [
        ("nowhere", "run=nowhere: expected a run folder (it holds record.json), found nothing there"),
        ("src", "run=src: expected a run folder (it holds record.json), found no record in it"),
    ],
)
def test_what_is_no_run_is_refused(run, says):
    done = evaluate(f"run={run}")

    assert (done.returncode, done.stderr.splitlines()[0]) == (2, f"error: {says}")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"config": {"seed": 0, "lr": 0.1}}, "one of another script: its configuration names no data"),
        ({"config": {"data": {"_target_": "x"}, "model": "resnet"}}, "one of another script: its configuration names no model"),
        ({"data": {}, "state": "failed"}, "none: it is failed, and read no data"),
    ],
)  # fmt: skip
def test_a_run_that_can_not_be_tested_here_is_refused(copy, changes, says):
    run = record.read(copy)
    for name, value in changes.items():
        setattr(run, name, value)
    record.write(copy, run)
    done = evaluate(f"run={copy}")

    assert done.returncode == 2
    assert re.fullmatch(rf"error: run={copy.name}: expected .*, found {says}\n  next: .*\n", done.stderr)


def test_a_run_must_be_named():
    assert evaluate().stderr.startswith("error: run: expected a value, found none\n  next: add run=…")


def test_a_record_of_a_newer_schema_is_refused(copy):
    path = copy / "record.json"
    path.write_text(path.read_text().replace("/run/v1", "/run/v9"))

    assert "expected a record of schema https://verbatim.invalid/run/v1" in evaluate(f"run={copy}").stderr


def test_an_edited_record_is_refused(copy):
    path = copy / "record.json"
    value = json.loads(path.read_text())
    value["predicate"]["runDetails"]["byproducts"][0]["annotations"]["metrics"]["test_accuracy"] = 1.0
    path.write_text(json.dumps(value))

    assert "this record was edited" in evaluate(f"run={copy}").stderr
