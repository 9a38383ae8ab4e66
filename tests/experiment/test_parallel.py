"""Runs that several ranks make together: real processes on this machine."""

import re
import signal
import time

import pytest
from omegaconf import OmegaConf

from conftest import python
from killing import AT_STEP, only, outcome, start, train
from verbatim import checkpoint, record, tree
from verbatim.errors import VerbatimError

# Six steps an epoch; the last batch, of 3 images, leaves most of the shards empty.
MODEL = ("model=cnn", "model.channels=[8,8]", "model.batch_norm=true", "model.dropout=0.1")
SMALL = (*MODEL, "trainer.batch_size=251", "trainer.epochs=3", "trainer.accumulate=2", "machine.checkpoints=0.9")
SHARDS = (*SMALL, "trainer.shards=8")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process makes of eight shards."""
    runs = tmp_path_factory.mktemp("alone")
    assert train(runs, *SHARDS).process.returncode == 0
    return only(runs)


def same(one, other):
    assert outcome(one) == outcome(other)
    for name in ("trace.bin", "epochs.csv", "model.safetensors", "last.safetensors"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_any_number_of_ranks_gives_the_bits_of_one(tmp_path, alone, ranks):
    done = train(tmp_path / "runs", *SHARDS, f"machine.ranks={ranks}")

    assert done.process.returncode == 0, done.said
    same(only(tmp_path / "runs"), alone)
    run = record.read(only(tmp_path / "runs"))
    assert run.recipe == record.read(alone).recipe
    assert run.environment["ranks"] == ranks
    assert done.said.count("epoch   1") == 1  # one alone speaks


def test_shards_are_part_of_the_recipe_and_of_the_bits(tmp_path, alone):
    train(tmp_path / "runs", *SMALL)

    assert record.read(only(tmp_path / "runs")).recipe != record.read(alone).recipe
    assert outcome(only(tmp_path / "runs")) != outcome(alone)


def test_ranks_that_are_ended_go_on_in_another_number_and_end_as_one_would(tmp_path, alone):
    """Four of which one is killed; then two, of which one is asked to end; then one."""
    runs = tmp_path / "runs"
    kill = "if os.environ['RANK'] == '2': os.kill(os.getpid(), 9)"
    killed = start(runs, *SHARDS, "machine.ranks=4", script=AT_STEP, AT="8", DO=kill)

    assert killed.wait() == 137
    folder = only(runs)
    assert "error: rank 2 was ended by SIGKILL, and with it the run" in killed.said
    assert "expected all 4 ranks to answer" in killed.said
    assert "Traceback" not in killed.said
    assert record.read(folder).state == "failed"
    assert [found.step for found in checkpoint.found(folder)] == [5]

    ask = "if os.environ['RANK'] == '1': os.kill(os.getpid(), 15)"
    ended = start(runs, *SHARDS, "machine.ranks=2", script=AT_STEP, AT="13", DO=ask)
    assert ended.wait() == 143, ended.said
    assert "goes on after step 5" in ended.said
    last = int(record.read(folder).reason.removeprefix("SIGTERM at step "))
    assert last in (13, 14)  # all end after the same step: the one in which the others hear of it
    assert checkpoint.found(folder)[0].step == last

    assert train(runs, *SHARDS).process.returncode == 0
    same(only(runs), alone)
    assert [part["ranks"] for part in record.read(only(runs)).resumed] == [4, 2]


def test_a_signal_to_who_started_them_reaches_all(tmp_path):
    ask = "if os.environ['RANK'] == '1': os.kill(os.getppid(), 15)"
    ended = start(tmp_path / "runs", *SHARDS, "machine.ranks=2", script=AT_STEP, AT="3", DO=ask)

    assert ended.wait() == 143, ended.said
    assert record.read(only(tmp_path / "runs")).state == "interrupted"
    assert len(checkpoint.found(only(tmp_path / "runs"))) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_each_rank_gets_twice_is_one(tmp_path, number):
    """From the terminal or from Slurm, and from who started them."""
    ask = f"""
parent = os.getppid()
for pid in open(f'/proc/{{parent}}/task/{{parent}}/children').read().split():
    os.kill(int(pid), {int(number)})
os.kill(parent, {int(number)})"""
    ended = start(
        tmp_path / "runs", *SHARDS, "machine.ranks=2", "trainer.epochs=50", script=AT_STEP, AT="9", DO=f"if os.environ['RANK'] == '1':{ask}".replace("\n", "\n    ")
    )  # fmt: skip

    assert ended.wait() == {signal.SIGINT: 130, signal.SIGTERM: 143}[number], ended.said
    run = record.read(only(tmp_path / "runs"))
    assert run.state == "interrupted", run.reason
    assert checkpoint.found(only(tmp_path / "runs"))[0].step == int(run.reason.rpartition(" ")[2])


def test_a_terminal_that_is_closed_ends_all_as_that(tmp_path):
    ask = "if os.environ['RANK'] == '1': os.kill(os.getppid(), 1)"
    ended = start(tmp_path / "runs", *SHARDS, "machine.ranks=2", script=AT_STEP, AT="3", DO=ask)

    assert ended.wait() == 143
    run = record.read(only(tmp_path / "runs"))
    assert (run.state, run.reason.rpartition(" ")[0]) == ("interrupted", "SIGHUP at step")


def test_a_second_ctrl_c_reaches_all_as_well_and_none_is_left(tmp_path):
    ask = "if os.environ['RANK'] == '1': import time; os.kill(os.getppid(), 2); time.sleep(1.5); os.kill(os.getppid(), 2); time.sleep(60)"
    began_s = time.monotonic()
    ended = start(tmp_path / "runs", *SHARDS, "machine.ranks=2", script=AT_STEP, AT="3", DO=ask)

    assert ended.wait() == 130, ended.said
    assert time.monotonic() - began_s < 40
    assert record.read(only(tmp_path / "runs")).state == "interrupted"


def test_a_rank_that_seals_is_not_told_that_another_is_lost(tmp_path):
    """It has seen so by itself; of large files the seal takes longer than who started the ranks waits for that."""
    slow = "from verbatim import digest; import time; own = digest.of_file; digest.of_file = lambda path: (time.sleep(5), own(path))[1]"
    ended = start(
        tmp_path / "runs", *SHARDS, "machine.ranks=2", script=AT_STEP, AT="3", DO=f"os._exit(9) if os.environ['RANK'] == '1' else exec({slow!r}, globals())"
    )  # fmt: skip

    assert ended.wait() == 9, ended.said
    run = record.read(only(tmp_path / "runs"))
    assert run.state == "failed", ended.said
    assert run.reason.startswith("rank 0: expected all 2 ranks to answer")


BEFORE_THEY_MEET = """
import os
from verbatim import app, ranks
plain = ranks.Ranks.join
def join(self, device):
    exec(os.environ["DO"])
    plain(self, device)
ranks.Ranks.join = join
from experiment.train import main
app.run(main)
"""


def test_a_rank_that_ends_before_it_meets_the_others_ends_them(tmp_path):
    """Torch alone would wait for it for half an hour, and hear no signal."""
    kill = "if os.environ['RANK'] == '1': os.kill(os.getpid(), 9)"
    lost = start(tmp_path / "runs", *SHARDS, "machine.ranks=2", script=BEFORE_THEY_MEET, DO=kill)

    assert lost.wait() == 137
    assert "error: rank 1 was ended by SIGKILL, and with it the run" in lost.said
    assert "rank 0: expected all 2 ranks to answer, found one that has ended" in lost.said
    assert "Traceback" not in lost.said
    run = record.read(only(tmp_path / "runs"))
    assert (run.state, run.reason.partition(":")[0]) == ("failed", "rank 0")


def test_a_rank_that_nobody_joins_hears_a_signal(tmp_path):
    alone = {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
    }
    later = "import signal; signal.setitimer(signal.ITIMER_REAL, 2); signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), 15))"
    waiting = start(tmp_path / "runs", *SHARDS, script=BEFORE_THEY_MEET, DO=later, **alone)

    assert waiting.wait() == 143, waiting.said
    run = record.read(only(tmp_path / "runs"))
    assert (run.state, run.reason) == ("interrupted", "SIGTERM before the first step")


def test_a_rank_without_the_address_of_the_first_is_refused(tmp_path):
    done = train(tmp_path / "runs", *SHARDS, RANK="0", WORLD_SIZE="2")

    assert done.process.returncode == 2
    assert "error: MASTER_ADDR: expected it, as torchrun sets it, found RANK and WORLD_SIZE alone" in done.said
    assert "Traceback" not in done.said


def test_torchrun_starts_ranks_too(tmp_path, alone):
    runs = tmp_path / "runs"
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    done = python(*torchrun, "-m", "experiment.train", f"paths.runs={runs}", *SHARDS)

    assert done.returncode == 0, done.stderr
    same(only(runs), alone)


def test_ranks_of_another_recipe_are_refused(tmp_path):
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    ranks = [
        start(tmp_path / "runs", *SHARDS, f"seed={rank}", RANK=str(rank), LOCAL_RANK=str(rank), **common)
        for rank in range(2)
    ]

    assert [rank.wait() for rank in ranks] == [2, 2]
    assert re.search(
        r"error: rank 1: expected the configuration of rank 0, sha256:\w+, found sha256:\w+\n"
        r"  next: start every rank with the same command",
        ranks[0].said,
    )
    assert record.read(only(tmp_path / "runs")).state == "failed"


def free_port():
    from verbatim import spawn

    return spawn._free_port()


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["trainer.shards=8", "machine.ranks=3"], "ranks: expected one of 1, 2, 4, 8, for trainer.shards=8, found 3"),
        (["trainer.shards=2", "machine.ranks=4"], "start another number, or add trainer.shards=4: shards are part of the"),
        (["trainer.shards=6"], "trainer.shards: expected a power of two, found 6\n  next: add trainer.shards=8"),
        (["trainer.ranks=2"], "trainer.ranks: expected nothing, as the bits do not depend on it, found 2"),
        (["trainer.parallel=ddp"], "trainer.ranks: expected how many: with trainer.parallel=ddp it is part of the recipe, found none\n  next: add trainer.ranks=2, say"),
        (["trainer.parallel=ddp", "machine.ranks=4"], "found none\n  next: add trainer.ranks=4"),
        (["trainer.parallel=ddp", "trainer.ranks=2", "determinism=portable"], "trainer.parallel: expected tree at level portable, found ddp"),
    ],
)  # fmt: skip
def test_numbers_that_do_not_go_together_are_refused_before_anything_starts(tmp_path, overrides, says):
    done = train(tmp_path / "runs", *overrides)

    assert done.process.returncode == 2
    assert says in done.said
    assert done.said.count("error:") == 1  # once, not once for each rank
    assert not list((tmp_path / "runs").iterdir())


# --------------------------------------------------------------------------------------------------------------- ddp


def test_ddp_has_a_recipe_of_its_own_and_repeats(tmp_path):
    overrides = (*SMALL, "trainer.batch_size=250", "trainer.parallel=ddp", "trainer.ranks=2", "machine.resume=never")
    for _ in range(2):
        done = train(tmp_path / "runs", *overrides)
        assert done.process.returncode == 0, done.said
    runs = [record.read(folder) for folder in (tmp_path / "runs").iterdir()]

    assert [run.state for run in runs] == ["sealed", "sealed"]
    assert len({run.outcome for run in runs}) == 1
    assert {run.environment["ranks"] for run in runs} == {2}
    assert {run.recipe_config["trainer"]["ranks"] for run in runs} == {2}


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_a_rank_of_ddp_that_is_lost_is_said_to_be(tmp_path, where):
    script = """
import os
from verbatim import app, recorder
watches, calls = recorder.Run.watches, []
def watching(self, *given):
    from experiment import parallel
    name = {"forward": "loss", "backward": "backward"}[os.environ["WHERE"]]
    plain = getattr(parallel.Parallel, name)
    def counting(self, *given):
        calls.append(1)
        if len(calls) == 5 and os.environ["RANK"] == "1":
            os.kill(os.getpid(), 9)
        return plain(self, *given)
    setattr(parallel.Parallel, name, counting)
    watches(self, *given)
recorder.Run.watches = watching
from experiment.train import main
app.run(main)
"""
    overrides = (*SMALL, "trainer.batch_size=250", "trainer.parallel=ddp", "trainer.ranks=2")
    lost = start(tmp_path / "runs", *overrides, script=script, WHERE=where)

    assert lost.wait() == 137, lost.said
    assert "rank 0: expected all 2 ranks to answer" in lost.said
    assert "Traceback" not in lost.said
    assert record.read(only(tmp_path / "runs")).state == "failed"


DDP = OmegaConf.create({"parallel": "ddp", "shards": 1, "ranks": 2})


@pytest.mark.parametrize(
    ("changes", "world", "level", "says"),
    [
        ({}, 2, "portable", "trainer.parallel: expected tree at level portable, found ddp"),
        ({"shards": 2}, 2, "exact", "trainer.shards: expected 1 with trainer.parallel=ddp"),
        ({"ranks": None}, 2, "exact", "trainer.ranks: expected how many.*next: add trainer.ranks=2$"),
        ({}, 4, "exact", "trainer.ranks: expected 4, the ranks that there are"),
    ],
)
def test_what_ddp_cannot_do_is_refused(changes, world, level, says):
    with pytest.raises(VerbatimError, match=f"(?s){says}"):
        tree.refuse(OmegaConf.merge(DDP, changes), world, level)

    tree.refuse(DDP, 2, "exact")


def test_a_last_batch_too_small_for_every_rank_of_ddp_is_refused(tmp_path):
    done = train(tmp_path / "runs", *SMALL, "trainer.parallel=ddp", "trainer.ranks=2")

    assert done.process.returncode == 2
    assert (
        "trainer.batch_size: expected a last batch of 4 images or more, one for each part on each rank, found 3 left"
        in done.said
    )
    assert "Traceback" not in done.said
