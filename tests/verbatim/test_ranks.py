"""Sums and messages of ranks: real processes with gloo between them, and more virtual ranks than a test can start."""

import functools
import json
import math
import os

import numpy as np
import pytest
import torch

from bench_ranks import simulate, virtual_sum
from conftest import python
from verbatim import ranks
from verbatim.errors import VerbatimError
from verbatim.tree import Tree, refuse_shards, schedule

SHARDS = 8
COUNTS = (0, 1, 2, 7, 63, 64, 65, 127, 128, 129, 255, 257, 1000)  # in pieces of 64 values

# One process loads torch and forks each world's ranks, which costs nothing.
WORLDS = """
import json, os, sys
import numpy as np
import torch
import torch.distributed  # before the fork
from verbatim import ranks, spawn
from verbatim.errors import VerbatimError
from verbatim.tree import Tree

torch.set_num_threads(1)
folder = sys.argv[1]

def leaves(count):
    drawn = np.random.default_rng(count).standard_normal((8, count)) * 10.0 ** np.random.default_rng(1).integers(-4, 5, (8, count))
    return torch.from_numpy(drawn.astype(np.float32))

def one(rank, world, body):
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    own = ranks.Ranks()
    try:
        own.join("cpu")
        said = body(own)
    except VerbatimError as error:
        said = f"{type(error).__name__}: {error}"
    with open(f"{folder}/{body.__name__}-{world}-{rank}.json", "w") as file:
        json.dump(said, file)
    os._exit(0)

def run(world, body):
    global port
    port = str(spawn._free_port())
    children = []
    for rank in range(world):
        child = os.fork()
        if not child:
            one(rank, world, body)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)

def sums(own):
    ranks.PIECE = 64
    for count in json.loads(sys.argv[2]):
        tree, mine, all_ = Tree(), 8 // own.world, leaves(count)
        for shard in range(own.rank * mine, (own.rank + 1) * mine):
            tree.add([all_[shard].clone()])
        (branch,) = tree.take()
        np.save(f"{folder}/sum-{own.world}-{own.rank}-{count}.npy", own.sum(branch).numpy())
    ranks.PIECE = 2**20
    large = torch.arange(2**21 + 3, dtype=torch.float32) % 1024 + own.rank
    total = own.sum(large)
    expected = (torch.arange(2**21 + 3) % 1024 * own.world + sum(range(own.world))).float()
    return bool(torch.equal(total, expected))

def messages(own):
    texts = own.gather_text("x" * own.rank + "ä")
    parts = own.gather_bytes(b"" if own.rank % 2 else bytes([own.rank] * 3))
    none = own.gather_bytes(b"")
    word = own.broadcast_bytes(b"of the first" if own.first else b"of another, longer")
    empty = own.broadcast_bytes(b"" if own.first else b"something")
    numbers = own.broadcast(torch.full((3,), float(own.rank)))
    own.agree({"recipe": "the same", "other": "too"})
    return [texts, [p.hex() for p in parts], [n.hex() for n in none], word.decode(), empty.hex(), numbers.tolist()]

def disagreement(own):
    own.agree({"code": "a", "configuration": "odd" if own.rank == 2 else "even", "data": str(own.rank)})

def lost(own):
    if own.rank == 1:
        os._exit(9)
    for _ in range(100):
        own.sum(torch.ones(1000))

for world in (1, 2, 4, 8):
    run(world, sums)
    run(world, messages)
run(4, disagreement)
run(4, lost)
"""


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("worlds")
    done = python("-c", WORLDS, str(folder), json.dumps(COUNTS))
    assert done.returncode == 0, done.stderr
    return folder


def said(worlds, body, world):
    return [json.loads((worlds / f"{body}-{world}-{rank}.json").read_text()) for rank in range(world)]


def leaves(count):
    drawn = np.random.default_rng(count).standard_normal((SHARDS, count))
    return (drawn * 10.0 ** np.random.default_rng(1).integers(-4, 5, (SHARDS, count))).astype(np.float32)


def by_hand(shards):
    """The tournament, as it is drawn."""
    if len(shards) == 1:
        return shards[0]
    half = len(shards) // 2
    return by_hand(shards[:half]) + by_hand(shards[half:])


@pytest.mark.parametrize("world", [1, 2, 4, 8])
def test_real_ranks_add_as_the_tree_does(worlds, world):
    for count in COUNTS:
        expected = by_hand(leaves(count))
        for rank in range(world):
            found = np.load(worlds / f"sum-{world}-{rank}-{count}.npy")
            assert found.tobytes() == expected.tobytes(), (rank, count)
    assert said(worlds, "sums", world) == [True] * world


def test_another_order_of_the_same_shards_has_other_bits():
    """Else the test above could not fail."""
    shards = leaves(1000)

    assert functools.reduce(np.add, shards).tobytes() != by_hand(shards).tobytes()
    assert by_hand(shards[[0, 2, 1, 3, 4, 5, 6, 7]]).tobytes() != by_hand(shards).tobytes()


@pytest.mark.parametrize("world", [1, 2, 4, 8])
def test_messages_arrive_in_the_order_of_the_ranks(worlds, world):
    expected = [
        ["x" * rank + "ä" for rank in range(world)],
        ["" if rank % 2 else bytes([rank] * 3).hex() for rank in range(world)],
        [""] * world,
        "of the first",
        "",
        [0.0, 0.0, 0.0],
    ]

    assert said(worlds, "messages", world) == [expected] * world


def test_ranks_that_differ_are_refused_on_each_by_rank_and_name(worlds):
    expected = (
        "VerbatimError: rank 2: expected the configuration of rank 0, even, found odd\n"
        "  next: start every rank with the same command, from the same checkout and environment"
    )

    assert said(worlds, "disagreement", 4) == [expected] * 4


def test_a_rank_that_is_gone_is_an_error_on_the_others(worlds):
    for rank in (0, 2, 3):
        text = json.loads((worlds / f"lost-4-{rank}.json").read_text())
        assert text.startswith(f"LostError: rank {rank}: expected all 4 ranks to answer, found "), text
    assert not (worlds / "lost-4-1.json").exists()


# ---------------------------------------------------------------------------------------------------------- schedule


@pytest.mark.parametrize("world", [1, 2, 4, 8, 16, 64, 256, 1024])
def test_the_schedule_adds_as_the_tree_does(world):
    """As many virtual ranks, the schedule of real ones."""
    for count in (1, 3, 100, 1025) if world < 1024 else (1, 100, 1025):
        each = list(np.random.default_rng(world).standard_normal((world, count)).astype(np.float32))
        expected = by_hand(each)

        assert all(np.array_equal(found, expected) for found in virtual_sum([values.copy() for values in each]))


@pytest.mark.parametrize("world", [2, 8, 64, 1024])
@pytest.mark.parametrize("count", [0, 1, 1025, 10_000_000])
def test_partners_take_what_each_other_gives(world, count):
    steps = [list(schedule(rank, world, count)) for rank in range(world)]
    for rank, own in enumerate(steps):
        for i, (partner, give, take, adds) in enumerate(own):
            back, given, taken, theirs = steps[partner][i]
            assert (back, adds) == (rank, theirs)
            assert (give, take) == (taken, given)


@pytest.mark.parametrize("world", [2, 4, 8, 16, 64, 256, 1024])
def test_a_rank_sends_as_little_as_a_ring_does_in_fewer_messages(world):
    count = 10_000_000
    most, messages = simulate(world, count)

    assert most <= 2 * (world - 1) / world * count + 2 * math.log2(world)
    assert messages == 2 * math.log2(world)


# -------------------------------------------------------------------------------------------------------------- tree


def test_the_tree_keeps_few_branches_and_adds_pairwise():
    tree, shards = Tree(), leaves(100)
    for i, shard in enumerate(shards, 1):
        tree.add([torch.from_numpy(shard.copy())])
        assert len(tree._branches) == i.bit_count()
    (found,) = tree.take()

    assert found.numpy().tobytes() == by_hand(shards).tobytes()


@pytest.mark.parametrize(("shards", "world"), [(1, 1), (8, 1), (8, 2), (8, 8), (1024, 512)])
def test_halves_of_halves_are_allowed(shards, world):
    refuse_shards(shards, world)


@pytest.mark.parametrize(
    ("shards", "world", "says"),
    [
        (6, 1, "trainer.shards: expected a power of two, found 6\n  next: add trainer.shards=8"),
        (8, 3, "ranks: expected one of 1, 2, 4, 8, for trainer.shards=8, found 3\n  next: start another number"),
        (4, 8, "ranks: expected one of 1, 2, 4, for trainer.shards=4, found 8\n  next: start another number, or add trainer.shards=8"),
    ],
)  # fmt: skip
def test_other_numbers_are_refused(shards, world, says):
    with pytest.raises(VerbatimError) as error:
        refuse_shards(shards, world)

    assert str(error.value).startswith(says)


@pytest.mark.parametrize("name", ["RANK", "WORLD_SIZE", "LOCAL_RANK"])
def test_a_variable_that_is_no_number_is_refused(monkeypatch, name):
    monkeypatch.setenv(name, "two")

    with pytest.raises(VerbatimError, match=f"{name}: expected a whole number, as torchrun sets it, found two"):
        ranks.Ranks()


def test_one_alone_needs_no_others(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    alone, values = ranks.Ranks(), torch.ones(3)
    alone.join("cpu")

    assert alone.first
    assert not torch.distributed.is_initialized()
    assert alone.sum(values) is values
    assert os.environ.get("MASTER_ADDR") is None
