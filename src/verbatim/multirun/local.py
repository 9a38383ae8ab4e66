"""The engine of this machine: a server that has torch loaded forks one process per job, so that a job starts in milliseconds and none
touches another. There is a server for each set of process variables that jobs want, since a library reads them once, when it loads.
"""

import contextlib
import errno
import faulthandler
import importlib
import itertools
import json
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from verbatim import determinism, eager, environment
from verbatim.errors import VerbatimError
from verbatim.multirun import fork
from verbatim.multirun.jobs import Ended, Job

GRACE_S = 20.0  # what a job may take to leave its checkpoint
LIMIT_BYTES = 2**21  # of a message; Linux doubles the half that it is asked for


class Local:
    """`task` is run with the configuration that `compose` makes of a job's words. `at_once`: None for what cores and GPUs allow, where a
    job takes `cores` and, of those that there are, `gpus`."""

    def __init__(self, task: Callable[[Any], Any], compose: Callable[[Sequence[str]], Any], at_once: int | None, cores: int, gpus: int) -> None:  # fmt: skip
        self._task, self._compose = task, compose
        self._there, self._each = visible_gpus(), gpus
        by_gpus = len(self._there) // gpus if self._there and gpus else None
        self.room = at_once or max(1, determinism.cores() // cores if by_gpus is None else by_gpus)
        self._share = max(cores, determinism.cores() // self.room)
        self._servers: dict[tuple[tuple[str, str], ...], _Server] = {}
        self._slots: dict[int, int] = {}  # job → slot, by which GPUs are shared out
        self._pids: dict[int, int] = {}

    def start(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            slot = min(set(range(self.room)) - set(self._slots.values()), default=0)
            self._slots[job.index] = slot
            own = {"CUDA_VISIBLE_DEVICES": ",".join(self._gpus(slot))} if self._there and self._each else {}
            self._server(job).tell(
                {
                    "job": job.index, "words": job.words, "command": job.command, "folder": str(job.folder), "log": str(job.log),
                    "variables": job.variables() | own | {determinism.SHARE: str(self._share)},
                }
            )  # fmt: skip

    def _gpus(self, slot: int) -> list[str]:
        """Of one slot: no other's, but where more jobs run at once than there are GPUs for."""
        count = len(self._there)
        return [self._there[(slot * self._each + i) % count] for i in range(min(self._each, count))]

    def _server(self, job: Job) -> "_Server":
        key = tuple(sorted(job.environment.items()))
        server = self._servers.get(key)
        if server is None or server.gone:
            server = self._servers[key] = _Server(self._task, self._compose, dict(key))
        return server

    def wait(self, timeout_s: float) -> list[Ended]:
        ended: list[Ended] = []
        channels = {server.channel: server for server in self._servers.values() if not server.gone}
        ready, _, _ = select.select(channels, [], [], timeout_s)
        for channel in ready:
            for said in channels[channel].heard():
                ended += self._heard(said)
        for server in [s for s in self._servers.values() if s.gone]:
            ended += [Ended(index=job, lost="its server ended") for job in server.jobs]
            server.jobs.clear()
        for end in ended:
            self._slots.pop(end.index, None)
            self._pids.pop(end.index, None)
        return ended

    def _heard(self, said: dict[str, Any]) -> list[Ended]:
        if "pid" in said:
            self._pids[said["job"]] = said["pid"]
            return []
        return [Ended.by(said["job"], int(said["code"]))]

    def stop(self) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            asked: set[int] = set()  # a second SIGTERM would not wait for a checkpoint
            deadline_s = time.monotonic() + GRACE_S
            while time.monotonic() < deadline_s and any(s.jobs for s in self._servers.values() if not s.gone):
                for pid in set(self._pids.values()) - asked:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, number)
                    asked.add(pid)
                self.wait(0.1)

    def close(self) -> None:
        for server in self._servers.values():
            server.end()
        self._servers.clear()


class _Server:
    """This process's end of one server."""

    def __init__(self, task: Callable[[Any], Any], compose: Callable[[Sequence[str]], Any], variables: dict[str, str]) -> None:  # fmt: skip
        self.channel, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        _widen(self.channel, other)
        self.jobs: set[int] = set()
        self.gone = False

        def serve() -> int:
            self.channel.close()
            return _serve(other, task, compose, variables)

        self.pid = fork.start(serve)
        other.close()

    def tell(self, message: dict[str, Any]) -> None:
        data = json.dumps(message).encode()
        self.jobs.add(message["job"])
        try:
            self.channel.send(data)
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                raise VerbatimError(f"job {message['job']}", expected="settings that fit a message", found=f"{len(data):,} bytes", then="keep them as a file, configs/experiment/<name>.yaml") from None  # fmt: skip
            self.gone = True

    def heard(self) -> list[dict[str, Any]]:
        said = []
        try:
            while data := self.channel.recv(LIMIT_BYTES, socket.MSG_DONTWAIT):
                said.append(json.loads(data))
                if "code" in said[-1]:
                    self.jobs.discard(said[-1]["job"])
            self.gone = True  # an empty message is the end of the connection
        except BlockingIOError:
            pass
        except ConnectionResetError:  # it was killed before it read all that it was told
            self.gone = True
        return said

    def end(self) -> None:
        self.channel.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)  # its children go with it
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


# ------------------------------------------------------------------------------------------------------- in the server


def _serve(channel: socket.socket, task: Callable[[Any], Any], compose: Callable[[Sequence[str]], Any], variables: dict[str, str]) -> int:  # fmt: skip
    """Fork a process for each job that is told of, until the other end closes."""
    os.environ.update(variables)
    determinism.load_torch()
    waiting: dict[int, int] = {}  # pidfd → job
    pids: dict[int, int] = {}
    learnt, teacher = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    _widen(teacher)
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    poll.register(learnt, select.POLLIN)
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == channel.fileno():
                data = channel.recv(LIMIT_BYTES)
                if not data:
                    return 0
                message = json.loads(data)
                pid = fork.start(lambda message=message: _job(message, task, compose, teacher))  # type: ignore[misc]
                pidfd = os.pidfd_open(pid)
                waiting[pidfd], pids[pidfd] = message["job"], pid
                poll.register(pidfd, select.POLLIN)
                _say(channel, {"job": message["job"], "pid": pid})
            elif descriptor == learnt.fileno():
                _learn(json.loads(learnt.recv(LIMIT_BYTES)))
            else:
                poll.unregister(descriptor)
                os.close(descriptor)
                _, status = os.waitpid(pids.pop(descriptor), 0)
                _say(channel, {"job": waiting.pop(descriptor), "code": os.waitstatus_to_exitcode(status)})


def _widen(*ends: socket.socket) -> None:
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, LIMIT_BYTES // 2)


def _say(channel: socket.socket, message: dict[str, Any]) -> None:
    channel.send(json.dumps(message).encode())


def _job(
    message: dict[str, Any], task: Callable[[Any], Any], compose: Callable[[Sequence[str]], Any], teacher: socket.socket
) -> int:
    """In the job's own process: what it would be if its command had started it, but for what is loaded already."""
    log = os.open(message["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.environ.update(message["variables"])
    os.chdir(message["folder"])
    sys.orig_argv[:] = message["command"]
    sys.argv = [sys.argv[0], *message["words"]]
    before = set(sys.modules)
    faulthandler.enable()  # into the log: it would be empty after a crash
    try:
        task(compose(message["words"]))
    finally:
        if _learns:
            modules = [name for name in sys.modules if name not in before and not name.startswith(eager.NAME)]
            with contextlib.suppress(OSError):  # the server has ended
                teacher.send(json.dumps({"modules": modules, "probes": list(environment.probes.items())}).encode())
    return 0


_learns = [True]


def _learn(lesson: dict[str, Any]) -> None:
    """What the first job had to load and to measure, its server knows for those that follow. To import starts no thread."""
    _learns.clear()
    for name in lesson["modules"]:
        with contextlib.suppress(Exception):  # it was the job's to complain
            importlib.import_module(name)
    environment.probes.update({tuple(key): value for key, value in lesson["probes"]})


def visible_gpus() -> list[str]:
    """The GPUs that jobs may share: as CUDA_VISIBLE_DEVICES says, else all that the driver shows. Nothing is started."""
    said = os.environ.get("CUDA_VISIBLE_DEVICES")
    if said is not None:  # a number below 0 ends the list, as CUDA reads it
        return list(itertools.takewhile(lambda name: name and not name.startswith("-"), said.split(",")))
    shown = Path("/proc/driver/nvidia/gpus")
    return [str(index) for index, _ in enumerate(sorted(shown.iterdir()))] if shown.is_dir() else []
