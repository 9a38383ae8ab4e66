"""The pages, in a real browser: what it shows of them, and that they ask for nothing and break nowhere."""

import json
import re
import shutil
import struct
import subprocess
from dataclasses import dataclass
from html import unescape

import pytest

from conftest import python
from verbatim import attest
from verbatim.verify import opened

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH")
# The browser's own calls home stay at home: no name is resolved.
QUIET = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-component-update",
         "--disable-background-networking", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND", "--hide-scrollbars")  # fmt: skip
WIDTH, HEIGHT = 1200, 1600
BROWSER = "not an origin"  # who starts the requests that no page asked for


@dataclass(frozen=True)
class Seen:
    """`requests`: what the page asked the network for; `said`: its console, uncaught errors included."""

    dom: str
    requests: list[str]
    said: list[str]

    @property
    def text(self):
        return " ".join(unescape(re.sub(r"<style>.*?</style>|<[^>]+>", " ", self.dom, flags=re.DOTALL)).split())


@pytest.fixture
def browse(tmp_path):
    """`browse(page, name)`: what the browser makes of a page; its picture lies in `<tmp_path>/<name>.png`."""

    def start(name, page, *options):
        words = [CHROMIUM, *QUIET, f"--user-data-dir={tmp_path / f'{name}-profile'}", *options, page.as_uri()]
        return subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)

    def call(page, name):
        log, picture = tmp_path / f"{name}.net.json", tmp_path / f"{name}.png"
        done = start(f"{name}-dom", page, f"--log-net-log={log}", "--enable-logging=stderr", "--dump-dom")
        start(f"{name}-picture", page, f"--screenshot={picture}", f"--window-size={WIDTH},{HEIGHT}")
        content = picture.read_bytes()
        assert (content[:8], struct.unpack(">II", content[16:24])) == (b"\x89PNG\r\n\x1a\n", (WIDTH, HEIGHT))
        events = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
        return Seen(
            dom=done.stdout,
            requests=[e["url"] for e in events if "url" in e and e.get("initiator", BROWSER) != BROWSER],
            said=[line for line in done.stderr.splitlines() if ":CONSOLE" in line],
        )

    return call


def test_a_page_that_asks_or_breaks_would_be_noticed(browse, tmp_path):
    page = tmp_path / "bad.html"
    page.write_text('<p>here</p><img src="http://127.0.0.1:9/x.png"><script>nothing.there()</script>')

    seen = browse(page, "bad")

    assert seen.requests == ["http://127.0.0.1:9/x.png"]
    assert "nothing is not defined" in "".join(seen.said)


def test_the_report_shows_runs_verdicts_and_plots(browse, train, runs):
    small = ("model=mlp", "model.hidden=[8]", "trainer.max_steps=null", "trainer.epochs=4")
    one, other = train(*small), train(*small, "seed=1")
    again = train(*small)
    for subject, by, result, cause in (
        (one, again, "identical", ""),
        (other, other, "different", "first cause: step, step 3: gradient (the first to differ: gradient)"),
    ):
        said = attest.statement(
            subject.folder / "record.json", by.folder / "record.json", result=result, steps=12, first_cause=cause
        )
        attest.write(by.folder, said, None)
    assert python("-m", "verbatim", "report", str(runs)).returncode == 0

    seen = browse(runs / "report.html", "report")

    assert (seen.requests, seen.said) == ([], [])
    assert seen.dom.count("<tr>") == 5  # two tables: a head each, and three runs
    assert (
        seen.dom.count("<polyline") == 6
    )  # two recipes, of each the loss of training and validation, and the accuracy of validation
    for text in (one.folder.name, "1 held, 0 broke", "0 held, 1 broke", "learning curves", "first cause: step, step 3"):
        assert text in seen.text


def test_the_archives_page_shows_the_run_its_settings_and_its_plot(browse, train, tmp_path):
    done = train("model=mlp", "model.hidden=[8]", "trainer.max_steps=null", "trainer.epochs=4")
    packed = tmp_path / "run.zip"
    made = python("-m", "verbatim", "pack", str(done.folder), "--to", str(packed))
    assert made.returncode == 0, made.stderr

    with opened(packed) as folder:
        seen = browse(folder / "ro-crate-preview.html", "archive")

    assert (seen.requests, seen.said) == ([], [])
    assert seen.dom.count("<polyline") == 3
    for text in (done.record.outcome, "optimizer.lr", "test_accuracy", "code.bundle", "nox -s reproduce --"):
        assert text in seen.text
