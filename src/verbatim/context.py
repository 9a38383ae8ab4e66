"""What an image is built from: the files that `.dockerignore` lets in, as a tar that is the same on every machine.

It never sends what is not listed, and it says when a source file of the project would be left out.
"""

import io
import json
import subprocess
import tarfile
from pathlib import Path

from verbatim import digest
from verbatim.errors import VerbatimError

DOCKERFILE = ".devcontainer/Dockerfile"
IGNORE = ".dockerignore"
TIME = 1767225600  # the Dockerfile's SOURCE_DATE_EPOCH


def names(root: Path) -> list[str]:
    """The context's files, sorted, relative to `root`; the Dockerfile and `.dockerignore` go along, and enter no image."""
    from docker.utils.build import exclude_paths

    try:
        patterns = (root / IGNORE).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise VerbatimError(
            root / IGNORE, expected="the list of what may enter an image", found="nothing there"
        ) from None
    patterns = [line.strip() for line in patterns if line.strip() and not line.startswith("#")]
    found = exclude_paths(str(root), patterns, dockerfile=DOCKERFILE)
    return sorted(name for name in found if (root / name).is_file())


def left_out(root: Path, listed: list[str]) -> list[str]:
    """Source and configuration files that git knows, or would, and the context lacks: an image without them can't run."""
    kinds = ("src/*.py", "src/*.json", "src/*.css", "src/*.js", "configs/*.yaml")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *kinds]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    return sorted({name for name in result.stdout.split("\0") if name and (root / name).is_file()} - set(listed))


def checked_names(root: Path) -> list[str]:
    listed = names(root)
    if missing := left_out(root, listed):
        path = Path(missing[0])
        raise VerbatimError(
            IGNORE, expected="every source file let in", found=f"{path} and {len(missing) - 1} more left out",
            then=f"add the line !{path.parent}/*{path.suffix} to {IGNORE}",
        )  # fmt: skip
    return listed


def labelled(dockerfile: str, target: str, labels: dict[str, str]) -> str:
    """The Dockerfile with one LABEL at the end of the target's stage: the SDK's own `labels` cost a step each (0.2 s)."""
    pairs = " ".join(f"{key}={json.dumps(value)}".replace("$", "\\$") for key, value in labels.items())
    before, start, after = dockerfile.partition(f" AS {target}\n")
    stage, following, rest = after.partition("\nFROM ")
    return f"{before}{start}{stage.rstrip()}\nLABEL {pairs}\n{following}{rest}"


def digest_of(root: Path, listed: list[str]) -> str:
    return digest.of_parts((name, (root / name).read_bytes()) for name in listed)


def tar(root: Path, listed: list[str], dockerfile: str) -> io.BytesIO:
    """Owner, mode and time are fixed: they would follow the person who checked out, and change what the engine has cached."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as out:
        for name in listed:
            data = dockerfile.encode() if name == DOCKERFILE else (root / name).read_bytes()
            member = tarfile.TarInfo(name)
            member.size, member.mode, member.mtime = len(data), 0o644, TIME
            out.addfile(member, io.BytesIO(data))
    made.seek(0)
    return made
