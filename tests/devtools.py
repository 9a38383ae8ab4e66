"""A real Chromium, driven over its devtools protocol through a pipe: pages are loaded, clicked, typed into and photographed."""

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path

CHROMIUM = shutil.which("chromium")
# The browser's own calls home stay at home: no name is resolved.
QUIET = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-component-update",
         "--disable-background-networking", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND", "--hide-scrollbars")  # fmt: skip
KEYS = {
    "Enter": ("\r", 13),
    " ": (" ", 32),
    "Escape": ("", 27),
    "ArrowRight": ("", 39),
    "ArrowDown": ("", 40),
    "Tab": ("", 9),
}
WAIT_S = 120


class Tab:
    """One page. `said`: its console, uncaught errors and what its policy refused; `requests`: all that it asked for, itself included."""

    def __init__(self, profile):
        # Chromium reads commands from descriptor 3 and answers on 4.
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 20) for fd in (theirs_in, theirs_out)]

        def descriptors():
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        words = [CHROMIUM, *QUIET, "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(words, preexec_fn=descriptors, pass_fds=(3, 4), stdin=subprocess.DEVNULL,  # noqa: PLW1509
                                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        for fd in (theirs_in, theirs_out, *high):
            os.close(fd)
        self._number, self._session, self._left, self._events = 0, None, b"", []
        self.said, self.requests = [], []
        target = next(t for t in self.ask("Target.getTargets")["targetInfos"] if t["type"] == "page")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.ask("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def close(self):
        self._session = None
        with contextlib.suppress(OSError, RuntimeError):
            self.ask("Browser.close")
        os.close(self._out)
        try:
            self._process.wait(WAIT_S)
        finally:
            self._process.kill()
            self._process.wait()
            os.close(self._in)

    def ask(self, method, **parameters):
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != self._number:
            self._hear(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def _read(self):
        while b"\0" not in self._left:
            ready, _, _ = select.select([self._in], [], [], WAIT_S)
            more = os.read(self._in, 1 << 20) if ready else b""
            if not more:
                raise RuntimeError("the browser went away, or does not answer")
            self._left += more
        line, _, self._left = self._left.partition(b"\0")
        return json.loads(line)

    def _hear(self, event):
        method, told = event.get("method"), event.get("params", {})
        self._events.append(method)
        if method == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.said.append(told["exceptionDetails"].get("exception", {}).get("description", str(told)))
        elif method == "Runtime.consoleAPICalled":
            self.said.append(" ".join(str(part.get("value", part)) for part in told["args"]))
        elif method == "Log.entryAdded":
            self.said.append(told["entry"]["text"])

    def open(self, page: Path):
        self._events.clear()
        self.ask("Page.navigate", url=page.as_uri())
        while "Page.loadEventFired" not in self._events:
            self._hear(self._read())

    def run(self, script):
        """The value of an expression, as JSON has it, after two frames: what a change of size sets off has been drawn by then."""
        two = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
        return self.now(f"(async () => {{ await {two}; const value = await {script}; await {two}; return value }})()")

    def now(self, script):
        """Without waiting: where scripts are turned off, no frame calls back."""
        done = self.ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in done:
            raise RuntimeError(str(done["exceptionDetails"]))
        return done["result"].get("value")

    def until(self, script):
        end = time.monotonic() + WAIT_S
        while not (value := self.run(script)):
            assert time.monotonic() < end, script
        return value

    def look(self, width, height=900, *, dark=False, media=""):
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.ask("Emulation.setEmulatedMedia", media=media, features=scheme)
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def where(self, selector):
        """The middle of the first element that the selector finds, brought into view."""
        text = json.dumps(selector)
        return self.run(f"""(() => {{ const e = document.querySelector({text}); e.scrollIntoView({{block: "center"}});
            const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2, b.width, b.height] }})()""")

    def mouse(self, kind, x, y):
        button = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
        self.ask("Input.dispatchMouseEvent", type=kind, x=x, y=y, **button)

    def click(self, selector):
        x, y, *_ = self.where(selector)
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.mouse(kind, x, y)

    def drag(self, start, end):
        self.mouse("mouseMoved", *start)
        self.mouse("mousePressed", *start)
        self.ask("Input.dispatchMouseEvent", type="mouseMoved", x=end[0], y=end[1], button="left", buttons=1)
        self.mouse("mouseReleased", *end)

    def type(self, text):
        self.ask("Input.insertText", text=text)

    def press(self, key):
        text, code = KEYS[key]
        for kind in ("keyDown", "keyUp"):
            extra = {"text": text} if text and kind == "keyDown" else {}
            self.ask("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **extra)

    def picture(self, to: Path, *, whole=False):
        self.run("0")
        to.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot", captureBeyondViewport=whole)["data"]))

    def print(self, to: Path):
        to.write_bytes(base64.b64decode(self.ask("Page.printToPDF", printBackground=False)["data"]))
