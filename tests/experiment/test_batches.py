import numpy as np
import pytest
import torch

from experiment.batches import Batches, choose_device
from experiment.data import digits, folder
from experiment.parallel import Parallel
from verbatim.errors import VerbatimError

CPU = torch.device("cpu")


@pytest.fixture
def images(tmp_path):
    """40 images of two classes, as a person would have them."""
    from PIL import Image

    generator = np.random.default_rng(0)
    for i in range(40):
        path = tmp_path / "images" / f"class{i % 2}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (9, 9, 3), dtype=np.uint8)).save(path)
    return tmp_path / "images"


def load(images, in_memory):
    return folder(path=images, size=8, validation=0.2, test=0.2, split_seed=0, in_memory=in_memory)


def whole(batches, *arguments, **settings):
    """Each batch in one piece: indices, x, y."""
    for indices, [(piece, x, y)] in batches.epoch(*arguments, **settings):
        assert torch.equal(indices, piece)
        yield indices, x, y


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 2])
def test_loader_processes_give_the_same_batches_as_memory(images, workers):
    memory = Batches(load(images, True), CPU)
    loader = Batches(load(images, False), CPU, workers)
    for epoch in (1, 2):
        one = list(whole(memory, "train", 7, seed=3, epoch=epoch))
        other = list(whole(loader, "train", 7, seed=3, epoch=epoch))

        assert len(one) == len(other) == 4
        for (i, x, y), (j, u, v) in zip(one, other, strict=True):
            assert torch.equal(i, j)
            assert torch.equal(x, u)
            assert torch.equal(y, v)


def test_an_epoch_sees_every_image_once_and_ends_with_a_partial_batch():
    data = digits()
    batches = Batches(data, CPU)
    seen = [indices for indices, _ in batches.epoch("train", 100, seed=0, epoch=1)]

    assert sorted(torch.cat(seen).tolist()) == list(range(len(data.splits["train"])))
    assert [len(part) for part in seen] == [100] * 12 + [58]


def test_the_order_depends_on_seed_and_epoch_alone():
    def order(seed, epoch, noise=0):
        torch.manual_seed(noise)
        return torch.cat([i for i, _ in Batches(digits(), CPU).epoch("train", 64, seed=seed, epoch=epoch)]).tolist()

    assert order(0, 1) == order(0, 1, noise=5)
    assert len({tuple(order(seed, epoch)) for seed in (0, 1, 2**62) for epoch in (1, 2)}) == 6


def test_pixels_are_scaled_to_one_and_match_their_labels():
    data = digits()
    indices, x, y = next(whole(Batches(data, CPU), "train", 16, seed=0, epoch=1))
    rows = data.splits["train"][indices.numpy()]

    assert (x.min(), x.max()) == (0, 1)
    assert np.array_equal((x * 16).numpy().astype(np.uint8), data.images[rows])
    assert np.array_equal(y.numpy(), data.labels[rows])


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize(("in_memory", "workers"), [(True, 0), (False, 0), (False, 2)])
def test_what_is_left_of_an_epoch_is_what_the_whole_one_ends_with(images, in_memory, workers):
    batches = Batches(load(images, in_memory), CPU, workers)
    all_ = list(whole(batches, "train", 7, seed=3, epoch=1))
    for skip in range(len(all_) + 1):
        left = list(whole(batches, "train", 7, seed=3, epoch=1, skip=skip))

        assert len(left) == len(all_) - skip
        for one, other in zip(all_[skip:], left, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("world", [1, 2, 4, 8])
def test_the_shards_of_all_ranks_are_the_batch_in_its_order(world):
    """The last batch, of 3 images, leaves most of 8 shards empty; never the first."""
    batches = Batches(digits(), CPU)
    mine = [cutter(rank, world) for rank in range(world)]
    ranks = [list(batches.epoch("train", 251, seed=0, epoch=1, cut=cut)) for cut in mine]
    for (indices, x, y), *cuts in zip(whole(batches, "train", 251, seed=0, epoch=1), *ranks, strict=True):
        shards = [shard for _, parts in cuts for shard in parts]

        assert len(shards) == 8
        assert all(torch.equal(seen, indices) for seen, _ in cuts)
        assert shards[0] is not None
        filled = [shard for shard in shards if shard]
        assert max(len(i) for i, _, _ in filled) - min(len(i) for i, _, _ in filled) <= 1
        for tensor, parts in zip((indices, x, y), zip(*filled, strict=True), strict=True):
            assert torch.equal(tensor, torch.cat(parts))
    assert len(indices) == 3


def cutter(rank, world):
    """`Parallel.cut` of that rank, of 8 shards."""
    from types import SimpleNamespace

    parallel = Parallel.__new__(Parallel)
    parallel.shards, parallel._ddp, parallel._ranks = 8, False, SimpleNamespace(rank=rank, world=world)
    return parallel.cut


def test_a_gpu_that_is_not_there_is_refused_not_replaced():
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(VerbatimError, match="trainer.device: expected a GPU that torch can use, found none"):
        choose_device("cuda", "trainer.device")
    assert choose_device("auto", "trainer.device") == CPU
