"""Whether a run, an archive or a verdict is what it was: `nox -s verify -- <file or folder>`. It runs no code of what it checks."""

import argparse
import contextlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from verbatim import archive, attest, code, compare, datafiles, digest, integrity, lock, record, scratch
from verbatim.errors import VerbatimError

BUNDLE = "code.bundle"


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Path]:
    """The run folder that an archive holds, checked and unpacked for as long as the block lasts."""
    with scratch.folder("archive") as own:
        folder = own / "runs" / "unpacked"
        folder.mkdir(parents=True)
        archive.unpack(path, folder)
        run = record.read(folder)
        integrity.check(folder, run, lambda _: None)
        text = folder / "lock.txt"
        if lock.digest(lock.read(text)) != run.lock.get("digest"):
            raise VerbatimError(f"{path}, lock.txt", expected="the recorded lock", found="another")
        datafiles.read(folder, run)
        named = folder.with_name(run.run) if archive.NAME.fullmatch(run.run) else folder
        yield folder.rename(named)


def take_code(folder: Path, root: Path) -> str:
    """Bring an archive's code into the repository at `root`, as objects that nothing checks out; the name of its tree."""
    run = record.read(folder)
    recorded = run.code.get("tree", "")
    if not re.fullmatch(r"[0-9a-f]{40,64}", recorded):  # it becomes part of a ref's name
        raise VerbatimError(run.run, expected="the name of a git tree as its code", found=recorded or "none")
    ref = f"{code.REFS}archive/{recorded}"
    try:
        heads = code.git(root, "bundle", "list-heads", str(folder / BUNDLE)).split()
        code.git(
            root,
            "-c",
            "fetch.fsckObjects=true",
            "fetch",
            "--quiet",
            "--no-tags",
            "--no-write-fetch-head",
            str(folder / BUNDLE),
            f"+{heads[1]}:{ref}",
        )
        tree = code.git(root, "rev-parse", "--verify", f"{ref}^{{tree}}")
    except (subprocess.CalledProcessError, IndexError) as error:
        said = (getattr(error, "stderr", "") or "").strip().splitlines()
        raise VerbatimError(
            f"{run.run}, {BUNDLE}", expected="a git bundle of the code", found=said[-1] if said else "none in it"
        ) from None
    if tree != recorded:
        raise VerbatimError(f"{run.run}, {BUNDLE}", expected=f"the recorded git tree {recorded}", found=tree)
    return tree


def verify(path: Path, signers: Path | None = None) -> list[str]:
    """What was found to be whole, a line each; anything else is a VerbatimError that names it."""
    if path.suffix == ".json" and path.name != record.FILE:
        return _verdict(path, signers)
    if path.suffix == ".zip":
        with opened(path) as folder, scratch.folder("verify") as empty:
            code.git(empty, "init", "--quiet", "--bare")
            tree = take_code(folder, empty)
            return [
                *_whole(folder),
                *_data(folder),
                f"code: git tree {tree}, all of it",
                "archive: every byte follows from these files",
            ]
    return _whole(path)


def _data(folder: Path) -> list[str]:
    run = record.read(folder)
    carried = datafiles.read(folder, run)
    return [f"data: {len(carried)} of {len(run.data['files'])} files, as recorded"] if carried else []


def _verdict(path: Path, signers: Path | None) -> list[str]:
    said, signer = attest.read(path, signers)
    predicate, subject = said["predicate"], said["subject"][0]
    lines = [f"verdict: {subject['name']} (record sha256:{subject['digest']['sha256']}): {predicate['result']}"]
    beside = path.with_name(record.FILE)
    if (
        beside.exists()
        and (found := digest.of_file(beside)) != f"sha256:{predicate['reproduction']['digest']['sha256']}"
    ):
        raise VerbatimError(beside, expected="the record of the reproduction that the verdict names", found=found)
    return [*lines, f"signed: {signer or 'by nobody: whoever has the file can change it'}"]


def _whole(folder: Path) -> list[str]:
    run = record.read(folder)
    notes: list[str] = []
    trace = integrity.check(folder, run, notes.append)
    lines = ["; ".join([f"record: {run.run}, {run.state}, recipe {run.recipe}", *run.remarks])]
    lines.append(f"outcome: {run.outcome or 'none'}")
    lines += [f"trace: {trace.rows} rows, chained"] if trace else []
    there = [name for name in run.files if (integrity.folder_of(folder) / name).exists()]
    return [*lines, f"files: {len(there)} of {len(run.files)}, as recorded", *(f"note: {note}" for note in notes)]


def main(arguments: list[str], root: Path) -> int:
    parser = argparse.ArgumentParser(
        prog="nox -s verify --",
        description="Check a run, an archive or a verdict to its last byte. Exit code 0: whole, 2: not, and what.",
    )
    parser.add_argument("what", help="a run's folder or name, an archive (.zip), or a verdict (.json)")
    parser.add_argument(
        "--signers",
        metavar="FILE",
        type=Path,
        help="whose signature counts: a file of allowed signers, as ssh-keygen's",
    )
    options = parser.parse_args(arguments)
    path = Path(options.what)
    print("\n".join(verify(path if path.is_file() else compare.locate(options.what, root), options.signers)))
    return 0
