import re
import subprocess
import sys
import tarfile

import pytest

from conftest import ROOT
from verbatim import context
from verbatim.errors import VerbatimError

SECRETS = (
    ".env",
    ".git/config",
    "src/experiment/.env",
    "src/experiment/key.pem",
    "src/id_rsa",
    "runs/a/record.json",
    "data/x.npy",
)


@pytest.fixture
def project(tmp_path):
    """This project's own ignore list, over files that must and must not get in."""
    for name in (*SECRETS, "src/experiment/train.py", "configs/train.yaml", "requirements/cpu.txt", context.DOCKERFILE):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / context.IGNORE).write_text((ROOT / context.IGNORE).read_text())
    return tmp_path


def test_nothing_enters_but_what_is_named(project):
    assert context.names(project) == [
        context.DOCKERFILE, context.IGNORE, "configs/train.yaml", "requirements/cpu.txt", "src/experiment/train.py",
    ]  # fmt: skip


def test_every_source_file_of_this_project_enters():
    assert context.left_out(ROOT, context.names(ROOT)) == []


def test_a_source_file_that_no_line_lets_in_is_named_with_the_line_that_would(project):
    subprocess.run(["git", "init", "-q"], cwd=project, check=True)
    (project / "src/other").mkdir()
    (project / "src/other/layer.py").touch()

    with pytest.raises(VerbatimError, match=re.escape("next: add the line !src/other/*.py to .dockerignore")):
        context.checked_names(project)


def test_the_tar_does_not_depend_on_who_made_it(project):
    names = context.names(project)
    first = context.tar(project, names, "FROM a").getvalue()
    (project / "src/experiment/train.py").chmod(0o600)
    second = context.tar(project, names, "FROM a")

    assert second.getvalue() == first
    with tarfile.open(fileobj=second) as tar:
        assert {(m.mode, m.uid, m.gid, m.mtime) for m in tar} == {(0o644, 0, 0, context.TIME)}


def test_labels_go_to_the_end_of_their_stage():
    dockerfile = "FROM a AS one\nRUN x\n\nFROM one AS two\nRUN y\n"

    assert context.labelled(dockerfile, "one", {"k": "v $x", "j": '{"a": 1}'}) == (
        'FROM a AS one\nRUN x\nLABEL k="v \\$x" j="{\\"a\\": 1}"\n\nFROM one AS two\nRUN y\n'
    )
    assert context.labelled(dockerfile, "two", {"k": "v"}).endswith('FROM one AS two\nRUN y\nLABEL k="v"\n')


def test_the_dependency_layer_has_what_the_installer_imports_and_nothing_else():
    """One file less and the build fails; one more and an edit to it installs everything again."""
    code = "import sys, verbatim.install; print(*(m for m in sys.modules if m.partition('.')[0] == 'verbatim'))"
    imported = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={"PYTHONPATH": "src"}, capture_output=True, text=True, check=True
    ).stdout.split()
    files = {f"src/{name.replace('.', '/')}.py" if "." in name else "src/verbatim/__init__.py" for name in imported}
    step = re.search(
        r"COPY (src/verbatim/__init__.*?) /opt/installer", (ROOT / context.DOCKERFILE).read_text(), re.DOTALL
    )

    assert step
    assert set(step[1].replace("\\\n", " ").split()) == files


def test_the_dockerfile_needs_no_buildkit():
    text = (ROOT / context.DOCKERFILE).read_text()

    assert not re.search(r"^# *syntax|--mount|--link|--chmod|<<", text, re.MULTILINE)
    assert "HEALTHCHECK" not in text
