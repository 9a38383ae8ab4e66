"""Which run a command goes on with: one of the same recipe that has ended early and left a whole checkpoint.

Level `exact` goes on where the numerics probe is the one that the run began with; `portable` and `seeded` go on anywhere.
"""

import contextlib
import dataclasses
import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from verbatim import causes, checkpoint, code, digest, record, trace
from verbatim.errors import VerbatimError
from verbatim.record import Record

LOCK = ".lock"
AUTO, NEVER = "auto", "never"


def wanted(configured: str) -> str:
    """A run that is made again from its record never goes on with another: VERBATIM_RESUME=never says so, and an older script ignores it."""
    return os.environ.get("VERBATIM_RESUME") or configured


def hold(folder: Path) -> IO[str] | None:
    """Take a run folder for as long as this process lives; None where another has it. The kernel lets go of it, whatever happens."""
    try:
        file = (folder / LOCK).open("a")
    except FileNotFoundError:  # whoever claimed it has left it
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(file.fileno()), os.stat(folder / LOCK)):
            return file  # not one that its holder removed in between
    except OSError:
        pass
    file.close()
    return None


def find(
    runs: Path, new: Record, named: str, note: Callable[[str], None] = print
) -> tuple[Path, Record, IO[str]] | None:
    """The newest unfinished run of `new`'s recipe, taken; or the named one, which must be of this recipe. `note` is told of one that only
    its code tells from it: a person may have meant to go on."""
    passed_over = ""
    if named == NEVER:
        return None
    for folder in _named(named, runs) if named != AUTO else _unfinished(runs):
        try:
            old = record.read(folder)
        except VerbatimError:
            if named != AUTO:
                raise
            continue
        if old.state == "sealed" or old.run == new.run:
            if named != AUTO:
                raise VerbatimError(
                    f"machine.resume={named}", expected="a run that ended early", found=f"it is {old.state}"
                )
            continue
        different = _difference(old, new)
        if different and named != AUTO:
            raise VerbatimError(f"machine.resume={named}", expected="a checkpoint of this recipe", found=f"one of another: {different}", then=f"add machine.resume={NEVER}")  # fmt: skip
        if different and not passed_over and not _difference(dataclasses.replace(old, code=new.code), new):
            passed_over = folder.name
        if not different and (lock := hold(folder)):
            old = record.read(folder)  # again: until now another process may have been at it, and ended it
            if old.state != "sealed":
                return folder, old, lock
            (folder / LOCK).unlink()
            lock.close()
        if not different and named != AUTO:
            raise VerbatimError(
                f"machine.resume={named}", expected="a run that ended early", found="another process is at it"
            )
    if passed_over:
        note(f"{passed_over} ended early, and is not gone on with: the code is another since")
    return None


def refuse_missing(configured: str, runs: Path) -> None:
    """Before a folder is claimed for what is to go on in another."""
    if (name := wanted(configured)) not in (AUTO, NEVER):
        _named(name, runs)


def _named(name: str, runs: Path) -> list[Path]:
    folder = runs / name if (runs / name).is_dir() else Path(name)
    if not checkpoint.found(folder):
        raise VerbatimError(
            f"machine.resume={name}", expected=f"a run with checkpoints, {AUTO} or {NEVER}",
            found="no checkpoint there" if folder.is_dir() else "nothing there", then="nox -s runs lists the runs that there are",
        )  # fmt: skip
    return [folder]


def _unfinished(runs: Path) -> Iterator[Path]:
    """Newest first. A sealed run has no checkpoints, so that few records are read."""
    for name in sorted(os.listdir(runs), reverse=True):
        if checkpoint.found(runs / name):
            yield runs / name


def _difference(old: Record, new: Record) -> str:
    """The first part of the recipe that differs; the data are compared once they are read."""
    for what, a, b in (
        ("code", old.code.get("tree"), new.code.get("tree")),
        ("lock", old.lock.get("digest"), new.lock.get("digest")),
    ):
        if not a or a != b:
            return f"{what} {causes.show(a)}, here {causes.show(b)}"
    one, other = ({**run.recipe_config, "seed": run.seed, "level": run.level} for run in (old, new))
    if digest.canonical(one) != digest.canonical(other):
        path, a, b = next(causes.walk(one, other, ""))
        return f"{path} {causes.show(a)}, here {causes.show(b)}"
    return ""


def leave(folder: Path, root: Path, ref: str, note: Callable[[str], None]) -> None:
    """Remove the folder that was claimed for a run that goes on in another, and the ref that kept its code, where it is no other's."""
    shutil.rmtree(folder, ignore_errors=True)
    if ref != code.REFS + folder.name:
        return
    try:
        code.git(root, "update-ref", "-d", ref)
    except (subprocess.CalledProcessError, FileNotFoundError) as error:  # the code stays kept: no harm
        note(f"{ref} could not be removed: {error}")


def continued(old: Record, new: Record, now: str, folder: Path) -> Record:
    """The record of the run that goes on: its name and its recipe, and how it was started this time."""
    again = dataclasses.replace(
        old, state="started", reason="", finished="", files={}, resumed=[*old.resumed, _part(old, now, folder)]
    )
    again.config, again.overrides, again.command, again.environment = (
        new.config,
        new.overrides,
        new.command,
        new.environment,
    )
    return again


def _part(run: Record, now: str, folder: Path) -> dict[str, Any]:
    """What a record keeps of an earlier start of its run; `now` is when it goes on."""
    found, earlier = run.environment, run.resumed
    started = earlier[-1]["resumed"] if earlier else run.started
    wall_s = run.wall_s - sum(other["wall_s"] for other in earlier)
    if not run.finished:  # killed: nobody measured, and the last row of the trace says when it was still there
        with contextlib.suppress(OSError):
            wall_s = (folder / trace.FILE).stat().st_mtime - datetime.fromisoformat(started).timestamp()
    return {
        "started": started, "resumed": now, "ended": (run.reason or "killed").partition("\n")[0],
        "wall_s": max(0.0, round(wall_s, 3)), "host": found.get("host", ""), "cpu": found.get("cpu", {}).get("model", ""),
        "probe": found.get("probe", ""), "gpu": found.get("gpu"), "ranks": found.get("ranks", 1),
    }  # fmt: skip


def refuse_other_data(run: Record, fingerprint: str) -> None:
    if run.resumed and run.data and run.data["fingerprint"] != fingerprint:
        raise VerbatimError(
            "data.fingerprint", expected=f"{run.data['fingerprint']}, the data that {run.run} began with", found=fingerprint,
            then=f"restore the data, or start anew: add machine.resume={NEVER}",
        )  # fmt: skip


def refuse_other_bits(run: Record) -> None:
    """Level `exact` holds on one kind of machine: a run that began on another would be of two minds. It is the first start that
    counts: later ones went on with its bits, or were refused here."""
    began = [part for part in run.resumed if part["probe"]]
    if run.level != "exact" or not began:
        return
    first, here = began[0], run.environment
    found = "another numerics probe here" if first["probe"] != here["probe"] else ""
    if first.get("gpu") != here.get("gpu"):
        found = f"another GPU, driver or library here: {here.get('gpu') or 'none'}"
    if found:
        raise VerbatimError(
            "determinism=exact", expected=f"a machine that computes the bits that {run.run} began with ({first.get('gpu') or first['cpu']})",
            found=found, then=f"go on there; or start anew, add machine.resume={NEVER} (determinism=portable goes on anywhere)",
        )  # fmt: skip
