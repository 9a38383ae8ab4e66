import subprocess

import pytest

from verbatim import code


def git(folder, *arguments):
    return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def repository(tmp_path):
    root = tmp_path / "repository"
    root.mkdir()
    git(root, "init", "-q")
    git(root, "config", "user.name", "a")
    git(root, "config", "user.email", "a@localhost")
    (root / "committed.py").write_text("1\n")
    (root / ".gitignore").write_text("ignored\n")
    git(root, "add", ".")
    git(root, "commit", "-qm", "first")
    return root


def test_the_tree_of_a_clean_checkout_is_that_of_its_commit(repository):
    captured = code.capture(repository, "run")

    assert captured.tree == git(repository, "rev-parse", "HEAD^{tree}")
    assert captured.head == git(repository, "rev-parse", "HEAD")
    assert not captured.dirty


def test_uncommitted_and_untracked_files_are_in_the_tree_and_ignored_ones_are_not(repository):
    (repository / "committed.py").write_text("2\n")
    (repository / "new").mkdir()
    (repository / "new" / "untracked.py").write_text("3\n")
    (repository / "ignored").write_text("4\n")

    captured = code.capture(repository, "run")

    assert captured.dirty
    assert git(repository, "show", f"{captured.tree}:committed.py") == "2"
    assert git(repository, "show", f"{captured.tree}:new/untracked.py") == "3"
    assert "ignored" not in git(repository, "ls-tree", "--name-only", captured.tree).split("\n")


def test_nothing_of_the_users_is_touched(repository):
    (repository / "committed.py").write_text("2\n")
    (repository / "staged.py").write_text("5\n")
    git(repository, "add", "staged.py")
    before = git(repository, "status", "--porcelain"), git(repository, "log", "--all", "--oneline", "HEAD")
    index = (repository / ".git" / "index").read_bytes()

    code.capture(repository, "run")

    assert (repository / ".git" / "index").read_bytes() == index
    assert git(repository, "status", "--porcelain") == before[0]
    assert git(repository, "branch", "--list").count("\n") == 0


def test_the_code_survives_gc_by_its_ref(repository):
    (repository / "committed.py").write_text("2\n")
    captured = code.capture(repository, "run")
    git(repository, "checkout", "-q", "committed.py")
    git(repository, "-c", "gc.pruneExpire=now", "gc", "-q", "--prune=now")

    assert captured.ref == "refs/verbatim/run"
    assert git(repository, "show", f"{captured.ref}:committed.py") == "2"


def test_one_changed_byte_gives_another_tree(repository):
    first = code.capture(repository, "a").tree
    (repository / "committed.py").write_text("2\n")
    second = code.capture(repository, "b").tree
    (repository / "committed.py").write_text("1\n")

    assert len({first, second}) == 2
    assert code.capture(repository, "c").tree == first


def test_the_users_hooks_are_not_run(repository):
    for name in ("pre-commit", "reference-transaction", "post-index-change"):
        hook = repository / ".git" / "hooks" / name
        hook.write_text("#!/bin/sh\ntouch hook-ran\n")
        hook.chmod(0o755)

    code.capture(repository, "run")

    assert not (repository / "hook-ran").exists()


def test_a_repository_without_a_commit_is_captured(tmp_path):
    git(tmp_path, "init", "-q")
    (tmp_path / "a.py").write_text("1\n")

    captured = code.capture(tmp_path, "run")

    assert (captured.head, captured.dirty, captured.reason) == ("", True, "")
    assert git(tmp_path, "show", f"{captured.ref}:a.py") == "1"


def test_a_folder_of_a_repository_gives_the_whole_tree(repository):
    (repository / "sub").mkdir()
    (repository / "sub" / "a.py").write_text("1\n")

    assert code.capture(repository / "sub", "run").tree == code.capture(repository, "other").tree


def test_outside_a_repository_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))

    captured = code.capture(tmp_path, "run")

    assert captured == code.Code(
        reason="git rev-parse: fatal: not a git repository (or any of the parent directories): .git"
    )


def test_without_git_it_says_so(repository, monkeypatch):
    monkeypatch.setenv("PATH", str(repository))

    assert code.capture(repository, "run") == code.Code(reason="git is not installed")


def test_data_left_untracked_is_not_swallowed(repository, monkeypatch):
    monkeypatch.setattr(code, "UNTRACKED_LIMIT_BYTES", 2**20)
    (repository / "data.bin").write_bytes(bytes(3 * 2**20))

    assert code.capture(repository, "run").reason == "untracked files hold 3 MiB: name data in .gitignore"


def test_in_an_image_the_code_is_what_its_build_captured(tmp_path, monkeypatch):
    monkeypatch.setenv("VERBATIM_CODE", '{"tree": "t", "head": "h", "dirty": false, "ref": "r", "reason": ""}')

    assert code.capture(tmp_path, "run") == code.Code(tree="t", head="h", ref="r")


def test_a_repository_is_believed_before_the_image(repository, monkeypatch):
    monkeypatch.setenv("VERBATIM_CODE", '{"tree": "t"}')

    assert code.capture(repository, "run").tree == git(repository, "rev-parse", "HEAD^{tree}")


def test_what_an_image_says_wrongly_is_a_reason(tmp_path, monkeypatch):
    monkeypatch.setenv("VERBATIM_CODE", '{"wood": "t"}')

    assert code.capture(tmp_path, "run").reason.startswith("VERBATIM_CODE: ")
