"""Multiruns of the real training, by the command line that a session calls."""

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from conftest import ENVIRONMENT, ROOT, python
from verbatim import checkpoint, record
from verbatim.multirun import best as best_of
from verbatim.multirun import results

SMALL = ("model=mlp", "model.hidden=[8]", "trainer.max_steps=5")


@pytest.fixture
def sweep(tmp_path):
    """`sweep("seed=0,1")`: a multirun of small runs; its process, and what it left."""

    def call(*words, small=SMALL, **variables):
        return python(*command(tmp_path, *small, *words), **variables)

    return call


def command(folder, *words):
    return [
        "-m",
        "experiment.train",
        "--multirun",
        f"paths.runs={folder}/runs",
        f"paths.sweeps={folder}/sweeps",
        *words,
    ]


def left(folder):
    """The results of the one sweep of a folder."""
    (found,) = (folder / "sweeps").glob(f"*/{results.FILE}")
    return json.loads(found.read_text())


def sealed(folder):
    """Recipe → how often it was run to the end."""
    runs = [record.read(path) for path in (folder / "runs").iterdir()]
    return Counter(run.recipe for run in runs if run.state == "sealed")


def table(folder):
    """What a sweep's final table says, without what is of the moment."""
    keys = ("job", "overrides", "state", "value", "metrics", "outcome", "recipe")
    return [
        {key: job[key] for key in keys} | {"epochs": results.epochs(Path(job["folder"]))}
        for job in left(folder)["jobs"]
    ]


def test_every_combination_is_a_run_and_the_answer_is_a_table(sweep, tmp_path):
    done = sweep("seed=0,1", "optimizer.lr=1e-2,1e-3")

    assert done.returncode == 0, done.stdout + done.stderr
    found = left(tmp_path)
    assert [job["overrides"][-2:] for job in found["jobs"]] == [
        ["seed=0", "optimizer.lr=0.01"], ["seed=0", "optimizer.lr=0.001"], ["seed=1", "optimizer.lr=0.01"], ["seed=1", "optimizer.lr=0.001"]
    ]  # fmt: skip
    assert {job["state"] for job in found["jobs"]} == {"sealed"}
    assert found["objective"] == "validation_loss" and found["goal"] == "minimize"
    best = min(found["jobs"], key=lambda job: job["value"])
    assert f"best    {best['value']:.6g}  {best['folder']}" in done.stdout
    assert f"nox -s reproduce -- {best['folder']}" in done.stdout
    assert "mean" in done.stdout  # seeds were swept: their spread
    (page,) = (tmp_path / "sweeps").glob("*/report.html")
    assert best["run"] in page.read_text()


def test_a_job_gives_what_its_command_gives_alone(sweep, train, tmp_path):
    """Whatever the number of jobs at once, their order, their level, and how many threads or ranks they have."""
    several = ("determinism=seeded,exact,portable", "seed=3,4", "machine.ranks=1,2", "trainer.shards=2")
    one, two = sweep("--at-once", "1", *several), sweep("--again", "--at-once", "2", "determinism=portable,exact,seeded", "machine.ranks=2,1", "trainer.shards=2", "seed=4,3")  # fmt: skip

    assert (one.returncode, two.returncode) == (0, 0), one.stdout + two.stdout
    outcomes = {}
    for path in (tmp_path / "sweeps").glob(f"*/{results.FILE}"):
        for job in json.loads(path.read_text())["jobs"]:
            outcomes.setdefault(job["recipe"], set()).add(job["outcome"])
    assert len(outcomes) == 6
    assert all(len(outcome) == 1 for outcome in outcomes.values())
    alone = train(*SMALL, "determinism=portable", "seed=4", "trainer.shards=2")
    assert outcomes[alone.record.recipe] == {alone.record.outcome}
    job = next(job for job in json.loads(path.read_text())["jobs"] if job["recipe"] == alone.record.recipe)
    run = record.read(Path(job["folder"]))
    assert run.environment["variables"] == alone.record.environment["variables"]
    assert run.environment["probe"] == alone.record.environment["probe"]
    assert run.command[1:3] == ["-m", "experiment.train"]
    assert "determinism=portable" in run.overrides


def test_what_is_sealed_is_not_run_again(sweep, train, tmp_path):
    """By whatever command it was made."""
    alone = train(*SMALL, "seed=1")
    done = sweep("seed=0,1")
    assert done.returncode == 0
    assert "1 with a sealed outcome already" in done.stdout
    assert [job["found"] for job in left(tmp_path)["jobs"]] == [False, True]
    assert left(tmp_path)["jobs"][1]["run"] == alone.record.run

    again = sweep("seed=0,1")
    assert "2 with a sealed outcome already" in again.stdout
    assert set(sealed(tmp_path).values()) == {1}

    both = sweep("seed=0,1", "--again")
    assert both.returncode == 0
    assert set(sealed(tmp_path).values()) == {2}


def test_two_jobs_of_one_recipe_are_one_run(sweep, tmp_path):
    done = sweep("seed=0", "machine.workers=1,2", "--at-once", "2")

    assert done.returncode == 0, done.stdout
    assert sealed(tmp_path).total() == 1
    assert len({job["run"] for job in left(tmp_path)["jobs"]}) == 1


def test_another_outcome_of_a_recipe_fails_the_sweep(sweep, tmp_path):
    sweep("seed=0,1")
    job = left(tmp_path)["jobs"][1]
    run = record.read(Path(job["folder"]))
    run.metrics["validation_loss"] += 1e-9
    record.write(Path(job["folder"]), run)

    done = sweep("seed=0,1", "--again")

    assert done.returncode == 1
    assert "≠ job 1" in done.stdout and "≠ job 0" not in done.stdout
    assert left(tmp_path)["jobs"][1]["different"].startswith(job["run"])
    assert "rerun" not in done.stdout  # all are sealed
    for words in (
        ["--again"],
        [],
    ):  # neither a third outcome that is like one of them, nor looking again, makes them one
        done = sweep("seed=0,1", *words)
        assert (done.returncode, "≠ job 1" in done.stdout) == (1, True)


def test_what_is_left_is_rerun_without_the_flag_that_makes_all_again(sweep):
    done = sweep("seed=0", "optimizer.lr=1e-2,1e38", "trainer.max_steps=20", "--again")

    assert done.returncode == 1
    (rerun,) = [line for line in done.stdout.splitlines() if line.startswith("rerun")]
    assert "optimizer.lr=1e-2,1e38" in rerun and "--again" not in rerun


def test_one_failing_job_is_named_and_the_others_go_on(sweep, tmp_path):
    done = sweep("seed=0", "optimizer.lr=1e-2,1e38,1e-3", "trainer.max_steps=20")

    assert done.returncode == 1
    states = [job["state"] for job in left(tmp_path)["jobs"]]
    assert states == ["sealed", "failed", "sealed"]
    assert re.search(
        r"1 failed: the loss of step \d+: expected a finite number.*\n  nox -s train -- .*optimizer.lr=1e\+38",
        done.stdout,
    )
    assert "(1 of 3 jobs are left)" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr

    again = sweep("seed=0", "optimizer.lr=1e-2,1e38,1e-3", "trainer.max_steps=20")  # just that one
    assert "2 with a sealed outcome already" in again.stdout
    assert set(sealed(tmp_path).values()) == {1}


def started(folder, *words):
    """A multirun in the background."""
    return subprocess.Popen([sys.executable, *command(folder, *words)], cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)  # fmt: skip


def wait_for(condition, process=None):
    deadline_s = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline_s
        assert process is None or process.poll() is None, process.stdout.read()
        time.sleep(0.02)


LONG = ("model=mlp", "model.hidden=[8]", "trainer.epochs=400", "machine.checkpoints=0.5")


def steps_of(folder):
    return [path.stat().st_size for path in (folder / "runs").glob("*/trace.bin")]


def killed_at_its_checkpoint(folder, *words):
    """The record of job 0, of which a process was killed, after the multirun ended."""
    process = started(folder, *words)
    wait_for(lambda: any(checkpoint.found(path) for path in (folder / "runs").glob("*")), process)
    victim = next((folder / "runs").iterdir())
    os.kill(record.read(victim).environment["process"]["pid"], signal.SIGKILL)
    out = process.communicate()[0]
    assert process.returncode == 0, out
    assert "job 0 was lost (killed (SIGKILL)" in out
    assert f"{victim.name} (went on)" in out
    assert left(folder)["jobs"][0]["went_on"]
    run = record.read(victim)
    assert run.resumed[0]["ended"] == "killed"
    return run


def test_a_job_whose_process_is_killed_is_started_again_and_goes_on(tmp_path):
    run = killed_at_its_checkpoint(tmp_path, *LONG, "trainer.epochs=150", "seed=0,1", "--at-once", "1")
    assert run.state == "sealed"
    assert sealed(tmp_path).total() == 2


def test_a_job_of_which_one_rank_is_killed_is_started_again(tmp_path):
    killed_at_its_checkpoint(tmp_path, *LONG, "trainer.epochs=60", "seed=0", "machine.ranks=2", "trainer.shards=2")


def test_a_job_that_crashes_has_failed_and_says_how(tmp_path):
    process = started(tmp_path, *LONG, "trainer.epochs=400", "seed=0")
    wait_for(lambda: max(steps_of(tmp_path), default=0) > 10_000, process)
    os.kill(record.read(next((tmp_path / "runs").iterdir())).environment["process"]["pid"], signal.SIGSEGV)
    out = process.communicate()[0]

    assert process.returncode == 1
    assert left(tmp_path)["jobs"][0]["state"] == "failed"
    assert "1 failed: its process was ended by SIGSEGV before its record was sealed" in out
    (log,) = (tmp_path / "sweeps").glob("*/jobs/0.log")
    assert f"# log: {log}" in out
    assert "Fatal Python error: Segmentation fault" in log.read_text()


def test_what_another_multirun_seals_meanwhile_is_found(tmp_path):
    """Two at once, in opposite orders, over the same runs."""
    words = (*LONG[:2], "trainer.epochs=40", "--at-once", "1")
    one = started(tmp_path, *words, "seed=0,1,2,3,4,5")
    other = started(tmp_path, *words, "seed=5,4,3,2,1,0")
    said = [process.communicate()[0] for process in (one, other)]

    assert [one.returncode, other.returncode] == [0, 0], said
    assert len(sealed(tmp_path)) == 6
    assert sealed(tmp_path).total() <= 8  # those that both were at when they met


def test_a_job_that_is_lost_each_time_is_given_up(tmp_path):
    """Killed before it does anything, by a limit that its process has."""
    process = started(tmp_path, *LONG, "seed=0", "multirun.retries=1")
    killed = set()
    while process.poll() is None:
        for path in (tmp_path / "runs").glob("*"):
            with contextlib.suppress(Exception):
                run = record.read(path)
                pid = run.environment["process"]["pid"]
                if run.state == "started" and (path / "trace.bin").exists() and pid not in killed:
                    killed.add(pid)
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    out = process.stdout.read()
    process.stdout.close()

    assert process.returncode == 1
    assert len(killed) == 2
    assert left(tmp_path)["jobs"][0]["state"] == "lost"
    assert "1 lost: killed (SIGKILL)" in out


def test_a_killed_sweep_goes_on_with_the_same_command(tmp_path):
    """SIGKILL at random moments: the same table in the end, and no run twice that was sealed."""
    words = (*LONG[:2], "trainer.epochs=80", "machine.checkpoints=0.5", "seed=0,1,2", "optimizer.lr=1e-2,1e-3")
    whole = tmp_path / "whole"
    undisturbed = started(whole, *words)
    undisturbed.communicate()
    assert undisturbed.returncode == 0

    chance = random.Random(5)
    folder = tmp_path / "killed"
    kills = 0
    while kills < 4:
        process = started(folder, *words)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=chance.uniform(1, 3))
        if process.poll() is not None:
            break
        process.kill()
        process.communicate()
        kills += 1
    last = started(folder, *words)
    out = last.communicate()[0]

    assert kills
    assert last.returncode == 0, out
    assert table(folder) == table(whole)
    assert set(sealed(folder).values()) == {1}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 143)])
def test_a_sweep_that_is_asked_to_end_leaves_checkpoints(tmp_path, number, code):
    process = started(tmp_path, *LONG, "trainer.epochs=100000", "seed=0,1,2")
    wait_for(lambda: max(steps_of(tmp_path), default=0) > 10_000, process)
    process.send_signal(number)
    out = process.communicate()[0]

    assert process.returncode == code
    assert "go on   nox -s multirun -- " in out
    assert "Traceback" not in out
    runs = [record.read(path) for path in (tmp_path / "runs").iterdir()]
    assert {run.state for run in runs} == {"interrupted"}
    assert any(list(path.glob("checkpoints/*.safetensors")) for path in (tmp_path / "runs").iterdir())


def test_a_sweep_that_is_asked_to_end_before_its_jobs_have_begun(tmp_path):
    """Nothing has failed."""
    process = started(tmp_path, *LONG, "seed=0,1")
    wait_for(lambda: list((tmp_path / "sweeps").glob("*/jobs/*.log")), process)
    process.send_signal(signal.SIGINT)
    out = process.communicate()[0]

    assert process.returncode == 130
    assert "failed" not in out and "lost" not in out
    assert {job["state"] for job in left(tmp_path)["jobs"]} <= {"interrupted", "waiting"}


def test_two_at_once_in_one_folder(tmp_path):
    process = started(tmp_path, *LONG, "trainer.epochs=100000", "seed=0,1")
    wait_for(lambda: steps_of(tmp_path), process)
    second = python(*command(tmp_path, *LONG, "trainer.epochs=100000", "seed=0,1"))
    process.terminate()
    process.communicate()

    assert second.returncode == 2
    assert f"expected that no other process is at this sweep, found process {process.pid} of " in second.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["sed=0,1"], "sed: expected one of "),
        (["model=mlp,foo"], "model: expected one of cnn, mlp, vae, vit, found foo"),
        (["seed=0,-1"], "seed: expected a whole number of at least 0"),
        (["seed=range(0,1000000)"], "found 1,000,000\n  next: if they are meant, add --limit 1000000"),
        (["seed=range(0,1000)", "optimizer.lr=1e-2,1e-3"], "expected at most 1,000 jobs, found 2,000"),
        (["seed=0,1", "multirun.objective=test_loss"], "multirun.objective: expected a metric of the validation part"),
        (["seed=0,1", "multirun.objective=accuracy"], "found accuracy\n  next: did you mean multirun.objective=validation_accuracy?"),
        (["seed=0,1", "multirun.objective=test_accuracy"], "next: did you mean multirun.objective=validation_accuracy?"),
        (["seed=0,1", "multirun.objective=steps"], "multirun.objective: expected a metric of the validation part"),
        (["seed=0,1", "multirun.objective=validation_f1"], "multirun.goal: expected minimize or maximize, for validation_f1, found auto"),
        (["seed=0,1", "hydra/launcher=basic"], "hydra/launcher: expected local, slurm or ray, found BasicLauncher"),
        (["seed=0,1", "hydra/sweeper=basic"], "hydra/sweeper: expected grid or optuna, found another"),
        (["seed=0,1", "--agin"], "error: --agin: expected one of --again, --at-once, --limit, --help, or a setting, found no such flag\n  next: did you mean --again?"),
        (["seed=0,1", "--at-once", "0"], "error: --at-once: expected a whole number of at least 1, found 0\n  next: --at-once 2, say"),
        (["seed=0,1", "--limit", "few"], "error: --limit: expected a whole number of at least 1, found few"),
        (["seed=0,1", "hydra/launcher=slurm", "hydra.launcher.partion=gpu"], "found no key `partion` there\n  next: did you mean hydra.launcher.partition?"),
        (["hydra/sweeper=optuna", "hydra.sweeper.sampler=grid", "hydra.sweeper.n_trials=null", "seed=range(0,2000000000)"], "found 2,000,000,000"),
        (["hydra/sweeper=optuna", "sweep=seeds,learning_rate"], "expected one file of configs/sweep/, found several"),
        (["seed=0,1", "hydra/launcher=slrm"], "hydra/launcher: expected one of "),
        (["optimizer.lr=interval(0,1)"], "add hydra/sweeper=optuna"),
        (["sweep=search", "hydra/sweeper=grid"], "add hydra/sweeper=optuna"),
        (["seed=0,1", "paths.sweeps=/proc/none"], "expected a folder that can be written to"),
        (["seed=range(5,0)"], "the sweep: expected a job, found none"),
        (["optimizer.lr=range(0.1,3e9,1e-3)"], "expected at most 1,000 jobs, found "),
        (["sweep=seeds,learning_rate"], "sweep=seeds,learning_rate: expected one file of configs/sweep/, found several"),
        (["sweep=none_such"], "sweep: expected one of learning_rate, search, seeds, found none_such"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_bad_input_is_refused_in_one_line(sweep, tmp_path, words, says):
    done = sweep(*words)

    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert not (tmp_path / "runs").exists()
    assert not list((tmp_path / "sweeps").glob("*"))


def test_an_objective_that_no_run_gave_loses_nothing(sweep, tmp_path):
    one = sweep("seed=0,1", "multirun.objective=validation_losses")

    assert one.returncode == 1
    assert [job["state"] for job in left(tmp_path)["jobs"]] == ["sealed", "sealed"]
    assert "multirun.objective: expected one of validation_loss, validation_accuracy: what the runs gave, found validation_losses, which 2 of them did not" in one.stdout  # fmt: skip
    best = python("-m", "verbatim", "best", "--sweeps", str(tmp_path / "sweeps"))
    assert (best.returncode, "found validation_losses, which 2 of them did not" in best.stderr) == (2, True)
    two = sweep("seed=0,1")
    assert (two.returncode, two.stdout.count("2 with a sealed outcome already")) == (0, 1)
    assert set(sealed(tmp_path).values()) == {1}


@pytest.mark.parametrize("flags", [["--cfg", "job"], ["--cfg=job", "--again", "--at-once", "2"]])
def test_the_configuration_is_shown_where_it_is_asked_for(sweep, tmp_path, flags):
    done = sweep("seed=0,1", "optimizer.lr=0.02", *flags)

    assert done.returncode == 0, done.stderr
    assert "lr: 0.02" in done.stdout
    assert not (tmp_path / "runs").exists()


def test_a_sweep_kept_as_a_file(sweep, tmp_path):
    done = sweep("sweep=seeds", "seed=1,2")  # the command line has the last word

    assert done.returncode == 0
    assert [job["overrides"][0] for job in left(tmp_path)["jobs"]] == ["seed=1", "seed=2"]


def test_a_sweeps_file_may_say_more_than_what_is_swept_over(sweep, tmp_path):
    (tmp_path / "more" / "sweep").mkdir(parents=True)
    text = "# @package _global_\noptimizer: {lr: 0.5}\nhydra: {sweeper: {params: {seed: '0,1'}}}\n"
    (tmp_path / "more" / "sweep" / "short.yaml").write_text(text)
    done = sweep("--config-dir", str(tmp_path / "more"), "sweep=short")

    assert done.returncode == 0, done.stderr
    runs = [record.read(path) for path in (tmp_path / "runs").iterdir()]
    assert [run.config["optimizer"]["lr"] for run in runs] == [0.5, 0.5]


def test_a_search_kept_as_a_file(sweep, tmp_path):
    done = sweep("sweep=search", "hydra.sweeper.n_trials=2")

    assert done.returncode == 0, done.stderr
    keys = [[word.partition("=")[0] for word in job["overrides"]][-2:] for job in left(tmp_path)["jobs"]]
    assert keys == [["optimizer.lr", "model.dropout"]] * 2


def test_each_job_reads_the_configuration_that_was_named_and_reads_it_anew(sweep, tmp_path):
    """It lies outside the code: that the command is the same says nothing of it."""
    words = ("optimizer.lr=1e-2,1e-3", "--config-dir", str(tmp_path), "--config-name=mine", "--at-once", "1")
    for seed in (7, 8):
        (tmp_path / "mine.yaml").write_text(f"defaults:\n  - train\n  - _self_\nseed: {seed}\n")
        done = sweep(*words)

        assert done.returncode == 0, done.stderr
        jobs = left(tmp_path)["jobs"]
        runs = [record.read(Path(job["folder"])) for job in jobs]
        assert [run.seed for run in runs] == [seed, seed]
        assert runs[0].command[3:5] == [f"--config-dir={tmp_path}", "--config-name=mine"]
        assert jobs[0]["train"].startswith(f"nox -s train -- --config-dir={tmp_path} --config-name=mine ")


def test_a_setting_from_the_environment_is_asked_for_each_time(sweep, tmp_path):
    for rate in ("1e-2", "1e-3", "1e-3"):
        done = sweep("optimizer.lr=${oc.env:RATE}", RATE=rate)
        assert done.returncode == 0, done.stderr
        run = record.read(Path(left(tmp_path)["jobs"][0]["folder"]))
        assert run.config["optimizer"]["lr"] == float(rate)
    assert sealed(tmp_path).total() == 2


def test_of_a_code_that_nobody_knows_nothing_is_found(sweep, tmp_path):
    for found in (1, 2):
        done = sweep("seed=0", PATH=str(tmp_path))  # no git there
        assert done.returncode == 0, done.stderr
        assert "sealed outcome already" not in done.stdout
        assert len(list((tmp_path / "runs").iterdir())) == found


def test_a_search_says_what_it_found_not_what_it_has_just_run(sweep):
    search = ("hydra/sweeper=optuna", "hydra.sweeper.sampler=grid", "hydra.sweeper.at_once=1", "seed=0,1")
    assert "sealed outcome already" not in sweep(*search).stdout
    assert "2 jobs, 2 with a sealed outcome already" in sweep(*search).stdout


def test_a_full_disk_ends_the_sweep_and_it_goes_on_where_there_is_room(small_disk):
    small = small_disk("400k")
    words = (*SMALL, "model.hidden=[64]", "seed=range(0,6)")
    done = python(*command(small, *words))
    assert done.returncode in (1, 2), done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert "none left" in done.stdout + done.stderr

    subprocess.run(["mount", "-o", "remount,size=64m", small], check=True)
    again = python(*command(small, *words))
    assert again.returncode == 0, again.stdout + again.stderr
    assert set(sealed(small).values()) == {1}


def test_a_full_disk_under_the_sweep_alone_hides_no_answer(sweep, small_disk):
    done = sweep("seed=0,1", f"paths.sweeps={small_disk('36k')}")

    assert done.returncode == 2
    assert "best    " in done.stdout
    assert done.stderr.count("expected room on the disk, found none left") == 1
    assert "Traceback" not in done.stdout + done.stderr


def test_code_that_changes_meanwhile_is_told(tmp_path):
    marker = ROOT / "src" / "experiment" / f"untracked_{os.getpid()}.py"
    process = started(tmp_path, *LONG, "trainer.epochs=150", "seed=0,1")
    try:
        wait_for(lambda: steps_of(tmp_path), process)
        marker.write_text("# a file that git does not know\n")
        out = process.communicate()[0]
    finally:
        marker.unlink(missing_ok=True)

    assert process.returncode == 1
    assert f"src/experiment/{marker.name} changed while the jobs ran" in out
    again = python(*command(tmp_path, *LONG, "trainer.epochs=150", "seed=0,1"))
    assert "with a sealed outcome already" in again.stdout  # by the code as it was


def test_code_that_nobody_knows_is_like_no_other(sweep, tmp_path):
    """Without git there is no recipe to find a run by."""
    done = [sweep("seed=0,1", PATH=str(tmp_path)) for _ in range(2)]

    assert [d.returncode for d in done] == [0, 0], done[0].stdout
    assert "already" not in done[1].stdout


def test_best_names_the_best_run_and_what_makes_it_again(sweep, tmp_path, capsys):
    sweep("seed=0,1,2", "multirun.objective=validation_accuracy")
    jobs = left(tmp_path)["jobs"]
    best = max(jobs, key=lambda job: (job["value"], -job["job"]))

    for name in ("latest", left(tmp_path)["sweep"]):
        done = python("-m", "verbatim", "best", name, "--sweeps", str(tmp_path / "sweeps"))
        assert done.returncode == 0, done.stderr
        assert best["folder"] in done.stdout
        assert f"nox -s evaluate -- run={best['folder']}" in done.stdout
    lines = python(
        "-m", "verbatim", "best", "latest", "-n", "2", "--json", "--sweeps", str(tmp_path / "sweeps")
    ).stdout.splitlines()
    assert json.loads(lines[0])["run"] == best["run"]
    assert len(lines) == 2

    assert best_of.main([], tmp_path) == 0  # the one that somebody was last at
    assert re.search(rf"^report +sweeps/{left(tmp_path)['sweep']}/report.html", capsys.readouterr().out, re.MULTILINE)

    run = record.read(Path(best["folder"]))
    run.metrics["validation_accuracy"] = 1.0
    record.write(Path(best["folder"]), run)
    edited = python("-m", "verbatim", "best", "latest", "--sweeps", str(tmp_path / "sweeps"))
    assert edited.returncode == 2
    assert f"expected the outcome {best['outcome']}" in edited.stderr
    missing = python("-m", "verbatim", "best", "none", "--sweeps", str(tmp_path / "sweeps"))
    assert missing.returncode == 2
    assert "expected a sweep's folder" in missing.stderr
