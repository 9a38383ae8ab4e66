"""A real server on the loopback, a real folder of images, a flipped bit: what the tests share. Nothing is mocked."""

from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from PIL import Image

from experiment.data import Data, folder


class Quiet(SimpleHTTPRequestHandler):
    """Serves files, in silence; of `/cut/<name>` it sends half and hangs up; to `/hang/<name>` it never answers."""

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
    path = tmp_path / "served"
    path.mkdir()
    return path


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


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """2 classes of 5 images, 6 x 4 pixels."""
    root = tmp_path / "pets"
    for label, name in enumerate(("dog", "cat")):  # made in another order than they sort
        (root / name).mkdir(parents=True)
        for number in range(5):
            pixels = np.random.default_rng(10 * label + number).integers(0, 256, (4, 6, 3), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


@pytest.fixture
def load(root: Path) -> Callable[..., Data]:
    def load(**changes: Any) -> Data:
        settings: dict[str, Any] = {"path": root, "size": 4, "validation": 0.2, "test": 0.2, "split_seed": 0}
        return folder(**settings | {"in_memory": True} | changes)

    return load
