"""Real runs are made again from their records, and each way in which that can go wrong ends with its own words."""

import json
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

import pytest

from conftest import ENVIRONMENT, ROOT
from planting import git
from verbatim import checkpoint, record, restore

SLOW = "        __import__('time').sleep(float(__import__('os').environ.get('SLOW', '0')))\n"
TRACE = "        run.trace(step, indices, loss)\n"
STEP = "        optimizer.step()\n"


def again(project, run, *options, **variables):
    return project.run("verbatim", "reproduce", str(run), *options, **variables)


def slow_down(project):
    """With SLOW=0.2, steps take a fifth of a second, so that there is time to interrupt them."""
    project.edit("src/experiment/trainer.py", TRACE, TRACE + SLOW)


def wait_for_steps(project, before, count=2):
    """The run folder that appears, once its trace has some rows."""
    for _ in range(300):
        for name in project.names() - before:
            path = project.runs / name / "trace.bin"
            if path.exists() and path.stat().st_size > 64 + 96 * count:
                return project.runs / name
        time.sleep(0.1)
    raise AssertionError("no run appeared")


@pytest.fixture(autouse=True)
def temporary_files(tmp_path, monkeypatch):
    """A folder of this test's own: what others do on this machine at the same time is not left over by it."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setitem(ENVIRONMENT, "TMPDIR", str(tmp_path / "temporary"))


def left_over():
    return {p.name for p in Path(tempfile.gettempdir()).glob(f"{restore.PREFIX}*")}


def test_a_run_is_made_again_after_the_repository_has_moved_on(project):
    """Its code was never committed, some of it not even added; since then it was changed and its configuration as well."""
    (project.root / "src" / "experiment" / "extra.py").write_text("SCALE = 0.5\n")
    project.edit(
        "src/experiment/trainer.py",
        "from experiment.batches import Batches\n",
        "from experiment.batches import Batches\nfrom experiment.extra import SCALE  # noqa: F401\n",
    )
    run = project.train("seed=7", "optimizer.lr=0.01")
    (project.root / "src" / "experiment" / "extra.py").unlink()
    git(project.root, "checkout", "--quiet", ".")
    shutil.rmtree(project.root / "configs" / "model")
    git(project.root, "commit", "--all", "--quiet", "--message", "moved on")
    state, temporary = project.state(), left_over()

    done = again(project, run)

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith(f"identical: {run.name} was reproduced bit for bit")
    new = record.read(project.runs / (project.names() - {run.name}).pop())
    assert (new.outcome, new.recipe) == (record.read(run).outcome, record.read(run).recipe)
    assert project.state() == state
    assert project.worktrees() == 1
    assert left_over() == temporary


def test_the_places_of_this_machine_are_used_and_no_other_override(project, tmp_path):
    run = project.train()
    moved = shutil.copytree(run, tmp_path / "elsewhere" / run.name)

    done = again(project, moved / "record.json", f"paths.runs={tmp_path / 'new'}", f"paths.data={tmp_path / 'data'}")

    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = (tmp_path / "new").iterdir()
    new = record.read(folder)
    assert new.overrides == []
    assert new.config["paths"]["data"] == str(tmp_path / "data")
    refused = again(project, run, "seed=3")
    assert (refused.returncode, refused.stderr) == (
        2,
        "error: seed=3: expected paths.<name>=<place>: all else is the record's, found seed=3\n",
    )


def test_a_run_that_was_not_repeatable_is_found_out_and_its_first_step_named(project):
    noise = "next(parallel.model.parameters()).grad.mul_(1 + __import__('os').getpid() / 1e7)"
    project.edit("src/experiment/trainer.py", STEP, f"        if step == 3:\n            {noise}\n{STEP}")
    run = project.train()

    done = again(project, run)

    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("different: first cause: step, step 3: gradient")


def test_fail_fast_ends_at_the_first_difference(project):
    slow_down(project)
    project.edit(
        "src/experiment/trainer.py", "loss += part_loss.item()", "loss += part_loss.item() + __import__('os').getpid()"
    )
    run = project.train("trainer.max_steps=15")

    done = again(project, run, "--fail-fast", SLOW="0.2")

    assert done.returncode == 1, done.stdout + done.stderr
    new = record.read(project.runs / (project.names() - {run.name}).pop())
    assert new.state == "interrupted"
    assert new.trace["rows"] < 15
    assert "different: first cause: step, step 0: loss" in done.stdout


def test_until_ends_after_a_step_and_claims_no_more(project):
    slow_down(project)
    run = project.train("trainer.max_steps=15")

    done = again(project, run, "--until", "2", SLOW="0.2")

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("identical as far as compared: the first 3 steps, bit for bit")
    new = record.read(project.runs / (project.names() - {run.name}).pop())
    assert (new.state, new.trace["rows"] < 15) == ("interrupted", True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_was_broken_off_is_repeated_as_far_as_it_went(project, number):
    slow_down(project)
    process = project.start("experiment.train", "model=mlp", "model.hidden=[8]", "trainer.max_steps=15", SLOW="0.2")
    folder = wait_for_steps(project, set())
    process.send_signal(number)
    process.communicate()
    assert record.read(folder).state == ("interrupted" if number == signal.SIGTERM else "started")

    done = again(project, folder)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "identical as far as compared: the first" in done.stdout.splitlines()[-1]


def test_a_portable_run_of_two_ranks_is_repeated_by_one(project):
    run = project.train("determinism=portable", "trainer.shards=2", "machine.ranks=2")

    done = again(project, run)

    assert done.returncode == 0, done.stdout + done.stderr
    a, b = record.read(run), record.read(project.runs / (project.names() - {run.name}).pop())
    assert (a.environment["ranks"], b.environment["ranks"], b.claim) == (2, 1, "portable")
    assert (a.outcome, a.recipe) == (b.outcome, b.recipe)


def test_what_was_killed_is_never_gone_on_with_and_what_went_on_is_repeated(project):
    """Of one recipe: a run that SIGKILL ended after its first checkpoint, is made again as far as it went, and then goes on."""
    slow_down(project)
    words = ("model=mlp", "model.hidden=[8]", "trainer.epochs=3")
    process = project.start("experiment.train", *words, SLOW="0.05")
    folder = wait_for_steps(project, set(), 30)  # an epoch has 20
    process.kill()
    process.communicate()
    assert checkpoint.found(folder)
    whole = (folder / "record.json").read_bytes()

    as_far = again(project, folder)

    assert as_far.returncode == 0, as_far.stdout + as_far.stderr
    assert as_far.stdout.splitlines()[-1].startswith("identical as far as compared: the first ")
    assert (folder / "record.json").read_bytes() == whole
    assert project.run("experiment.train", *words).returncode == 0
    run = record.read(folder)
    assert (run.state, len(run.resumed), run.resumed[0]["went_on_after_step"]) == ("sealed", 1, 19)
    before = project.names()

    done = again(project, folder)

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith(f"identical: {folder.name} was reproduced bit for bit")
    assert "  resumed 1×" in done.stdout
    new = record.read(project.runs / (project.names() - before).pop())
    assert (new.outcome, new.resumed) == (run.outcome, [])


def test_a_run_that_failed_fails_again_in_the_same_way(project):
    project.edit(
        "src/experiment/trainer.py",
        "loss += part_loss.item()",
        "loss += part_loss.item() if step < 3 else float('nan')",
    )
    run = project.train()
    assert record.read(run).state == "failed"

    done = again(project, run)

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("identical as far as compared: the first 4 steps")


# -------------------------------------------------------------------------------------------- what could not be run


def refused(project, run, *options):
    state, names, temporary = project.state(), project.names(), left_over()
    done = again(project, run, *options)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert (project.state(), project.names(), project.worktrees(), left_over()) == (state, names, 1, temporary)
    return done.stderr


def test_a_changed_file_of_the_run_is_named(project):
    run = project.train()
    for name in ("model.safetensors", "epochs.csv", "trace.bin"):
        whole = (run / name).read_bytes()
        (run / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))

        assert refused(project, run).startswith(f"error: {run / name}")

        (run / name).write_bytes(whole)
    text = (run / "record.json").read_text()
    (run / "record.json").write_text(text.replace('"seed": 0', '"seed": 1'))
    assert "this record was edited" in refused(project, run)
    (run / "record.json").write_text(text[: len(text) // 2])
    assert "expected a record" in refused(project, run)


def test_a_lost_commit_is_named_with_the_way_to_get_it(project):
    run = project.train()
    made = record.read(run)
    made.code["tree"] = "0123456789" * 4
    record.write(run, made)

    said = refused(project, run)

    ref = made.code["ref"]
    assert said == (
        f"error: git tree {made.code['tree']}: expected the recorded code in this repository, found no such object\n"
        f"  next: git push <remote> {ref} where the run was made, then here: git fetch <remote> {ref}:{ref}\n"
    )


def test_the_tree_is_enough_where_the_ref_is_gone(project):
    run = project.train()
    git(project.root, "update-ref", "-d", record.read(run).code["ref"])

    assert again(project, run).returncode == 0


@pytest.mark.parametrize("tree", ["--output=x", "HEAD", "../x", "g" * 40])
def test_a_tree_that_is_no_name_of_one_never_reaches_git(project, tree):
    run = project.train()
    made = record.read(run)
    made.code["tree"] = tree
    record.write(run, made)

    assert refused(project, run) == f"error: the recorded code: expected the name of a git tree, found {tree}\n"


def test_code_that_was_not_captured_is_refused_with_the_reason(project):
    run = project.train()
    made = record.read(run)
    made.code = {"tree": "", "head": "", "dirty": False, "ref": "", "reason": "git is not installed"}
    record.write(run, made)

    assert refused(project, run) == (
        f"error: {run.name}: expected a complete recipe, found no code in it (git is not installed)\n"
    )


@pytest.mark.skipif(os.path.exists("/proc/driver/nvidia/version"), reason="there is a GPU here")
def test_a_run_of_a_gpu_is_refused_where_there_is_none(project):
    run = project.train()
    made = record.read(run)
    made.environment |= {"device": "cuda", "gpu": {"name": "NVIDIA H100"}}
    record.write(run, made)

    assert refused(project, run).startswith(
        f"error: {run.name}: expected a GPU: it was recorded on NVIDIA H100, found none here, and a CPU computes other bits"
    )


def test_other_data_is_refused_before_the_first_step_and_its_file_named(project, tmp_path):
    from PIL import Image

    images = tmp_path / "images"
    for label in ("cat", "dog"):
        (images / label).mkdir(parents=True)
        for n in range(10):
            Image.new("RGB", (8, 8), (n, n * 2, 5 if label == "cat" else 200)).save(images / label / f"{n}.png")
    run = project.train(
        "data=folder", "data.size=8", f"paths.folder={images}", "trainer.batch_size=4", "trainer.epochs=9"
    )
    place = f"paths.folder={images}"
    assert again(project, run, place).returncode == 0
    Image.new("RGB", (8, 8), (77, 0, 0)).save(images / "dog" / "3.png")

    done = again(project, run, place)

    assert done.returncode == 2, done.stdout
    assert "expected the recorded recipe, found other data: dog/3.png: " in done.stderr
    shutil.rmtree(images)
    lost = again(project, run, place)
    assert lost.returncode == 2, lost.stdout
    assert "Traceback" not in lost.stderr


def test_a_run_without_a_step_is_refused(project):
    run = project.train()
    made = record.read(run)
    made.__dict__.update(state="failed", reason="no disk", trace={}, files={}, metrics={}, weights="")
    record.write(run, made)
    (run / "trace.bin").unlink()

    assert (
        refused(project, run)
        == f"error: {run.name}: expected a run with a step to repeat, found failed before the first step\n"
    )


def test_until_without_a_trace_gives_no_verdict(project):
    run = project.train()
    (run / "trace.bin").unlink()

    done = again(project, run, "--until", "3")

    assert done.returncode == 2
    assert "expected a trace to compare with" in done.stderr
    assert again(project, run).returncode == 0  # by the recorded digests


def test_outside_of_a_repository_the_reason_is_git(project, tmp_path):
    run = project.train()
    shutil.rmtree(project.root / ".git")

    done = again(project, run)

    assert done.returncode == 2
    assert done.stderr.startswith(f"error: git tree {record.read(run).code['tree']}: expected the recorded code")


# -------------------------------------------------------------------------------------------------------- interrupted


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_reproduction_leaves_nothing_behind(project, number):
    slow_down(project)
    run = project.train("trainer.max_steps=15")
    before, temporary, state = project.names(), left_over(), project.state()
    process = project.start("verbatim", "reproduce", str(run), SLOW="0.2")
    folder = wait_for_steps(project, before)

    process.send_signal(number)
    process.communicate(timeout=60)

    assert process.returncode == (130 if number == signal.SIGINT else 143)
    assert record.read(folder).state == "interrupted"
    assert (project.worktrees(), left_over(), project.state()) == (1, temporary, state)


def test_what_a_killed_reproduction_left_is_removed_at_the_next_start(project):
    slow_down(project)
    run = project.train("trainer.max_steps=50")
    before, temporary, state = project.names(), left_over(), project.state()
    process = project.start("verbatim", "reproduce", str(run), SLOW="0.2")
    folder = wait_for_steps(project, before)
    process.kill()
    process.wait()
    busy = record.read(folder).environment["process"]["pid"]

    restore.remove_stale(project.root)
    assert project.worktrees() == 2, "the run that goes on still lives in it"
    os.kill(busy, signal.SIGKILL)
    process.communicate()  # its pipes close with it
    restore.remove_stale(project.root)

    assert (project.worktrees(), left_over(), project.state()) == (1, temporary, state)


def test_kept_code_stays_and_the_command_that_removes_it_is_told(project):
    run = project.train()

    done = again(project, run, "--keep")

    (line,) = [line for line in done.stdout.splitlines() if line.startswith("kept ")]
    command = line.partition("to remove it: ")[2]
    restore.remove_stale(project.root)
    assert project.worktrees() == 2
    folder = Path(command.split()[-1])
    assert (folder / "src" / "verbatim" / "record.py").is_file()
    git(project.root, *command.split()[1:])
    shutil.rmtree(folder.parent)
    assert project.worktrees() == 1


def test_a_worktree_of_the_users_is_never_removed(project, tmp_path):
    git(project.root, "worktree", "add", "--quiet", "--detach", str(tmp_path / "mine"))
    shutil.rmtree(tmp_path / "mine")  # on a disk that is not plugged in, say

    restore.remove_stale(project.root)

    assert project.worktrees() == 2


def test_a_json_summary_is_not_mistaken_for_a_record(project):
    (project.root / "other.json").write_text(json.dumps({"a": 1}))

    assert "expected an in-toto Statement of a run, found other JSON" in refused(project, project.root / "other.json")


def test_the_configuration_arrives_as_it_was_recorded(tmp_path):
    """Strings that look like numbers or interpolations, control characters, the places that the record leaves open."""
    from omegaconf import OmegaConf

    from verbatim import launch
    from verbatim.settings import recipe_config

    strings = [
        "1e-3",
        "null",
        "0x10",
        "${oc.env:HOME}",
        "a: b",
        "\x01\x7f\x85\u2028\ufeff",
        "é😀",
        "",
        "on",
        "2030-01-01",
        "\\n",
        "\\${x}",
    ]
    recipe = {
        "s": strings,
        "f": [1e-08, 0.1, 1e300, -0.0],
        "i": 10**30,
        "n": None,
        "b": True,
        "p": "<paths.data>/x",
        "e": {},
    }
    launch.write_config(tmp_path, recipe, {"data": "/somewhere", "runs": "/runs"})

    loaded = OmegaConf.load(tmp_path / "recorded.yaml")

    assert OmegaConf.to_container(loaded, resolve=True)["p"] == "/somewhere/x"
    assert json.dumps(recipe_config(loaded)) == json.dumps(recipe)


def test_scripts_and_modules_are_started_as_they_were(tmp_path):
    from verbatim import launch
    from verbatim.errors import VerbatimError

    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "fit.py").touch()
    python, configs = Path("/env/bin/python"), Path("/configs")

    def words(*recorded):
        return launch.command(list(recorded), tmp_path, python, configs)

    tail = ["--config-dir", "/configs", "--config-name", "recorded", *launch.QUIET]
    assert words("python", "-O", "-m", "my.train", "seed=1") == ["/env/bin/python", "-O", "-m", "my.train", *tail]
    script = str(tmp_path / "jobs" / "fit.py")
    assert words("/usr/bin/python", "/home/me/project/jobs/fit.py", "seed=1") == ["/env/bin/python", script, *tail]
    for wrong in (["python", "../../etc/fit.py"], ["python", "-c", "print(1)"], ["python"]):
        with pytest.raises(VerbatimError):
            words(*wrong)


def test_only_the_recorded_variables_reach_the_bits(monkeypatch, tmp_path):
    from verbatim import launch
    from verbatim.record import Record

    monkeypatch.setenv("MKL_CBWR", "AVX2")
    monkeypatch.setenv("KEEP", "me")
    run = Record(run="r", environment={"variables": {"OMP_NUM_THREADS": "3"}})

    made = launch.variables(run, tmp_path)

    assert "MKL_CBWR" not in made
    assert (made["OMP_NUM_THREADS"], made["KEEP"], made["PYTHONPATH"]) == ("3", "me", str(tmp_path / "src"))


def test_in_an_image_is_refused_where_the_recorded_code_builds_none(project):
    run = project.train()

    done = again(project, run, "--in-image")

    assert done.returncode == 2
    assert done.stderr == (
        "error: the recorded code: expected .devcontainer/Dockerfile in it, found none\n  next: leave --in-image out\n"
    )


def test_in_an_image_without_an_engine_is_refused_and_leaves_nothing(project):
    shutil.copytree(ROOT / ".devcontainer", project.root / ".devcontainer")
    run, temporary = project.train(), left_over()

    done = again(project, run, "--in-image", DOCKER_HOST="unix:///nowhere.sock")

    assert done.returncode == 2
    assert done.stderr.startswith("error: the container engine: expected one that runs, found none: its socket is not")
    assert (project.worktrees(), left_over()) == (1, temporary)
    assert project.names() == {run.name}
