"""Proves that level `portable` is what it says: `nox -s portability`.

Operators and whole trainings are computed again, each way in a process of its own: on other numbers of cores and workers, with each
library capped at other instructions, and on the CPUs that qemu-user plays; all must give the digests of `witnesses.json`.
Exit code 0: they do; 1: something differs, and it is named; 2: it could not be run.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from verbatim import determinism, environment, ledger, portable, record
from verbatim.errors import VerbatimError
from verbatim.portable import approximations, document, witnesses
from verbatim.portable.witnesses import Table, Witness, apart

# The oldest that has AVX2, and later ones of both makers. qemu-user has no AVX-512, so none of these has.
EMULATED = ("Haswell", "Skylake-Client", "EPYC", "EPYC-Rome")
QEMU = ("qemu-x86_64-static", "qemu-x86_64")
SHORT = "determinism={} trainer.max_steps=6 trainer.batch_size=32 data.validation=0.02 data.test=0.02 optimizer=sgd,adam,adamw"
TRAININGS = ("model=mlp,cnn,vae", "model=vit model.depth=1 model.width=32")


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to compute the same. `cpu`: played by qemu-user, else this machine's."""

    name: str
    threads: int = 1
    workers: int = 1
    cores: int = 0
    cpu: str = ""
    variables: dict[str, str] = field(default_factory=dict)
    level: str = "portable"
    trainings: bool = False


@dataclass(kw_only=True)
class Found:
    """What a way gave."""

    operators: dict[str, str] = field(default_factory=dict)
    trainings: dict[str, str] = field(default_factory=dict)
    failed: str = ""


def ways(emulated: list[str]) -> Iterator[Way]:
    cores = determinism.cores()
    yield Way(name="this machine", trainings=True)
    for cpu in emulated:
        yield Way(name=f"{cpu}, emulated", cpu=cpu, trainings=cpu in ("Haswell", "EPYC"))
    for n in (1, 2, 4):
        if n <= cores:
            yield Way(name=f"{n} core{'s' * (n > 1)}, {n} workers", cores=n, workers=n)
    for n in (2, 4, 8):
        yield Way(name=f"{n} workers", workers=n)
    for n in (2, 4, 8):
        yield Way(name=f"{n} threads", threads=n)
    for cap in ("SSE4_2", "AVX", "AVX2", "AVX512"):
        yield Way(name=f"MKL up to {cap}", variables={"MKL_ENABLE_INSTRUCTIONS": cap})
    yield Way(name="NumPy without AVX2", variables={"NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3"})
    caps = "-AVX512F,-AVX512VL,-AVX512BW,-AVX512DQ,-ERMS,-FSRM"
    yield Way(name="C library without AVX-512", variables={"GLIBC_TUNABLES": f"glibc.cpu.hwcaps={caps}"})


def compute(way: Way, root: Path, only: str = "") -> Found:
    """In processes of their own: the level's variables are read when libraries load."""
    variables = (
        os.environ
        | {"PYTHONPATH": str(root / "src"), "PYTHONHASHSEED": "0", "PYTHONWARNINGS": "ignore"}
        | way.variables
    )
    for name in (*portable.VARIABLES, *portable.ABSENT):  # of the process that asks
        variables.pop(name, None)
    python = [*([_qemu(), "-cpu", way.cpu] if way.cpu else []), sys.executable]
    found = Found()
    command = [*python, "-m", "verbatim.portable.compute", "--level", way.level, "--threads", str(way.threads), "--workers", str(way.workers), "--cores", str(way.cores), "--only", only]  # fmt: skip
    done = subprocess.run(command, cwd=root, env=variables, capture_output=True, text=True, check=False)
    if done.returncode:
        return Found(failed=_last(done.stderr))
    found.operators = json.loads(done.stdout)
    if way.trainings:
        with tempfile.TemporaryDirectory(prefix="verbatim-portability-") as runs:
            for models in TRAININGS:
                words = [
                    *SHORT.format(way.level).split(),
                    *models.split(),
                    f"paths.runs={runs}",
                    f"paths.sweeps={runs}/sweeps",
                ]
                done = subprocess.run([*python, "-m", "experiment.train", "--multirun", *words], cwd=root, env=variables, capture_output=True, text=True, check=False)  # fmt: skip
                if done.returncode:
                    return Found(operators=found.operators, failed=_last(done.stderr))
            sealed = [run for run in ledger.read(Path(runs)) if isinstance(run, record.Record)]
            found.trainings = {_name(run): run.outcome for run in reversed(sealed)}
    return found


def _name(run: record.Record) -> str:
    return " ".join(
        str(run.recipe_config[group]["_target_"]).rpartition(".")[2].lower() for group in ("model", "optimizer")
    )


def _called(cpu: dict[str, Any]) -> str:
    """Clouds name a CPU after its family alone; whether it has AVX-512 says most of which one it is."""
    return f"{cpu['model']}{', AVX-512' * ('avx512f' in cpu['flags'].split())}"


def _qemu() -> str:
    found = next(filter(None, map(shutil.which, QEMU)), "")
    if not found:
        raise VerbatimError("--emulate", expected="qemu-user, which plays other CPUs", found="none here", then="apt-get install qemu-user-static")  # fmt: skip
    return found


def _last(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if not line.startswith("qemu")]
    return next((line for line in lines if line.startswith("error: ")), lines[-1] if lines else "it said nothing")


# -------------------------------------------------------------------------------------------------------- the command


def main(arguments: list[str], root: Path) -> int:
    parser = argparse.ArgumentParser(
        prog="nox -s portability --",
        description="Compute every operator and whole trainings in other ways, and compare with the digests that other machines gave. "
        "Exit code 0: the same, 1: something differs, 2: could not be run.",
    )
    parser.add_argument(
        "--emulate", nargs="*", metavar="CPU", help=f"also on CPUs that qemu-user plays (default: {' '.join(EMULATED)})"
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="operators whose case holds this, and no trainings")
    parser.add_argument(
        "--add", action="store_true", help="add this machine (and what it emulates) to the witnesses, if it agrees"
    )
    parser.add_argument(
        "--renew", action="store_true", help="make the digests anew, after torch, NumPy or the training changed"
    )
    parser.add_argument(
        "--instructions",
        action="store_true",
        help="show that no operator uses an approximate instruction, or a function of the C library that changed (3 min)",
    )
    parser.add_argument(
        "--document",
        action="store_true",
        help=f"write what {' and '.join(document.FILES)} say of it, and do nothing else",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    options = parser.parse_args(arguments)
    if options.only and (options.add or options.renew):
        raise VerbatimError("--only", expected="no --add and no --renew with it", found=options.only)
    if options.document:
        return document.main(root)
    portable.refuse_machine()
    emulated = [] if options.emulate is None else options.emulate or list(EMULATED)
    if emulated:
        _refuse_unknown(emulated)
    if options.renew:
        return _renew(root)
    if options.instructions:
        return _instructions(root)
    table = witnesses.read()
    if options.only and not (chosen := sum(options.only in name for name in table.expected(1))):
        raise VerbatimError("--only", expected="a part of an operator case's name, as tanh", found=options.only, then="docs/determinism.md names the operators")  # fmt: skip
    todo = [Way(**(vars(way) | {"trainings": way.trainings and not options.only})) for way in ways(emulated)]
    answers: dict[str, dict[str, object]] = {}
    with ThreadPoolExecutor(determinism.cores()) as pool:
        for way, found in zip(todo, pool.map(lambda way: compute(way, root, options.only), todo), strict=True):
            answers[way.name] = _judge(way, found, table, options.only)
            if not options.json:
                print(_line(way.name, answers[way.name]), flush=True)
    differs = any(answer["differ"] for answer in answers.values())
    failed = [f"{name}: {answer['failed']}" for name, answer in answers.items() if answer["failed"]]
    if options.json:
        print(
            json.dumps(
                {"ways": answers, "claim": table.claim, "agree": not differs and not failed},
                indent=1,
                ensure_ascii=False,
            )
        )
    if failed:
        raise VerbatimError("portability", expected="every way to run", found="; ".join(failed))
    if options.add and not differs:
        _add(table, todo)
        written = [str(witnesses.FILE.relative_to(root)), *document.write(root)]
        print(f"added to {', '.join(written)}: commit them; {table.claim}")
    elif not options.json:
        agrees = (
            f"{chosen} of {len(table.expected(1))} cases agree; the others were not looked at"
            if options.only
            else f"level portable is {table.claim}"
        )
        print(f"\n{agrees}" if not differs else "\nthis machine does not give the bits of the others: keep to determinism=exact, and please report it")  # fmt: skip
    return 1 if differs else 0


def _judge(way: Way, found: Found, table: Table, only: str) -> dict[str, object]:
    expected = {name: value for name, value in table.expected(way.threads).items() if only in name}
    differ = apart(expected, found.operators) if found.operators else []
    differ += apart(table.trainings, found.trainings) if found.trainings else []
    return {
        "operators": len(found.operators),
        "trainings": len(found.trainings),
        "differ": differ,
        "failed": found.failed,
    }


def _line(name: str, answer: dict[str, object]) -> str:
    differ: list[str] = answer["differ"]  # type: ignore[assignment]
    said = f"{len(differ)} differ: {', '.join(differ[:4])}{' …' * (len(differ) > 4)}" if differ else "the same"
    counts = f"{answer['operators']:5} operator cases" + (
        f", {answer['trainings']} trainings" if answer["trainings"] else ""
    )
    return f"{name:28} {counts:36} {answer['failed'] or said}"


def _refuse_unknown(cpus: list[str]) -> None:
    known = subprocess.run([_qemu(), "-cpu", "help"], capture_output=True, text=True, check=False).stdout
    for cpu in cpus:
        if not re.search(rf"^x86 {re.escape(cpu)}\s", known, re.MULTILINE):
            raise VerbatimError("--emulate", expected=f"a CPU of qemu's, as {', '.join(EMULATED)}", found=cpu, then=f"{Path(_qemu()).name} -cpu help")  # fmt: skip


def _instructions(root: Path) -> int:
    found = approximations.main(root, lambda text: print(text, flush=True))
    print(f"one or the other is used by: {', '.join(found)}" if found else "no listed operator uses one or the other")
    return 1 if found else 0


def _renew(root: Path) -> int:
    """From this machine: one thread, then only what differs with more. Trainings last, as they look at the operators' digests."""
    import importlib.metadata

    old = witnesses.read() if witnesses.FILE.exists() else Table()
    versions = {name: importlib.metadata.version(name).partition("+")[0] for name in ("torch", "numpy")}
    table = Table(torch=versions["torch"], numpy=versions["numpy"], witnesses=old.witnesses)
    for n in portable.THREADS:
        found = _made(Way(name=f"{n} threads", threads=n), root).operators
        table.operators[str(n)] = {name: value for name, value in found.items() if table.expected(1).get(name) != value}
    witnesses.write(table)
    table.trainings = _made(Way(name="this machine", trainings=True), root).trainings
    witnesses.write(table)
    for what, before, now in (
        ("operator cases", old.expected(1), table.expected(1)),
        ("trainings", old.trainings, table.trainings),
    ):
        print(f"{len(now)} {what}, {len(apart(before, now))} changed")
    print(f"{witnesses.FILE.relative_to(root)} is written; next: nox -s portability -- --emulate --add")
    return 0


def _made(way: Way, root: Path) -> Found:
    found = compute(way, root)
    if found.failed:
        raise VerbatimError("--renew", expected="every case to run", found=found.failed)
    return found


def _add(table: Table, done: list[Way]) -> None:
    """One entry for each kind of CPU: a newer one takes the place of its elder."""
    here = environment.describe_machine()
    operators, trainings = table.digests
    version = ""
    for way in done:
        if way.name != "this machine" and not way.cpu:
            continue
        if way.cpu and not version:
            told = subprocess.run([_qemu(), "--version"], capture_output=True, text=True, check=False).stdout
            version = re.findall(r"version ([\d.]+)", told)[0]
        played = "AuthenticAMD" if way.cpu.startswith(("EPYC", "Opteron")) else "GenuineIntel"
        vendor = played if way.cpu else here["cpu"]["vendor"]
        new = Witness(
            cpu=way.cpu or _called(here["cpu"]), vendor=vendor, how=f"qemu-user {version}" if way.cpu else "native",
            os=here["os"]["name"], libc=here["os"]["libc"], cores=here["cpu"]["cores"], date=f"{datetime.now(UTC):%Y-%m-%d}",
            operators=operators, trainings=trainings if way.trainings else "",
        )  # fmt: skip
        table.witnesses = [
            w for w in table.witnesses if (w.cpu, w.how.split()[0], w.libc) != (new.cpu, new.how.split()[0], new.libc)
        ]
        table.witnesses.append(new)
    witnesses.write(table)
