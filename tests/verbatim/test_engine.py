import os
import socket

import pytest

from verbatim import engine
from verbatim.errors import VerbatimError


def message(monkeypatch, host):
    monkeypatch.setenv("DOCKER_HOST", host)
    with pytest.raises(VerbatimError) as error, engine.connect():
        pass
    return error.value.message


def test_no_socket_is_said_so(monkeypatch, tmp_path):
    assert message(monkeypatch, f"unix://{tmp_path}/none.sock") == (
        f"the container engine: expected one that runs, found none: its socket is not there\n  next: {engine.START}"
    )


def test_a_socket_that_nobody_answers_is_said_so(monkeypatch, tmp_path):
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(f"{tmp_path}/dead.sock")

    assert "found a socket that nobody answers" in message(monkeypatch, f"unix://{tmp_path}/dead.sock")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open every socket; tests/containers does this as a person")
def test_a_socket_without_permission_is_said_so(monkeypatch, tmp_path):
    with socket.socket(socket.AF_UNIX) as closed:
        closed.bind(f"{tmp_path}/closed.sock")
        closed.listen()
        os.chmod(f"{tmp_path}/closed.sock", 0)

        assert "found permission denied" in message(monkeypatch, f"unix://{tmp_path}/closed.sock")


def test_a_full_disk_gets_the_command_that_frees_it():
    error = engine.refusal("building x", "write /var/lib/docker/x: no space left on device")

    assert error.message == (
        "building x: expected room on the engine's disk, found none left\n  next: docker system prune, then the same command"
    )


@pytest.mark.parametrize(
    ("info", "reason"),
    [
        ({"Runtimes": {"runc": {}}}, "the engine has no NVIDIA runtime"),
        ({"Runtimes": {"runc": {}, "nvidia": {}}}, ""),
        ({"Runtimes": {"runc": {}}, "DiscoveredDevices": [{"Source": "cdi", "ID": "nvidia.com/gpu=0"}]}, ""),
    ],
)
def test_a_gpu_is_known_from_what_the_engine_says(info, reason):
    assert engine.gpus(info) == reason
