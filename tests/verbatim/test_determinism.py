import os

import pytest

from conftest import ROOT, python
from verbatim import determinism, portable
from verbatim.determinism import LEVELS, PROCESS_VARIABLES, THREAD_VARIABLES, Determinism, set_variables, variables
from verbatim.errors import VerbatimError


def test_a_level_that_there_is_not_is_refused_not_lowered():
    with pytest.raises(VerbatimError) as error:
        Determinism(level="perfect", threads=1)

    assert str(error.value) == (
        "determinism.level: expected seeded or exact or portable, found perfect\n  next: choose determinism=exact"
    )


def test_more_threads_than_cores_are_refused():
    cores = len(os.sched_getaffinity(0))

    with pytest.raises(VerbatimError, match=f"expected at most {cores}, the cores that this process may use"):
        Determinism(level="exact", threads=cores + 1)


def test_the_workspace_of_cublas_is_fixed_at_exact_only():
    assert "CUBLAS_WORKSPACE_CONFIG" in variables("exact", 1)
    assert "CUBLAS_WORKSPACE_CONFIG" not in variables("seeded", 1)


def test_portable_caps_every_library_and_the_others_none():
    wanted = variables("portable", 1)

    assert wanted.items() >= portable.VARIABLES.items()
    for level in ("seeded", "exact"):
        assert not variables(level, 1).keys() & (portable.VARIABLES.keys() - THREAD_VARIABLES)
    assert {*wanted, *portable.ABSENT} <= {*PROCESS_VARIABLES}


CONTRADICTIONS = [(name, "other", f"{name}={value}, or nothing") for name, value in portable.VARIABLES.items()]
CONTRADICTIONS = [c for c in CONTRADICTIONS if c[0] not in THREAD_VARIABLES]
CONTRADICTIONS += [(name, "BF16", f"no {name}") for name in portable.ABSENT]


@pytest.mark.parametrize(("name", "value", "expected"), CONTRADICTIONS)
def test_a_variable_that_a_person_set_otherwise_is_refused(monkeypatch, name, value, expected):
    monkeypatch.setenv(name, value)

    with pytest.raises(VerbatimError) as error:
        set_variables(Determinism(level="portable", threads=1))

    assert str(error.value) == f"determinism=portable: expected {expected}, found {name}={value}\n  next: unset {name}"


def test_a_variable_that_a_person_set_as_it_must_be_is_fine_and_of_a_launcher_overruled():
    code = APPLY.format(level="portable", before="") + "import os; print(os.environ['OMP_NUM_THREADS'])"
    done = python("-c", code, MKL_CBWR="COMPATIBLE", OMP_NUM_THREADS="4", OPENBLAS_NUM_THREADS="4")

    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "1"


@pytest.mark.parametrize(
    ("machine", "found"), [("aarch64", "aarch64, whose bits nobody has compared"), ("arm64", "arm64")]
)
def test_another_kind_of_machine_is_refused(monkeypatch, machine, found):
    monkeypatch.setattr("platform.machine", lambda: machine)

    with pytest.raises(VerbatimError, match=f"determinism=portable: expected an x86-64 CPU, found {found}"):
        Determinism(level="portable", threads=1)
    assert Determinism(level="exact", threads=1).level == "exact"


def test_ranks_of_a_machine_share_its_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(8))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")

    assert determinism.cores() == 2
    with pytest.raises(VerbatimError, match="expected at most 2, the cores that each rank may use, found 3"):
        Determinism(level="exact", threads=3)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "16")
    assert determinism.cores() == 1


def test_what_a_script_sets_while_the_run_goes_on_is_found():
    code = """
from verbatim import determinism
settings = determinism.Determinism(level="exact", threads=1)
determinism.set_variables(settings)
determinism.set_switches(settings, 0)
import torch
determinism.refuse_changes(settings)
{code}
determinism.refuse_changes(settings)
"""
    for change, says in (
        ("torch.set_num_threads(2)", "torch.set_num_threads: expected 1, as the recipe says, found 2, set while the run went on"),
        ("torch.use_deterministic_algorithms(True, warn_only=True)", "torch.use_deterministic_algorithms(warn_only=…): expected False, as the recipe says, found True"),
        ("torch.backends.cudnn.allow_tf32 = True", "torch.backends.cudnn.allow_tf32: expected False, as the recipe says, found True"),
        ("torch.set_num_threads(2); torch.set_num_threads(1)", "torch.set_num_threads: expected 1, as the recipe says, found 2"),
        ("torch.use_deterministic_algorithms(False)", "torch.use_deterministic_algorithms: expected True, as the recipe says, found False"),
    ):  # fmt: skip
        assert says in python("-c", code.format(code=change)).stderr
    assert python("-c", code.format(code="")).returncode == 0


def test_a_number_of_threads_without_digests_is_refused(monkeypatch):
    monkeypatch.setattr("verbatim.determinism.cores", lambda: 8)

    for threads in portable.THREADS:
        assert Determinism(level="portable", threads=threads).threads == threads
    with pytest.raises(
        VerbatimError, match="determinism.threads: expected one of 1, 2, 4, 8 at level portable, found 3"
    ):
        Determinism(level="portable", threads=3)


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps"])
def test_portable_is_of_the_cpu(device):
    portable.refuse_device("cpu")

    with pytest.raises(
        VerbatimError,
        match=f"expected device cpu, found {device}: .*\n  next: choose determinism=exact, or trainer.device=cpu",
    ):
        portable.refuse_device(device)


APPLY = """
from verbatim.determinism import *
s = Determinism(level="{level}", threads=1)
{before}
set_variables(s); set_switches(s, 3)
import torch, random
print(torch.are_deterministic_algorithms_enabled(), torch.get_num_threads(), torch.rand(1).item(), random.random())
"""


def test_exact_and_portable_forbid_what_cannot_repeat_and_seeded_does_not():
    seeded, exact, portable_ = (python("-c", APPLY.format(level=level, before="")) for level in LEVELS)

    assert exact.stdout.split()[:2] == ["True", "1"], exact.stderr
    assert portable_.stdout.split()[:2] == ["True", "1"], portable_.stderr
    assert seeded.stdout.split()[:2] == ["False", "1"], seeded.stderr
    assert exact.stdout.split()[2:] == seeded.stdout.split()[2:] == portable_.stdout.split()[2:]


def test_torch_loaded_too_early_is_refused():
    done = python("-c", APPLY.format(level="exact", before="import torch"), OMP_NUM_THREADS="2")

    assert "torch imported already by __main__ (typed in), under CUBLAS_WORKSPACE_CONFIG=None" in done.stderr


def test_torch_loaded_too_early_is_refused_at_portable_and_who_loaded_it_is_named(tmp_path):
    (tmp_path / "early.py").write_text("from torch import nn\n")
    done = python("-c", APPLY.format(level="portable", before="import early"), PYTHONPATH=f"{ROOT / 'src'}:{tmp_path}")

    says = f"expected ATEN_CPU_CAPABILITY=avx2 before torch is imported, found torch imported already by early ({tmp_path}/early.py), under"
    assert says in done.stderr
    assert "next: import torch inside `with verbatim.run(config)`" in done.stderr


def test_torch_loaded_early_under_the_right_variables_is_fine():
    right = variables("exact", 1)
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
