"""Children forked from this process: what they inherit they need not load again. None outlives its parent.

The parent must have started no thread and no parallel region: a child has only the thread that forked.
"""

import contextlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from verbatim import ending, spawn
from verbatim.errors import VerbatimError, mendable


def start(run: Callable[[], int]) -> int:
    """Fork; the child runs, and ends with the exit code that `run` returns. Returns the child's pid."""
    parent = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    if pid := os.fork():
        return pid
    return _end(_guarded(run, parent))


def _guarded(run: Callable[[], int], parent: int) -> int:
    with contextlib.suppress(OSError):
        os.setsid()  # Ctrl-C on the terminal goes to the parent alone, which sees to its children
    _die_with(parent)
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGINT, *ending.ENDS):
        signal.signal(number, signal.SIG_DFL)
    try:
        return run()
    except SystemExit as asked:
        if asked.code is None or isinstance(asked.code, int):
            return asked.code or 0
        print(asked.code, file=sys.stderr)
        return 1
    except BaseException:  # noqa: BLE001 — a child ends here, whatever it is
        traceback.print_exc()
        return 1


def _end(code: int) -> NoReturn:
    """At once: what the parent would do at its end is not the child's to do."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(code)


def _die_with(parent: int) -> None:
    spawn.die_with_parent(signal.SIGKILL)
    if os.getppid() != parent:  # it died in between
        os._exit(1)


def ask(question: Callable[[], Any]) -> Any:
    """What a child answers, as JSON: what it loads and sets on the way stays with it. Raises VerbatimError where the child does."""
    reader, writer = os.pipe()

    def run() -> int:
        os.close(reader)
        try:
            answer = {"answer": question()}
        except Exception as error:
            if not (mend := mendable(error)):
                raise
            answer = {"where": mend.where, "expected": mend.expected, "found": str(mend.found), "then": mend.then}
        with contextlib.suppress(BrokenPipeError), os.fdopen(writer, "w") as file:  # Ctrl-C: nobody waits for it
            json.dump(answer, file)
        return 0

    pid = start(run)
    os.close(writer)
    with os.fdopen(reader) as file:
        said = file.read()
    os.waitpid(pid, 0)
    if not said:
        raise RuntimeError("a child process ended without an answer: its traceback is above")
    answer = json.loads(said)
    if "answer" not in answer:
        raise VerbatimError(**answer)
    return answer["answer"]
