"""Packs a run into one file that another lab can check and make again with nothing of this repository's history:
`nox -s pack -- <run>`. Refuses, by name, what looks like a secret or is a pickle; nothing else leaves this machine unseen.
"""

import argparse
import contextlib
import re
import subprocess
from pathlib import Path

from verbatim import archive, code, compare, crate, datafiles, digest, integrity, launch, record, scratch
from verbatim.errors import VerbatimError
from verbatim.record import Record

PRIVATE_NAMES = re.compile(
    r"(?:^|/)(?:\.env(?:\..+)?|\.netrc|\.pypirc|\.npmrc|\.git-credentials|id_(?:rsa|dsa|ecdsa|ed25519)|.*credentials.*\.json|.*\.(?:pem|key|p12|pfx|jks|keystore))$",
    re.IGNORECASE,
)
# As git's extended regular expressions, over the contents of the recorded tree.
TOKENS = r"-----BEGIN [A-Z ]*PRIVATE KEY-----|AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36}|hf_[A-Za-z0-9]{34}|sk-[A-Za-z0-9]{40}|xox[bp]-[0-9A-Za-z-]{20}"
PICKLES = re.compile(r"\.(?:pkl|pickle|pt|pth|ckpt|joblib)$", re.IGNORECASE)


LICENCES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "COPYING")
LIMIT_MIB = 512  # of data: one archive is one download


def pack(where: Path, root: Path, to: Path, options: argparse.Namespace) -> list[str]:
    """Write the archive `to`; the names in it."""
    run = record.read(where)
    integrity.check(where, run, lambda text: print(f"note         {text}"))
    _refuse_secrets(run, root)
    data = _data(run, root, options) if "data" in options.parts else {}
    weights = "weights" in options.parts
    names = [
        name for name in run.files if name.endswith(archive.KINDS) and (weights or not name.endswith(".safetensors"))
    ]
    missing = [name for name in names if not (where / name).exists()]
    if missing:
        raise VerbatimError(
            where / missing[0], expected="a file of the run", found="none", then="pack a copy of the run that is whole"
        )
    with scratch.folder("pack") as folder:
        _bundle(run, root, folder / "code.bundle")
        lock = (
            code.git(root, "cat-file", "blob", f"{run.code['tree']}:{_prefix(root)}requirements/{run.lock['file']}")
            + "\n"
        )
        (folder / "lock.txt").write_text(lock, encoding="utf-8")
        files = [where / record.FILE, *(where / name for name in names), folder / "code.bundle", folder / "lock.txt"]
        files += datafiles.write(folder, data) if data else []
        files += _licence(run, root, folder)
        files += crate.write(folder, run, files, {name: file for name, (file, _) in data.items()}, _author(root))
        archive.write(to, files)
    return [file.name for file in files]


def _data(run: Record, root: Path, options: argparse.Namespace) -> dict[str, tuple[datafiles.DataFile, Path]]:
    places = launch.folders(launch.places(run, root, options.paths), root)
    for name in run.data.get("files") or ():
        _refuse_name(str(name), "data to give away", "pack without `--with data`")
    found = datafiles.find(run, places, options.limit * 2**20)
    out = [name for name in run.data["files"] if name not in found]
    if out:
        print(f"note         {', '.join(out)}: left out, a distribution of the lock brings it")
    return found


def _licence(run: Record, root: Path, folder: Path) -> list[Path]:
    """The recorded code's own licence, of the project or of the whole repository, as a file; none where it has none."""
    tree = run.code["tree"]
    for prefix in dict.fromkeys((_prefix(root), "")):
        for name in LICENCES:
            entry = code.git(root, "ls-tree", "-z", "--full-tree", tree, f"{prefix}{name}")
            if not entry.startswith("100"):  # a file, and no link
                continue
            with contextlib.suppress(UnicodeDecodeError):
                text = code.git(root, "cat-file", "blob", f"{tree}:{prefix}{name}")
                (folder / crate.LICENCE).write_text(f"{text}\n", encoding="utf-8")
                return [folder / crate.LICENCE]
    return []


def _author(root: Path) -> str:
    """Who packs it, as their git says; empty where it does not."""
    try:
        return code.git(root, "config", "user.name")
    except subprocess.CalledProcessError:
        return ""


def _prefix(root: Path) -> str:
    return code.git(root, "rev-parse", "--show-prefix")


def _refuse_secrets(run: Record, root: Path) -> None:
    tree = run.code.get("tree", "")
    if not re.fullmatch(r"[0-9a-f]{40,64}", tree):
        raise VerbatimError(run.run, expected="code in its record", found=run.code.get("reason") or "none")
    try:
        names = code.git(root, "ls-tree", "-r", "-z", "--name-only", "--full-tree", tree).split("\0")
    except subprocess.CalledProcessError:
        raise VerbatimError(
            f"git tree {tree}", expected="the recorded code in this repository", found="no such object"
        ) from None
    for name in names:
        _refuse_name(name, "code to give away", "take it out of the tree (or ignore it), and train again")
    try:
        found = code.git(root, "grep", "-l", "-z", "-E", "-e", TOKENS, tree, "--", ":/").split("\0")[0]
    except subprocess.CalledProcessError as error:
        if error.returncode == 1:  # nothing matches
            return
        raise
    raise VerbatimError(found.partition(":")[2], expected="code to give away", found="what looks like a key or a token in its text",
                        then="take it out of the code, and train again")  # fmt: skip


def _refuse_name(name: str, expected: str, then: str) -> None:
    for pattern, what in ((PRIVATE_NAMES, "what looks like a secret, by its name"), (PICKLES, "a pickle")):
        if pattern.search(name):
            raise VerbatimError(name, expected=expected, found=what, then=then)


def _bundle(run: Record, root: Path, to: Path) -> None:
    """One commit without parents, under the run's own ref name."""
    commit = code.commit(root, run.code["tree"], [], f"The code of run {run.run}")
    name = f"{code.REFS}packing/{commit}"
    code.git(root, "update-ref", name, commit)
    try:
        code.git(root, "bundle", "create", "--quiet", str(to.resolve()), name)
    finally:
        code.git(root, "update-ref", "-d", name)


def main(arguments: list[str], root: Path) -> int:
    parser = argparse.ArgumentParser(
        prog="nox -s pack --", description="Pack a run into one file that others can check and make again."
    )
    parser.add_argument("run", help="a run's folder or name; `latest` is the newest sealed run")
    parser.add_argument("--to", type=Path, help="the file to write (default: <run>.crate.zip)")
    parser.add_argument("paths", nargs="*", metavar="paths.NAME=PLACE", help="where the data lies on this machine")
    parser.add_argument(
        "--with", dest="parts", action="append", choices=("data", "weights"), default=[],
        help="with the data files, or the weights, which follow from the rest but take time; may be given twice",
    )  # fmt: skip
    parser.add_argument(
        "--limit", type=int, default=LIMIT_MIB, metavar="MIB", help=f"most data to pack (default: {LIMIT_MIB} MiB)"
    )
    options = parser.parse_intermixed_args(arguments)
    where = integrity.folder_of(compare.locate(options.run, root))
    to = options.to or Path(f"{where.name}.crate.zip")
    names = pack(where, root, to, options)
    print(
        f"{to}: {len(names)} files, {to.stat().st_size:,} bytes, {digest.of_file(to)}\ncheck it: nox -s verify -- {to}"
    )
    return 0
