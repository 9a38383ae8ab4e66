import io
from pathlib import Path

import pytest
from rich.console import Console

from verbatim import trace
from verbatim.multirun import results
from verbatim.multirun.folder import Folder
from verbatim.multirun.table import Table


@pytest.fixture(autouse=True)
def of_training(monkeypatch):
    monkeypatch.setattr("sys.orig_argv", ["python", "-m", "experiment.train", "--multirun"])


def test_commands_are_whole_on_a_narrow_terminal(tmp_path):
    job = results.Job(index=0, words=["seed=0"], state="sealed", value=1.0, folder="runs/" + "a" * 60).plain()
    waiting = results.Job(index=1, words=["seed=1"]).plain()
    command = "nox -s multirun -- seed=0,1 " + "paths.runs=somewhere/else/" * 3
    table = Table(tmp_path, "validation_loss", "minimize")
    table.console = Console(file=io.StringIO(), width=40, force_terminal=True, color_system=None)
    table.conclude({"jobs": [job, waiting], "goal": "minimize", "command": command, "rerun": command}, stopped=True)
    lines = table.console.file.getvalue().splitlines()

    assert f"again   {job['again']}" in lines
    assert f"go on   {command}  (1 of 2 jobs are left)" in lines


def shown(width, jobs, **more):
    table = Table(Path("sweeps/one"), "validation_loss", "minimize")
    table.console = Console(file=io.StringIO(), width=width)
    table.conclude({"jobs": jobs, "goal": "minimize", "command": "", "rerun": "", **more}, stopped=False)
    return table.console.file.getvalue()


def test_a_runs_folder_is_whole_on_a_terminal_of_80_columns():
    jobs = [
        results.Job(
            index=i, words=["trainer.epochs=3", "optimizer.lr=0.01", "model.hidden=[256,256,128]", f"seed={i}"],
            state="sealed", value=0.5 + i, wall_s=123.4, outcome="sha256:" + "0" * 64, folder=f"runs/20261124T220512Z-{i:08x}",
        ).plain() for i in range(3)
    ]  # fmt: skip
    lines = shown(80, jobs).splitlines()

    for i in range(3):
        assert f"123.4 s  runs/20261124T220512Z-{i:08x}" in lines[1 + i]
    assert max(len(line) for line in lines[:4]) <= 80


def test_what_was_searched_is_rounded_to_be_read_and_whole_to_be_copied():
    words = [[f"optimizer.lr=0.0181200107233413{i}", f"seed={seed}"] for i in (1, 2) for seed in (0, 1)]
    jobs = [results.Job(index=i, words=w, state="sealed", value=0.5 + i, folder=f"runs/{i}").plain() for i, w in enumerate(words)]  # fmt: skip
    said = shown(200, [*jobs, results.Job(index=4, words=words[0], state="failed", reason="no").plain()])

    assert said.count("optimizer.lr=0.01812 ") == 4 + 2 + 1  # all jobs, the spread, the best
    assert "  nox -s train -- optimizer.lr=0.01812001072334131 seed=0" in said


def test_jobs_that_failed_for_one_reason_are_told_together_whatever_the_step():
    jobs = [
        results.Job(index=i, words=[f"seed={i}"], state="failed", reason=f"the loss of step {i}: expected a finite number").plain()
        for i in range(8)
    ]  # fmt: skip
    lines = shown(200, jobs).splitlines()

    assert lines[:2] == [
        "8 failed: the loss of step 0: expected a finite number",
        "  nox -s train -- seed=0  # log: sweeps/one/jobs/0.log",
    ]
    assert lines[6] == "  3 more: the report has them all"


def test_a_run_that_went_on_or_was_found_is_told_as_such():
    jobs = [results.Job(index=i, words=[f"seed={i}"], state="sealed", value=0.5 + i, folder=f"runs/{i}") for i in range(3)]  # fmt: skip
    jobs[1].went_on = jobs[2].found = True
    table = lines_of(jobs)
    table.ended(jobs[1])

    assert table.console.file.getvalue().endswith("3/3  sealed  seed=1  validation_loss 1.5  runs/1 (went on)\n")
    rows = [line.rstrip() for line in shown(200, [job.plain() for job in jobs]).splitlines()[1:4]]
    assert [row[row.index("runs/") :] for row in rows] == ["runs/0", "runs/1 (went on)", "runs/2 (found)"]


def test_without_a_terminal_it_is_told_once_how_many_run_at_once():
    table = lines_of([results.Job(index=i, words=[f"seed={i}"]) for i in range(6)])
    table.starting(2)
    table.starting(2)  # the next batch of a search

    assert table.console.file.getvalue().splitlines() == ["sweeps/one: 6 jobs", "up to 2 at a time; a line for each when it ends"]  # fmt: skip


def lines_of(jobs):
    table = Table(Path("sweeps/one"), "validation_loss", "minimize")
    table.console = Console(file=io.StringIO(), width=200)
    table.begin(jobs, jobs, 0, continued=False)
    return table


class Progress(Table):
    """On a terminal of so many columns: what is drawn."""

    def __init__(self, width, jobs):
        super().__init__(Path("sweeps/one"), "validation_loss", "minimize")
        self.console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
        self.begin(jobs, jobs, 0, continued=False)

    def drawn(self, running, folder):
        self.console.file.truncate(0)
        self.draw(running, folder)
        return self.console.file.getvalue()


def test_running_jobs_are_told_apart_on_a_narrow_terminal(tmp_path):
    folder = Folder(tmp_path, {"command": []})
    jobs = [results.Job(index=i, words=["model.hidden=[256,256,128]", "optimizer.lr=0.01", f"seed={i}"], state="running") for i in range(2)]  # fmt: skip
    jobs[0].words[1] = "optimizer.lr=0.1"
    run = tmp_path / "run"
    run.mkdir()
    (run / "trace.bin").write_bytes(bytes(trace.HEADER_BYTES + 5 * trace.ROW_BYTES))
    folder.at(1).write_text(str(run))
    folder.at(1).with_suffix(".steps").write_text("10")
    table = Progress(80, jobs)
    said = table.drawn(jobs, folder)
    table.stop()
    folder.close()

    assert "  0  optimizer.lr=0.1 seed=0   queued" in said
    assert "  1  optimizer.lr=0.01 seed=1  ━━━━━━" in said
    assert "0/2" in said
