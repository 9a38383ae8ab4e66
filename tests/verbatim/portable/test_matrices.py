import json

import pytest
import torch

import rerouted
from rerouted import DTYPES, PRODUCTS

pytestmark = pytest.mark.filterwarnings("ignore:An output with one or more elements was resized")


def wrong(expected, found):
    """Names of what differs in a bit, a size or a type, or is on one side alone."""
    names = expected.keys() | found.keys()
    both = expected.keys() & found.keys()
    return sorted(
        (names - both)
        | {n for n in both if expected[n].dtype != found[n].dtype or not torch.equal(expected[n], found[n])}
    )


# Half precision is computed as float32, slices and all.
FORMS = [(group, kind) for group in PRODUCTS for kind in DTYPES if group != "sliced" or kind in ("float32", "float64")]


@pytest.mark.parametrize(("group", "kind"), FORMS)
def test_products_of_any_form_are_exact(given, group, kind):
    """Of values whose sums are exact: against the same in float64 by torch's own kernels, rounded once."""
    start = f"{group}/{kind}/"
    found = {k.removeprefix(start): x for k, x in given("everything").items() if k.startswith(start)}
    expected = {k: x.to(DTYPES[kind]) for k, x in PRODUCTS[group](torch.float64)}

    assert wrong(expected, found) == []


def test_one_wrong_element_of_a_product_is_seen(given):
    found = {k: x.clone() for k, x in given("everything").items() if k.startswith("written/float32/")}
    found["written/float32/a part"][6, 8] += 2**-8

    assert wrong({k: given("everything")[k] for k in found}, found) == ["written/float32/a part"]


@pytest.mark.parametrize("workers", [2, 4, 8])
def test_workers_change_no_bit_of_a_product(given, workers):
    assert wrong(given("of_workers"), given("of_workers", workers)) == []


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_sums_are_as_close_as_they_can_be_expected_to_be(given, kind):
    """Of K products: within K roundings of the sum of their sizes. That some are rounded is what the test of workers stands on."""
    eps = torch.finfo(DTYPES[kind]).eps
    bound = 1129 * eps * 1129
    inexact = 0
    for name, x in rerouted.rounded(torch.float64):
        found = given("of_workers")[f"rounded/{kind}/{name}"]
        assert (found.double() - x).abs().max() < bound, name
        inexact += (found.double() != x).sum().item()

    assert (inexact > 10_000) == (kind == "float32")  # 24 bits a product: float64 holds every sum


def test_what_does_not_fit_is_refused_as_torch_refuses_it(portably):
    """BLAS itself would read past the end of a matrix, or float64 as float32."""
    done = portably("import json, rerouted; print(json.dumps(rerouted.misfits()))")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    plain = rerouted.misfits()

    assert [name for name, answer in plain.items() if not answer] == []
    assert [name for name, answer in found.items() if not answer] == []
    assert {found[n] for n in found if plain[n] == "RuntimeError"} == {"RuntimeError"}
    assert {found[n] for n in found if plain[n] == "NotImplementedError"} == {
        "VerbatimError"
    }  # a type without a kernel


COMPLEX = {
    "torch.ones(2, 2, dtype=torch.complex64) @ torch.ones(2, 2, dtype=torch.complex64)": "matrices of real numbers",
    "torch.ones(2, dtype=torch.complex64).sqrt()": "the root of real numbers",
    "torch.ones(2, dtype=torch.complex64).pow(0.5)": "the root of real numbers",
    "torch.randn(2, dtype=torch.complex64)": "draws of real numbers",
}


def test_complex_numbers_are_refused(portably):
    code = "".join(
        f"try:\n    {text}\n    print('fine')\nexcept Exception as error: print(str(error))\n" for text in COMPLEX
    )
    done = portably(code)
    found = "found a tensor of torch.complex64\n  next: choose determinism=exact\n"

    assert done.stdout == "".join(f"determinism=portable: expected {says}, {found}" for says in COMPLEX.values())


def test_whole_numbers_are_multiplied_as_such(portably):
    code = "a = torch.arange(12).view(3, 4); print((a @ a.t()).tolist(), torch.bmm(a[None], a.t()[None]).dtype, torch.mv(a, a[0]).tolist())"
    a = torch.arange(12).view(3, 4)

    assert portably(code).stdout.strip() == f"{(a @ a.t()).tolist()} torch.int64 {torch.mv(a, a[0]).tolist()}"


@pytest.mark.parametrize("early", ["OPENBLAS_CORETYPE", "OPENBLAS_NUM_THREADS"])
def test_numpy_loaded_under_other_variables_is_refused(early):
    """Its OpenBLAS has looked at them by then."""
    from conftest import python

    other = {"OPENBLAS_CORETYPE": "Sandybridge", "OPENBLAS_NUM_THREADS": "2"}
    code = f"""
import os, numpy
del os.environ["{early}"]
from verbatim import determinism
settings = determinism.Determinism(level="portable", threads=1)
determinism.set_variables(settings)
determinism.set_switches(settings, 0)
"""
    right = {"OPENBLAS_CORETYPE": "Haswell", "OPENBLAS_NUM_THREADS": "1"}
    done = python("-c", code, **right | {early: other[early]})

    assert "expected OpenBLAS with its Haswell kernels on one thread, found those of" in done.stderr
    assert "next: import numpy after `with verbatim.run(config)`" in done.stderr


AS_TORCH = {  # what is given, or what is raised, as plain torch does
    "big = torch.full((2, 3, 3), 3e38); float(torch.bmm(big, big).abs().sum())": "inf",
    "torch.set_default_dtype(torch.float64); (torch.tensor([2, 3]).sqrt().tolist(), (torch.tensor([2]) ** 0.5).tolist())": "([1.4142135623730951, 1.7320508075688772], [1.4142135623730951])",
    "torch.addmm(torch.zeros(2, 2, dtype=torch.int64), torch.ones(2, 2, dtype=torch.int64), torch.ones(2, 2, dtype=torch.int64), alpha=2.5).tolist()": "[[4, 4], [4, 4]]",
    "torch.mm(torch.ones(2, 2), torch.ones(2, 2), out=torch.empty(2, 2, dtype=torch.float64))": "RuntimeError",
    "torch.normal(torch.zeros(2), -1.0)": "RuntimeError",
    "torch.dot(torch._efficientzerotensor(2), torch.ones(2)).item()": "0.0",
}  # fmt: skip


def test_corners_are_as_torch_has_them(portably):
    """And without a warning of NumPy's."""
    code = "import warnings; warnings.simplefilter('error')\n" + "".join(
        f"try:\n    {'; '.join(text.split('; ')[:-1]) or 'pass'}\n    print({text.split('; ')[-1]})\n"
        "except Exception as error: print(type(error).__name__)\ntorch.set_default_dtype(torch.float32)\n"
        for text in AS_TORCH
    )
    done = portably(code, unlisted="warn")

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == list(AS_TORCH.values())
