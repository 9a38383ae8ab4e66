import json
from dataclasses import replace

import pytest

from conftest import ROOT, python
from verbatim import record
from verbatim.errors import VerbatimError
from verbatim.portable import witnesses
from verbatim.portable.witnesses import Table, Witness

TABLE = Table(
    torch="2", numpy="2", operators={"1": {"a": "1", "b": "2"}, "2": {"b": "3"}}, trainings={"mlp sgd": "sha256:0"}
)
INTEL = Witness(
    cpu="i9", vendor="GenuineIntel", how="native", os="Debian", libc="glibc 2.36", cores=8, date="2026-01-01",
    operators=TABLE.digests[0], trainings=TABLE.digests[1],
)  # fmt: skip
AMD = replace(INTEL, cpu="EPYC", vendor="AuthenticAMD")
PLAYED = replace(INTEL, cpu="Haswell", how="qemu-user 7.2.22")


def test_of_more_threads_only_what_differs_is_kept():
    assert TABLE.expected(1) == {"a": "1", "b": "2"}
    assert TABLE.expected(2) == {"a": "1", "b": "3"}
    assert TABLE.expected(4) == TABLE.expected(1)


@pytest.mark.parametrize(
    ("found", "claim"),
    [
        ([], "not yet tested by emulation: no real Intel and no real AMD machine has confirmed it yet"),
        ([PLAYED, replace(PLAYED, cpu="EPYC", vendor="AuthenticAMD")], "tested by emulation: no real Intel and no real AMD machine has confirmed it yet"),
        ([AMD, PLAYED], "tested by emulation: no real Intel machine has confirmed it yet"),
        ([INTEL], "not yet tested by emulation: no real AMD machine has confirmed it yet"),
        ([INTEL, AMD], "confirmed on real Intel and real AMD machines"),
        ([replace(INTEL, operators="of another table"), AMD], "not yet tested by emulation: no real Intel machine has confirmed it yet"),
    ],
)  # fmt: skip
def test_the_claim_is_what_real_machines_of_both_makers_have_confirmed(found, claim):
    assert replace(TABLE, witnesses=found).claim == claim


def test_a_table_is_read_as_it_was_written(tmp_path):
    table = replace(TABLE, witnesses=[INTEL, PLAYED])
    witnesses.write(table, tmp_path / "w.json")

    assert witnesses.read(tmp_path / "w.json") == table


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"torch": "2"}', '{"witnesses": [{}]}', '{"witnesses": [], "other": 1}']
)
def test_a_table_that_is_none_is_refused(tmp_path, text):
    (tmp_path / "witnesses.json").write_text(text)

    with pytest.raises(VerbatimError, match="expected the table of digests, found .*\n  next: git checkout -- witnesses.json, or nox -s portability -- --renew"):  # fmt: skip
        witnesses.read(tmp_path / "witnesses.json")


def test_what_one_side_lacks_is_a_difference():
    assert witnesses.apart({"a": "1", "b": "2", "c": "3"}, {"a": "1", "b": "3", "d": "4"}) == ["b", "c", "d"]


def test_the_committed_table_is_of_the_locked_versions():
    table = witnesses.read()
    lock = (ROOT / "requirements" / "cpu.txt").read_text()

    assert f"numpy=={table.numpy} " in lock
    assert f"torch=={table.torch}" in lock


# ---------------------------------------------------------------------------------------------------------- the probe


def test_the_probe_draws_nothing_and_repeats(portably):
    code = """
from verbatim.portable import witnesses
torch.manual_seed(5); state = torch.get_rng_state()
first = witnesses.probe(1)
torch.rand(3); torch.set_default_dtype(torch.float32)
with torch.no_grad(): print(first == witnesses.probe(1) != "", len(first))
torch.manual_seed(5)
print(torch.equal(state, torch.get_rng_state()))
"""
    done = portably(code)

    assert done.stdout == "True 71\nTrue\n", done.stderr


def test_a_machine_that_computes_other_bits_is_named():
    """A real one: torch's kernels without vectors, as on a CPU without AVX2."""
    code = """
import os
from verbatim import portable
os.environ.update(portable.VARIABLES | {"ATEN_CPU_CAPABILITY": "default", "OMP_NUM_THREADS": "1"})
portable.install(1, 1, None)
from verbatim.portable import witnesses
print(witnesses.probe(1))
"""
    done = python("-c", code)

    assert "determinism=portable: expected the bits that every other machine computes, found others in " in done.stderr
    assert "next: choose determinism=exact; `nox -s portability` names all that differs" in done.stderr


def test_a_machine_that_differs_is_named_before_training_starts(project):
    """What another machine would find, had ours been the first: another digest in the table, and of another torch."""
    table = project.root / "src/verbatim/portable/witnesses.json"
    value = json.loads(table.read_text())
    value["operators"]["1"]["gelu float32"] = "0123456789abcdef"
    value["torch"] = "2.12.0"
    table.write_text(json.dumps(value))
    done = project.run("experiment.train", "determinism=portable", "model=mlp", "trainer.max_steps=3")

    assert done.returncode == 2
    assert (
        "error: determinism=portable: expected the bits that every other machine computes, found others in gelu float32 (1 of "
        in done.stderr
    )
    assert "the table is of torch 2.12.0 and numpy" in done.stderr
    (folder,) = project.runs.iterdir()
    assert not (folder / "trace.bin").exists()
    assert "found others in gelu float32" in record.read(folder).reason
