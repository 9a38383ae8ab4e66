"""Runs that are ended at any moment and go on: they must end as if nothing had happened."""

import json
import random
import shutil
import signal

import pytest

from killing import AT_STEP, KILLED, chain, end_at, only, outcome, start, train
from verbatim import checkpoint, record, trace

SMALL = ("model=mlp", "model.hidden=[8]", "trainer.epochs=3", "machine.checkpoints=0.9")  # 20 steps an epoch
CONFIGURATIONS = {
    "default": ("trainer.epochs=8",),
    "vit": (
        "model=vit", "model.depth=2", "model.width=32", "model.dropout=0.1", "optimizer=adamw", "trainer.schedule=cosine",
        "trainer.warmup_steps=10", "trainer.clip_norm=1.0", "trainer.accumulate=2", "trainer.patience=2", "trainer.amp=true",
        "trainer.epochs=8",
    ),
    "vae": ("model=vae", "model.hidden_dim=64", "trainer.epochs=8"),
}  # fmt: skip


def same(one, other):
    """Everything that a run gives is the same, byte for byte."""
    assert outcome(one) == outcome(other)
    for name in ("trace.bin", "epochs.csv", "model.safetensors", "last.safetensors"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    assert record.read(one).recipe == record.read(other).recipe
    assert sorted(path.name for path in one.iterdir()) == sorted(path.name for path in other.iterdir())
    assert not (one / checkpoint.FOLDER).exists()


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_run_that_is_ended_again_and_again_ends_as_if_nothing_had_happened(tmp_path, name):
    overrides = (*CONFIGURATIONS[name], "machine.checkpoints=0.9")
    assert train(tmp_path / "whole", *overrides).process.returncode == 0
    codes = chain(
        tmp_path / "runs", overrides, [signal.SIGTERM, signal.SIGKILL, signal.SIGKILL], random.Random(name), 45
    )

    assert codes[-1] == 0
    assert len(codes) > 1 and all(code in KILLED for code in codes[:-1])
    folder = only(tmp_path / "runs")
    same(folder, only(tmp_path / "whole"))
    assert len(record.read(folder).resumed) == len(codes) - 1


# ------------------------------------------------------------------------------------------- at one step, and a small run


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The small run, undisturbed."""
    runs = tmp_path_factory.mktemp("whole")
    assert train(runs, *SMALL).process.returncode == 0
    return only(runs)


@pytest.fixture(scope="module")
def once_killed(tmp_path_factory):
    runs = tmp_path_factory.mktemp("killed") / "runs"
    assert end_at(runs, 45, signal.SIGKILL, *SMALL).process.returncode == -signal.SIGKILL
    return runs


@pytest.fixture
def killed(once_killed, tmp_path):
    """A runs folder with the small run, killed in its third epoch."""
    return shutil.copytree(once_killed, tmp_path / "runs")


def change(folder, edit):
    """Another story of this run, told consistently."""
    run = record.read(folder)
    edit(run)
    record.write(folder, run)


def damage(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_a_killed_run_goes_on_after_its_last_checkpoint(killed, whole):
    folder = only(killed)
    assert [found.step for found in checkpoint.found(folder)] == [39, 19]
    assert trace.Reader(folder / "trace.bin").rows == 46

    went_on = train(killed, *SMALL)

    assert went_on.process.returncode == 0
    assert f"{folder}: goes on after step 39 (killed); machine.resume=never starts anew" in went_on.said
    same(folder, whole)
    run = record.read(folder)
    assert [part["went_on_after_step"] for part in run.resumed] == [39]
    assert [part["ended"] for part in run.resumed] == ["killed"]
    assert run.wall_s > run.resumed[0]["wall_s"] > 0
    assert run.resumed[0]["probe"] == run.environment["probe"]


@pytest.mark.parametrize("step", [0, 19, 29])
def test_sigterm_leaves_a_checkpoint_of_the_very_step(tmp_path, step):
    """The first step, the last of an epoch, the last of all."""
    overrides = (*SMALL, "trainer.max_steps=30")
    ended = end_at(tmp_path / "runs", step, signal.SIGTERM, *overrides)
    folder = only(tmp_path / "runs")

    assert ended.process.returncode == 143
    assert f"interrupted at step {step}" in ended.said
    assert "the same command goes on from its last checkpoint" in ended.said
    assert checkpoint.found(folder)[0].step == step
    run = record.read(folder)
    assert (run.state, run.reason) == ("interrupted", f"SIGTERM at step {step}")

    assert train(tmp_path / "runs", *overrides).process.returncode == 0
    assert train(tmp_path / "whole", *overrides).process.returncode == 0 if step == 29 else True
    run = record.read(folder)
    assert (run.state, run.trace["rows"], run.metrics["steps"]) == ("sealed", 30, 30)
    if step == 29:
        same(folder, only(tmp_path / "whole"))


def test_of_two_at_once_one_goes_on_and_the_other_starts_its_own(killed, whole):
    two = [start(killed, *SMALL) for _ in range(2)]

    assert [each.wait() for each in two] == [0, 0]
    assert len(list(killed.iterdir())) == 2
    assert sum("goes on after step 39" in each.said for each in two) == 1
    for folder in killed.iterdir():
        same(folder, whole)


def test_never_starts_anew_and_leaves_the_other_as_it_is(killed, whole):
    folder = only(killed)
    before = (folder / record.FILE).read_bytes()

    assert train(killed, *SMALL, "machine.resume=never").process.returncode == 0
    (new,) = set(killed.iterdir()) - {folder}
    same(new, whole)
    assert (folder / record.FILE).read_bytes() == before
    assert checkpoint.found(folder)


def test_another_recipe_starts_anew_and_is_refused_by_its_key_where_the_run_is_named(killed):
    name = only(killed).name
    refused = train(killed, *SMALL, "optimizer.lr=0.01", f"machine.resume={name}")

    assert refused.process.returncode == 2
    assert (
        f"error: machine.resume={name}: expected a checkpoint of this recipe, found one of another: optimizer.lr 0.003, here 0.01\n"
        "  next: add machine.resume=never"
    ) in refused.said
    assert "Traceback" not in refused.said
    assert train(killed, *SMALL, "optimizer.lr=0.01", "trainer.max_steps=2").process.returncode == 0
    assert record.read(killed / name).state == "started"


def test_other_data_are_refused(killed):
    folder = only(killed)
    change(folder, lambda run: run.data.update(fingerprint="sha256:" + "0" * 64))
    refused = train(killed, *SMALL)

    assert refused.process.returncode == 2
    assert (
        f"error: data.fingerprint: expected sha256:{'0' * 64}, the data that {folder.name} began with" in refused.said
    )
    assert "or start anew: add machine.resume=never" in refused.said
    assert checkpoint.found(folder)


def test_level_exact_goes_on_where_the_probe_is_the_one_it_began_with_and_nowhere_else(killed, whole):
    folder = only(killed)
    here = record.read(folder).environment["probe"]
    change(folder, lambda run: run.environment.update(probe="sha256:" + "1" * 64, cpu={"model": "Another CPU"}))
    for _ in range(2):  # a refusal is no reason to go on the next time
        refused = train(killed, *SMALL)

        assert refused.process.returncode == 2
        assert (
            f"error: determinism=exact: expected a machine that computes the bits that {folder.name} began with (Another CPU), "
            "found another numerics probe here"
        ) in refused.said
    run = record.read(folder)
    assert (run.state, [part["ended"].split(":")[0] for part in run.resumed]) == (
        "failed",
        ["killed", "determinism=exact"],
    )

    change(folder, lambda run: run.resumed[0].update(probe=here))  # back where it began
    assert train(killed, *SMALL).process.returncode == 0
    same(folder, whole)


def test_a_sealed_run_is_done(tmp_path, whole):
    runs = tmp_path / "runs"
    shutil.copytree(whole, runs / whole.name)
    refused = train(runs, *SMALL, f"machine.resume={whole.name}")
    again = train(runs, *SMALL)

    assert refused.process.returncode == 2
    assert "found no checkpoint there" in refused.said
    assert "goes on" not in again.said
    same(again.folder, whole)


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(killed, whole):
    folder = only(killed)
    newest = checkpoint.found(folder)[0].path
    damage(newest)
    went_on = train(killed, *SMALL)

    assert f"warning: {newest}: damaged; the checkpoint before it is taken" in went_on.said
    assert "goes on after step 19" in went_on.said
    same(folder, whole)


def test_where_every_checkpoint_is_damaged_the_run_starts_anew_and_says_so(killed, whole):
    folder = only(killed)
    for found in checkpoint.found(folder):
        damage(found.path)
    anew = train(killed, *SMALL)

    assert anew.process.returncode == 0, anew.said
    assert anew.said.count("damaged; ") == 2
    assert "damaged; the run starts anew" in anew.said
    assert "goes on" not in anew.said
    same(folder, whole)


def test_the_checkpoint_of_another_recipe_is_refused(killed, tmp_path):
    folder = only(killed)
    end_at(tmp_path / "other", 25, signal.SIGTERM, *SMALL, "seed=1")
    shutil.rmtree(folder / checkpoint.FOLDER)
    shutil.copytree(only(tmp_path / "other") / checkpoint.FOLDER, folder / checkpoint.FOLDER)
    refused = train(killed, *SMALL)

    assert refused.process.returncode == 2
    assert "expected a checkpoint of recipe" in refused.said
    assert "Traceback" not in refused.said


def test_a_trace_that_was_changed_is_said_to_be_and_the_run_starts_anew(killed, whole):
    path = only(killed) / "trace.bin"
    data = bytearray(path.read_bytes())
    data[500] ^= 1
    path.write_bytes(data)
    anew = train(killed, *SMALL)

    assert anew.process.returncode == 0
    assert (
        f"{path}, row 4: expected a row that continues the chain, found a changed row; the checkpoint before it"
        in anew.said
    )
    assert "the run starts anew" in anew.said
    same(only(killed), whole)


@pytest.mark.parametrize("lost", ["short", "zeros"])
def test_a_trace_that_a_power_cut_left_short_takes_the_checkpoint_that_it_reaches(killed, whole, lost):
    """The newest checkpoint was not flushed, and no more was the trace: the disk may have the one, and less of the other."""
    folder = only(killed)
    *_, before, newest = sorted(found.step for found in checkpoint.found(folder))
    path = folder / "trace.bin"
    data = path.read_bytes()
    kept = trace.HEADER_BYTES + (before + 3) * trace.ROW_BYTES
    path.write_bytes(data[:kept] + (bytes(len(data) - kept) if lost == "zeros" else b""))
    went_on = train(killed, *SMALL)

    assert newest > before + 3
    assert f"{path}" in went_on.said and "the checkpoint before it is taken" in went_on.said
    assert f"goes on after step {before} " in went_on.said
    same(folder, whole)


def test_without_checkpoints_there_is_none_and_sigterm_ends_at_once(tmp_path):
    ended = end_at(tmp_path / "runs", 45, signal.SIGTERM, *SMALL, "machine.checkpoints=0")

    assert ended.process.returncode == 143
    assert not (only(tmp_path / "runs") / checkpoint.FOLDER).exists()


FILL = """
with open(os.environ["BALLAST"], "wb", buffering=0) as file:
    try:
        while file.write(bytes(4096)): pass
    except OSError: pass
"""


def test_a_disk_that_fills_up_leaves_whole_checkpoints_and_room_lets_it_go_on(small_disk, whole):
    disk = small_disk("1m")
    started = start(disk / "runs", *SMALL, script=AT_STEP, AT="45", DO=FILL, BALLAST=str(disk / "ballast"))
    assert started.wait() == 2
    assert "expected room on the disk, found none left; what was written before is whole" in started.said
    assert "Traceback" not in started.said
    folder = only(disk / "runs")
    said = []
    assert checkpoint.newest_whole(folder, record.read(folder).recipe, said.append)
    assert said == []
    assert json.loads((folder / record.FILE).read_text())

    (disk / "ballast").unlink()
    went_on = train(disk / "runs", *SMALL)
    assert "goes on after step 39" in went_on.said
    same(folder, whole)
