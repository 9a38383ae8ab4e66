"""Makes a run again from its record alone, then compares: `nox -s reproduce -- <run folder | record.json | archive>`.

Restored are the code (in a worktree of its own), the environment, the configuration and the variables that reach the bits; the data
must have the recorded fingerprint. `--in-image` makes the run in the train image, built from that code. The user's checkout is never
touched. Exit code 0: identical; 1: different, and the first cause is named; 2: it could not be run, and why.
"""

import argparse
import contextlib
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verbatim import (
    attest,
    causes,
    compare,
    comparison,
    datafiles,
    digest,
    environment,
    integrity,
    launch,
    launch_image,
    record,
    restore,
    verify,
)
from verbatim.comparison import Comparison
from verbatim.errors import Interrupted, VerbatimError
from verbatim.follow import Follower
from verbatim.record import Record
from verbatim.trace import Reader


@dataclass(frozen=True, kw_only=True, slots=True)
class Reproduction:
    """What came of it. `until`: the last step that was compared, None where everything was."""

    original: Path
    folder: Path
    found: Comparison
    until: int | None
    wall_s: float

    @property
    def identical(self) -> bool:
        """By the outcome alone: an environment that differs and gives the same bits makes the claim stronger."""
        return not self.found.of(*causes.OUTCOME)

    @property
    def result(self) -> str:
        if not self.identical:
            return "different"
        return "identical" if self.found.a.outcome and self.until is None else "identical as far as compared"

    @property
    def steps(self) -> int:
        return self.found.parting.compared if self.found.parting else 0

    @property
    def verdict(self) -> str:
        return {
            "different": f"different: {self.found.verdict}",
            "identical": f"identical: {self.found.a.run} was reproduced bit for bit",
            "identical as far as compared": f"identical as far as compared: the first {self.steps} steps, bit for bit",
        }[self.result]

    def attest(self, key: Path | None) -> list[Path]:
        """Write the verdict for others, into the new run's folder."""
        original = self.original / record.FILE if self.original.is_dir() else self.original
        cause = "" if self.identical else self.found.verdict
        said = attest.statement(
            original, self.folder / record.FILE, result=self.result, steps=self.steps, first_cause=cause
        )
        return attest.write(self.folder, said, key)


def reproduce(where: Path, root: Path, options: argparse.Namespace) -> Reproduction:
    began = time.monotonic()
    run = record.read(where)
    recorded = integrity.check(where, run, lambda text: say(f"note         {text}"))
    until = _until(run, recorded, options.until)
    steps = f"{recorded.rows if recorded else 'no'} steps"
    say(
        f"record       {'; '.join([f'{run.run}: {run.state}, {steps}, recipe {digest.short(run.recipe)}', *run.remarks])}"
    )
    _refuse_impossible(run)
    with restore.restored(root, run.code, keep=options.keep) as folder:
        tree = restore.project(root, folder)
        say(f"code         git tree {run.code['tree'][:12]}, restored beside this checkout")
        paths = _places(where, run, root, options.paths, folder / "data")
        runs = Path(paths["runs"])
        follower = Follower(runs=runs, original=run, recorded=recorded, until=until, fail_fast=options.fail_fast)
        prepared = launch_image.prepared if options.in_image else launch.prepared
        with prepared(run, root, folder, tree, paths) as start:
            code = follower.run(start, str(folder / "config"))
        if options.keep:
            say(f"kept         {tree}; to remove it: git worktree remove --force {folder / 'code'}")
    made, new = _completed(follower, code)
    if run.state == "failed" and new.state != "failed" and recorded:
        until = recorded.row(recorded.rows - 1).step
    found = comparison.compare(where, made, root, until)
    _refuse_nothing(found, new, made, until)
    return Reproduction(
        original=where, folder=made, found=found, until=until, wall_s=time.monotonic() - began
    )  # fmt: skip


def _places(where: Path, run: Record, root: Path, given: list[str], aside: Path) -> dict[str, Any]:
    """Where things lie here. Data that came in the archive is put into `aside`, unless this machine has it or says where it is."""
    paths = launch.places(run, root, given)
    said = {word.partition("=")[0].removeprefix("paths.") for word in given}
    carried = datafiles.read(integrity.folder_of(where), run)
    carried = {name: file for name, file in carried.items() if file.place not in said}
    if not carried or datafiles.are_here(carried, launch.folders(paths, root)):
        return paths
    say(f"data         {len(carried)} files from the archive, as recorded: not all of them are on this machine")
    return paths | datafiles.lay_out(carried, integrity.folder_of(where), aside, run.config.get("paths") or {})


def _until(run: Record, recorded: Reader | None, asked: int | None) -> int | None:
    """The last step to compare: as asked, or where a run was broken off."""
    if run.state == "sealed":
        return asked
    if not recorded or not recorded.rows:
        raise VerbatimError(run.run, expected="a run with a step to repeat", found=f"{run.state} before the first step")
    last = recorded.row(recorded.rows - 1).step
    if asked is None:
        return None if run.state == "failed" else last  # what failed should fail again, at the same step
    return min(asked, last)


def _refuse_nothing(found: Comparison, new: Record, made: Path, until: int | None) -> None:
    """No verdict where the run broke off on its own, or where no step was compared."""
    steps = found.parting.compared if found.parting else 0
    if found.parting and found.parting.a:  # whatever happened after: the bits had parted before
        return
    if new.state == "failed" and found.a.state != "failed":
        raise VerbatimError(
            made, expected="a run that ends as recorded", found=f"{new.reason}, after {steps} steps that were the same"
        )
    if until is not None and not steps:
        raise VerbatimError(
            made,
            expected="a trace to compare with",
            found=f"none ({'; '.join(found.notes)})",
            then="without --until, digests are compared",
        )


def _refuse_impossible(run: Record) -> None:
    if not run.recipe:
        missing = next(
            n
            for n, v in (("code", run.code.get("tree")), ("lock", run.lock.get("digest")), ("data", True))
            if not v or n == "data"
        )
        raise VerbatimError(
            run.run,
            expected="a complete recipe",
            found=f"no {missing} in it ({run.code.get('reason') or run.reason or run.state})",
        )
    gpu = run.environment.get("gpu")
    if gpu and not environment.has_nvidia_driver():
        raise VerbatimError(
            run.run, expected=f"a GPU: it was recorded on {gpu['name']}", found="none here, and a CPU computes other bits",
            then="run this where such a GPU is; or train here with the same settings, and see how close it comes: "
            "nox -s compare -- --tolerance 0.01 A B",
        )  # fmt: skip


def _completed(follower: Follower, code: int) -> tuple[Path, Record]:
    """The new run's folder and record; refused where nothing came of it that can be compared."""
    if follower.folder is None:
        raise VerbatimError(
            "the run", expected="a record of it, where the recorded configuration says",
            found=f"none, and exit code {code}" + ("" if code else ": the script does not read the recorded configuration"),
            then="see what it says above" if code else "make it a Hydra application that verbatim.app runs, as src/experiment/line.py is",
        )  # fmt: skip
    new = record.read(follower.folder)
    if follower.stopped == "recipe" and (mismatch := follower.mismatch()):
        raise VerbatimError(follower.folder, expected="the recorded recipe", found=f"other {mismatch.part}: {mismatch}")
    if new.state in ("interrupted", "started") and not follower.stopped:
        raise VerbatimError(
            follower.folder, expected="the run to end", found=new.reason or f"it was killed (exit code {code})"
        )
    if not new.trace.get("rows"):
        raise VerbatimError(follower.folder, expected="a run that starts", found=new.reason or new.state)
    return follower.folder, new


@contextlib.contextmanager
def _opened(name: str, root: Path) -> Iterator[Path]:
    """The run folder or record that is meant; an archive is unpacked while the block lasts, and its code joins the repository."""
    if not name.endswith(".zip"):
        yield compare.locate(name, root)
        return
    with verify.opened(Path(name)) as folder:
        verify.take_code(folder, root)
        yield folder


def say(line: str) -> None:
    print(line, flush=True)


def main(arguments: list[str], root: Path) -> int:
    parser = argparse.ArgumentParser(
        prog="nox -s reproduce --",
        description="Make a run again from its record alone, and compare. Exit code 0: identical, 1: different, 2: could not be run.",
    )
    parser.add_argument("run", help="a run's folder, name, record.json or archive; `latest` is the newest sealed run")
    parser.add_argument("paths", nargs="*", metavar="paths.NAME=PLACE", help="where things lie on this machine")
    parser.add_argument("--until", metavar="STEP", type=int, help="end after this step, and compare as far")
    parser.add_argument("--fail-fast", action="store_true", help="end at the first step that differs")
    parser.add_argument("--in-image", action="store_true", help="in the train image, built from the recorded code")
    parser.add_argument("--keep", action="store_true", help="keep the restored code")
    parser.add_argument("--sign", metavar="KEY", type=Path, help="sign the verdict with this key of ssh-keygen's")
    options = parser.parse_args(arguments)
    if options.sign and not options.sign.expanduser().exists():
        raise VerbatimError("--sign", expected="a key file", found=options.sign, then="ssh-keygen -t ed25519 makes one")
    if options.until is not None and options.until < 0:
        raise VerbatimError("--until", expected="a step, counted from 0", found=options.until)
    try:
        with _opened(options.run, root) as where:
            done = reproduce(where, root, options)
            written = done.attest(options.sign)
    except Interrupted:
        return 128 + signal.SIGTERM
    more = f"nox -s compare -- --all {done.original} {done.folder}"
    gone = options.run.endswith(".zip")  # an archive's run can't be compared again later: all is said now
    print(
        f"\n{compare.report(done.found, root, everything=gone, more=more)}\n\nverdict written: {', '.join(map(str, written))}"
    )
    print(f"{done.verdict}  ({done.wall_s:.1f} s)")
    sys.stdout.flush()
    return 0 if done.identical else 1
