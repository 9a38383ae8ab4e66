"""The page of a multirun, as text: what it says, that it is whole, and that nothing of a user's becomes markup."""

import base64
import hashlib
import json
import math
import re
from html import unescape
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest

from multirun_results import job, many, of, page
from verbatim.multirun import figures, results

HOSTILE = """<!--<script>alert(1)</script ></script>"'&amp;</table>${x}`日本 ☃"""
VOID = ("meta", "input", "rect", "circle", "path", "wbr")


class Read(HTMLParser):
    """Balanced; with one style and two scripts, one of them data; nothing runs or comes from elsewhere."""

    def __init__(self, text):
        super().__init__()
        self.open, self.text, self.rows, self.tags, self.links, self.inside = [], [], [], [], [], {}
        self.feed(text)
        assert self.open == []
        assert (self.tags.count("script"), self.tags.count("style")) == (2, 1)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        assert tag not in ("link", "iframe", "img", "object", "base", "form")
        assert not [key for key, _ in attributes if key in ("src", "style") or key.startswith("on")]
        self.links += [value for key, value in attributes if key == "href"]
        if tag == "meta" and ("http-equiv", "Content-Security-Policy") in attributes:
            self.policy = dict(attributes)["content"]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        assert tag in VOID

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("script", "style"):
            self.inside.setdefault(self.open[-1], []).append(data)
            return
        self.text.append(data)
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())

    @property
    def data(self):
        return json.loads(self.inside["script"][0])


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "sweeps" / "20261124T220512Z-1a2b3c4d"
    made.mkdir(parents=True)
    return made


def test_the_head_tells_what_was_swept_what_was_best_and_what_failed(folder):
    read = Read(page(many(), folder))

    for text in ("22 sealed 2 failed", "Best run 0.1 validation_loss, to minimize", "optimizer.lr 1e-4, 1e-3, 1e-2, 1e-1",
                 "model cnn, mlp", "seed 0, 1, 2", "The same in all: trainer.epochs=4", "nox -s multirun -- seed=0,1,2",
                 "Job 18: trainer.epochs=4 optimizer.lr=1e-2 model=cnn seed=0", "nox -s reproduce -- runs/20261124T220512Z-00000012",
                 "2 failed : the loss of step 12 is not finite: nan",
                 "nox -s train -- trainer.epochs=4 optimizer.lr=1e-3 model=mlp seed=2"):  # fmt: skip
        assert text in read.words


def test_all_jobs_are_in_the_table_without_the_script_best_first(folder):
    results = many()
    head, *rows = [row for row in Read(page(results, folder)).rows if len(row) == 10]

    assert head == ["job", "validation_loss", "optimizer.lr", "model", "seed", "state", "seconds", "run", "command", "test_accuracy"]  # fmt: skip
    values = [float(row[1]) for row in rows if row[1]]
    assert len(rows) == len(results["jobs"])
    assert values == sorted(values)
    assert [row[5] for row in rows[-2:]] == ["failed", "failed"]


def test_a_multirun_that_went_on_is_dated_from_its_first_start(folder):
    results = many(2) | {"started": "2026-11-25T08:00:00Z", "finished": "2026-11-25T09:00:00Z"}
    results["jobs"][1]["went_on"] = True

    read = Read(page(results, folder))

    assert "2026-11-24T22:05:12Z to 2026-11-25T09:00:00Z" in read.words
    assert [row[3] for row in read.rows if row[:1] in (["0"], ["1"])] == ["sealed", "sealed, went on"]
    assert "2026-11-25T08:00:00Z to" in Read(page(results | {"sweep": "renamed"}, folder)).words


def test_where_more_is_better_the_largest_is_best(folder):
    results = many() | {"goal": "maximize"}
    largest = max(job["value"] for job in results["jobs"] if job["value"] is not None)

    read = Read(page(results, folder))

    assert f"Best run {largest:.6g} validation_loss, to maximize" in read.words
    assert results["jobs"][read.data["valued"][0]]["value"] == largest


def test_the_spread_is_told_where_seeds_were_swept_and_nowhere_else(folder):
    read = Read(page(many(), folder))

    (best, *_) = [row for row in read.rows if row[0].startswith("optimizer.lr=")]
    assert best[:5] == ["optimizer.lr=1e-2 model=cnn", "3", "0.11", "0.01", "0.085159 to 0.13484"]
    assert "2 of 3" in [row[1] for row in read.rows]
    one = of([job(i, f"optimizer.lr={rate}", value=0.5) for i, rate in enumerate(("1", "2"))])
    assert "Spread over seeds" not in Read(page(one, folder)).words


def test_an_interval_that_leaves_the_picture_has_an_arrows_head_there(folder):
    values = {"wide": (0.0, 1.0), "left": (0.0, 0.05), "right": (0.95, 1.0), "none": (0.5, 0.51)}
    jobs = [job(2 * i + s, f"a={name}", f"seed={s}", value=pair[s]) for i, (name, pair) in enumerate(values.items()) for s in (0, 1)]  # fmt: skip
    text = page(of(jobs), folder)

    heads = {name: [text.split(f"<code>a={name}</code></td>")[1].split("</tr>")[0].count(end) for end in ("L0 8L", "L220 8L")] for name in values}  # fmt: skip
    assert heads == {"wide": [1, 1], "left": [1, 0], "right": [0, 1], "none": [0, 0]}
    assert re.findall(r"<span>((?:low|high)est [^<]+)", text) == ["lowest 0", "highest 1"]


def test_what_users_wrote_stays_text(folder):
    words = [f"data.note={HOSTILE}", "seed=0"]
    bad = job(1, f"data.note={HOSTILE}2", "seed=0", state="failed", reason=HOSTILE)
    good = job(0, *words, value=0.5) | {"metrics": {HOSTILE: 0.5}, "found": True, "different": "sha256:0"}
    good["epochs"] = [{"epoch": 1, HOSTILE: 0.5}]
    results = of([good, bad]) | {"objective": HOSTILE, "command": HOSTILE, "sweep": HOSTILE}

    read = Read(page(results, folder))

    assert read.words.count(HOSTILE) > 8
    assert "<" not in read.inside["script"][0]  # a browser ends a script at `</script` and a blank
    assert read.data["curves"]["metrics"][0]["name"] == HOSTILE
    assert "1 gave other bits than before" in read.words


def test_undecodable_bytes_of_a_path_do_not_stop_the_page(folder):
    page(of([job(0, "data.root=\udcff", value=0.5), job(1, "data.root=b", value=0.5)]), folder).encode()


def test_the_policy_lets_in_this_style_and_this_script_alone(folder):
    read = Read(page(many(), folder))

    def digest(text):
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    assert read.policy == (
        f"default-src 'none'; style-src {digest(''.join(read.inside['style']))}; script-src {digest(read.inside['script'][1])}; "
        "base-uri 'none'; form-action 'none'"
    )
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", page(many(), folder))


def test_links_lead_to_files_that_are_there(folder, tmp_path):
    results = many(4)
    results["jobs"][2]["folder"] = str(tmp_path / "else where" / 'a"b')
    results["jobs"][3]["folder"] = "javascript:alert(1)"
    for index in (0, 2, 3):
        run = tmp_path / results["jobs"][index]["folder"]
        run.mkdir(parents=True)
        (run / "record.json").write_text("{}")
        (run / "curves.svg").write_text("<svg/>")

    links = Read(page(results, folder)).links

    assert len(links) == 6
    assert all((folder / unquote(link)).is_file() and link.startswith("../../") for link in links)


def test_a_multirun_that_has_not_begun_or_gave_nothing_has_a_page_as_well(folder):
    waiting = [{"job": i, "overrides": [f"seed={i}"], "state": "waiting", "run": "", "folder": "", "value": None, "metrics": {},
                "epochs": [], "wall_s": None, "outcome": "", "recipe": "", "reason": "", "again": "", "train": f"nox -s train -- seed={i}",
                "found": False, "different": ""} for i in range(2)]  # fmt: skip

    assert "2 waiting" in Read(page(of(waiting) | {"finished": None}, folder)).words
    assert "None yet has a value" in Read(page(of([]), folder)).words


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e308])
def test_a_diverged_value_is_told_and_drawn_nowhere(folder, value):
    results = many(4)
    results["jobs"][0]["value"] = value
    results["jobs"][0]["epochs"][1]["validation_loss"] = value

    read = Read(page(results, folder))

    assert 0 not in read.data["valued"]
    assert f"{value:.6g}" in [row[1] for row in read.rows if len(row) > 6]
    lines = read.data["curves"]["metrics"][0]["lines"]
    assert [line.count(None) for line in lines] == [0, 0, 0, 1]


def test_a_thousand_jobs_fit_and_only_the_best_are_drawn(folder):
    results = many(1000, epochs=200)

    text = page(results, folder)

    curves = Read(text).data["curves"]
    assert len(text.encode()) < 1.5 * 2**20
    assert len(curves["jobs"]) == figures.CURVES
    assert sum(len(line) for metric in curves["metrics"] for line in metric["lines"]) <= figures.NUMBERS
    ranked = sorted((job["value"], index) for index, job in enumerate(results["jobs"]) if job["value"] is not None)
    assert curves["jobs"] == [index for _, index in ranked[: figures.CURVES]]
    assert len(page(many(200, epochs=200), folder).encode()) < 300 * 2**10


@pytest.mark.parametrize(("words", "kind", "at", "labels"), [
    (["1e-4", "1e-2", "1e-3"], "log", [0, 1000, 500], ["1e-4", "1e-3", "1e-2"]),
    (["16", "32", "48"], "linear", [0, 500, 1000], ["16", "32", "48"]),
    (["0", "1e-5", "1e-3"], "category", [167, 500, 833], ["0", "1e-5", "1e-3"]),
    (["[128,16]", "[16,32]"], "category", [750, 250], ["[16,32]", "[128,16]"]),
    (["null", "5"], "category", [750, 250], ["5", "null"]),
    (["nan", "1"], "category", [750, 250], ["1", "nan"]),
])  # fmt: skip
def test_an_axis_has_the_scale_of_its_values(words, kind, at, labels):
    axis = figures.axis_of_words("x", words)

    assert (axis.kind, axis.at, [text for _, text in axis.ticks]) == (kind, at, labels)


@pytest.mark.parametrize(("asked", "words", "kind"), [
    ("interval(0.0,0.5)", ["0.0039", "0.41"], "linear"),
    ("tag(log,interval(1e-2,1e-1))", ["0.02", "0.03"], "log"),
    ("tag( log, int(interval(1, 8)))", ["2", "8"], "log"),
    ("range(1,1000)", ["1", "999"], "linear"),
    ("interval(0.0,1)", ["0.0", "1e-5", "1e-2"], "linear"),
    ("1e-4,1e-2", ["1e-4", "1e-2"], "log"),
    ("tag(log,interval(1e-2,1e-1))", ["0.02", "none"], "category"),
])  # fmt: skip
def test_what_was_asked_for_says_the_scale(folder, asked, words, kind):
    assert figures.axis_of_words("x", words, asked).kind == kind


def test_the_sweeps_own_words_say_the_scale_of_a_search(folder):
    jobs = [job(i, f"model.dropout={rate}", value=0.5 + i) for i, rate in enumerate(("0.004", "0.41"))]
    for one in jobs:
        one["folder"] = ""

    def kind():
        results.write_report(folder, of(jobs), folder)
        return Read((folder / "report.html").read_text()).data["axes"][0]["kind"]

    assert kind() == "log"  # nobody said
    (folder / "sweep.json").write_text('{"command": ["-m", "experiment.train", "+model.dropout=interval(0.0,0.5)"]}')
    assert kind() == "linear"


@pytest.mark.parametrize(("values", "kind", "labels"), [
    ([0.0, 100.0], "linear", ["0", "20", "40", "60", "80", "100"]),
    ([0.5, 0.5000001], "linear", ["0.5", "0.50000002", "0.50000004", "0.50000006", "0.50000008"]),
    ([0.5, 0.5 + 1e-16, 0.5 + 2e-16], "linear", ["0.5"]),
    ([-1e299, 1e299], "linear", ["-1e+299", "-5e+298", "0", "5e+298", "1e+299"]),
    ([1e-3, 5.0, 1e4], "log", ["0.001", "0.01", "0.1", "1", "10", "100", "1000", "10000"]),
    ([5e-324, 1e299], "log", None),
    ([3.0, 310.0], "log", ["5", "10", "20", "50", "100", "200"]),
    ([0.04, 2.3], "linear", ["0.5", "1.0", "1.5", "2.0"]),
    ([None, 2.0, math.nan], "linear", ["2"]),
    ([0.08602764], "linear", ["0.08603"]),
    ([], "linear", ["0"]),
])  # fmt: skip
def test_ticks_are_round_few_and_told_apart(values, kind, labels):
    axis = figures.axis("x", values)

    found = [text for _, text in axis.ticks]
    assert axis.kind == kind
    assert labels is None or found == labels
    assert len(set(found)) == len(found) <= 9
    assert all(0 <= at <= figures.FINE for at, _ in axis.ticks)
    assert [at is None for at in axis.at] == [value is None or math.isnan(value) for value in values]


@pytest.mark.parametrize(("values", "kind", "both"), [
    ([0.04, 0.1, None, 2.3], "log", True),
    ([0.04, 0.1, 1.2], "linear", True),
    ([0.0, 0.1, 2.3], "linear", False),
    ([0.5, 0.5], "linear", False),
    ([5e-324, 1e299], "log", True),
])  # fmt: skip
def test_what_is_measured_can_be_drawn_on_either_scale_where_it_is_above_zero(values, kind, both):
    axis = figures.either("x", values)

    assert (axis.kind, bool(axis.linear), axis.span > 0) == (kind, both, both)
    assert ("span" in axis.plain()) == both


def test_hydras_signs_are_no_part_of_a_settings_name():
    assert figures.settings(["+a.b=1", "++c=x=y", "~d", "a.b=2"]) == {"a.b": "2", "c": "x=y", "~d": "yes"}


@pytest.mark.parametrize(("word", "short"), [
    ("0.018120010723341365", "0.01812"),
    ("+optimizer.lr=0.018120010723341365", "+optimizer.lr=0.01812"),
    ("optimizer.lr=1e-2", "optimizer.lr=1e-2"),
    ("model.dropout=0.125", "model.dropout=0.125"),
    ("seed=12345678901", "seed=12345678901"),
    ("model.hidden=[256,256,128]", "model.hidden=[256,256,128]"),
    ("~tracker", "~tracker"),
])  # fmt: skip
def test_only_long_fractions_are_rounded(word, short):
    assert figures.brief(word) == short


def test_what_was_searched_is_rounded_to_be_read_and_whole_to_be_copied(folder):
    word = "optimizer.lr=0.018120010723341365"
    text = page(of([job(0, word, "seed=0", value=0.5), job(1, "optimizer.lr=0.02", "seed=0", value=0.75)]), folder)
    read = Read(text)

    assert "Job 0: optimizer.lr=0.01812 seed=0" in read.words
    assert "0.018120010723341365" not in read.words
    assert f'<code title="{word}">' in text
    one = of([job(0, word, state="failed", reason="no")])
    assert f"nox -s train -- {word}" in Read(page(one, folder)).words


def test_unescaped_text_would_be_noticed(folder):
    whole = page(of([job(0, f"a={HOSTILE}", value=0.5), job(1, "a=1", value=0.5)]), folder)

    with pytest.raises(AssertionError):
        Read(unescape(whole))
