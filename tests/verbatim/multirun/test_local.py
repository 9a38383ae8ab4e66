import os
import signal
from types import SimpleNamespace

import pytest

from verbatim.errors import VerbatimError
from verbatim.multirun import local
from verbatim.multirun.jobs import Job


def job(folder, index, *words):
    return Job(index=index, words=words, command=(), folder=folder, at=folder / f"{index}", log=folder / f"{index}.log")


def test_a_server_that_is_killed_with_words_unread_takes_its_jobs_with_it(tmp_path):
    engine = local.Local(lambda _: None, lambda words: words, 2, 1, 0)
    jobs = [job(tmp_path, i) for i in range(2)]
    engine.start(jobs[:1])
    (server,) = engine._servers.values()
    os.kill(server.pid, signal.SIGSTOP)
    engine.start(jobs[1:])
    os.kill(server.pid, signal.SIGKILL)
    ended = engine.wait(60)
    engine.close()

    assert [(end.index, end.lost) for end in ended] == [(0, "its server ended"), (1, "its server ended")]


@pytest.mark.parametrize(
    ("there", "gpus", "room", "own"),
    [
        ("0,1,2,3", 1, 4, ["0", "1", "2", "3", "0"]),
        ("0,1,2,3", 2, 2, ["0,1", "2,3", "0,1"]),  # two ranks, each its own
        ("GPU-a,GPU-b", 4, 1, ["GPU-a,GPU-b"]),
        ("3", 0, 8, [None]),  # trainer.device=cpu
        ("-1", 1, 8, [None]),
        ("2,-1,3", 1, 1, ["2"]),
        ("", 1, 8, [None]),
    ],
)
def test_gpus_are_shared_out_by_what_a_job_takes(tmp_path, monkeypatch, there, gpus, room, own):
    told = []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", there)
    monkeypatch.setattr(local.determinism, "cores", lambda: 8)
    engine = local.Local(lambda _: None, lambda words: words, None, 1, gpus)
    monkeypatch.setattr(engine, "_server", lambda _: SimpleNamespace(tell=told.append))

    engine.start([job(tmp_path, index) for index in range(len(own))])

    assert (engine.room, [message["variables"].get("CUDA_VISIBLE_DEVICES") for message in told]) == (room, own)


def test_settings_that_no_message_can_hold_are_refused(tmp_path):
    engine = local.Local(lambda _: None, lambda words: words, 1, 1, 0)
    with pytest.raises(VerbatimError, match="job 0: expected settings that fit a message, found 3,0"):
        engine.start([job(tmp_path, 0, "a" * 3_000_000)])
    engine.close()
