"""The code of a run: the working tree as a git tree, uncommitted and untracked files included, kept alive by a ref.

It goes through a temporary index, so that the user's index, branch and files are never touched.
"""

import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

REFS = "refs/verbatim/"
UNTRACKED_LIMIT_BYTES = 256 * 2**20  # more than this is data that .gitignore should name, not code


@dataclass(frozen=True, kw_only=True, slots=True)
class Code:
    """`tree` is git's own name of the content (sha1, or sha256 where the repository uses it); empty with a `reason` why."""

    tree: str = ""
    head: str = ""
    dirty: bool = False
    ref: str = ""
    reason: str = ""


_held: dict[Path, Code] = {}


def hold(root: Path) -> Code:
    """From here on the code of this process, and of those forked from it, is what it is now: this is what they have loaded. All runs that
    they make share one ref."""
    tree = capture(root, "").tree
    _held[root] = capture(root, f"multirun-{tree}" if tree and not _of_image(root) else "")
    return _held[root]


def changed(root: Path) -> list[str]:
    """Files that are not as `hold` found them, and that a process could have loaded since: Python's and Hydra's."""
    held = _held.pop(root)
    now = capture(root, "")
    if held.tree == now.tree or not held.tree or not now.tree:
        return []
    names = git(root, "diff", "--name-only", "-z", held.tree, now.tree).split("\0")
    return [name for name in names if name.endswith((".py", ".yaml", ".yml"))]


def capture(root: Path, run_id: str) -> Code:
    """Write the working tree around `root` into git's object store and keep it under `refs/verbatim/<run_id>` (not without an id).

    Ignored files stay out. Where git can't answer, the reason is in the result: a run is never stopped for it.
    An image holds no repository: there the code is what its build captured, as `VERBATIM_CODE` says.
    """
    if known := _held.get(root) or _of_image(root):
        return known
    try:
        return _keep(root, _capture(root), run_id)
    except FileNotFoundError:
        return Code(reason="git is not installed")
    except subprocess.CalledProcessError as error:
        last = (error.stderr or "").strip().splitlines()
        return Code(reason=f"git {error.cmd[1]}: {last[-1] if last else f'exit code {error.returncode}'}")


def _of_image(root: Path) -> Code | None:
    given = os.environ.get("VERBATIM_CODE", "")
    if not given or (root / ".git").exists():
        return None
    try:
        return Code(**json.loads(given))
    except (TypeError, ValueError) as error:
        return Code(reason=f"VERBATIM_CODE: {error}")


def _capture(root: Path) -> Code:
    found = git(root, "rev-parse", "--show-toplevel", "--git-path", "index").split("\n")
    top, index = Path(found[0]), root / found[1]
    untracked = git(top, "ls-files", "--others", "--exclude-standard", "-z").split("\0")
    size_bytes = sum((top / name).lstat().st_size for name in untracked if name)
    if size_bytes > UNTRACKED_LIMIT_BYTES:
        return Code(reason=f"untracked files hold {size_bytes / 2**20:.0f} MiB: name data in .gitignore")
    with tempfile.TemporaryDirectory(prefix="verbatim-") as folder:
        own = Path(folder) / "index"
        if index.exists():  # its cached file times make `git add` look only at what changed
            shutil.copyfile(index, own)
        environment = {"GIT_INDEX_FILE": str(own)}
        git(top, "add", "--all", ".", **environment)
        tree = git(top, "write-tree", **environment)
    try:
        head = git(top, "rev-parse", "--verify", "--quiet", "HEAD")
        dirty = git(top, "rev-parse", "HEAD^{tree}") != tree
    except subprocess.CalledProcessError:  # no commit yet
        head, dirty = "", True
    return Code(tree=tree, head=head, dirty=dirty)


def _keep(root: Path, code: Code, run_id: str) -> Code:
    if not run_id or not code.tree:
        return code
    parent = ["-p", code.head] if code.head else []
    made = commit(root, code.tree, parent, f"The code of run {run_id}")
    git(root, "update-ref", REFS + run_id, made)
    return replace(code, ref=REFS + run_id)


def commit(folder: Path, tree: str, parents: list[str], message: str) -> str:
    """A commit of a tree, by nobody: it needs no name or address of the user. `parents`: `-p <commit>` each."""
    author = {
        f"GIT_{who}_{what}": f"verbatim{'@localhost' * (what == 'EMAIL')}"
        for who in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    }
    return git(folder, "commit-tree", tree, *parents, "-m", message, **author)


def git(folder: Path, *arguments: str, **variables: str) -> str:
    """What git prints; raises `CalledProcessError` (with what it says on stderr) and, without git, `FileNotFoundError`."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_") or k == "GIT_CEILING_DIRECTORIES"}
    # Hooks and monitors of the user are theirs: nothing here may start them.
    command = (
        ["git", *arguments]
        if not arguments
        else ["git", "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", *arguments]
    )
    result = subprocess.run(
        command, cwd=folder, env=environment | variables, capture_output=True, text=True, check=False
    )
    if result.returncode:
        raise subprocess.CalledProcessError(result.returncode, ["git", *arguments], result.stdout, result.stderr)
    return result.stdout.strip("\n")
