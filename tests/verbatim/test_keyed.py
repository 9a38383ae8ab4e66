import math

import pytest
import torch

from verbatim import keyed
from verbatim.errors import VerbatimError

SEED, STEP = 3, 17
DRAWS = {"dropout": lambda x: keyed.dropout(x, 0.3), "uniform": keyed.uniform_like, "normal": keyed.normal_like}
SHAPES = [(), (1,), (2,), (7,), (4, 3, 5)]


def signed(number):
    return (number + 2**63) % 2**64 - 2**63


def test_the_hash_is_that_of_the_reference():
    """https://prng.di.unimi.it/splitmix64.c, from 1234567."""
    counter = [signed(1234567 + (i + 1) * (keyed.GOLDEN % 2**64)) for i in range(5)]
    expected = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]

    assert [value % 2**64 for value in keyed._mixed(torch.tensor(counter)).tolist()] == expected


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_a_sample_has_the_same_draws_in_any_batch(draw, shape):
    samples = torch.tensor([5, 900, 0, 2**40, 31, 7])
    x = torch.ones(len(samples), *shape)
    with keyed.by(SEED, STEP, samples):
        whole = [draw(x), draw(x)]

    for part in ([0, 1, 2], [3], [5, 4, 3, 2, 1, 0], [2, 2], []):
        with keyed.by(SEED, STEP, samples[part]):
            assert torch.equal(draw(x[part]), whole[0][part])
            assert torch.equal(draw(x[part]), whole[1][part])


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_another_seed_step_sample_or_place_has_other_draws(draw):
    x = torch.ones(1, 1000)

    def drawn(seed=SEED, step=STEP, sample=5, skip=0):
        with keyed.by(seed, step, torch.tensor([sample])):
            for _ in range(skip):
                keyed.uniform_like(x)
            return draw(x)

    found = [drawn(), drawn(seed=4), drawn(step=18), drawn(sample=6), drawn(skip=1), drawn(seed=STEP, step=SEED)]
    assert torch.equal(drawn(), found[0])
    for i, one in enumerate(found):
        for other in found[:i]:
            assert not torch.equal(one, other)
            assert torch.corrcoef(torch.cat([one, other]))[0, 1].abs() < 4 / math.sqrt(1000)


def test_seed_and_step_are_not_joined_to_one_number():
    with keyed.by(1, 23, torch.tensor([0])):
        first = keyed.uniform_like(torch.ones(1, 4))
    with keyed.by(12, 3, torch.tensor([0])):
        assert not torch.equal(keyed.uniform_like(torch.ones(1, 4)), first)


def largest_distance(x, distribution):
    x = x.double().flatten().sort()[0]
    return (distribution(x) - torch.arange(len(x)) / len(x)).abs().max() * math.sqrt(len(x))


@pytest.mark.parametrize("shape", [(64, 1000), (64_000, 1), (1, 64_000)], ids=str)
def test_draws_have_their_distributions(shape):
    """By the largest distance between the distributions, times √n: above 1.95 once in 1000."""
    x = torch.empty(shape)
    with keyed.by(SEED, STEP, torch.arange(shape[0])):
        uniform, normal = keyed.uniform_like(x), keyed.normal_like(x)
        kept = keyed.dropout(torch.ones(shape), 0.3) > 0

    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert largest_distance(uniform, lambda u: u) < 1.95
    assert largest_distance(normal, torch.special.ndtr) < 1.95
    assert abs(kept.double().mean() - 0.7) < 4 * math.sqrt(0.3 * 0.7 / 64_000)
    if shape[0] == 64:  # samples, and neighbours within one, know nothing of each other
        assert torch.corrcoef(uniform).fill_diagonal_(0).abs().max() < 5 / math.sqrt(1000)
        assert torch.corrcoef(torch.stack([uniform[:, 1:].flatten(), uniform[:, :-1].flatten()]))[0, 1].abs() < 4 / math.sqrt(64_000)  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_shape_and_type_are_those_of_what_is_given(dtype):
    x = torch.ones(500, 40, dtype=dtype)
    with keyed.by(SEED, STEP, torch.arange(500)):
        for draw in DRAWS.values():
            assert (draw(x).dtype, draw(x).shape) == (dtype, x.shape)
        uniform = keyed.uniform_like(x).double()

    assert uniform.min() >= 0
    assert uniform.max() < 1  # rounded to nearest, some of 24 bits would be 1 in half precision
    assert abs(uniform.mean() - 0.5) < 0.01


def test_dropout_keeps_the_expectation_and_its_gradient_the_mask():
    x = torch.full((2000, 50), 2.0, requires_grad=True)
    with keyed.by(SEED, STEP, torch.arange(2000)):
        out = keyed.dropout(x, 0.2)
    out.sum().backward()

    assert set(out.detach().flatten().tolist()) == {0.0, 2.5}
    assert abs(out.mean().item() - 2) < 0.03
    assert torch.equal(x.grad, out.detach() / 2)


def test_no_dropout_draws_nothing():
    x = torch.ones(3, 4)
    with keyed.by(SEED, STEP, torch.arange(3)):
        first = keyed.uniform_like(x)
    with keyed.by(SEED, STEP, torch.arange(3)):
        assert keyed.dropout(x, 0.0) is x
        assert torch.equal(keyed.uniform_like(x), first)


def test_torchs_generator_is_used_outside_alone():
    x = torch.ones(3, 50)
    for draw in DRAWS.values():
        torch.manual_seed(1)
        state = torch.get_rng_state()
        with keyed.by(SEED, STEP, torch.arange(3)):
            draw(x)
        assert torch.equal(torch.get_rng_state(), state)
        draw(x)
        assert not torch.equal(torch.get_rng_state(), state)


def test_one_within_another_and_an_error_leave_the_outer():
    x = torch.ones(2, 9)
    with keyed.by(SEED, STEP, torch.arange(2)):
        first, second = keyed.uniform_like(x), keyed.uniform_like(x)
    with keyed.by(SEED, STEP, torch.arange(2)):
        assert torch.equal(keyed.uniform_like(x), first)
        with keyed.by(SEED, STEP, torch.arange(2)):
            assert torch.equal(keyed.uniform_like(x), first)
        with pytest.raises(ZeroDivisionError), keyed.by(SEED, STEP, torch.arange(2)):
            _ = 1 / 0
        assert torch.equal(keyed.uniform_like(x), second)
    assert keyed._current is None


def test_the_samples_that_were_given_are_left_as_they_are():
    samples = torch.arange(4)
    with keyed.by(SEED, STEP, samples):
        keyed.normal_like(torch.ones(4, 3))

    assert samples.tolist() == [0, 1, 2, 3]


def test_a_batch_of_another_size_than_its_samples_is_an_error():
    with keyed.by(SEED, STEP, torch.arange(4)), pytest.raises(RuntimeError):
        keyed.dropout(torch.ones(8, 3), 0.5)


def test_a_draw_while_gradients_are_computed_is_refused():
    """An activation that is computed again would be of another mask."""
    x = torch.ones(4, 8, requires_grad=True)
    with keyed.by(1, 2, torch.arange(4)):
        y = torch.utils.checkpoint.checkpoint(lambda x: keyed.dropout(x.exp(), 0.5), x, use_reentrant=False)
        with pytest.raises(VerbatimError, match="expected draws in the forward pass"):
            y.sum().backward()
