"""Causes planted in real training runs, one at a time: the first one named is the one that was planted."""

import os

import pytest

from verbatim.comparison import compare

# Trains as `python -m experiment.train` does, with one thing changed at step 4 that no setting and no line of code shows.
PLANT = """
import os, runpy
from verbatim.recorder import Run

what, watches, trace = os.environ.get("PLANT", ""), Run.watches, Run.trace
held = {}

def watching(self, parameters, buffers):
    from experiment.batches import Batches
    epoch = Batches.epoch

    def skipping(self, *arguments, **settings):
        for number, batch in enumerate(epoch(self, *arguments, **settings)):
            if not (what == "batch" and number == 4):
                yield batch

    Batches.epoch = skipping
    held.update(parameters)
    watches(self, parameters, buffers)

def tracing(self, step, batch, loss):
    import torch
    from verbatim import keyed
    first, *_, last = held.values()
    with torch.no_grad():
        if step == 4 and what == "weight bit":
            last.view(torch.int32).view(-1)[0] ^= 1 << 20  # of the last layer: a bit of a dead unit shows in no loss
        if step == 4 and what == "gradient":
            first.grad.view(-1)[0] += 1
        if step == 4 and what == "loss":
            loss += 1e-9
    trace(self, step, batch, loss)
    if step == 4 and what == "dropout":
        keyed.GOLDEN += 2  # other streams: draws depend on nothing but seed, step and sample
    if step == 4 and what == "generator":
        torch.rand(1)

Run.watches, Run.trace = watching, tracing
runpy.run_module("experiment.train", run_name="__main__", alter_sys=True)
"""
SMALL = ("model=mlp", "model.hidden=[8]", "model.dropout=0.5", "trainer.max_steps=8")


@pytest.fixture
def plant(project, tmp_path):
    """`plant("trace.parameters_every=1", PLANT="batch")`: the folder of a run in `project`."""
    (tmp_path / "plant.py").write_text(PLANT)

    def call(*overrides, **variables):
        before = project.names()
        path = f"{project.root / 'src'}{os.pathsep}{tmp_path}"
        done = project.run("plant", *SMALL, *overrides, **{"PYTHONPATH": path} | variables)
        assert done.returncode == 0, done.stderr
        return project.runs / (project.names() - before).pop()

    return call


def first(project, a, b):
    found = compare(a, b, project.root)
    return (found.differences[0].part, str(found.differences[0])) if found.differences else None


def test_causes_within_a_step_are_named_by_step_and_kind(project, plant):
    every = "trace.parameters_every=1"
    base = plant(every)

    assert first(project, base, plant(every)) is None
    assert first(project, base, plant(every, PLANT="batch"))[1].startswith(
        "step 4: batch, loss, gradient, parameters ("
    )
    assert first(project, base, plant(every, PLANT="weight bit")) == ("step", "step 4: parameters")
    assert first(project, base, plant(every, PLANT="loss"))[1].startswith("step 4: loss; loss ")
    assert first(project, base, plant(every, PLANT="gradient"))[1].startswith("step 4: gradient; ")
    assert first(project, base, plant(every, PLANT="generator")) is None
    dropped = first(project, base, plant(every, PLANT="dropout"))[1]
    assert dropped.startswith("step 5: loss, gradient, parameters (the first to differ: loss); loss ")
    assert dropped.endswith("; the parameters were the same after step 4")


def test_a_flipped_weight_between_two_digests_shows_in_the_next_loss(project, plant):
    said = first(project, plant(), plant(PLANT="weight bit"))

    assert said[1].startswith("step 5: loss")
    assert said[1].endswith("the parameters were the same after step 0")


def test_settings_code_and_variables_are_named(project, plant):
    base = plant()

    assert first(project, base, plant("seed=1")) == ("config", "seed: 0 → 1")
    assert first(project, base, plant("optimizer.lr=0.0030001")) == ("config", "optimizer.lr: 0.003 → 0.0030001")
    assert first(project, base, plant("model.dropout=0.25")) == ("config", "model.dropout: 0.5 → 0.25")
    assert first(project, base, plant("optimizer.betas=[0.9,0.99]")) == (
        "config",
        "optimizer.betas: [0.9, 0.999] → [0.9, 0.99]",
    )
    assert first(project, base, plant(MKL_CBWR="COMPATIBLE")) == (
        "hardware",
        "variables.MKL_CBWR: nothing → COMPATIBLE",
    )
    if len(os.sched_getaffinity(0)) > 1:
        assert first(project, base, plant("determinism.threads=2")) == ("config", "determinism.threads: 1 → 2")
    digest = "sha256:" + "1" * 64
    assert first(project, base, plant(VERBATIM_IMAGE_DIGEST=digest)) == (
        "image",
        f'image: null → {{"digest": "{digest}"}}',
    )

    batches = project.root / "src" / "experiment" / "batches.py"
    text = batches.read_text()
    batches.write_text(text + "EXTRA = 1\n")
    assert first(project, base, plant()) == ("code", "src/experiment/batches.py: +1 −0")
    batches.write_text(text)
    (project.root / "src" / "experiment" / "new.py").write_text("A = 1\nB = 2\n")
    assert first(project, base, plant()) == ("code", "src/experiment/new.py: +2 −0")


def test_how_the_code_differs_is_shown_as_a_patch(project):
    a = project.train()
    project.edit("configs/optimizer/adam.yaml", "lr: 0.003", "lr: 0.004")
    b = project.train()

    done = project.run("verbatim", "compare", str(a), str(b), "--patch")

    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[0] == "first cause: code, configs/optimizer/adam.yaml: +1 −1"
    assert "config    optimizer.lr: 0.003 → 0.004" in lines
    assert {"-lr: 0.003", "+lr: 0.004"} <= set(lines)
    assert " configs/optimizer/adam.yaml | 2 +-" in lines


def test_an_older_lock_is_named_by_its_file(project):
    a = project.train()
    lock = next((project.root / "requirements").glob("c*.txt"))
    for path in (project.root / "requirements").glob("c*.txt"):
        path.write_text(
            path.read_text().replace("--hash=sha256:", "--hash=sha256:" + "0" * 64 + " \\\n    --hash=sha256:", 1)
        )
    b = project.train()

    found = compare(a, b, project.root)

    assert lock.exists()
    assert (found.differences[0].part, found.differences[0].where[:13]) == ("lock", "requirements/")
