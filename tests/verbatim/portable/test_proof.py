import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from conftest import ENVIRONMENT, ROOT, python
from verbatim import environment
from verbatim.errors import VerbatimError
from verbatim.portable import VARIABLES, proof, witnesses
from verbatim.portable.proof import Way
from verbatim.portable.witnesses import apart

TABLE = witnesses.read()
ONLY = "ad"  # addmm, baddbmm, adam, padding and others: 86 cases


def differs(way, only=""):
    """The cases in which a way differs from the table."""
    found = proof.compute(way, ROOT, only)
    assert not found.failed, found.failed
    expected = {name: value for name, value in TABLE.expected(way.threads).items() if only in name}
    assert found.operators
    return apart(expected, found.operators)


def test_this_machine_computes_the_committed_digests_and_so_does_every_training():
    """Of every operator case, and of every model with every optimizer."""
    found = proof.compute(Way(name="this machine", trainings=True), ROOT)
    models, optimizers = (
        {path.stem for path in (ROOT / "configs" / group).glob("*.yaml")} for group in ("model", "optimizer")
    )

    assert found.failed == ""
    assert apart(TABLE.expected(1), found.operators) == []
    assert apart(TABLE.trainings, found.trainings) == []
    assert set(found.trainings) == {f"{model} {optimizer}" for model in models for optimizer in optimizers}


@pytest.mark.parametrize(
    "way",
    [
        Way(name="4 workers on 1 core", workers=4, cores=1),
        Way(name="MKL up to AVX", variables={"MKL_ENABLE_INSTRUCTIONS": "AVX"}),
    ],
    ids=lambda way: way.name,
)
def test_the_digests_are_the_same_every_way(way):
    assert differs(way) == []


def test_threads_are_part_of_what_is_compared():
    """The control: another number of threads gives other bits, and the table knows which."""
    one, two = TABLE.expected(1), TABLE.expected(2)

    assert differs(Way(name="2 threads", threads=2), "layer_norm") == []
    assert [name for name in apart(one, two) if "layer_norm" in name]


def test_at_level_exact_bits_are_those_of_the_kernels_at_hand():
    """The control: what the level caps would show."""
    assert differs(Way(name="exact", level="exact"), ONLY)
    command = ["-m", "verbatim.portable.compute", "--level", "exact", "--only", "tanh"]
    plain, capped = (python(*command, ATEN_CPU_CAPABILITY=c, PYTHONWARNINGS="ignore") for c in ("avx2", "default"))
    assert plain.returncode == capped.returncode == 0, capped.stderr
    assert plain.stdout != capped.stdout


# ---------------------------------------------------------------------------------------------------------- other CPUs


@pytest.fixture(scope="module")
def qemu():
    found = next(filter(None, map(shutil.which, proof.QEMU)), None)
    if not found:
        pytest.skip("no qemu-user here, which plays other CPUs: apt-get install qemu-user-static")
    return found


def test_a_cpu_of_another_maker_gives_the_same_bits_at_level_portable_alone(qemu):
    vendor = environment.describe_machine()["cpu"]["vendor"]
    cpu = "EPYC" if vendor == "GenuineIntel" else "Haswell"
    ways = [Way(name=level, cpu=cpu, level=level) for level in ("portable", "exact")] + [
        Way(name="here", level="exact")
    ]
    with ThreadPoolExecutor(2) as pool:
        played, exact, here = pool.map(lambda way: proof.compute(way, ROOT, ONLY), ways)

    assert (played.failed, exact.failed, here.failed) == ("", "", "")
    assert len(played.operators) > 50
    assert apart({name: value for name, value in TABLE.expected(1).items() if ONLY in name}, played.operators) == []
    assert apart(here.operators, exact.operators)  # so the emulator does play another


def test_a_cpu_without_avx2_is_refused(qemu):
    found = proof.compute(Way(name="old", cpu="IvyBridge"), ROOT, ONLY)

    assert (
        found.failed == "error: determinism=portable: expected a CPU with AVX2 and FMA, found one without AVX2 and FMA3"
    )
    assert found.operators == {}


def test_a_training_on_a_cpu_without_avx2_is_refused_before_torch_dies_of_it(qemu, runs):
    command = [qemu, "-cpu", "IvyBridge", sys.executable, "-m", "experiment.train", "determinism=portable", f"paths.runs={runs}"]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False)

    assert done.returncode == 2, done.stderr
    assert "error: determinism=portable: expected a CPU with AVX2 and FMA, found one without AVX2" in done.stderr
    assert "next: choose determinism=exact" in done.stderr


def test_a_cpu_that_qemu_does_not_know_is_refused(qemu):
    with pytest.raises(VerbatimError, match="--emulate: expected a CPU of qemu's, as Haswell, .*, found Pentium-9\n  next: qemu-x86_64"):  # fmt: skip
        proof.main(["--emulate", "Pentium-9"], ROOT)


def test_without_qemu_nothing_is_emulated_and_it_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(VerbatimError, match="expected qemu-user, which plays other CPUs, found none here"):
        proof.main(["--emulate"], ROOT)


# -------------------------------------------------------------------------------------------------------- the command


@pytest.fixture
def two_ways(monkeypatch):
    """Of the ways that there are, two."""
    ways = [Way(name="this machine"), Way(name="2 workers", workers=2)]
    monkeypatch.setattr(proof, "ways", lambda emulated: iter(ways))


def test_agreement_is_0(two_ways, capsys):
    assert proof.main(["--only", "isnan"], ROOT) == 0
    lines = capsys.readouterr().out.splitlines()

    assert [line.split()[-2:] for line in lines[:2]] == [["the", "same"]] * 2
    assert lines[-1] == f"1 of {len(TABLE.expected(1))} cases agree; the others were not looked at"


def test_no_case_at_all_is_no_agreement(two_ways):
    with pytest.raises(VerbatimError, match="--only: expected a part of an operator case's name, as tanh, found zzz"):
        proof.main(["--only", "zzz"], ROOT)


def test_a_difference_is_1_and_named(two_ways, capsys, monkeypatch):
    other = replace(TABLE, operators={"1": TABLE.operators["1"] | {"isnan": "0123456789abcdef"}})
    monkeypatch.setattr(witnesses, "read", lambda: other)

    assert proof.main(["--only", "isnan"], ROOT) == 1
    out = capsys.readouterr().out
    assert out.count("1 differ: isnan") == 2
    assert "this machine does not give the bits of the others: keep to determinism=exact, and please report it" in out


def test_a_way_that_can_not_be_run_is_no_agreement(monkeypatch, capsys):
    monkeypatch.setattr(proof, "ways", lambda emulated: iter([Way(name="this machine", variables={"PYTHONHOME": "/nowhere"})]))  # fmt: skip

    with pytest.raises(VerbatimError, match="portability: expected every way to run, found this machine: "):
        proof.main(["--only", "isnan"], ROOT)


@pytest.mark.parametrize("flag", ["--add", "--renew"])
def test_a_part_makes_no_witness(flag):
    with pytest.raises(VerbatimError, match="--only: expected no --add and no --renew with it"):
        proof.main(["--only", "isnan", flag], ROOT)


def test_a_machine_is_a_witness_once(monkeypatch, tmp_path):
    """A later look takes the place of the earlier; what it agreed with is kept beside it."""
    write = witnesses.write
    monkeypatch.setattr(witnesses, "write", lambda table: write(table, tmp_path / "w.json"))
    table = replace(TABLE, witnesses=[])
    ways = [Way(name="this machine", trainings=True), Way(name="2 workers", workers=2)]
    for _ in range(2):
        proof._add(table, ways)

    (witness,) = witnesses.read(tmp_path / "w.json").witnesses
    machine = environment.describe_machine()
    wide = ", AVX-512" if "avx512f" in machine["cpu"]["flags"].split() else ""
    assert (witness.how, witness.cpu) == ("native", machine["cpu"]["model"] + wide)
    assert (witness.operators, witness.trainings) == TABLE.digests
    assert table.agreed(native=True) == [witness]


def test_every_variable_of_the_level_is_taken_from_who_asks():
    """A proof started where one is set must not be refused for it, nor run under it."""
    os.environ.update(dict.fromkeys(VARIABLES, "1"))
    try:
        assert differs(Way(name="this machine"), "isnan") == []
    finally:
        for name in VARIABLES:
            del os.environ[name]
