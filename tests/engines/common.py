"""What every engine must do, seen on a real one: plain commands first, then runs. The tests of each engine stand on this."""

import dataclasses
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import ROOT, python
from verbatim import record
from verbatim.multirun.jobs import Engine, Job

LIMIT_S = 240.0
RUN = ("trainer.epochs=1", "trainer.max_steps=12", "determinism.threads=1")
SEEDS = (0, 1, 2, 3)
CHECKPOINT = """
import pathlib, signal, sys, time
def leave(*_):
    pathlib.Path("checkpoint").write_text("here")
    sys.exit(143)
signal.signal(signal.SIGTERM, leave)
pathlib.Path("started").touch()
while True: time.sleep(0.1)
"""


def job(folder: Path, index: int, *command: str, **given: object) -> Job:
    """Its working directory is a folder of its own."""
    own = folder / str(index)
    own.mkdir(parents=True, exist_ok=True)
    places = {"folder": own, "at": folder / f"{index}.run", "log": folder / f"{index}.log"}
    return Job(index=index, words=(), command=command, **{**places, **given})


def script(folder: Path, index: int, text: str, **given: object) -> Job:
    return job(folder, index, sys.executable, "-c", text, **given)


def waited(engine: Engine, number: int) -> dict[int, str]:
    """Job → why it was lost, of as many as shall end."""
    found: dict[int, str] = {}
    deadline_s = time.monotonic() + LIMIT_S
    while len(found) < number:
        for ended in engine.wait(5.0):
            assert ended.index not in found
            found[ended.index] = ended.lost
        assert time.monotonic() < deadline_s, found
    return found


def until(condition: object) -> None:
    deadline_s = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.1)


def training(folder: Path, runs: Path, index: int, *words: str, **given: object) -> Job:
    command = (sys.executable, "-m", "experiment.train", f"paths.runs={runs}", *RUN, f"seed={index}", *words)
    variables = {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}", "PYTHONHASHSEED": "0"}
    return dataclasses.replace(job(folder, index, *command, environment=variables, **given), folder=ROOT)


def outcomes(runs: Path) -> dict[int, str]:
    found = [record.read(path) for path in runs.iterdir()]
    assert {run.state for run in found} == {"sealed"}
    return {run.seed: run.outcome for run in found}


@pytest.fixture(scope="session")
def direct(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """Outcomes of the same runs, made without an engine."""
    runs = tmp_path_factory.mktemp("direct") / "runs"
    for seed in SEEDS:
        done = python("-m", "experiment.train", f"paths.runs={runs}", *RUN, f"seed={seed}")
        assert done.returncode == 0, done.stderr
    return outcomes(runs)


class Common:
    """A subclass has a fixture `engine`."""

    @pytest.fixture(autouse=True)
    def _closed(self, engine: Engine) -> Iterator[None]:
        yield
        engine.close()

    def test_jobs_run_in_their_folder_with_their_variables_and_log(self, engine, tmp_path, monkeypatch):
        monkeypatch.setenv("FROM_HERE", "seen")
        text = """if True:
            import os, sys
            print("to stdout"); print("to stderr", file=sys.stderr)
            open("written", "w").write(os.environ["FROM_HERE"] + os.environ["OWN"] + os.environ["VERBATIM_JOB"])
            """
        jobs = [script(tmp_path, i, text, environment={"OWN": f" own{i} "}) for i in range(3)]
        engine.start(jobs)

        assert waited(engine, 3) == {0: "", 1: "", 2: ""}
        for one in jobs:
            assert (one.folder / "written").read_text() == f"seen own{one.index} {one.at}"
            assert sorted(one.log.read_text().split("\n")) == ["", "to stderr", "to stdout"]
        assert engine.wait(0.1) == []

    def test_a_log_is_appended_to(self, engine, tmp_path):
        one = script(tmp_path, 0, "print('second')")
        one.log.write_text("first\n")
        engine.start([one])

        assert waited(engine, 1) == {0: ""}
        assert one.log.read_text() == "first\nsecond\n"

    def test_who_fails_has_ended_and_who_is_killed_is_lost(self, engine, tmp_path):
        killed = "killed (SIGKILL): out of memory, or by a person"
        asked = "asked to end (SIGTERM): its time limit, preemption, or a person"
        endings = {
            "raise SystemExit(1)": "",
            "raise SystemExit(2)": "",
            "1 / 0": "",
            f"import os; os.kill(os.getpid(), {signal.SIGSEGV:d})": "",
            f"import os; os.kill(os.getpid(), {signal.SIGKILL:d})": killed,
            "raise SystemExit(137)": killed,
            f"import os; os.kill(os.getpid(), {signal.SIGTERM:d})": asked,
            "raise SystemExit(143)": asked,
        }
        jobs = [script(tmp_path, index, text) for index, text in enumerate(endings)]
        engine.start(jobs)

        assert waited(engine, len(jobs)) == dict(enumerate(endings.values()))
        assert "ZeroDivisionError" in jobs[2].log.read_text()

    def test_a_command_that_is_not_there_has_ended_and_its_log_says_why(self, engine, tmp_path):
        one = job(tmp_path, 0, "/no/such/command")
        engine.start([one])

        assert waited(engine, 1) == {0: ""}
        assert "No such file or directory" in one.log.read_text()

    def test_stop_lets_jobs_leave_checkpoints_and_drops_those_that_wait(self, engine, tmp_path):
        jobs = [script(tmp_path, index, CHECKPOINT) for index in range(6)]  # more than there are cores
        engine.start(jobs)
        until(lambda: sum((one.folder / "started").exists() for one in jobs) >= 2)
        engine.stop()

        assert sorted(waited(engine, 6)) == list(range(6))
        begun = [one for one in jobs if (one.folder / "started").exists()]
        assert 2 <= len(begun) < 6
        assert all((one.folder / "checkpoint").read_text() == "here" for one in begun)

    def test_stop_ends_those_that_do_not_listen(self, engine, tmp_path, monkeypatch):
        text = "import pathlib, signal, time; signal.signal(15, signal.SIG_IGN); pathlib.Path('started').touch(); time.sleep(1000)"
        self.short_grace(monkeypatch)
        one = script(tmp_path, 0, text)
        engine.start([one])
        until((one.folder / "started").exists)
        engine.stop()

        assert waited(engine, 1)[0]

    def test_close_ends_what_runs(self, engine, tmp_path):
        one = script(
            tmp_path,
            0,
            "import os, pathlib, time; pathlib.Path('started').write_text(str(os.getpid())); time.sleep(1000)",
        )
        engine.start([one])
        until(lambda: (one.folder / "started").exists() and (one.folder / "started").read_text())
        engine.close()

        until(lambda: not Path(f"/proc/{(one.folder / 'started').read_text()}").exists())

    def test_runs_have_the_outcomes_of_those_made_directly(self, engine, tmp_path, direct):
        runs = tmp_path / "runs"
        jobs = [training(tmp_path, runs, seed) for seed in SEEDS]
        engine.start(jobs)

        assert waited(engine, len(jobs)) == dict.fromkeys(SEEDS, ""), jobs[0].log.read_text()
        assert outcomes(runs) == direct
        assert len(set(direct.values())) == len(SEEDS)

    def test_a_run_of_two_ranks_has_the_outcome_of_one(self, engine, tmp_path):
        both = tmp_path / "runs"
        alone = tmp_path / "alone"
        assert python("-m", "experiment.train", f"paths.runs={alone}", *RUN, "trainer.shards=2").returncode == 0
        one = training(tmp_path, both, 0, "machine.ranks=2", "trainer.shards=2", threads=2)
        engine.start([one])

        assert waited(engine, 1) == {0: ""}, one.log.read_text()
        assert outcomes(both) == outcomes(alone)
        assert record.read(next(both.iterdir())).environment["ranks"] == 2
