"""The script that people copy does what the README says of one's own: recorded, swept, gone on with, made again."""

import signal
import subprocess
import sys

import pytest

from conftest import ENVIRONMENT, ROOT
from verbatim import checkpoint, record

LONG = ("steps=4000", "machine.checkpoints=0.9")


def line(folder, *words, kill_at=None):
    """`kill_at`: a signal, sent once there is a checkpoint."""
    command = [
        sys.executable,
        "-m",
        "experiment.line",
        f"paths.runs={folder}/runs",
        f"paths.sweeps={folder}/sweeps",
        *words,
    ]
    process = subprocess.Popen(
        command, cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while kill_at and process.poll() is None:
        if any(
            (run / "trace.bin").exists() and (run / "trace.bin").stat().st_size > 20_000
            for run in (folder / "runs").glob("*")
        ):
            process.send_signal(kill_at)
            kill_at = None
    out, err = process.communicate()
    return process.returncode, out, err


def runs(folder):
    return [record.read(path) for path in sorted((folder / "runs").iterdir())]


def test_a_run_is_sealed_and_a_second_one_gives_the_same(tmp_path):
    for _ in range(2):
        code, out, err = line(tmp_path, "steps=50")
        assert (code, err) == (0, "")
    first, second = runs(tmp_path)

    assert first.state == second.state == "sealed"
    assert first.outcome == second.outcome
    assert first.outcome in out
    assert first.metrics.keys() == {"validation_loss"}


def test_a_run_that_was_asked_to_end_goes_on_to_the_same_outcome(tmp_path):
    code, _, err = line(tmp_path, *LONG, kill_at=signal.SIGTERM)
    assert code == 143
    assert "Traceback" not in err
    assert checkpoint.found(tmp_path / "runs" / runs(tmp_path)[0].run)
    code, _, err = line(tmp_path, *LONG)
    assert code == 0, err
    (went_on,) = runs(tmp_path)
    assert went_on.state == "sealed"
    assert went_on.resumed

    (tmp_path / "other").mkdir()
    code, _, err = line(tmp_path / "other", *LONG)
    assert code == 0, err
    assert runs(tmp_path / "other")[0].outcome == went_on.outcome


def test_a_sweep_of_it_is_made_and_names_commands_that_work(tmp_path):
    code, out, err = line(tmp_path, "--multirun", "lr=0.1,1e30", "seed=0,1", "steps=50")

    assert code == 1, err
    assert [run.state for run in runs(tmp_path)].count("sealed") == 2
    assert "validation_loss over seeds" in out
    assert (
        f"{sys.executable if not sys.executable.startswith(str(ROOT)) else sys.executable[len(str(ROOT)) + 1 :]} -m experiment.line --multirun"
        in out
    )
    assert "nox -s multirun" not in out


@pytest.mark.parametrize("words", [("hydra/launcher=basic", "hydra/sweeper=basic"), ("hydra/launcher=basic",)])
def test_hydras_own_launcher_is_refused(tmp_path, words):
    code, _, err = line(tmp_path, "--multirun", "lr=0.1,0.2", *words)

    assert code == 2
    assert "hydra/launcher: expected local, slurm or ray, found" in err


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("seed=abc", "seed: expected a whole number, found abc"),
        ("seed=-1", "seed: expected"),
        ("machine.checkpoints=7", "machine.checkpoints: expected"),
        ("determinism=portible", "did you mean determinism=portable"),
        ("ler=1", "ler"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(tmp_path, word, says):
    code, _, err = line(tmp_path, word)

    assert code == 2
    assert says in err
    assert "Traceback" not in err


def test_without_a_fixed_hash_seed_nothing_is_recorded(tmp_path):
    script = tmp_path / "own.py"
    script.write_text(
        "import verbatim\nfrom omegaconf import OmegaConf\n"
        f"config = OmegaConf.create({{'seed': 0, 'determinism': {{'level': 'exact', 'threads': 1}}, 'paths': {{'runs': {str(tmp_path / 'runs')!r}}}, 'trace': {{'parameters_every': 0}}}})\n"
        "with verbatim.run(config) as run: pass\n"
    )
    environment = {**ENVIRONMENT, "PYTHONHASHSEED": "random"}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "PYTHONHASHSEED: expected a number, before Python starts" in done.stderr
    assert not (tmp_path / "runs").exists()
