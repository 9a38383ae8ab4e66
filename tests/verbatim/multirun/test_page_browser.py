"""The page of a multirun in a real browser: it draws, sorts, filters and copies by mouse and by keys, asks for nothing, breaks nowhere."""

import json
import re
import struct

import pytest

import devtools
from multirun_results import job, many, of, page

pytestmark = pytest.mark.skipif(devtools.CHROMIUM is None, reason="no chromium on the PATH")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    tab = devtools.Tab(tmp_path_factory.mktemp("profile"))
    yield tab
    tab.close()


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "sweeps" / "one"
    made.mkdir(parents=True)
    return made


@pytest.fixture
def show(browser, folder):
    """`show(results)`: the page in a tab. What it asked for and said is looked at in the end."""
    asked = []

    def call(results, width=1200, *, dark=False):
        browser.said.clear()
        browser.requests.clear()
        browser.look(width, dark=dark)
        report = folder / "report.html"
        report.write_text(page(results, folder), encoding="utf-8")
        browser.open(report)
        browser.run("0")
        asked.append(report.as_uri())
        return browser

    yield call
    browser.run("0")
    assert (browser.said, browser.requests) == ([], asked[-1:])


def column(tab, name):
    """The cells of the table's visible rows, in their order."""
    return tab.run(f"""(() => {{ const table = document.getElementById("jobs");
        const at = [...table.tHead.rows[0].cells].findIndex((th) => th.textContent === {json.dumps(name)});
        return [...table.tBodies[0].rows].filter((row) => !row.hidden).map((row) => row.cells[at].textContent) }})()""")


def count(tab, selector):
    return tab.run(f"document.querySelectorAll({json.dumps(selector)}).length")


@pytest.mark.parametrize(("before", "after", "said"), [
    ("<main>", '<main><img src="http://127.0.0.1:9/x.png">', "Loading the image 'http://127.0.0.1:9/x.png' violates"),
    ("<main>", "<main><script>nothing.there()</script>", "Executing inline script violates"),
    ('"use strict";', '"use strict"; nothing.there();', "Executing inline script violates"),
    (r"script-src '[^']+'", "script-src 'unsafe-inline'", ""),
    (r"script-src '[^']+'(.*)<main>", r"script-src 'unsafe-inline'\1<main><script>nothing.there()</script>", "nothing is not defined"),
])  # fmt: skip
def test_a_page_that_asks_or_breaks_would_be_noticed(browser, folder, before, after, said):
    browser.said.clear()
    text, changed = re.subn(before, after, page(many(4), folder), count=1, flags=re.DOTALL)
    (folder / "bad.html").write_text(text, encoding="utf-8")

    browser.open(folder / "bad.html")
    browser.run("0")

    assert changed == 1
    assert said in "\n".join(browser.said)
    assert bool(browser.said) == bool(said)


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (1200, True), (400, False)])
def test_every_job_is_drawn_within_the_page(show, tmp_path, width, dark):
    tab = show(many(), width, dark=dark)

    assert count(tab, "#curves .curve") == 22  # those that failed have no epochs
    assert count(tab, "#parallel .curve") == 22
    assert count(tab, "#slices svg") == 3
    assert count(tab, "#slices .dot") == 3 * 22
    assert tab.run("document.documentElement.scrollWidth") == width
    paper, best = tab.run("""[getComputedStyle(document.body).backgroundColor,
        getComputedStyle(document.querySelector("#curves .k0")).stroke]""")
    assert (paper, best) == (
        ("rgb(22, 24, 28)", "rgb(245, 230, 38)") if dark else ("rgb(255, 255, 255)", "rgb(13, 8, 135)")
    )
    tab.picture(tmp_path / "page.png")
    content = (tmp_path / "page.png").read_bytes()
    assert struct.unpack(">II", content[16:24]) == (width, 900)


@pytest.mark.parametrize("width", [1280, 500])
def test_a_head_is_broken_after_dots_and_underscores_and_within_no_word(show, width):
    results = many()
    for at, one in enumerate(results["jobs"]):
        one["overrides"].append(f"model.attention.dropout_rate={at}")

    tab = show(results, width)

    lines = tab.run("""[...document.querySelectorAll("#jobs th button")].map((head) => [...head.childNodes].filter((node) => node.data).map(
        (node) => { const range = document.createRange(); range.selectNode(node); return [node.data, range.getClientRects().length] }))""")
    assert ["model.", "attention.", "dropout_", "rate"] in [[text for text, _ in head] for head in lines]
    assert {count for head in lines for _, count in head} == {1}


def test_a_click_on_a_head_sorts_and_another_turns_it_round(show):
    tab = show(many())
    assert column(tab, "validation_loss")[0] == "0.1"  # the best first

    tab.click("#jobs th:nth-child(3) button")
    up = column(tab, "optimizer.lr")
    assert tab.run("[...document.querySelectorAll('#jobs [aria-sort]')].map((th) => th.ariaSort).join()") == (
        "none,none,ascending" + 6 * ",none"
    )
    tab.press("Enter")  # the head still has the focus

    assert up == ["1e-4"] * 6 + ["1e-3"] * 6 + ["1e-2"] * 6 + ["1e-1"] * 6
    assert column(tab, "optimizer.lr") == up[::-1]
    assert tab.run("document.querySelector('#jobs [aria-sort=descending]').textContent") == "optimizer.lr"


def test_jobs_without_a_value_are_last_whichever_way_it_is_sorted(show):
    tab = show(many())

    for down in (True, False):
        tab.click("#jobs th:nth-child(2) button")
        values = column(tab, "validation_loss")
        assert values[-2:] == ["", ""]
        assert [float(v) for v in values[:-2]] == sorted((float(v) for v in values[:-2]), reverse=down)


def test_the_filter_takes_words_and_bounds(show):
    tab = show(many())
    asked = {"model=cnn": 12, "optimizer.lr<=0.001 model=mlp": 6, "optimizer.lr>0.01": 6, "FAILED": 2, "seed=0 1e-1": 2,
             "optimizer.lr=0.0100": 6, "nothing-like-it": 0, "validation_loss<9": 22}  # fmt: skip

    for words, left in asked.items():
        tab.click("#filter")
        tab.type(words)
        assert (words, len(column(tab, "job"))) == (words, left)
        assert tab.now("document.getElementById('count').textContent") == f"{left} of 24 jobs"
        assert count(tab, "#curves .curve:not(.out)") == left - column(tab, "state").count("failed")
        tab.click("#all")
        assert len(column(tab, "job")) == 24


def test_a_value_of_an_axis_filters_by_click_and_by_key(show):
    tab = show(many())

    tab.click("#parallel .tick[aria-label='only model cnn']")
    clicked = column(tab, "model")
    tab.press("Enter")
    again = column(tab, "model")
    tab.press("Enter")

    assert (set(clicked), len(clicked)) == ({"cnn"}, 12)
    assert len(again) == 24
    assert column(tab, "model") == clicked
    assert tab.run("document.querySelector('#parallel [aria-pressed=true]').textContent") == "cnn"
    assert count(tab, "#slices .dot:not(.out)") == 3 * 11


def test_a_drag_along_an_axis_chooses_a_range(show):
    tab = show(many())
    x, y, _, height = tab.where("#parallel .zone")  # that of optimizer.lr, 1e-1 at its top

    tab.drag((x, y - height / 2 + 1), (x, y - height / 8))

    assert set(column(tab, "optimizer.lr")) == {"1e-1", "1e-2"}
    assert tab.run("document.querySelector('#parallel .brush').getBBox().height") > height / 4
    tab.click("#all")
    assert len(column(tab, "job")) == 24


def test_the_chosen_metric_is_drawn(show):
    tab = show(many())
    first = tab.run("document.querySelector('#curves .curve').getAttribute('d')")
    assert tab.run("[...document.getElementById('metric')].map((o) => o.value).join()") == "validation_loss,train_loss"

    tab.run("document.getElementById('metric').focus()")
    tab.press("ArrowDown")

    assert tab.run("document.querySelector('#curves svg').ariaLabel").startswith("train_loss by epoch")
    assert tab.run("document.querySelector('#curves .curve').getAttribute('d')") != first


def heights(tab, selector):
    """Of the points in a picture, how far each lies below the highest, by the room that all take."""
    at = tab.run(f"""[...document.querySelectorAll({json.dumps(selector)})].map((dot) => +dot.getAttribute("cy"))""")
    return sorted(round((y - min(at)) / (max(at) - min(at)), 2) for y in at)


def test_a_switch_draws_on_the_other_scale(show):
    results = of([job(i, f"optimizer.lr={i + 1}", value=value) for i, value in enumerate((0.01, 0.1, 1.0))])
    tab = show(results)
    switches = "['curves-log', 'settings-log'].map((id) => document.getElementById(id).checked)"
    assert tab.run(switches) == [True, True]  # one bad run would leave the good ones no room
    assert heights(tab, "#slices .dot") == [0, 0.5, 1]
    curve = tab.run("document.querySelector('#curves .curve').getAttribute('d')")

    tab.run("document.getElementById('settings-log').focus()")
    tab.press(" ")
    assert tab.run(switches) == [True, False]
    assert heights(tab, "#slices .dot") == [0, round(0.9 / 0.99, 2), 1]
    assert tab.run("document.querySelector('#curves .curve').getAttribute('d')") == curve
    tab.click("#curves-log")

    assert tab.run(switches) == [False, False]
    assert tab.run("document.querySelector('#curves .curve').getAttribute('d')") != curve


def test_there_is_no_switch_where_a_value_has_no_logarithm(show):
    tab = show(of([job(i, f"optimizer.lr={i + 1}", value=value) for i, value in enumerate((0.0, 0.1, 1.0))]))

    assert not tab.run("document.getElementById('settings-log').checkVisibility()")
    assert tab.run("document.getElementById('curves-log').checkVisibility()")  # these begin above 0


def test_labels_are_whole(show):
    tab = show(of([job(0, "seed=0", value=0.0860276), job(1, "seed=1", state="failed", reason="no")]))

    cut = tab.run("""[...document.querySelectorAll("#curves text, #slices text")].filter(
        (text) => text.getBoundingClientRect().left < text.closest("svg").getBoundingClientRect().left).map((text) => text.textContent)""")
    assert cut == []
    assert count(tab, "#slices text") > 1


def test_pointing_at_a_line_tells_its_job_everywhere_and_the_keys_go_from_job_to_job(show):
    tab = show(many())
    best = "Job 18: optimizer.lr=1e-2  model=cnn  seed=0  →  validation_loss 0.1"

    x, _, width, _ = tab.where("#curves .curve.k0")
    tab.mouse("mouseMoved", x + width / 2 - 2, tab.run(
        "(() => { const b = [...document.querySelectorAll('#curves .layer .curve')].at(-1).getBoundingClientRect(); return b.bottom })()"
    ))  # fmt: skip
    pointed = tab.run("document.getElementById('readout').textContent")
    marks = count(tab, "#curves .on"), count(tab, "#parallel .on"), count(tab, "#slices .on"), count(tab, "tr.on")
    tab.mouse("mouseMoved", 1, 1)
    left = tab.run("document.getElementById('readout').textContent")
    tab.run("document.querySelector('#curves svg').focus()")
    tab.press("ArrowRight")
    first = tab.run("document.getElementById('readout').textContent")
    tab.press("ArrowRight")
    second = tab.run("document.getElementById('readout').textContent")
    tab.press("Enter")
    tab.run("document.activeElement.blur()")
    held = tab.run("document.getElementById('readout').textContent")
    tab.press("Escape")

    assert (pointed, marks, left, first) == (best, (1, 1, 3, 1), "", best)
    assert second.startswith("Job 19: ")
    assert held == f"{second}  (held: Escape lets go)"
    assert tab.run("document.getElementById('readout').textContent") == ""


def test_a_button_copies_its_command(show):
    tab = show(many())

    tab.click(".command .copy")

    tab.until("document.querySelector('.command .copy').textContent === 'copied'")
    assert tab.run("navigator.clipboard.readText()") == many()["command"]

    tab.click("#jobs tbody tr .copy")

    tab.until("document.querySelector('#jobs tbody tr .copy').textContent === 'copied'")
    assert tab.run("navigator.clipboard.readText()") == "nox -s reproduce -- runs/20261124T220512Z-00000012"
    tab.click("#jobs tbody tr:last-child .copy")
    tab.until("document.querySelector('#jobs tbody tr:last-child .copy').textContent === 'copied'")
    assert (
        tab.run("navigator.clipboard.readText()")
        == "nox -s train -- trainer.epochs=4 optimizer.lr=1e-3 model=cnn seed=2"
    )


def test_what_users_wrote_runs_nowhere(show):
    results = many(4)
    for at, text in enumerate(("<img src=x onerror=alert(1)>", "<script>alert(1)</script>", "a\"b'c", "日本")):
        results["jobs"][at]["overrides"].append(f"note={text}")
        results["jobs"][at]["epochs"] = [{"epoch": 1, f"{text}_loss": 1.0}]

    tab = show(results)

    assert set(column(tab, "note")) == {"<img src=x onerror=alert(1)>", "<script>alert(1)</script>", "a\"b'c", "日本"}
    assert count(tab, "img") == 0
    tab.click("#parallel .tick[aria-label*='script']")
    assert column(tab, "note") == ["<script>alert(1)</script>"]


def test_without_its_script_the_words_and_the_table_are_there_and_nothing_that_does_nothing(show, folder):
    tab = show(many())
    tab.requests.clear()
    tab.ask("Emulation.setScriptExecutionDisabled", value=True)
    try:
        tab.open(folder / "report.html")
        seen = {selector: tab.now(f"document.querySelector({json.dumps(selector)}).checkVisibility()")
                for selector in ("#jobs tbody tr", ".spread", ".best", "#learning", "#filter", ".copy", "#jobs th.needs-script")}  # fmt: skip
    finally:
        tab.ask("Emulation.setScriptExecutionDisabled", value=False)

    assert seen == {"#jobs tbody tr": True, ".spread": True, ".best": True, "#learning": False, "#filter": False, ".copy": False,
                    "#jobs th.needs-script": False}  # fmt: skip


def test_it_prints_light_and_whole_from_a_dark_screen(show, tmp_path):
    tab = show(many(), dark=True)
    tab.look(700, dark=True, media="print")

    assert tab.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert count(tab, "#jobs tbody tr") == 24
    assert tab.run("getComputedStyle(document.querySelector('.wide:has(#jobs)')).overflowY") == "visible"
    assert tab.run("getComputedStyle(document.querySelector('.filters')).display") == "none"
    tab.print(tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")


def test_a_thousand_jobs_are_drawn_the_best_two_hundred_as_curves(show):
    tab = show(many(1000))

    assert count(tab, "#curves .curve") == 200
    assert tab.run("document.getElementById('drawn').textContent") == "the 200 best of 917 jobs"
    assert count(tab, "#parallel .curve") == 917
