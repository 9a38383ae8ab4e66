"""The engine of a Ray cluster: one task per job, which starts the job's command as a process of its own and waits for it.

Nothing but core Ray, imported when an engine is made. Tasks are pickled by value: Ray's workers need not find this project, only the jobs
do. They get this process's variables, but which GPUs they may use is Ray's to say.
"""

import contextlib
import ctypes
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from verbatim import determinism, extras
from verbatim.errors import VerbatimError
from verbatim.multirun.jobs import Ended, Job

GRACE_S = 30.0  # what a job may take to leave its checkpoint
CONNECT_S = 30.0
END_S = 60.0  # what Ray may take to say that all have ended
STORE_BYTES = 80 * 2**20  # of shared memory, where Ray is started here: a task gives one number
PR_SET_PDEATHSIG = 1  # linux/prctl.h
SEES = "CUDA_VISIBLE_DEVICES"
MODE, TOKEN = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"


class Ray:
    """`address`: of a cluster that runs, as `auto` or `host:6379`; None starts one on this machine, for as long as the engine lives."""

    def __init__(self, *, address: str | None = None, num_gpus: float = 0, room: int = 1000) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        self._guarded = address is None and not {MODE, TOKEN} & os.environ.keys()
        if self._guarded:  # a Ray of our own listens on all interfaces, to us alone; left to itself it keeps a token in the home folder
            os.environ |= {MODE: "token", TOKEN: secrets.token_hex(32)}
        with contextlib.suppress(VerbatimError):  # where it is not, a cluster's own may be on the path
            extras.use("ray", children=True)
        try:
            import ray
        except ImportError:
            raise VerbatimError("ray", expected="it in the environment", found="nothing there", then="nox -s env -- ray") from None  # fmt: skip
        self._ray, self._here, self._gpus, self.room = ray, address is None, num_gpus, room
        own = {"include_dashboard": False, "object_store_memory": STORE_BYTES, "num_cpus": determinism.cores()}
        before = signal.getsignal(signal.SIGTERM)
        try:
            _reach(address)
            ray.init(
                address=address or "local", log_to_driver=False, logging_level="ERROR", **own if self._here else {}
            )
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise VerbatimError(f"hydra.launcher.address={address}", expected="a Ray cluster that answers", found=str(error).strip().partition("\n")[0], then=f"ray start --head; or {MODE}=token in your shell, where it asks for a token; or hydra.launcher.address=null for one on this machine") from None  # fmt: skip
        finally:
            signal.signal(signal.SIGTERM, before)  # Ray's own would end this process at once
        self._head = ray.get_runtime_context().gcs_address
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        self._running: dict[Any, Job] = {}
        self._ended: list[Ended] = []

    def start(self, jobs: Sequence[Job]) -> None:
        self._refuse_gone()
        most = max((node["Resources"].get("CPU", 0.0) for node in self._ray.nodes() if node["Alive"]), default=0.0)
        for job in jobs:
            if self._here and job.threads > most:
                raise VerbatimError("ray", expected=f"{job.threads} cores for job {job.index}", found=f"{most:g} here", then="add determinism.threads=… (another thread count gives other bits)")  # fmt: skip
            if job.threads > most:  # a cluster that grows may get one
                print(f"note: job {job.index} waits for a node of {job.threads} cores; the largest has {most:g}", file=sys.stderr)  # fmt: skip
            variables = {name: value for name, value in os.environ.items() if name != TOKEN}
            task = self._ray.remote(num_cpus=job.threads, num_gpus=self._gpus, max_retries=0)(_job)
            self._running[task.remote(job.command, str(job.folder), variables, job.variables(), str(job.log))] = job  # fmt: skip

    def wait(self, timeout_s: float) -> list[Ended]:
        if self._running and not self._ended:
            self._look(timeout_s)
        elif not self._ended:
            time.sleep(timeout_s)
        ended, self._ended = self._ended, []
        return ended

    def _look(self, timeout_s: float) -> None:
        first, _ = self._ray.wait(list(self._running), timeout=timeout_s)
        if first:
            ready, _ = self._ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
            for task in ready:
                self._ended.append(self._how_it_ended(self._running.pop(task).index, task))
        else:
            self._refuse_gone()

    def _refuse_gone(self) -> None:
        """A minute after its head has gone, Ray ends this process without a word."""
        try:
            _reach(self._head)
        except OSError as error:
            raise VerbatimError(f"ray at {self._head}", expected="it to answer", found=error.strerror or error, then="the same command again, once it does: runs go on from their checkpoints") from None  # fmt: skip

    def _how_it_ended(self, index: int, task: Any) -> Ended:
        errors = self._ray.exceptions
        try:
            return Ended.by(index, self._ray.get(task))
        except errors.TaskCancelledError:
            lost = "cancelled"
        except errors.OutOfMemoryError:
            lost = "out of memory"
        except errors.NodeDiedError:
            lost = "its node died"
        except errors.WorkerCrashedError:
            lost = "its worker was killed"
        except errors.RayTaskError:  # the command could not be started: the job's log says why
            lost = ""
        except errors.RayError as error:
            lost = str(error).strip().partition("\n")[0] or type(error).__name__
        return Ended(index=index, lost=lost)

    def stop(self) -> None:
        for task in self._running:
            self._ray.cancel(task, force=False)  # KeyboardInterrupt in `_job`; what waits is dropped
        deadline_s = time.monotonic() + GRACE_S + END_S
        with contextlib.suppress(VerbatimError):  # nobody is left to ask
            while self._running and time.monotonic() < deadline_s:
                self._look(1.0)

    def close(self) -> None:
        if self._running:
            self.stop()
        with contextlib.suppress(Exception):  # a cluster that has gone needs no farewell
            self._ray.shutdown()
        if self._guarded:
            for name in (MODE, TOKEN):
                os.environ.pop(name, None)


def _reach(address: str | None) -> None:
    """Ray itself takes minutes to say that nobody is there."""
    host, colon, port = (address or "").rpartition("://")[2].rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()


def _job(command: Sequence[str], folder: str, variables: dict[str, str], own: dict[str, str], log: str) -> int:
    """On a worker: start the job, wait for it, give its exit code. It is asked to end when this task is, or when the worker dies."""

    def prepare() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

    sees = {SEES: os.environ[SEES]} if SEES in os.environ else {}
    kept = {name: value for name, value in variables.items() if name != SEES}
    with open(log, "ab") as file:
        try:
            process = subprocess.Popen(command, cwd=folder, env=kept | sees | own, stdin=subprocess.DEVNULL, stdout=file, stderr=file, preexec_fn=prepare)  # noqa: PLW1509 — see `prepare`  # fmt: skip
        except OSError as error:
            file.write(f"error: {error}\n".encode())
            raise
    try:
        while process.poll() is None:
            time.sleep(0.1)
    except KeyboardInterrupt:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
    finally:
        process.kill()  # nothing, where it has ended
    return process.wait()
