"""A download is checked before it is used, every time, and needs no network after the first."""

import hashlib
import os
import pty
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from experiment.data.download import fetch
from verbatim.errors import VerbatimError

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()
OTHER = "0" * 64


@pytest.fixture(autouse=True)
def served_file(served: Path) -> None:
    (served / "data.gz").write_bytes(CONTENT)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_fetch_gives_the_file_under_the_urls_last_name(url: str, cache: Path) -> None:
    path = fetch(f"{url}/data.gz", SHA256, cache)

    assert path == cache / "data.gz"
    assert path.read_bytes() == CONTENT
    assert [each.name for each in cache.iterdir()] == ["data.gz"]


def test_others_can_read_a_cached_file(url: str, cache: Path) -> None:
    assert fetch(f"{url}/data.gz", SHA256, cache).stat().st_mode & 0o777 == 0o644


def test_a_query_is_no_part_of_the_name(url: str, cache: Path) -> None:
    assert fetch(f"{url}/data.gz?raw=true", SHA256.upper(), cache) == cache / "data.gz"


def test_a_cached_file_needs_no_network(url: str, cache: Path, offline: Callable[[], None]) -> None:
    path = fetch(f"{url}/data.gz", SHA256, cache)
    offline()

    assert fetch(f"{url}/data.gz", SHA256, cache) == path


def test_a_cached_file_with_one_bit_flipped_is_refused(url: str, cache: Path, flip: Callable[[Path], None]) -> None:
    path = fetch(f"{url}/data.gz", SHA256, cache)
    flip(path)
    found = hashlib.sha256(path.read_bytes()).hexdigest()

    with pytest.raises(VerbatimError) as error:
        fetch(f"{url}/data.gz", SHA256, cache)

    assert str(error.value) == f"{path}: expected sha256:{SHA256}, found sha256:{found}\n  next: rm {path}"


def test_the_command_that_removes_a_wrong_file_is_quoted(url: str, tmp_path: Path) -> None:
    path = tmp_path / "my cache" / "data.gz"
    path.parent.mkdir()
    path.write_bytes(b"")

    with pytest.raises(VerbatimError) as error:
        fetch(f"{url}/data.gz", SHA256, path.parent)

    assert error.value.then == f"rm '{path}'"


def test_a_download_with_another_digest_is_refused_and_not_kept(url: str, cache: Path) -> None:
    with pytest.raises(VerbatimError) as error:
        fetch(f"{url}/data.gz", OTHER, cache)

    assert str(error.value) == (
        f"{url}/data.gz: expected sha256:{OTHER}, found sha256:{SHA256}\n  next: put the pinned file at {cache}/data.gz"
    )
    assert list(cache.iterdir()) == []


def refusal(url: str, cache: Path, timeout_s: float = 30) -> str:
    """What fetch says; whatever it says, it leaves no partial file behind."""
    with pytest.raises(VerbatimError) as error:
        fetch(url, SHA256, cache, timeout_s=timeout_s)
    assert list(cache.iterdir()) == []
    return str(error.value)


def test_an_unreachable_server_is_named_with_the_way_round_it(cache: Path) -> None:
    with socket.socket() as unused:  # bound and not listening: its port refuses
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/data.gz"

        assert refusal(url, cache) == (
            f"{url}: expected a download of data.gz, found [Errno 111] Connection refused\n"
            f"  next: connect, or put the file at {cache}/data.gz by hand"
        )


def test_a_download_that_breaks_off_leaves_no_partial_file(url: str, cache: Path) -> None:
    half = len(CONTENT) // 2

    assert refusal(f"{url}/cut/data.gz", cache) == (
        f"{url}/cut/data.gz: expected a download of data.gz, "
        f"found IncompleteRead({half} bytes read, {half} more expected)\n"
        f"  next: connect, or put the file at {cache}/data.gz by hand"
    )


def test_a_server_that_never_answers_is_given_up(url: str, cache: Path) -> None:
    assert refusal(f"{url}/hang/data.gz", cache, timeout_s=0.2) == (
        f"{url}/hang/data.gz: expected a download of data.gz, found timed out\n"
        f"  next: connect, or put the file at {cache}/data.gz by hand"
    )


def test_a_missing_file_is_told_from_a_missing_server(url: str, cache: Path) -> None:
    assert refusal(f"{url}/other.gz", cache) == (
        f"{url}/other.gz: expected a download of other.gz, "
        f"found 404 Client Error: File not found for url: {url}/other.gz\n"
        f"  next: connect, or put the file at {cache}/other.gz by hand"
    )


def test_a_cache_that_cannot_be_made_is_named(url: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache = tmp_path / "file" / "cache"

    with pytest.raises(VerbatimError) as error:
        fetch(f"{url}/data.gz", SHA256, cache)

    assert str(error.value) == (
        f"{url}/data.gz: expected a download of data.gz, found [Errno 20] Not a directory: '{cache}'\n"
        f"  next: connect, or put the file at {cache}/data.gz by hand"
    )


def test_what_pins_nothing_is_refused(cache: Path) -> None:
    with pytest.raises(VerbatimError) as error:
        fetch("http://127.0.0.1:1/data.gz", "abc", cache)

    assert str(error.value) == "http://127.0.0.1:1/data.gz: expected a pinned sha256 of 64 hex digits, found 'abc'"


def test_a_url_without_a_files_name_is_refused(cache: Path) -> None:
    with pytest.raises(VerbatimError) as error:
        fetch("http://127.0.0.1:1/", SHA256, cache)

    assert str(error.value) == "http://127.0.0.1:1/: expected a URL that ends in the name of a file, found none"


def test_a_terminal_sees_a_progress_bar(url: str, cache: Path) -> None:
    code = f"from experiment.data.download import fetch; fetch({url + '/data.gz'!r}, {SHA256!r}, {str(cache)!r})"
    ours, theirs = pty.openpty()
    env = os.environ | {"TERM": "xterm", "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-W", "error", "-c", code], env=env, stderr=theirs, check=True)
    os.close(theirs)
    seen = os.read(ours, 1 << 16).decode()
    os.close(ours)

    assert "data.gz" in seen
    assert "\x1b[?25l" in seen
    assert "\x1b[?25h" in seen
