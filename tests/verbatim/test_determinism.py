import os

import pytest

from conftest import python
from verbatim.determinism import Determinism, variables
from verbatim.errors import VerbatimError


def test_a_level_that_is_not_built_is_refused_not_lowered():
    with pytest.raises(VerbatimError) as error:
        Determinism(level="portable", threads=1)

    assert str(error.value) == (
        "determinism.level: expected seeded or exact, found portable\n  next: choose determinism=exact"
    )


def test_more_threads_than_cores_are_refused():
    cores = len(os.sched_getaffinity(0))

    with pytest.raises(VerbatimError, match=f"expected at most {cores}, the cores that this process may use"):
        Determinism(level="exact", threads=cores + 1)


def test_the_workspace_of_cublas_is_fixed_at_exact_only():
    assert "CUBLAS_WORKSPACE_CONFIG" in variables(Determinism(level="exact", threads=1))
    assert "CUBLAS_WORKSPACE_CONFIG" not in variables(Determinism(level="seeded", threads=1))


APPLY = """
from verbatim.determinism import *
s = Determinism(level="{level}", threads=1)
{before}
set_variables(s); set_switches(s, 3)
import torch, random
print(torch.are_deterministic_algorithms_enabled(), torch.get_num_threads(), torch.rand(1).item(), random.random())
"""


def test_exact_forbids_what_cannot_repeat_and_seeded_does_not():
    exact = python("-c", APPLY.format(level="exact", before=""))
    seeded = python("-c", APPLY.format(level="seeded", before=""))

    assert exact.stdout.split()[:2] == ["True", "1"], exact.stderr
    assert seeded.stdout.split()[:2] == ["False", "1"], seeded.stderr
    assert exact.stdout.split()[2:] == seeded.stdout.split()[2:]


def test_torch_loaded_too_early_is_refused():
    done = python("-c", APPLY.format(level="exact", before="import torch"), OMP_NUM_THREADS="2")

    assert "torch imported already, under CUBLAS_WORKSPACE_CONFIG=None" in done.stderr


def test_torch_loaded_early_under_the_right_variables_is_fine():
    right = variables(Determinism(level="exact", threads=1))
    done = python("-c", APPLY.format(level="exact", before="import torch"), **right)

    assert done.returncode == 0, done.stderr


def test_the_hash_seed_is_fixed_by_starting_anew():
    code = "from verbatim.determinism import fix_hash_seed; fix_hash_seed(); print(hash('a'))"

    first, second = (python("-c", code, PYTHONHASHSEED="random").stdout for _ in range(2))

    assert first == second != ""
    assert python("-c", code, PYTHONHASHSEED="5").stdout != first


def test_an_exact_run_stops_at_an_operator_that_cannot_repeat():
    code = APPLY.format(level="exact", before="") + "torch.utils.deterministic.fill_uninitialized_memory\n"
    code += "torch.zeros(3).put_(torch.tensor([0, 0]), torch.ones(2), accumulate=False)"

    assert "does not have a deterministic implementation" in python("-c", code).stderr
