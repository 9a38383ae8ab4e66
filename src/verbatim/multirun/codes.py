"""Exit codes of a job, as this machine or a cluster gives them: how it ended, and whether somebody took it away."""

import signal

REASONS = {
    signal.SIGKILL: "killed (SIGKILL): out of memory, or by a person",
    signal.SIGTERM: "asked to end (SIGTERM): its time limit, preemption, or a person",
}


def lost(code: int) -> str:
    """Why; empty where the end is the job's own doing."""
    return REASONS.get(number, "") if (number := _signal(code)) else ""


def how(code: int) -> str:
    number = _signal(code)
    return f"its process was ended by {number.name}" if number else f"its process ended with exit code {code}"


def _signal(code: int) -> signal.Signals | None:
    """A shell, srun or a job with ranks says 128 + n of signal n, Python -n."""
    number = -code if code < 0 else code - 128
    return signal.Signals(number) if number in {*signal.Signals} else None
