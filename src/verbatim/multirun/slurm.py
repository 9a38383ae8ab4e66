"""The engine of a Slurm cluster: jobs are queued by submitit, an array for all that start at once, and one `squeue` asks for all of them.

The process that submitit starts on a node turns into the job (`become`). So nothing of submitit's catches signals, pickles a result or
puts a job back into the queue; nor does Slurm: the launcher starts a lost job again, which goes on from its checkpoint.
"""

import contextlib
import io
import itertools
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from verbatim.errors import VerbatimError
from verbatim.multirun.jobs import Ended, Job

ARRAY = 1000  # Slurm's MaxArraySize is 1001 where nobody has set it
ASK_S, ASK_MOST_S = 2.0, 10.0  # between two questions: the more jobs, the longer
PATIENCE_S = 600.0  # without an answer: a controller may be started again while jobs run
GRACE_S = 30.0  # what jobs may take to leave their checkpoints
END_S = 180.0  # what Slurm may take to end them: its KillWait, and the epilog
TASKS = ("nodes", "tasks_per_node")  # more than one task: srun starts a rank in each
SHARED = (
    "name",
    "timeout_min",
    "mem_gb",
    "cpus_per_task",
    "gpus_per_node",
    *TASKS,
)  # submitit writes `slurm_` before all others
ITS_PYTHON = "\0"  # the node's own; no word of a command can be that

LOST = {
    "BOOT_FAIL": "its node did not boot",
    "CANCELLED": "cancelled",
    "DEADLINE": "its deadline has passed",
    "NODE_FAIL": "its node failed",
    "OUT_OF_MEMORY": "out of memory",
    "PREEMPTED": "preempted",
    "REVOKED": "revoked",
    "TIMEOUT": "its time limit",
}
DONE = {"COMPLETED", "FAILED", *LOST}

RANK = """
export RANK=$SLURM_PROCID WORLD_SIZE=$SLURM_NTASKS LOCAL_RANK=$SLURM_LOCALID
export MASTER_ADDR=${MASTER_ADDR:-$SLURM_LAUNCH_NODE_IPADDR} MASTER_PORT=${MASTER_PORT:-$((20000 + SLURM_JOB_ID % 20000))}
exec "$@"
"""


class Slurm:
    """`parameters` are submitit's (`timeout_min`, `partition`, …). `python` starts Python on a node, as in `apptainer exec image.sif python`;
    None: this very one."""

    def __init__(self, *, room: int = 1000, python: str | None = None, signal_delay_s: int = 60, **parameters: Any) -> None:  # fmt: skip
        if not shutil.which("sbatch"):
            raise VerbatimError("sbatch", expected="it on the PATH, as where people submit jobs to Slurm", found="nothing there", then="log in to such a machine, or leave out hydra/launcher=slurm")  # fmt: skip
        self.room, self._python = room, python
        self._parameters = {key: _plain(value) for key, value in parameters.items() if value is not None}
        self._single = all(self._parameters.get(name, 1) == 1 for name in TASKS)
        # Where srun starts ranks, it is they who are told; else the job's first process alone, which tells its own ranks.
        sent = f"{'B:' if self._single else ''}TERM@{signal_delay_s}"
        self._sbatch = {"signal": sent, "no_requeue": True} | self._parameters.pop("additional_parameters", {})
        self._running: dict[str, tuple[Job, Path]] = {}  # as Slurm names it, 12_3 → the job, and what Slurm says of it
        self._ended: list[Ended] = []
        self._asked_s = self._answered_s = 0.0
        self._folders: set[Path] = set()

    def start(self, jobs: Sequence[Job]) -> None:
        for threads, alike in itertools.groupby(sorted(jobs, key=lambda job: job.threads), lambda job: job.threads):
            for part in _parts(list(alike)):
                self._submit(part, threads)
        self._asked_s = self._answered_s = time.monotonic()

    def _submit(self, jobs: list[Job], threads: int) -> None:
        try:
            import submitit
            from submitit.core import utils
        except ImportError:
            raise VerbatimError("submitit", expected="it in the environment", found="nothing there", then="nox -s env") from None  # fmt: skip

        python = self._python or shlex.quote(sys.executable)
        folder = jobs[0].at.parent / "slurm"
        self._folders.add(folder)
        given = {"cpus_per_task": threads, "name": "verbatim", "use_srun": False, "stderr_to_stdout": True}
        given |= self._parameters | {"additional_parameters": self._sbatch}
        prefixed = {key if key in SHARED else f"slurm_{key}": value for key, value in given.items()}
        each = [(self._command(j), str(j.folder), j.variables(), str(j.log)) for j in jobs]
        try:
            with contextlib.redirect_stderr(io.StringIO()):  # what sbatch says is in its exception, too
                executor = submitit.AutoExecutor(folder, "slurm", slurm_python=f"exec {python}")
                executor.update_parameters(**prefixed)
                submitted = executor.map_array(become, *zip(*each, strict=True))
        except (NameError, AssertionError) as error:  # a parameter that there is not, or of another type
            raise VerbatimError("hydra.launcher", expected="submitit's parameters for Slurm", found=str(error).partition("\n")[0]) from None  # fmt: skip
        except (utils.FailedJobError, utils.FailedSubmissionError, RuntimeError) as error:
            raise VerbatimError("sbatch", expected="Slurm to take the jobs", found=_line(str(error)), then="see sinfo and squeue; then set hydra.launcher.partition=…, .account=…, and so on") from None  # fmt: skip
        for job, queued in zip(jobs, submitted, strict=True):
            self._running[queued.job_id] = (job, queued.paths.stdout)

    def _command(self, job: Job) -> list[str]:
        """With several tasks, srun starts a rank in each."""
        command = [
            ITS_PYTHON if self._python and job.command[0] == sys.executable else job.command[0],
            *job.command[1:],
        ]
        return command if self._single else ["srun", "--kill-on-bad-exit=1", "/bin/sh", "-c", RANK, "sh", *command]

    def wait(self, timeout_s: float) -> list[Ended]:
        deadline_s = time.monotonic() + timeout_s
        while True:
            due_s = self._asked_s + min(ASK_MOST_S, ASK_S + len(self._running) / 100)
            if self._running and time.monotonic() >= due_s:
                self._ask()
            left_s = deadline_s - time.monotonic()
            if self._ended or left_s <= 0:
                ended, self._ended = self._ended, []
                return ended
            time.sleep(min(left_s, max(0.05, due_s - time.monotonic()) if self._running else left_s))

    def _ask(self) -> None:
        """One question for all. What Slurm has forgotten (after its MinJobAge, 300 s) accounting may still know."""
        fields = "--Format=JobArrayID:|,State:|,exit_code:|"
        answer = _run("squeue", "--noheader", "--array", "--states=all", fields, f"--jobs={','.join(self._names())}")
        self._asked_s = time.monotonic()
        known = dict(_states(answer.stdout))
        if answer.returncode and "Invalid job id" not in answer.stderr:
            if self._asked_s - self._answered_s > PATIENCE_S:
                raise VerbatimError("squeue", expected="Slurm to answer", found=_line(answer.stderr), then="the same command again, once it does: jobs that run go on")  # fmt: skip
            return
        self._answered_s = self._asked_s
        if self._running.keys() - known.keys():
            fields = "--format=JobID,State,ExitCode"
            told = _run("sacct", "--noheader", "--parsable2", "--allocations", fields, f"--jobs={','.join(self._names())}")  # fmt: skip
            known = dict(_states(told.stdout)) | known
        for name in list(self._running):
            state, code = known.get(name, ("FORGOTTEN", ""))
            if state in DONE or name not in known:
                job, said = self._running.pop(name)
                _keep(said, job.log)
                self._ended.append(_how_it_ended(job.index, state, code))

    def stop(self) -> None:
        for words, limit_s in (
            (["--state=PENDING"], 0.0),
            ([*["--batch"] * self._single, "--signal=TERM"], GRACE_S),
            ([], END_S),
        ):
            deadline_s = time.monotonic() + limit_s
            if self._running:
                _run("scancel", "--quiet", *words, *self._names())
            while self._running and time.monotonic() < deadline_s:
                time.sleep(ASK_S / 2)
                self._ask()

    def close(self) -> None:
        if self._running:
            self.stop()
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)

    def _names(self) -> list[str]:
        """An array's own, not one for each of its jobs."""
        return sorted({name.partition("_")[0] for name in self._running})


def become(command: list[str], folder: str, variables: dict[str, str], log: str) -> None:
    """On the node: turn this process, the only one of the batch job, into the job."""
    os.chdir(folder)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    words = [sys.executable if word == ITS_PYTHON else word for word in command]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SUBMITIT_")}
    os.execvpe(words[0], words, kept | variables)


def _states(text: str) -> Iterator[tuple[str, tuple[str, str]]]:
    """Name → state and exit code, of lines as `12_3|FAILED|9|`. Accounting says by whom a job was CANCELLED, and writes 0:9."""
    for line in text.splitlines():
        name, state, code, *_ = *line.split("|"), "", ""
        yield name.strip(), (state.split()[0] if state.strip() else "", code.strip())


def _how_it_ended(index: int, state: str, code: str) -> Ended:
    if state == "FORGOTTEN":
        return Ended(index=index, lost="Slurm has forgotten it")
    if state == "FAILED":
        status, colon, number = code.partition(":")
        return Ended.by(index, (-int(number) or int(status)) if colon else os.waitstatus_to_exitcode(int(status or 0)))
    return Ended(index=index, lost=LOST.get(state, ""))


def _keep(said: Path, log: Path) -> None:
    """What Slurm, or what ran before the job, said of it belongs to its log."""
    with contextlib.suppress(OSError):
        lines = [line for line in said.read_text(errors="replace").splitlines() if not line.startswith("submitit INFO")]
        if lines:
            with log.open("a", encoding="utf-8") as file:
                file.write("\n".join(lines) + "\n")


def _run(*command: str) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))


def _parts(jobs: list[Job]) -> Iterator[list[Job]]:
    for start in range(0, len(jobs), ARRAY):
        yield jobs[start : start + ARRAY]


def _plain(value: Any) -> Any:
    """Hydra's own lists and dictionaries look like Python's, but sbatch's text is made of Python's."""
    if hasattr(value, "items"):
        return dict(value)
    return list(value) if hasattr(value, "__iter__") and not isinstance(value, str) else value


def _line(text: str) -> str:
    """The last line that says something."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "nothing")
