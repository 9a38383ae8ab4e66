"""Starts the ranks of a run on this machine: the same command once for each, with the variables that torchrun sets.

torchrun does the same across machines (and takes 5 s longer to start). One rank that ends badly ends all; a signal goes to all.
"""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from typing import Any

from verbatim.ending import LOST, sigterm_raises
from verbatim.errors import Interrupted

LOST_S = 3.0
GRACE_S = 15.0  # what ranks may take to seal and end, once one has
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def ranks(number: int) -> None:
    """Nothing where one rank is enough, or where this is a rank already. Else run them all, and end with their exit code."""
    if number > 1 and "RANK" not in os.environ:
        sys.exit(_run(number))


def _run(number: int) -> int:
    common = {
        "WORLD_SIZE": str(number),
        "LOCAL_WORLD_SIZE": str(number),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
    }
    command = [sys.executable, *sys.orig_argv[1:]]
    started: list[subprocess.Popen[bytes]] = []
    with sigterm_raises():
        try:
            for rank in range(number):
                own = os.environ | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
                # In a group of its own: Ctrl-C on the terminal is passed on, and comes once.
                started.append(subprocess.Popen(command, env=own, process_group=0, preexec_fn=die_with_parent))  # noqa: PLW1509 — one prctl
            while not any(process.poll() for process in started) and any(process.poll() is None for process in started):
                time.sleep(0.05)
            # One that a signal ended is the cause; others then end because they have lost it.
            ended = [(process.returncode, rank) for rank, process in enumerate(started) if process.poll()]
            first = min(ended)[1] if ended else None
            _end(started, lost=True)
        except (KeyboardInterrupt, Interrupted) as asked:
            _end(started, _number(asked))
            return 130 if isinstance(asked, KeyboardInterrupt) else 143
    if first is None:
        return 0
    code = started[first].returncode
    if code < 0:
        print(f"error: rank {first} was ended by {signal.Signals(-code).name}, and with it the run", file=sys.stderr)
    return 128 - code if code < 0 else code


def _end(started: list[Any], number: int = 0, *, lost: bool = False) -> None:
    """Give all of them `number`, and time to seal and end; then end those that are left. `lost`: they will see by themselves, most often,
    that one of them is gone; else they are told."""
    try:
        for process in started:
            if number and process.poll() is None:
                process.send_signal(number)
        _wait(started, lost=lost)
    except (KeyboardInterrupt, Interrupted) as again:  # a second Ctrl-C: they are in a hurry, and are still waited for
        _end(started, _number(again), lost=lost)


def _number(asked: BaseException) -> int:
    return signal.Signals[str(asked)] if isinstance(asked, Interrupted) else signal.SIGINT


def _wait(started: list[Any], *, lost: bool) -> None:
    began_s = time.monotonic()
    while any(process.poll() is None for process in started):
        if lost and time.monotonic() > began_s + LOST_S:
            lost = False
            for process in started:
                process.send_signal(LOST)
        if time.monotonic() > began_s + GRACE_S:
            for process in started:
                process.kill()
        time.sleep(0.05)


def _free_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def die_with_parent(number: int = signal.SIGTERM) -> None:
    """Where the process that started this one is killed, this one gets `number`: nobody else would end it. Linux's own."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
