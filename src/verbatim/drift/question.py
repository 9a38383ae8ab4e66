"""One question to the container engine, over its socket, with nothing but the standard library: the docker SDK takes a third of a
second to import. It asks, and changes nothing.
"""

import json
import os
import socket
from typing import Any

LABEL = "verbatim."  # lock, variant, python, target: what the build writes on an image
SOCKET = "/var/run/docker.sock"
TIMEOUT_S = 2.0


class Question:
    """One question to the engine, sent at once and answered when asked for: the engine takes longer over it than drift over all else.

    By HTTP/1.0, so that the answer comes in one piece and ends where the engine hangs up.
    """

    def __init__(self, path: str, timeout_s: float) -> None:
        self._error: Exception | None = None
        self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            host = os.environ.get("DOCKER_HOST", f"unix://{SOCKET}")
            if not host.startswith("unix://"):
                raise ValueError(f"DOCKER_HOST={host} is no local socket")
            self._connection.settimeout(timeout_s)
            self._connection.connect(host.removeprefix("unix://"))
            self._connection.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        except (OSError, ValueError) as error:
            self._error = error

    def answer(self) -> Any:
        """The engine's JSON. OSError where it does not answer, ValueError where it says no, or something else."""
        parts = []
        with self._connection:
            if self._error:
                raise self._error
            while part := self._connection.recv(1 << 16):
                parts.append(part)
        head, _, body = b"".join(parts).partition(b"\r\n\r\n")
        status = head.partition(b"\r\n")[0]
        if b" 200 " not in status + b" ":
            says = body.decode(errors="replace").strip()[:160]
            raise ValueError(f"it says {status.decode(errors='replace')[9:60]} {says}".strip())
        return json.loads(body)


def ask_for_images() -> Question:
    """Those that carry our label and a tag; an untagged one is what a newer build left behind."""
    query = '/images/json?filters={"label":["' + LABEL + 'lock"],"dangling":["false"]}'
    return Question(query.replace('"', "%22"), TIMEOUT_S)
