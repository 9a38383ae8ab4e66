"""Gets a pinned file once, and from the cache ever after. It must never give a file whose digest it has not checked."""

import re
import shlex
import sys
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from verbatim import digest
from verbatim.errors import VerbatimError

CHUNK_BYTES = 1 << 18


def fetch(url: str, sha256: str, folder: Path | str, *, timeout_s: float = 30) -> Path:
    """The path of the file whose bytes have this sha256 (64 hex digits), at `folder` under the URL's last name.

    `timeout_s` bounds each wait for the server, not the whole download.
    """
    pinned = f"sha256:{sha256.lower()}"
    if not re.fullmatch("sha256:[0-9a-f]{64}", pinned):
        raise VerbatimError(url, expected="a pinned sha256 of 64 hex digits", found=repr(sha256))
    name = PurePosixPath(unquote(urlsplit(url).path)).name
    if not name:
        raise VerbatimError(url, expected="a URL that ends in the name of a file", found="none")
    path = Path(folder) / name
    if not path.exists():
        _download(url, path, pinned, timeout_s)
    found = digest.of_file(path)
    if found != pinned:
        raise VerbatimError(path, expected=pinned, found=found, then=f"rm {shlex.quote(str(path))}")
    return path


def _download(url: str, path: Path, pinned: str, timeout_s: float) -> None:
    import pooch  # type: ignore[import-untyped]  # here, because a cached file needs none of it

    def stream(url: str, partial: str, _: object) -> None:
        _stream(url, Path(partial), path.name, timeout_s)
        # Before pooch's own check of the same digest, whose message names neither the URL nor a next step.
        found = digest.of_file(Path(partial))
        if found != pinned:
            raise VerbatimError(url, expected=pinned, found=found, then=f"put the pinned file at {path}")

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A temporary file beside `path`, moved onto it when it is whole, and removed on any failure.
        pooch.retrieve(url, known_hash=pinned, fname=path.name, path=path.parent, downloader=stream)
        path.chmod(0o644)  # temporary files are 0600, and a cache is shared between users and containers
    except (OSError, ValueError) as error:
        then = f"connect, or put the file at {path} by hand"
        raise VerbatimError(url, expected=f"a download of {path.name}", found=_reason(error), then=then) from error


def _stream(url: str, partial: Path, name: str, timeout_s: float) -> None:
    """In place of pooch's HTTPDownloader, which leaves the connection open on failure and needs tqdm for its bar."""
    import requests  # what pooch itself uses
    from rich.console import Console
    from rich.progress import Progress

    whole = {"Accept-Encoding": "identity"}  # the file's own bytes, not what the server packs them in
    with (
        Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress,
        requests.get(url, stream=True, timeout=timeout_s, headers=whole) as response,
        partial.open("wb") as file,
    ):
        response.raise_for_status()
        bar = progress.add_task(name, total=int(response.headers.get("Content-Length", 0)) or None)
        for chunk in response.iter_content(CHUNK_BYTES):
            file.write(chunk)
            progress.advance(bar, len(chunk))


def _reason(error: BaseException) -> str:
    """The innermost cause, in a line: what requests makes of it names objects by their addresses."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return str(error) or type(error).__name__
