"""What the tests of compare and reproduce share: a project of its own to make runs in, and traces made by hand."""

import os
import shutil
import subprocess
import sys

from conftest import ENVIRONMENT, ROOT
from verbatim import digest, trace
from verbatim.trace import NOT_TAKEN


def git(folder, *arguments):
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


class Project:
    """A copy of this checkout with a repository of its own. Its runs lie in its `runs/`."""

    def __init__(self, root):
        self.root, self.runs = root, root / "runs"

    def start(self, *arguments, **variables):
        environment = ENVIRONMENT | {"PYTHONPATH": str(self.root / "src"), "VERBATIM_ENV": sys.prefix} | variables
        return subprocess.Popen(
            [sys.executable, "-m", *arguments], cwd=self.root, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, *arguments, **variables):
        process = self.start(*arguments, **variables)
        out, err = process.communicate(timeout=300)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def train(self, *overrides, **variables):
        """Eight steps of a very small model; the run's folder."""
        before = self.names()
        small = ("model=mlp", "model.hidden=[8]", "trainer.max_steps=8")
        done = self.run("experiment.train", *small, *overrides, **variables)
        new = self.names() - before
        assert len(new) == 1, done.stderr
        return self.runs / new.pop()

    def names(self):
        return set(os.listdir(self.runs)) if self.runs.is_dir() else set()

    def state(self):
        """Everything of the user's that nothing may touch."""
        index = (self.root / ".git" / "index").read_bytes()
        return git(self.root, "status", "--porcelain"), git(self.root, "rev-parse", "HEAD"), index

    def worktrees(self):
        return len(git(self.root, "worktree", "list").splitlines())

    def edit(self, name, old, new):
        path = self.root / name
        text = path.read_text()
        assert text.count(old) == 1, f"{name} has {old!r} {text.count(old)} times"
        path.write_text(text.replace(old, new))


def make_project(root):
    """This checkout as it is, uncommitted changes included, as the first commit of another repository."""
    for name in git(ROOT, "ls-files", "--cached", "--others", "--exclude-standard").splitlines():
        if name.startswith((".gitignore", "LICENSE", "src/", "configs/", "requirements/")) and (ROOT / name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, root / name)
    git(root, "init", "--quiet", "--initial-branch=main")
    git(root, "config", "user.name", "somebody")
    git(root, "config", "user.email", "somebody@example.org")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "as it is")
    return Project(root)


def write_trace(folder, run, rows, every=10):
    """Give a run another trace, and state it in its record."""
    path = folder / "trace.bin"
    path.unlink(missing_ok=True)
    writer = trace.Writer(path, parameters_every=every)
    for row in rows:
        writer.append(*row)
    writer.close()
    run.trace = {"digest": writer.digest, "rows": writer.rows, "parameters_every": every}
    run.files["trace.bin"] = digest.of_file(path)


def plain_rows(count, first=0, every=10):
    """Rows as training writes them: step, loss, batch, gradient, parameters."""

    def row(step):
        taken = b"parameters %05d" % step if every and step % every == 0 else NOT_TAKEN
        return [step, 1 / (step + 1), b"batch      %05d" % step, b"gradient   %05d" % step, taken]

    return [row(step) for step in range(first, first + count)]
