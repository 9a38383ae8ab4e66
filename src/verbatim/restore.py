"""The recorded code in a folder of its own, as a detached git worktree outside the checkout, gone when its block ends.

It must never touch the user's branch, index or files. What a killed process left behind is removed at the next start, known by
the processes that its folder names; no other worktree is ever pruned.
"""

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from verbatim import code, scratch
from verbatim.errors import VerbatimError

PREFIX = "verbatim-reproduce-"
KEPT = "kept"


@contextlib.contextmanager
def restored(root: Path, recorded: dict[str, Any], *, keep: bool = False) -> Iterator[Path]:
    """Yields a folder that holds `code`, the restored tree; the rest of it is free for its user."""
    remove_stale(root)
    commit = _commit(root, recorded)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX)).resolve()
    try:
        scratch.owned_by(folder, os.getpid())
        if keep:
            (folder / KEPT).touch()
        _git(root, "worktree", "add", "--detach", "--quiet", str(folder / "code"), commit)
        yield folder
    finally:
        if not keep:
            _remove(root, folder)


def project(root: Path, folder: Path) -> Path:
    """Where in the restored tree the project lies: the tree starts at the repository's top, which may be above `root`."""
    return folder / "code" / _git(root, "rev-parse", "--show-prefix")


def remove_stale(root: Path) -> None:
    """Remove what processes that are gone have left: worktrees of this repository, and folders without one."""
    scratch.remove_stale()
    try:
        lines = _git(root, "worktree", "list", "--porcelain").splitlines()
    except VerbatimError:  # no repository: said when the code is looked for
        lines = []
    folders = {Path(line.removeprefix("worktree ")).parent for line in lines if line.startswith("worktree ")}
    folders |= set(scratch.named(PREFIX))
    for folder in folders:
        if folder.name.startswith(PREFIX) and not (folder / KEPT).exists() and not scratch.alive(folder):
            _remove(root, folder)


def _remove(root: Path, folder: Path) -> None:
    with contextlib.suppress(VerbatimError):  # it never got as far as being a worktree, or is one of another repository
        _git(root, "worktree", "remove", "--force", str(folder / "code"))
    shutil.rmtree(folder, ignore_errors=True)


def _commit(root: Path, recorded: dict[str, Any]) -> str:
    """A commit of the recorded tree: the run's own where it is here, else a new one that no ref keeps."""
    tree = recorded.get("tree", "")
    if not tree:
        raise VerbatimError(
            "the recorded code",
            expected="a git tree",
            found=f"none: {recorded.get('reason') or 'the run ended before'}",
        )
    if not re.fullmatch(r"[0-9a-f]{40,64}", tree):  # it becomes an argument of git
        raise VerbatimError("the recorded code", expected="the name of a git tree", found=tree)
    ref = str(recorded.get("ref", ""))
    with contextlib.suppress(VerbatimError):
        if ref.startswith(code.REFS) and _git(root, "rev-parse", "--verify", "--quiet", f"{ref}^{{tree}}") == tree:
            return f"{ref}^{{commit}}"
    try:
        _git(root, "cat-file", "-e", f"{tree}^{{tree}}")
    except VerbatimError as error:
        raise VerbatimError(
            f"git tree {tree}", expected="the recorded code in this repository", found="no such object",
            then=f"git push <remote> {ref} where the run was made, then here: git fetch <remote> {ref}:{ref}",
        ) from error  # fmt: skip
    return code.commit(root, tree, [], f"The code of {ref}")


def _git(root: Path, *arguments: str) -> str:
    try:
        return code.git(root, *arguments)
    except FileNotFoundError:
        raise VerbatimError("git", expected="git, to restore the recorded code", found="none on the PATH") from None
    except subprocess.CalledProcessError as error:
        last = (error.stderr or "").strip().splitlines()
        raise VerbatimError(
            f"git {arguments[0]}", expected="it to work", found=last[-1] if last else error.returncode
        ) from None
