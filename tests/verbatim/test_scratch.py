"""What killed commands leave behind is removed at the next start, and nothing else is."""

import os
import signal
import subprocess
import sys
import tempfile
import time

import pytest

from conftest import ENVIRONMENT
from verbatim import record, scratch


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The system's folder for temporary files, while a test lasts."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return tmp_path / "tmp"


def kept(temporary):
    return sorted(path.name.rpartition("-")[0] for path in temporary.iterdir())


def start(temporary, kind):
    """A process that has such a folder, and keeps it until it is killed."""
    code = "import sys, time; from verbatim import scratch\n"
    code += "with scratch.folder(sys.argv[1]): print('there', flush=True); time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", code, kind], env=ENVIRONMENT | {"TMPDIR": str(temporary)},
                               stdout=subprocess.PIPE, text=True)  # fmt: skip
    assert process.stdout.readline() == "there\n"
    return process


@pytest.mark.parametrize("kind", scratch.KINDS)
def test_what_a_killed_process_left_is_removed_at_the_next_start_and_not_before(temporary, kind):
    with start(temporary, kind) as process:
        scratch.remove_stale()
        assert kept(temporary) == [f"verbatim-{kind}"], "it still lives"
        process.kill()
        process.wait()

        with scratch.folder("pack") as own:
            assert kept(temporary) == ["verbatim-pack"]
            assert own.is_dir()
    assert kept(temporary) == []


def test_a_folder_that_is_being_made_is_left_alone_for_a_minute(temporary):
    made = temporary / "verbatim-zoom-x"
    made.mkdir()
    scratch.remove_stale()
    assert made.is_dir()

    old = time.time() - scratch.ORPHAN_S - 1
    os.utime(made, (old, old))
    scratch.remove_stale()

    assert not made.exists()


@pytest.mark.parametrize("owners", ["", "[]", "{}", "[1]", "[[1]]", '[["x", 1]]', "[[0, 0]]", "[[999999999, 5]]"])
def test_damaged_owners_break_nothing(temporary, owners):
    made = temporary / "verbatim-zoom-x"
    made.mkdir()
    (made / scratch.OWNERS).write_text(owners)
    os.utime(made, (0, 0))

    scratch.remove_stale()

    assert not made.exists()


def test_links_other_names_and_other_peoples_folders_are_never_removed(temporary, tmp_path):
    mine = tmp_path / "mine"
    for folder in (
        mine,
        temporary / "verbatim-notes-x",
        temporary / "verbatim-archives",
        temporary / "verbatim-pack-y",
    ):
        folder.mkdir()
        os.utime(folder, (0, 0))
    (temporary / "verbatim-pack-x").symlink_to(mine)
    if os.getuid() == 0:  # only root can give a folder away
        os.chown(temporary / "verbatim-pack-y", 12345, 12345)
    else:
        (temporary / "verbatim-pack-y").rmdir()

    scratch.remove_stale()

    assert mine.is_dir()
    assert (temporary / "verbatim-pack-x").is_symlink()
    assert kept(temporary)[:2] == ["verbatim", "verbatim-notes"]
    assert (temporary / "verbatim-pack-y").exists() == (os.getuid() == 0)


def test_a_reproduction_of_an_archive_that_is_killed_leaves_nothing_for_long(project, temporary):
    slow = "        run.trace(step, indices, loss)\n"
    project.edit("src/experiment/trainer.py", slow, f"{slow}        __import__('time').sleep(float(__import__('os').environ.get('SLOW', '0')))\n")  # fmt: skip
    run = project.train("trainer.max_steps=50")
    to, where = project.root.parent / "run.zip", {"TMPDIR": str(temporary)}
    assert project.run("verbatim", "pack", str(run), "--to", str(to)).returncode == 0
    process = project.start("verbatim", "reproduce", str(to), SLOW="0.2", **where)
    for _ in range(300):
        folders = [project.runs / name for name in project.names() - {run.name}]
        if folders and (folders[0] / "trace.bin").exists() and (folders[0] / "trace.bin").stat().st_size > 300:
            break
        time.sleep(0.1)
    process.kill()
    process.wait()
    os.kill(record.read(folders[0]).environment["process"]["pid"], signal.SIGKILL)
    process.communicate()
    assert kept(temporary) == ["verbatim-archive", "verbatim-reproduce"]

    done = project.run("verbatim", "reproduce", str(run), "--until", "1", **where)

    assert done.returncode == 0, done.stdout + done.stderr
    assert kept(temporary) == []
    assert project.worktrees() == 1
