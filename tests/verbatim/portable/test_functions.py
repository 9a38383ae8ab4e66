import math

import pytest
import torch

import rerouted
from rerouted import DTYPES, FUNCTIONS, SPECIAL

pytestmark = pytest.mark.filterwarnings("ignore:An output with one or more elements was resized")
NEAR = 16  # roundings: of torch's own functions, and of formulas that subtract


def far(expected, found, near=NEAR):
    """By how much more than `near` roundings, at the worst; 0 where all are near."""
    assert expected.shape == found.shape
    eps = torch.finfo(found.dtype).eps
    apart = (expected.double() - found.double()).abs()
    allowed = near * eps * expected.double().abs().clamp(min=1)
    return (apart - allowed).clamp(min=0).max().item() if found.numel() else 0


@pytest.mark.parametrize("kind", DTYPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_and_their_slopes_are_near_those_of_torch_in_float64(given, name, kind):
    found = {k: x for k, x in given("everything").items() if k.startswith(f"{name}/{kind}/")}
    expected = {f"{name}/{kind}/{k}": x for k, x in rerouted.functions(name, torch.float64)}

    assert found.keys() == expected.keys()
    assert {k: far(expected[k], found[k]) for k in found if far(expected[k], found[k])} == {}
    assert {x.dtype for x in found.values()} == {DTYPES[kind]}


def test_a_function_that_is_off_is_seen():
    x = rerouted.values(-8, 8, torch.float32)

    assert far(torch.tanh(x.double()), torch.tanh(x)) == 0
    assert far(torch.tanh(x.double()), torch.tanh(x) * (1 + 2**-17)) > 0


@pytest.mark.parametrize("kind", DTYPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_special_values_give_what_they_give_in_float64(given, name, kind):
    """Infinite where it is, NaN where it is NaN, and of the same sign."""
    found = given("everything")[f"special/{name}/{kind}"]
    own = FUNCTIONS[name][0](rerouted.special(DTYPES[kind]).double()).to(DTYPES[kind])

    for what in (torch.isnan, torch.isposinf, torch.isneginf):
        places = [SPECIAL[i % len(SPECIAL)] for i in range(len(own)) if what(own)[i] != what(found)[i]]
        assert places == [], what.__name__
    usual = own.isfinite() & (own.abs() < 1e30)
    assert far(own[usual], found[usual]) == 0
    if (name, kind) != ("gelu", "float32"):  # oneDNN's gelu of -0 is 0
        assert torch.equal(found[:2].signbit(), own[:2].signbit())


@pytest.mark.parametrize("kind", ["float32", "float64"])
@pytest.mark.parametrize("name", ["sqrt", "pow 0.5"])
def test_a_root_is_rounded_correctly(given, name, kind):
    found = given("everything")
    x = rerouted.values(0, 64, DTYPES[kind])
    expected = torch.tensor([math.sqrt(v) for v in x.tolist()], dtype=torch.float64).to(DTYPES[kind])

    assert torch.equal(found[f"{name}/{kind}/plain"], expected)
    assert torch.equal(found[f"{name}/{kind}/apart"], expected[::3])


@pytest.mark.parametrize("kind", DTYPES)
def test_functions_write_into_what_is_there(given, kind):
    start = f"functions written/{kind}/"
    found = {k.removeprefix(start): x for k, x in given("everything").items() if k.startswith(start)}
    expected = dict(rerouted.functions_written(torch.float64))

    assert found.keys() == expected.keys()
    # Of a wider type, the function is that of the narrower one.
    assert {
        k: far(expected[k], x.to(DTYPES[kind])) for k, x in found.items() if far(expected[k], x.to(DTYPES[kind]))
    } == {}
    assert found["wider"].dtype is torch.float64


def test_normal_numbers_are_normal(given):
    """By the largest distance between their distribution and the normal one: 1.95 / √n has a probability of 1 in 1000."""
    drawn = given("draws")
    assert len(drawn) == 17

    for name, x in drawn.items():
        x = x.double().sort()[0]
        ranks = torch.arange(len(x)) / len(x)
        resolution = 2**-8 if "bfloat16" in name else 0  # steps of that width at 1
        assert len(x) == 10_000
        assert (torch.special.ndtr(x) - ranks).abs().max() < 1.95 / math.sqrt(len(x)) + resolution, name
    every = torch.stack([x.double() for x in drawn.values()])
    assert (torch.corrcoef(every) - torch.eye(len(every))).abs().max() < 0.05


def test_a_generator_of_its_own_is_drawn_from(portably):
    code = """
def drawn(*shape, **k): return [torch.empty(3).normal_(generator=g()).tolist(), torch.randn(5, dtype=torch.float64, generator=g()).tolist()]
g = lambda: torch.Generator().manual_seed(7)
first = drawn(); torch.manual_seed(1); state = torch.get_rng_state()
assert drawn() == first and torch.equal(torch.get_rng_state(), state)
torch.empty(3).normal_()
assert not torch.equal(torch.get_rng_state(), state)
print("fine")
"""
    done = portably(code)

    assert done.stdout == "fine\n", done.stderr
