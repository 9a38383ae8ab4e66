import os
import signal

from verbatim.multirun import local
from verbatim.multirun.jobs import Job


def test_a_server_that_is_killed_with_words_unread_takes_its_jobs_with_it(tmp_path):
    engine = local.Local(lambda _: None, lambda words: words, 2, 1)
    jobs = [
        Job(index=i, words=(), command=("python",), folder=tmp_path, at=tmp_path / f"{i}", log=tmp_path / f"{i}.log")
        for i in range(2)
    ]
    engine.start(jobs[:1])
    (server,) = engine._servers.values()
    os.kill(server.pid, signal.SIGSTOP)
    engine.start(jobs[1:])
    os.kill(server.pid, signal.SIGKILL)
    ended = engine.wait(60)
    engine.close()

    assert [(end.index, end.lost) for end in ended] == [(0, "its server ended"), (1, "its server ended")]
