"""The ledger with verdicts: what was reproduced, where, and what broke; in the table and on the page."""

import json
import re
import shutil
from html.parser import HTMLParser

import pytest

from conftest import python
from verbatim import attest, record, report, verdicts
from verbatim.verdicts import summary


@pytest.fixture
def runs(tmp_path, base):
    """Two runs of one recipe with one outcome, and one of another recipe."""
    folder = tmp_path / "runs"
    for name in ("one", "two", "other"):
        shutil.copytree(base, folder / name)
        run = record.read(folder / name)
        run.run = name
        if name == "other":
            run.recipe_config["seed"] = 5
        record.write(folder / name, run)
    return folder


def say(runs, subject, by, result="identical", **environment):
    """Put the verdict on `subject` into the folder of its reproduction `by`."""
    verdict = attest.statement(runs / subject / "record.json", runs / by / "record.json", result=result, steps=12,
                               first_cause="first cause: step, step 3: loss" if result == "different" else "")  # fmt: skip
    verdict["predicate"]["environment"] |= environment
    attest.write(runs / by, verdict, None)
    return verdict


def test_verdicts_are_counted_for_the_record_that_they_name(runs):
    say(runs, "one", "two")
    imported = runs / verdicts.IMPORTED
    imported.mkdir()
    for number in range(3):
        verdict = say(runs, "one", "other", "different" if number == 2 else "identical", probe=f"sha256:{number}")
        (imported / f"{number}.json").write_text(json.dumps(verdict))
    (runs / "other" / attest.FILE).unlink()

    by_record, passed_over = verdicts.find(runs)

    assert passed_over == []
    assert summary(verdicts.of(runs / "one", by_record)) == "≠ 1 of 4, 3× in 3 environments"
    assert summary(verdicts.of(runs / "two", by_record)) == ""


def test_a_verdict_on_a_record_that_was_changed_since_counts_no_more(runs):
    say(runs, "one", "two")
    run = record.read(runs / "one")
    run.reason = "changed"
    record.write(runs / "one", run)

    assert verdicts.of(runs / "one", verdicts.find(runs)[0]) == []


@pytest.mark.parametrize("content", ["", "{}", '{"predicateType": "https://verbatim.invalid/reproduction/v1"}'])
def test_what_is_no_verdict_is_passed_over_and_said(runs, content):
    (runs / "two" / attest.FILE).write_text(content)

    by_record, passed_over = verdicts.find(runs)

    assert by_record == {}
    assert len(passed_over) == 1
    assert passed_over[0].startswith(str(runs / "two" / attest.FILE))


def test_an_unfinished_predicate_is_passed_over(runs):
    verdict = say(runs, "one", "two")
    del verdict["predicate"]["environment"]
    (runs / "two" / attest.FILE).write_text(json.dumps(verdict))

    assert "no whole verdict (KeyError: 'environment')" in verdicts.find(runs)[1][0]


def test_the_table_of_runs_tells_what_was_reproduced(runs):
    say(runs, "one", "two")

    table = python("-m", "verbatim", "runs", str(runs))
    rows = [json.loads(line) for line in python("-m", "verbatim", "runs", "--json", str(runs)).stdout.splitlines()]

    assert "reproduced" in table.stdout.splitlines()[0]
    (line,) = [line for line in table.stdout.splitlines() if line.startswith("one ")]
    assert line.rstrip().endswith("1× in 1 environment")
    assert {row["run"]: row["reproduced"] for row in rows} == {"one": ["identical"], "two": [], "other": []}


class Page(HTMLParser):
    """Balanced, without a script or a link to elsewhere."""

    VOID = ("meta", "br", "img", "rect", "line", "polyline", "circle", "path")

    def __init__(self, text):
        super().__init__()
        self.open, self.text = [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        assert tag not in ("script", "link", "iframe", "img")
        assert not [value for key, value in attributes if key in ("src", "href") or key.startswith("on")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes): ...

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data.strip())


def test_the_page_tells_recipes_verdicts_and_what_broke(runs):
    say(runs, "one", "two")
    say(runs, "other", "other", "different")

    page = Page(report.page(runs))

    words = " ".join(filter(None, page.text))
    assert "3 runs of 2 recipes; 2 recipes with a verdict , 1 broke ." in words
    assert "different on" in words
    assert "first cause: step, step 3: loss" in words
    assert "1 held, 0 broke" in words
    assert "0 held, 1 broke" in words


def test_the_page_tells_a_lower_claim_and_a_resumed_run(runs):
    run = record.read(runs / "other")
    run.level, run.unlisted, run.resumed = "portable", ["aten::tan"], [{"ended": "killed"}]
    record.write(runs / "other", run)

    page = Page(report.page(runs))

    assert page.text.count("sealed; claims exact, not portable (aten::tan); resumed 1×") == 1
    assert page.text.count("sealed") == 2


def test_no_label_of_a_bar_is_cut_off(runs):
    for number in range(30):
        say(runs, "one", "two", probe=f"sha256:{number}")
        (runs / verdicts.IMPORTED).mkdir(exist_ok=True)
        shutil.copyfile(runs / "two" / attest.FILE, runs / verdicts.IMPORTED / f"{number}.json")

    labels = re.findall(r'<text x="([0-9.]+)" y="[0-9]+">([0-9]+ held, [0-9]+ broke)</text>', report.page(runs))

    assert [text for _, text in labels] == ["31 held, 0 broke"]
    assert all(float(x) + 8 * len(text) <= report.WIDTH for x, text in labels)  # 13 px letters are about 7 wide


def test_a_page_of_hostile_records_shows_text(runs):
    run = record.read(runs / "one")
    run.reason = "<script>alert(1)</script>"
    run.overrides = ["experiment=<img src=x onerror=alert(1)>"]
    record.write(runs / "one", run)
    (runs / "one" / "curves.svg").write_text("<svg><script>alert(1)</script></svg>")

    Page(report.page(runs))


def test_a_folder_without_runs_has_a_page_as_well(tmp_path):
    done = python("-m", "verbatim", "report", str(tmp_path))

    assert done.returncode == 0
    assert "No runs yet" in (tmp_path / "report.html").read_text()
    lost = python("-m", "verbatim", "report", str(tmp_path / "none"))
    assert (lost.returncode, lost.stderr.splitlines()[0]) == (
        2,
        f"error: {tmp_path / 'none'}: expected a folder of runs, found none",
    )
