"""Debian's Slurm with two nodes on this machine: packages unpacked into a folder, daemons on loopback only, all of them ended at the end.

For root, on a machine with apt. Nothing is installed: `apt-get download` and `dpkg -x`.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

PACKAGES = (
    "libhwloc15", "liblua5.1-0", "libmunge2", "munge", "slurm-wlm-basic-plugins", "slurm-client", "slurmd", "slurmctld",
)  # fmt: skip
NODES = ("n1", "n2")
READY_S = 60.0

CONFIGURATION = """
ClusterName=here
SlurmctldHost=localhost(127.0.0.1)
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/run/munge.sock
CredType=cred/munge
PluginDir={plugins}
SlurmctldPort={port}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.%n.log
ReturnToService=2
SlurmdTimeout=300
KillWait=5
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SchedulerParameters=sched_interval=1,batch_sched_delay=0,sched_min_interval=0
{nodes}
PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class UnavailableError(Exception):
    """Why there is no Slurm here."""


@dataclass
class Cluster:
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    started: "dict[str, subprocess.Popen[bytes]]" = field(default_factory=dict)

    def run(self, *command: str) -> str:
        found = {**os.environ, **self.environment}
        done = subprocess.run(command, env=found, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr}{done.stdout}")
        return done.stdout

    def daemon(self, name: str, *command: str) -> None:
        with (self.folder / "log" / f"{name}.out").open("ab") as out:
            found = {**os.environ, **self.environment}
            self.started[name] = subprocess.Popen(command, env=found, stdout=out, stderr=out, start_new_session=True)

    def slurmctld(self) -> None:
        self.daemon("slurmctld", "slurmctld-wlm", "-D", "-f", str(self.folder / "slurm.conf"))

    def slurmd(self, name: str) -> None:
        stepd = str(self.folder / "root/usr/sbin/slurmstepd-wlm")
        self.daemon(name, "slurmd-wlm", "-D", "-f", str(self.folder / "slurm.conf"), "-d", stepd, "-N", name)

    def end(self, name: str, number: int = signal.SIGTERM) -> None:
        process = self.started.pop(name)
        process.send_signal(number)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def idle(self) -> None:
        """Wait until both nodes are free."""
        deadline_s = time.monotonic() + READY_S
        found = ""
        while time.monotonic() < deadline_s:
            with suppress(RuntimeError):
                found = self.run("sinfo", "--noheader", "--Node", "--format=%T")
                if found.split() == ["idle"] * len(NODES):
                    return
            time.sleep(0.1)
        logs = "\n".join(path.read_text()[-800:] for path in sorted((self.folder / "log").iterdir()))
        raise UnavailableError(f"its nodes are not ready after {READY_S:.0f} s: {found!r}\n{logs}")


@contextmanager
def running(folder: Path) -> Iterator[Cluster]:
    if os.geteuid() or not shutil.which("apt-get"):
        raise UnavailableError("neither Debian nor root to start Slurm")
    cluster = Cluster(folder)
    for name in ("root", "run", "state", "log", *(f"spool/{node}" for node in NODES)):
        (folder / name).mkdir(parents=True)
    _unpack(folder)
    libraries = next((folder / "root/usr/lib").glob("*-linux-gnu"))
    plugins = libraries / "slurm-wlm"
    key, configuration = folder / "munge.key", folder / "slurm.conf"
    key.write_bytes(secrets.token_bytes(1024))
    key.chmod(0o400)
    ports = _free_ports(1 + len(NODES))
    host = socket.gethostname()
    nodes = [
        f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=2 State=UNKNOWN"
        for name, port in zip(NODES, ports[1:], strict=True)
    ]
    configuration.write_text(
        CONFIGURATION.format(folder=folder, plugins=plugins, port=ports[0], nodes="\n".join(nodes))
    )
    programs = f"{folder}/root/usr/bin:{folder}/root/usr/sbin"
    cluster.environment = {
        "PATH": f"{programs}:{os.environ['PATH']}", "LD_LIBRARY_PATH": f"{libraries}:{plugins}", "SLURM_CONF": str(configuration),
    }  # fmt: skip
    try:
        run, log = folder / "run", folder / "log"
        cluster.daemon(
            "munged", "munged", "--foreground", "--force", f"--key-file={key}", f"--socket={run}/munge.sock",
            f"--pid-file={run}/munged.pid", f"--log-file={log}/munged.log", f"--seed-file={run}/munged.seed",
        )  # fmt: skip
        cluster.slurmctld()
        for name in NODES:
            cluster.slurmd(name)
        cluster.idle()
        yield cluster
    finally:
        for name in reversed(list(cluster.started)):
            cluster.end(name)


def _unpack(folder: Path) -> None:
    command = ["apt-get", "download", "-qq", *PACKAGES]
    try:
        if subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode:
            subprocess.run(["apt-get", "update", "-qq"], capture_output=True, check=False)
            subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
        for package in folder.glob("*.deb"):
            subprocess.run(["dpkg", "-x", package, folder / "root"], check=True)
    except subprocess.CalledProcessError as error:
        raise UnavailableError(f"Slurm's packages can't be had: {error.stderr}") from None


def _free_ports(number: int) -> list[int]:
    probes = [socket.socket() for _ in range(number)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()
