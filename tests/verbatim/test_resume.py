"""Going on, for training scripts of one's own, and who may go on with what."""

import copy
import signal

import pytest

from conftest import python
from verbatim import checkpoint, record, resume
from verbatim.errors import VerbatimError

# Draws from every generator there is, and keeps a place of its own.
SCRIPT = """
import os, random, sys
import numpy
from omegaconf import OmegaConf
import verbatim
from verbatim import app

class Place:
    step, path, odd = 0, ((), 0.1), None
    def state_dict(self): return {"step": self.step, "path": self.path, "odd": self.odd}
    def load_state_dict(self, state): vars(self).update(state)

@app.task
def main(config):
    with verbatim.run(config) as run:
        import torch
        model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1))
        optimizer = torch.optim.Adam(model.parameters())
        run.uses("sha256:" + "0" * 64, {})
        run.watches(dict(model.named_parameters()), {})
        place = Place()
        run.keeps(model=model, optimizer=optimizer, place=place)
        while place.step < 12:
            step = place.step
            x = torch.randn(4, 4) + random.gauss(0, 1) + numpy.random.randn()
            loss = model(x).square().mean()
            loss.backward()
            optimizer.step()
            run.trace(step, torch.arange(4), loss.item())
            optimizer.zero_grad()
            place.step, place.path = step + 1, (place.path[:1], loss.item())
            run.epoch(loss=loss.item())
            if step % 3 == 0:
                run.save("model.safetensors", model.state_dict())
            if step == int(os.environ.get("AT", -1)):
                exec(os.environ["DO"])
            run.checkpoint(epoch=True)
        run.finish(run.load("model.safetensors"), score=random.random())

main(OmegaConf.create({"seed": 0, "determinism": {"level": "exact", "threads": 1}, "machine": {"checkpoints": 0.99},
                       "trace": {"parameters_every": 2}, "paths": {"runs": sys.argv[1]}}))
"""


def script(runs, **variables):
    return python("-c", SCRIPT, str(runs), **variables)


def only(runs):
    (folder,) = runs.iterdir()
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    runs = tmp_path_factory.mktemp("whole")
    done = script(runs)
    assert done.returncode == 0, done.stderr
    return only(runs)


def test_an_own_script_goes_on_with_every_generator_and_what_it_keeps(runs, whole):
    for at, number, code in (("4", signal.SIGTERM, 143), ("10", signal.SIGKILL, -signal.SIGKILL)):
        ended = script(runs, AT=at, DO=f"os.kill(os.getpid(), {int(number)})")
        assert ended.returncode == code, ended.stderr
    done = script(runs)
    folder = only(runs)

    assert done.returncode == 0, done.stderr
    assert record.read(folder).outcome == record.read(whole).outcome != ""
    for name in ("trace.bin", "epochs.csv", "model.safetensors"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name
    first, second = record.read(folder).resumed
    assert (first["ended"], first["went_on_after_step"]) == ("SIGTERM at step 4", 4)
    assert second["ended"] == "killed"
    assert 4 <= second["went_on_after_step"] <= 9  # as often as the time that they may take allows


def test_a_run_made_again_from_its_record_never_goes_on_and_leaves_no_checkpoints(runs, whole):
    script(runs, AT="4", DO="os.kill(os.getpid(), 15)")
    folder = only(runs)
    ended = script(runs, VERBATIM_RESUME="never", AT="4", DO="os.kill(os.getpid(), 15)")
    (new,) = set(runs.iterdir()) - {folder}

    assert ended.returncode == 143
    assert checkpoint.found(folder) and not checkpoint.found(new)
    assert record.read(folder).reason == "SIGTERM at step 4"


def test_what_cannot_be_kept_ends_the_run_with_its_name(runs):
    done = script(runs, AT="2", DO="place.odd = object()")

    assert done.returncode == 2
    assert "error: checkpoint, state.kept.place.odd: expected tensors, numbers, strings" in done.stderr
    assert "Traceback" not in done.stderr


# ------------------------------------------------------------------------------------------------------------- whose


def test_a_folder_is_held_by_one_at_a_time(tmp_path):
    lock = resume.hold(tmp_path)

    assert lock
    assert resume.hold(tmp_path) is None
    lock.close()
    with resume.hold(tmp_path):
        assert resume.hold(tmp_path) is None
    assert resume.hold(tmp_path / "gone") is None


HAMMER = """
import os, sys
from pathlib import Path
from verbatim import resume
folder, inside = Path(sys.argv[1]), 0
for child in range(6):
    if not os.fork():
        break
else:
    sys.exit(max(os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(6)))
for _ in range(400):
    if lock := resume.hold(folder):
        os.close(os.open(folder / "inside", os.O_CREAT | os.O_EXCL))
        os.unlink(folder / "inside")
        (folder / resume.LOCK).unlink()  # as a run does once it is sealed
        lock.close()
os._exit(0)
"""


def test_no_two_hold_a_folder_while_locks_come_and_go(tmp_path):
    done = python("-c", HAMMER, str(tmp_path))

    assert done.returncode == 0, done.stderr


@pytest.fixture
def unfinished(planted):
    """A run that ended early, and a new one of its recipe."""

    def early(run, folder):
        run.state, run.reason, run.files = "interrupted", "SIGTERM at step 3", {}
        checkpoint.Writer(folder, 1.0).write(3, {"saved": {}}, [])

    folder = planted("early", early)
    new = copy.deepcopy(record.read(folder))
    new.run = "new"
    return folder, new


def test_the_newest_unfinished_run_of_the_recipe_is_found(unfinished):
    folder, new = unfinished
    found = resume.find(folder.parent, new, resume.AUTO)

    assert found and found[0] == folder
    found[2].close()
    assert resume.find(folder.parent, new, resume.NEVER) is None
    for name in (folder.name, str(folder)):
        found = resume.find(folder.parent, new, name)
        assert found and found[0] == folder
        found[2].close()


def test_a_run_that_another_process_is_at_is_left_alone(unfinished):
    folder, new = unfinished
    with resume.hold(folder):
        assert resume.find(folder.parent, new, resume.AUTO) is None
        with pytest.raises(VerbatimError, match="expected a run that ended early, found another process is at it"):
            resume.find(folder.parent, new, folder.name)


def test_a_run_that_was_sealed_while_it_was_looked_at_is_left_alone(unfinished, monkeypatch):
    folder, new = unfinished
    hold = resume.hold

    def hold_late(at):
        run = record.read(folder)
        run.state = "sealed"
        record.write(folder, run)
        return hold(at)

    monkeypatch.setattr(resume, "hold", hold_late)

    assert resume.find(folder.parent, new, resume.AUTO) is None
    assert record.read(folder).state == "sealed"
    with hold(folder):  # nobody kept it
        pass


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda run: setattr(run, "seed", 7), "seed 0, here 7"),
        (lambda run: setattr(run, "level", "seeded"), "level exact, here seeded"),
        (lambda run: run.recipe_config["optimizer"].update(lr=1.5), "optimizer.lr 0.003, here 1.5"),
        (lambda run: run.recipe_config["model"].pop("dropout"), "model.dropout 0.0, here nothing"),
        (lambda run: run.code.update(tree="f" * 40), "here " + "f" * 40),
        (lambda run: run.lock.update(digest="sha256:" + "f" * 64), "here " + "f" * 12),
    ],
)
def test_another_recipe_is_passed_over_and_refused_by_its_key_where_it_is_named(unfinished, change, says):
    folder, new = unfinished
    change(new)

    assert resume.find(folder.parent, new, resume.AUTO) is None
    with pytest.raises(VerbatimError) as error:
        resume.find(folder.parent, new, folder.name)
    assert f"machine.resume={folder.name}: expected a checkpoint of this recipe, found one of another: " in str(
        error.value
    )
    assert says in str(error.value)
    assert not (folder / resume.LOCK).exists()


def test_what_is_no_run_with_checkpoints_is_refused(unfinished):
    folder, new = unfinished
    checkpoint.remove(folder)
    for name, found in ((folder.name, "no checkpoint there"), ("nowhere", "nothing there")):
        with pytest.raises(VerbatimError, match=f"machine.resume={name}: .*found {found}"):
            resume.find(folder.parent, new, name)
    assert resume.find(folder.parent, new, resume.AUTO) is None


def test_a_damaged_record_is_passed_over(unfinished):
    folder, new = unfinished
    (folder / record.FILE).write_text("{")

    assert resume.find(folder.parent, new, resume.AUTO) is None
    with pytest.raises(VerbatimError, match="expected a record"):
        resume.find(folder.parent, new, folder.name)


@pytest.mark.parametrize(
    ("level", "probes", "refused"),
    [
        ("exact", ["here"], False),
        ("exact", ["there"], True),
        ("exact", ["there", "here"], True),  # the second start was refused, and made nothing
        ("exact", ["here", "there"], False),
        ("exact", ["", "there"], True),  # the first ended before it had a probe
        ("portable", ["there"], False),
        ("seeded", ["there"], False),
    ],
)
def test_the_probe_of_the_first_start_counts(level, probes, refused):
    parts = [{"probe": probe, "cpu": "Another CPU"} for probe in probes]
    run = record.Record(run="r", level=level, resumed=parts, environment={"probe": "here"})
    if not refused:
        resume.refuse_other_bits(run)
        return
    with pytest.raises(
        VerbatimError, match=r"the bits that r began with \(Another CPU\), found another numerics probe here"
    ):
        resume.refuse_other_bits(run)
