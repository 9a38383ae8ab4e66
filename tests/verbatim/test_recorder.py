import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from omegaconf import OmegaConf

from conftest import ENVIRONMENT, ROOT, python
from verbatim import record, trace
from verbatim.errors import VerbatimError
from verbatim.folders import claim, runs_folder
from verbatim.settings import recipe_config

SCRIPT = """
import sys
from omegaconf import OmegaConf
import verbatim
from verbatim import app

@app.task
def main(config):
    with verbatim.run(config) as run:
        import torch
        model = torch.nn.Linear(2, 1)
        run.uses("sha256:" + "0" * 64, {})
        run.watches(dict(model.named_parameters()), {})
        for step in range(config.steps):
            model(torch.ones(4, 2)).sum().backward()
            run.trace(step, torch.arange(4), 0.5)
            BODY
        run.save("model.safetensors", model.state_dict())
        run.finish(model.state_dict(), score=1.0)

main(OmegaConf.create({"seed": 0, "steps": 5, "determinism": {"level": "exact", "threads": 1},
                       "trace": {"parameters_every": 2}, "paths": {"runs": sys.argv[1]}}))
"""


def script(runs, body="pass", **variables):
    """A user's own training script, with `body` in its loop."""
    return python("-c", SCRIPT.replace("BODY", body), str(runs), **variables)


def only(runs):
    (folder,) = runs.iterdir()
    return folder, record.read(folder)


def test_an_own_script_is_recorded_by_a_few_lines(runs):
    done = script(runs)
    folder, run = only(runs)

    assert (done.returncode, done.stderr) == (0, "")
    assert run.state == "sealed"
    assert run.outcome.startswith("sha256:")
    assert run.recipe.startswith("sha256:")
    assert trace.Reader(folder / "trace.bin").digest == run.trace["digest"]
    assert run.trace["rows"] == 5
    assert set(run.files) == {"config.yaml", "curves.svg", "model.safetensors", "trace.bin"}
    assert run.environment["probe"].startswith("sha256:")
    assert run.environment["threads"] == 1
    assert run.environment["variables"]["OMP_NUM_THREADS"] == "1"
    assert run.lock["differences"] == []


@pytest.mark.parametrize(
    ("body", "code", "state", "reason"),
    [
        ("if step == 3: raise RuntimeError('boom')", 1, "failed", "RuntimeError: boom at step 3"),
        ("if step == 2: raise KeyboardInterrupt", 130, "interrupted", "Ctrl-C at step 2"),
        (
            "if step == 2: import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
            143,
            "interrupted",
            "SIGTERM at step 2",
        ),
        (
            "if step == 2: import os, signal; os.kill(os.getpid(), signal.SIGHUP)",
            143,
            "interrupted",
            "SIGHUP at step 2",
        ),
        ("if step == 2: sys.exit(7)", 7, "failed", "SystemExit: 7 at step 2"),
        ("if step == 4: return", 0, "failed", "the script ended without run.finish() at step 4"),
        (
            "run.trace(step + 1, torch.arange(4), float('nan'))",
            2,
            "failed",
            "the loss of step 1: expected a finite number",
        ),
    ],
)
def test_a_run_that_ends_early_is_sealed_with_its_reason(runs, body, code, state, reason):
    done = script(runs, body)
    folder, run = only(runs)

    assert done.returncode == code, done.stderr
    assert (run.state, run.outcome) == (state, "")
    assert run.reason.startswith(reason)
    assert trace.Reader(folder / "trace.bin").digest == run.trace["digest"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_record_is_sealed_breaks_no_seal(runs, number):
    plant = f"""if step == 0:
                import os
                from verbatim import record
                plain = record.write
                def write(folder, run, **more):
                    if run.state == "sealed": os.kill(os.getpid(), {int(number)})
                    plain(folder, run, **more)
                record.write = write"""
    done = script(runs, plant)

    assert (done.returncode, only(runs)[1].state) == (0, "sealed"), done.stderr


def test_a_killed_run_leaves_its_record_and_every_row_it_finished(runs):
    done = script(runs, "if step == 3: import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    folder, run = only(runs)

    assert done.returncode == -signal.SIGKILL
    assert run.state == "started"
    assert run.recipe.startswith("sha256:")
    assert trace.Reader(folder / "trace.bin").rows == 4


def test_an_interrupt_at_any_moment_leaves_a_readable_record(runs, train):
    """Ctrl-C after 0.1, 0.3, … seconds: in the configuration, in torch's import, in training."""
    command = [sys.executable, "-m", "experiment.train", f"paths.runs={runs}", "trainer.epochs=1000"]
    for delay_s in (0.1, 0.3, 0.5, 0.8, 1.2, 2.0, 3.0):
        process = subprocess.Popen(
            command, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(delay_s)
        process.send_signal(signal.SIGINT)
        # Before there is a run, Python's own start may still answer with its code for SIGINT.
        assert process.wait(30) in (130, 1, -signal.SIGINT)

    states = {record.read(folder).state for folder in runs.iterdir()}
    assert states == {"interrupted"}


def test_the_same_script_has_the_same_outcome(runs):
    for _ in range(3):
        script(runs)

    found = [record.read(folder) for folder in runs.iterdir()]
    assert len({run.outcome for run in found}) == 1
    assert len({run.run for run in found}) == 3


def test_64_runs_that_start_in_the_same_second_have_64_folders(tmp_path):
    with ThreadPoolExecutor(64) as pool:
        folders = list(pool.map(lambda _: claim(tmp_path / "runs"), range(64)))

    assert len(set(folders)) == 64
    assert len(list((tmp_path / "runs").iterdir())) == 64


def test_a_runs_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(VerbatimError) as error:
        claim(tmp_path / "file" / "runs")

    assert str(error.value) == (
        f"paths.runs={tmp_path}/file/runs: expected a folder that can be written to, found Not a directory\n"
        "  next: add paths.runs=…"
    )


def test_runs_lie_in_the_project_whatever_the_current_folder_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert runs_folder("runs", ROOT) == ROOT / "runs"
    assert runs_folder("/elsewhere") == (ROOT / "/elsewhere")


def test_places_are_no_part_of_the_recipe():
    def config(data):
        return OmegaConf.create(
            {"seed": 0, "data": {"folder": "${paths.data}", "in": "${paths.data}/x"}, "paths": {"data": data}}
        )

    assert recipe_config(config("/a")) == recipe_config(config("/b"))
    assert recipe_config(config("/a"))["data"]["in"] == "<paths.data>/x"
    assert "paths" not in recipe_config(config("/a"))


def test_a_full_disk_leaves_the_earlier_files_whole_and_the_record_sealed(small_disk):
    disk = small_disk("600k")
    done = script(disk / "runs", "run.save(f'step{step}.safetensors', {'w': torch.zeros(40_000)})")
    folder, run = only(disk / "runs")

    assert done.returncode == 2
    assert f"error: {folder}/step" in done.stderr
    assert "expected room on the disk, found none left; what was written before is whole" in done.stderr
    assert "Traceback" not in done.stderr
    assert run.state == "failed"
    assert "none left" in run.reason
    whole = sorted(folder.glob("*.safetensors"))
    assert whole
    assert {path.stat().st_size for path in whole} == {whole[0].stat().st_size}
    assert not list(folder.glob(".*"))


def test_a_disk_without_room_to_begin_leaves_no_run(small_disk):
    disk = small_disk("4k")
    done = python("-m", "experiment.train", f"paths.runs={disk}/runs")  # its record takes more

    assert done.returncode == 2
    assert "expected room on the disk, found none left" in done.stderr
    assert list((disk / "runs").rglob("*")) == []
