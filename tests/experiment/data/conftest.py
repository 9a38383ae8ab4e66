"""A real server on the loopback and a flipped bit: what the loaders' tests share. Nothing is mocked."""

from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest


class Quiet(SimpleHTTPRequestHandler):
    """Serves files, writes no log; of `/cut/<name>` it sends the first half, then hangs up; to `/hang` it never answers."""

    def log_message(self, format: str, *args: object) -> None: ...

    def do_GET(self) -> None:
        if self.path.startswith("/cut/"):
            content = Path(self.directory, self.path.removeprefix("/cut/")).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])
        elif self.path.startswith("/hang/"):
            self.rfile.read(1)  # returns when the client gives up
        else:
            super().do_GET()


@pytest.fixture
def served(tmp_path: Path) -> Path:
    """The folder that `url` serves."""
    folder = tmp_path / "served"
    folder.mkdir()
    return folder


@pytest.fixture
def server(served: Path) -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(served))) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def url(server: ThreadingHTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_port}"


@pytest.fixture
def offline(server: ThreadingHTTPServer) -> Callable[[], None]:
    """Stops the server: from then on its port refuses connections."""

    def stop() -> None:
        server.shutdown()
        server.server_close()

    return stop


@pytest.fixture
def flip() -> Callable[[Path], None]:
    """Changes the lowest bit of a file's middle byte."""

    def change(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)

    return change
