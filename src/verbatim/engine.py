"""The container engine: found, asked whether it has a GPU to give, its containers removed, its refusals said as people can read them.

It starts and installs nothing. The docker SDK follows the CLI's context; `DOCKER_HOST` overrides it.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from verbatim.errors import VerbatimError

START = "start it: sudo systemctl start docker, or open Docker Desktop"


@contextmanager
def connect() -> Iterator[Any]:
    """The SDK's client, after the engine has answered; closed at the end. Imports the SDK (0.2 s)."""
    import docker
    from docker.errors import DockerException

    try:
        client = docker.from_env(timeout=600)
    except DockerException as error:
        raise _explain(error) from None
    try:
        yield client
    finally:
        client.close()


def _explain(error: BaseException) -> VerbatimError:
    cause = _os_error(error)
    where = "the container engine"
    if isinstance(cause, PermissionError):
        return VerbatimError(
            where, expected="its socket open to you", found="permission denied",
            then="sudo usermod -aG docker $USER, then log in again",
        )  # fmt: skip
    if isinstance(cause, FileNotFoundError):
        return VerbatimError(where, expected="one that runs", found="none: its socket is not there", then=START)
    if isinstance(cause, ConnectionRefusedError):
        return VerbatimError(where, expected="one that runs", found="a socket that nobody answers", then=START)
    return VerbatimError(where, expected="an answer", found=str(error).partition("\n")[0], then=START)


def _os_error(error: BaseException) -> OSError | None:
    """The system's own error, which urllib3 and requests carry wrapped: as a cause, a context or an argument."""
    seen: set[int] = set()
    waiting: list[Any] = [error]
    plain = (PermissionError, FileNotFoundError, ConnectionRefusedError)
    while waiting:
        inner = waiting.pop()
        if isinstance(inner, plain):
            return inner
        if isinstance(inner, BaseException) and id(inner) not in seen:
            seen.add(id(inner))
            waiting += [inner.__cause__, inner.__context__, getattr(inner, "reason", None), *inner.args]
    return None


@contextmanager
def refusals(where: str, then: str = "") -> Iterator[None]:
    """What the engine refuses inside the block becomes a VerbatimError about `where`."""
    import requests
    from docker.errors import APIError, DockerException

    try:
        yield
    except APIError as error:
        says = error.explanation if isinstance(error.explanation, str) else str(error)
        raise refusal(where, says, then) from None
    except (DockerException, requests.exceptions.RequestException) as error:
        raise VerbatimError(
            where, expected="the engine's answer", found=str(error).partition("\n")[0], then=START
        ) from None


def refusal(where: str, says: str, then: str = "") -> VerbatimError:
    """One error from the engine's own words; what a person can mend gets the command that does."""
    if "no space left on device" in says.lower():
        return VerbatimError(
            where, expected="room on the engine's disk", found="none left", then="docker system prune, then the same command"
        )  # fmt: skip
    return VerbatimError(where, expected="the engine to do it", found=says.strip(), then=then)


@contextmanager
def created(client: Any, settings: dict[str, Any]) -> Iterator[Any]:
    """A container, not started yet, and removed whatever happens."""
    container = None
    try:
        with _held():  # or a signal would come between its making and our knowing of it
            container = client.containers.create(**settings)
        yield container
    finally:
        if container:
            with _held():
                container.remove(force=True)


@contextmanager
def _held() -> Iterator[None]:
    """Signals wait until the block has ended."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def gpus(info: dict[str, Any]) -> str:
    """Why no GPU can be had, from the engine's `info`; empty where one can. Asked first: a failing start leaves its container.

    The NVIDIA runtime is registered by name; engines from 28.2 list devices found through CDI as well.
    """
    if "nvidia" in (info.get("Runtimes") or {}):
        return ""
    if any("nvidia.com/gpu" in str(device) for device in info.get("DiscoveredDevices") or ()):
        return ""
    return "the engine has no NVIDIA runtime"
