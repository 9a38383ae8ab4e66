"""How a run is asked to end: Ctrl-C; SIGTERM from Slurm, Kubernetes, Codespaces or `kill`; SIGHUP where its terminal is closed. It ends
at a safe place where there is one soon: an exception may be raised where Python can only drop it (in a callback of torch's, say), and the run would go on."""

import contextlib
import os
import signal
import stat
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

from verbatim.errors import Interrupted

ENDS = (signal.SIGTERM, signal.SIGHUP)
LOST = signal.SIGUSR1  # by which who started the ranks says that one of them has ended
ONCE_S = 1.0  # one Ctrl-C may come twice: from the terminal, and passed on by who started this process
GRACE_S = 10.0  # what a step may take until its end; those who ask give 20 s or more before they kill


class Ending:
    """While `safe`, the first signal only sets `asked`; the training loop looks, leaves a checkpoint and raises `error`. A second Ctrl-C,
    or `GRACE_S` without a safe place, raises it at once: the last checkpoint stands."""

    def __init__(self) -> None:
        self.asked, self.safe = 0, False
        self._asked_s = 0.0
        self._before: dict[int, Any] = {}

    def watch(self) -> None:
        for number in (signal.SIGINT, *ENDS):
            before = signal.getsignal(number)
            if before is not signal.SIG_IGN:  # as a shell starts what runs in the background, or nohup
                self._before[number] = signal.signal(number, self._ask)

    @property
    def error(self) -> BaseException:
        return KeyboardInterrupt() if self.asked == signal.SIGINT else Interrupted(signal.Signals(self.asked).name)

    def ignore(self) -> None:
        """A second Ctrl-C must not break a seal."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._before.setdefault(signal.SIGINT, signal.getsignal(signal.SIGINT))
        for number in (signal.SIGINT, *ENDS, LOST):
            signal.signal(number, signal.SIG_IGN)

    def restore(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _ask(self, number: int, _frame: FrameType | None) -> None:
        if self.asked and (number != signal.SIGINT or time.monotonic() - self._asked_s < ONCE_S):
            return
        again, self.asked, self._asked_s = bool(self.asked), number, time.monotonic()
        _leave_terminal(number)
        if again or not self.safe:
            raise self.error
        signal.signal(signal.SIGALRM, self._too_late)
        signal.setitimer(signal.ITIMER_REAL, GRACE_S)

    def _too_late(self, _number: int, _frame: FrameType | None) -> None:
        raise self.error


@contextlib.contextmanager
def sigterm_raises() -> Iterator[None]:
    """SIGTERM, or SIGHUP, ends what was started here before it ends this process."""

    def interrupt(number: int, _frame: FrameType | None) -> None:
        _leave_terminal(number)
        raise Interrupted(signal.Signals(number).name)

    before = {number: handler for number in ENDS if (handler := signal.getsignal(number)) is not signal.SIG_IGN}
    for number in before:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave_terminal(number: int) -> None:
    """To print on a terminal that was closed is an error, and would break off what is yet to be done."""
    if number == signal.SIGHUP:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for descriptor in (1, 2):
            if stat.S_ISCHR(os.fstat(descriptor).st_mode):
                os.dup2(nowhere, descriptor)
        os.close(nowhere)
