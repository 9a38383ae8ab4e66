"""A real Ray of several nodes on this machine, in a network namespace of its own: Ray listens on all interfaces, and there loopback is all."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from verbatim import extras
from verbatim.errors import VerbatimError

CLONE_NEWNET = 0x40000000  # linux/sched.h
PORT = 6379  # nobody else is in the namespace
ADDRESS = f"127.0.0.1:{PORT}"
READY_S = 120.0
libc = ctypes.CDLL(None, use_errno=True)


class UnavailableError(Exception):
    """Why there is no Ray here."""


def need() -> None:
    """Ray, from its optional lock; skips the test without."""
    try:
        extras.use("ray", children=True)
    except VerbatimError as why:
        pytest.skip(str(why))


@contextmanager
def own_network() -> Iterator[None]:
    """For this thread, and all that it starts from now on."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        if libc.unshare(CLONE_NEWNET):
            raise UnavailableError(f"no network namespace for Ray: {os.strerror(ctypes.get_errno())}")
        try:
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            yield
        finally:
            if libc.setns(before, CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "back to the network namespace of before")
    finally:
        os.close(before)


@dataclass
class Nodes:
    """`ray start --block`, a process for each node."""

    folder: Path
    started: "dict[str, subprocess.Popen[bytes]]" = field(default_factory=dict)

    def start(self, name: str, *words: str) -> None:
        common = ["--block", "--disable-usage-stats", "--object-store-memory=83886080"]
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", *words, *common]
        out = self.folder / f"{name}.out"
        with out.open("wb") as file:
            variables = os.environ | {"RAY_TMPDIR": str(self.folder)}
            self.started[name] = subprocess.Popen(
                command, env=variables, stdout=file, stderr=file, start_new_session=True
            )
        deadline_s = time.monotonic() + READY_S
        while "Ray runtime started" not in out.read_text():
            if self.started[name].poll() is not None or time.monotonic() > deadline_s:
                raise UnavailableError(f"Ray's node {name} did not start: {out.read_text()[-2000:]}")
            time.sleep(0.1)

    def kill(self, name: str) -> None:
        """As a machine that loses its power: all processes of the node's session at once."""
        os.killpg(self.started[name].pid, signal.SIGKILL)
        self.started.pop(name).wait()

    def end(self) -> None:
        for process in self.started.values():
            process.terminate()
        for process in self.started.values():
            process.wait(60)
        self.started.clear()
