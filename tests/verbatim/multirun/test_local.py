import os
import signal

import pytest

from verbatim.errors import VerbatimError
from verbatim.multirun import local
from verbatim.multirun.jobs import Job


def job(folder, index, *words):
    return Job(index=index, words=words, command=(), folder=folder, at=folder / f"{index}", log=folder / f"{index}.log")


def test_a_server_that_is_killed_with_words_unread_takes_its_jobs_with_it(tmp_path):
    engine = local.Local(lambda _: None, lambda words: words, 2, 1)
    jobs = [job(tmp_path, i) for i in range(2)]
    engine.start(jobs[:1])
    (server,) = engine._servers.values()
    os.kill(server.pid, signal.SIGSTOP)
    engine.start(jobs[1:])
    os.kill(server.pid, signal.SIGKILL)
    ended = engine.wait(60)
    engine.close()

    assert [(end.index, end.lost) for end in ended] == [(0, "its server ended"), (1, "its server ended")]


def test_settings_that_no_message_can_hold_are_refused(tmp_path):
    engine = local.Local(lambda _: None, lambda words: words, 1, 1)
    with pytest.raises(VerbatimError, match="job 0: expected settings that fit a message, found 3,0"):
        engine.start([job(tmp_path, 0, "a" * 3_000_000)])
    engine.close()
