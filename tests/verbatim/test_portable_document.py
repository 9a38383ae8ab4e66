"""What the pages say of level `portable` is what the code and the witnesses hold, and a page that says otherwise is found."""

import dataclasses
import re
import shutil

import pytest

from conftest import ROOT, python
from verbatim.errors import VerbatimError
from verbatim.portable import document, operators, witnesses
from verbatim.portable.witnesses import Witness

PAGE = "docs/determinism.md"


def part(text, name):
    return re.search(rf"made by {document.COMMAND}: {name} -->\n(.*?)<!-- end -->", text, re.DOTALL)[1]


@pytest.fixture
def text():
    return (ROOT / PAGE).read_text()


@pytest.fixture
def pages(tmp_path):
    """A copy of both pages."""
    for name in document.FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / name)
    return tmp_path


@pytest.fixture
def table():
    return witnesses.read()


def witness(table, **other):
    now = dict(zip(("operators", "trainings"), table.digests, strict=True))
    given = {"cpu": "Quartz 9000", "vendor": "GenuineIntel", "how": "native", "os": "Debian", "libc": "glibc-2.41", "cores": 8, "date": "2026-01-02"}  # fmt: skip
    return Witness(**given | now | other)


def test_the_pages_are_up_to_date():
    """Where this fails: nox -s portability -- --document"""
    assert list(document.stale(ROOT)) == []


def test_a_word_changed_by_hand_is_found_and_undone(pages, capsys):
    before = (pages / PAGE).read_text()
    made = part(before, "operators")
    (pages / PAGE).write_text(before.replace(made, made.replace("logsumexp", "logsumexq")))

    assert list(document.stale(pages)) == [PAGE]
    assert document.main(pages) == 0
    assert capsys.readouterr().out == f"README.md: up to date\n{PAGE}: written\n"
    assert (pages / PAGE).read_text() == before


def test_what_is_written_by_hand_stays(pages):
    changed = (pages / PAGE).read_text().replace("# Determinism\n", "# Determinism, by hand\n")
    (pages / PAGE).write_text(changed)

    assert document.write(pages) == []
    assert (pages / PAGE).read_text() == changed


def test_a_new_witness_makes_the_pages_stale(text, table):
    table.witnesses = [witness(table)]
    new = document.renewed(text, table)

    counts = f"{len(table.expected(1))} | {len(table.trainings)}"
    assert f"| Quartz 9000 (GenuineIntel) | native | glibc-2.41 | {counts} | 2026-01-02 |" in part(new, "witnesses")
    assert "no real AMD machine" in part(new, "claim")
    assert "no real Intel" not in part(new, "claim")
    for name in ("operators", "rerouted", "unlisted", "threads"):
        assert part(new, name) == part(text, name)


def test_real_machines_of_both_makers_change_the_claim(text, table):
    table.witnesses = [witness(table), witness(table, vendor="AuthenticAMD")]

    assert "confirmed on real Intel and real AMD machines" in part(document.renewed(text, table), "claim")


def test_emulation_is_claimed_only_where_something_was_emulated(text, table):
    table.witnesses = [witness(table)]
    without = part(document.renewed(text, table), "claim")
    table.witnesses.append(witness(table, cpu="Haswell", how="qemu-user 7.2"))

    assert "`portable` is not yet tested by emulation: no real AMD machine" in without
    assert "`portable` is tested by emulation: no real AMD machine" in part(document.renewed(text, table), "claim")


def test_a_witness_of_an_earlier_table_is_said_to_be_one(text, table):
    table.witnesses = [witness(table, operators="0" * 16, trainings="")]
    new = document.renewed(text, table)

    assert "| an earlier table | not run |" in part(new, "witnesses")
    assert "no real Intel and no real AMD" in part(new, "claim")


def test_every_covered_operator_is_named(text):
    named = set(part(text, "operators").split())

    assert {name for names in operators.GROUPS.values() for name in names.split()} <= named


def test_every_operator_that_feels_threads_is_named(text, table):
    table.operators["2"] = {**table.operators["2"], "quartz float32": "0"}

    assert "`quartz`" in part(document.renewed(text, table), "threads")
    assert "`quartz`" not in part(text, "threads")


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda text: text.replace(": claim -->", ": clam -->"), "clam"),
        (lambda text: text.replace("<!-- end -->", ""), "none"),
        (lambda text: re.sub("<!-- made .*", "", text), "none"),
    ],
)
def test_a_part_that_cannot_be_made_is_refused(pages, change, found):
    (pages / PAGE).write_text(change((pages / PAGE).read_text()))

    with pytest.raises(VerbatimError, match=rf"{PAGE}: expected parts named claim, .* found .*{found}"):
        document.write(pages)


def test_a_page_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(VerbatimError, match="README.md: expected the page to write to, found nothing there"):
        document.write(tmp_path)


def test_asking_loads_no_torch():
    done = python("-X", "importtime", "-c", f"from pathlib import Path; from verbatim.portable import document; document.stale(Path({str(ROOT)!r}))")  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert not [line for line in done.stderr.splitlines() if line.endswith((" torch", " numpy"))]


def test_the_reasons_are_of_the_operators_that_are_rerouted():
    from verbatim.portable.kernels import KERNELS

    rerouted = {name.partition(".")[0].removesuffix("_") for name in KERNELS}
    explained = [name for names in operators.REROUTED for name in names.split()]

    assert sorted(explained) == sorted(rerouted)
    assert rerouted <= operators.LISTED


def test_an_operator_is_listed_or_has_its_reason_never_both():
    assert not operators.LISTED & operators.INSTEAD.keys()


def test_a_witness_is_shown_without_host_or_person():
    assert {f.name for f in dataclasses.fields(Witness)} == {
        "cpu", "vendor", "how", "os", "libc", "cores", "date", "operators", "trainings"
    }  # fmt: skip
