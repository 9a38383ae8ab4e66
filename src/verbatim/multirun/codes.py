"""Exit codes of a job, as a cluster gives them: whether somebody took it away."""

import signal

REASONS = {
    signal.SIGKILL: "killed (SIGKILL): out of memory, or by a person",
    signal.SIGTERM: "asked to end (SIGTERM): its time limit, preemption, or a person",
}


def lost(code: int) -> str:
    """Why; empty where the end is the job's own doing. A shell, srun or a job with ranks says 128 + n of signal n, Python -n."""
    for number, reason in REASONS.items():
        if code in (-number, 128 + number):
            return reason
    return ""
