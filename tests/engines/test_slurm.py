"""The engine `slurm` on a real Slurm of two nodes."""

import contextlib
import sys

import pytest

from conftest import python
from engines.common import CHECKPOINT, RUN, Common, outcomes, script, training, until, waited
from verbatim import record
from verbatim.errors import VerbatimError
from verbatim.multirun import slurm
from verbatim.multirun.slurm import Slurm


@pytest.fixture
def engine(cluster):
    cluster.idle()
    return Slurm(timeout_min=10)


@pytest.fixture
def opened(cluster):
    """An engine with other settings, closed at the end."""
    cluster.idle()
    made = []
    yield lambda **parameters: made.append(Slurm(**parameters)) or made[-1]
    for engine in made:
        engine.close()


def counted(monkeypatch) -> list[str]:
    """The names of Slurm's commands, as they are called."""
    called, run = [], slurm._run
    monkeypatch.setattr(slurm, "_run", lambda *command: called.append(command[0]) or run(*command))
    return called


class TestSlurm(Common):
    def short_grace(self, monkeypatch):
        monkeypatch.setattr(slurm, "GRACE_S", 1.0)

    def test_jobs_are_one_array_and_one_question_asks_for_all(self, engine, tmp_path, monkeypatch):
        called = counted(monkeypatch)
        jobs = [script(tmp_path, i, "import os; print(os.environ['SLURM_ARRAY_JOB_ID'])") for i in range(12)]
        engine.start(jobs)
        waited(engine, 12)

        assert len({one.log.read_text() for one in jobs}) == 1
        assert set(called) == {"squeue"}

    def test_nothing_of_submitit_is_left(self, engine, tmp_path):
        engine.start([script(tmp_path, 0, "import os; print([n for n in os.environ if 'SUBMITIT' in n])")])
        waited(engine, 1)

        assert (tmp_path / "slurm").is_dir()
        engine.close()
        assert not (tmp_path / "slurm").exists()
        assert (tmp_path / "0.log").read_text() == "[]\n"

    def test_a_node_that_goes_down_loses_its_job_alone(self, engine, cluster, tmp_path):
        jobs = [script(tmp_path, i, "import time; open('started', 'w'); time.sleep(12)", threads=2) for i in range(2)]
        engine.start(jobs)
        until(lambda: all((one.folder / "started").exists() for one in jobs))
        try:
            cluster.run("scontrol", "update", "nodename=n2", "state=down", "reason=test")

            assert sorted(waited(engine, 2).values()) == ["", "its node failed"]
        finally:
            with contextlib.suppress(RuntimeError):  # its daemon has said that it is well, and it is back already
                cluster.run("scontrol", "update", "nodename=n2", "state=resume")

    def test_a_job_is_asked_to_end_before_its_time_limit(self, opened, tmp_path):
        """Slurm looks at limits every 30 s or so: asked 65 s before the end of a minute is asked at the first look."""
        engine = opened(timeout_min=1, signal_delay_s=65)
        one = script(tmp_path, 0, CHECKPOINT)
        engine.start([one])

        assert waited(engine, 1) == {0: "asked to end (SIGTERM): its time limit, preemption, or a person"}
        assert (one.folder / "checkpoint").read_text() == "here"

    def test_a_job_that_a_person_cancels_is_lost(self, engine, cluster, tmp_path):
        one = script(tmp_path, 0, "import time; open('started', 'w'); time.sleep(1000)")
        engine.start([one])
        until((one.folder / "started").exists)
        cluster.run("scancel", "--name=verbatim")

        assert waited(engine, 1) == {0: "cancelled"}
        assert "CANCELLED" in one.log.read_text()

    def test_a_controller_that_is_started_again_is_waited_for(self, engine, cluster, tmp_path):
        one = script(tmp_path, 0, "import time; open('started', 'w'); time.sleep(6)")
        engine.start([one])
        until((one.folder / "started").exists)
        cluster.end("slurmctld")
        cluster.slurmctld()

        assert waited(engine, 1) == {0: ""}

    def test_a_controller_that_is_gone_is_said(self, engine, cluster, tmp_path, monkeypatch):
        monkeypatch.setattr(slurm, "PATIENCE_S", 0.0)
        monkeypatch.setenv("SLURM_CONF", str(cluster.folder / "other.conf"))
        text = (cluster.folder / "slurm.conf").read_text()
        (cluster.folder / "other.conf").write_text(text.replace("SlurmctldPort=", "MessageTimeout=2\nSlurmctldPort=1"))
        with pytest.raises(VerbatimError, match=r"^sbatch: expected Slurm to take the jobs, found sbatch: error: "):
            engine.start([script(tmp_path, 0, "")])

        monkeypatch.undo()
        engine.start([script(tmp_path, 1, "")])
        monkeypatch.setattr(slurm, "PATIENCE_S", 0.0)
        monkeypatch.setenv("SLURM_CONF", str(cluster.folder / "other.conf"))
        with pytest.raises(
            VerbatimError, match=r"(?s)^squeue: expected Slurm to answer, found .*next: the same command"
        ):
            waited(engine, 1)
        monkeypatch.undo()
        assert waited(engine, 1) == {1: ""}

    def test_what_slurm_has_forgotten_is_lost(self, engine, tmp_path, monkeypatch):
        engine.start([script(tmp_path, 0, "")])
        engine._running["999999_0"] = engine._running.pop(next(iter(engine._running)))

        assert waited(engine, 1) == {0: "Slurm has forgotten it"}

    @pytest.mark.parametrize(
        ("parameters", "says"),
        [
            ({"partition": "none"}, "sbatch: expected Slurm to take the jobs, found .*[Ii]nvalid partition"),
            ({"partitoin": "debug"}, "hydra.launcher: expected submitit's parameters for Slurm, found .*partitoin"),
            ({"timeout_min": "long"}, "hydra.launcher: expected submitit's parameters for Slurm, found .*timeout_min"),
        ],
    )
    def test_what_slurm_or_submitit_refuses_is_said(self, opened, tmp_path, parameters, says):
        with pytest.raises(VerbatimError, match=f"^{says}"):
            opened(**parameters).start([script(tmp_path, 0, "")])

    def test_setup_lines_run_before_the_job(self, opened, tmp_path):
        engine = opened(setup=["export FROM_SETUP=yes", "echo said by setup"])
        one = script(tmp_path, 0, "import os; print(os.environ['FROM_SETUP'])")
        engine.start([one])

        assert waited(engine, 1) == {0: ""}
        assert one.log.read_text() == "yes\nsaid by setup\n"

    def test_another_python_starts_the_job(self, opened, tmp_path):
        engine = opened(python=f"env WITHIN=yes {sys.executable}")
        one = script(tmp_path, 0, "import os; print(os.environ['WITHIN'])")
        engine.start([one])

        assert waited(engine, 1) == {0: ""}
        assert one.log.read_text() == "yes\n"

    def test_a_run_over_two_nodes_has_the_outcome_of_one_rank(self, opened, tmp_path):
        alone, both = tmp_path / "alone", tmp_path / "runs"
        assert python("-m", "experiment.train", f"paths.runs={alone}", *RUN, "trainer.shards=2").returncode == 0
        engine = opened(nodes=2, timeout_min=10)
        one = training(tmp_path, both, 0, "trainer.shards=2")
        engine.start([one])

        assert waited(engine, 1) == {0: ""}, one.log.read_text()
        assert outcomes(both) == outcomes(alone)
        assert record.read(next(both.iterdir())).environment["ranks"] == 2

    def test_both_nodes_of_a_job_are_asked_to_end(self, opened, tmp_path):
        engine = opened(nodes=2)
        text = CHECKPOINT.replace('"started"', '"started" + os.environ["RANK"]').replace(
            '"checkpoint"', '"checkpoint" + os.environ["RANK"]'
        )
        one = script(tmp_path, 0, f"import os\n{text}")
        engine.start([one])
        until(lambda: len(list(one.folder.glob("started*"))) == 2)
        engine.stop()

        assert waited(engine, 1) == {0: "asked to end (SIGTERM): its time limit, preemption, or a person"}
        assert sorted(path.name for path in one.folder.glob("checkpoint*")) == ["checkpoint0", "checkpoint1"]


def test_without_slurm_it_says_where_to_go(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(VerbatimError, match=r"^sbatch: expected it on the PATH, .* found nothing there\n  next: "):
        Slurm()


@pytest.mark.parametrize(
    ("line", "lost"),
    [
        ("12_3|COMPLETED|0|", ""),
        ("12_3|FAILED|256|", ""),
        ("12_3|FAILED|11|", ""),  # SIGSEGV, as squeue says it
        ("12_3|FAILED|0:11", ""),  # as sacct says it
        ("12_3|FAILED|9|", "killed (SIGKILL): out of memory, or by a person"),
        ("12_3|FAILED|0:9", "killed (SIGKILL): out of memory, or by a person"),
        ("12_3|FAILED|143:0", "asked to end (SIGTERM): its time limit, preemption, or a person"),
        ("12_3|OUT_OF_MEMORY|0:125", "out of memory"),
        ("12_3|PREEMPTED|0:0", "preempted"),
        ("12_3|TIMEOUT|0:0", "its time limit"),
        ("12_3|NODE_FAIL|0|", "its node failed"),
        ("12_3|CANCELLED by 1000|0:15", "cancelled"),
    ],
)
def test_the_end_of_a_job_is_read_from_what_squeue_or_sacct_prints(line, lost):
    ((name, state),) = slurm._states(line)

    assert (name, slurm._how_it_ended(0, *state).lost) == ("12_3", lost)
