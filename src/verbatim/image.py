"""Builds the project's images through the docker SDK, and says what came out: size, and a digest of the content.

    nox -s build -- [base|locked|dev|train|evaluate] [cpu|cuda]
    nox -s build -- train cpu --verify     builds twice without cache, and names the first file that differs

`VERBATIM_BASE` names another base image (a mirror's copy), `PIP_FIND_LINKS` another place for the CPU builds of torch.
"""

import argparse
import json
import os
import re
import subprocess
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from verbatim import code, context, digest, engine, image_digest, image_store, install, lock
from verbatim.build_log import BuildLog
from verbatim.errors import VerbatimError

TARGETS = ("base", "locked", "dev", "train", "evaluate")
LABEL = "verbatim."  # verbatim.lock, .variant, .target, .context, .code


def tag(target: str, variant: str) -> str:
    return f"verbatim:{target}-{variant}"


def build(
    client: Any,
    root: Path,
    target: str,
    variant: str,
    *,
    name: str = "",
    nocache: bool = False,
    logs: Path | None = None,
) -> Any:
    """Build one target and give it its name; returns the SDK's image. Ctrl-C ends the build with its connection.

    `logs` is where the build is logged, if `root` does not last.
    """
    listed = context.checked_names(root)
    arguments = {"VARIANT": variant, "BASE": base(root)}
    if "://" in (links := os.environ.get("PIP_FIND_LINKS", "")) and not links.startswith("file:"):
        arguments["PIP_FIND_LINKS"] = links  # a folder of this machine is not one of the container's
    name = name or tag(target, variant)
    path = (logs or root / ".nox") / f"build-{name.replace(':', '-')}.log"
    dockerfile = (root / context.DOCKERFILE).read_text(encoding="utf-8")
    dockerfile = context.labelled(dockerfile, target, labels(client, root, target, variant, listed))
    with engine.refusals(f"building {name}"), BuildLog(path, name) as log:
        chunks = client.api.build(
            fileobj=context.tar(root, listed, dockerfile), custom_context=True, dockerfile=context.DOCKERFILE, decode=True,
            target=target, buildargs=arguments, tag=name, rm=True, forcerm=True, nocache=nocache, use_config_proxy=True,
        )  # fmt: skip
        made = log.follow(chunks)
    if not made:
        raise VerbatimError(f"building {name}", expected="an image", found="none", then=f"read {path}")
    return client.images.get(made)


def base(root: Path) -> str:
    """The base image's name, pinned by digest: the Dockerfile's, or another by `VERBATIM_BASE`."""
    text = (root / context.DOCKERFILE).read_text(encoding="utf-8")
    found = re.search(r"^ARG BASE=(\S+@sha256:[0-9a-f]{64})$", text, re.MULTILINE)
    if not found:
        raise VerbatimError(
            context.DOCKERFILE, expected="a line ARG BASE=name:tag@sha256:…", found="none", then="pin it by digest"
        )
    return os.environ.get("VERBATIM_BASE", "") or found[1]


def labels(client: Any, root: Path, target: str, variant: str, listed: list[str]) -> dict[str, str]:
    """OCI's labels, and what says whether this checkout would build the same image."""
    found = context.digest_of(root, listed)
    captured = code.capture(root, f"image-{digest.short(found)}")
    name, _, pinned = base(root).partition("@")
    made = {
        "org.opencontainers.image.title": tag(target, variant),
        "org.opencontainers.image.revision": captured.head + ("-dirty" if captured.dirty and captured.head else ""),
        "org.opencontainers.image.source": source(root),
        "org.opencontainers.image.base.name": name,
        "org.opencontainers.image.base.digest": pinned or _id(client, name),
        LABEL + "lock": lock.digest(lock.read(root / "requirements" / f"{variant}.txt")),
        LABEL + "variant": variant,
        LABEL + "target": target,
        LABEL + "python": install.PYTHON,
        LABEL + "context": found,
        LABEL + "code": json.dumps(asdict(captured)),
    }
    return {key: value for key, value in made.items() if value}


def source(root: Path) -> str:
    """Where the repository is published, without a user or a token; empty for a folder of this machine."""
    result = subprocess.run(
        ["git", "remote", "get-url", "origin"], cwd=root, capture_output=True, text=True, check=False
    )
    url = result.stdout.strip()
    if match := re.fullmatch(r"(?:https?|ssh|git)://(?:[^@/]*@)?([^/]+/.+?)(?:\.git)?", url):
        return f"https://{match[1]}"
    match = re.fullmatch(r"[^@/]+@([^:/]+):(.+?)(?:\.git)?", url)
    return f"https://{match[1]}/{match[2]}" if match else ""


def _id(client: Any, name: str) -> str:
    try:
        return str(image_digest.find(client, name).id)
    except VerbatimError:  # not there yet: the build pulls it
        return ""


def verify(client: Any, root: Path, target: str, variant: str) -> int:
    """Build twice without cache; 0 where both have the same content."""
    contents = []
    for turn in ("first", "second"):
        name = f"verbatim:verify-{turn}"
        try:
            made = build(client, root, target, variant, name=name, nocache=True)
            contents.append(image_digest.content(client, made))
        finally:
            remove(client, name)
        print(f"{turn}: {contents[-1].digest}", flush=True)
    found = image_digest.differences(*contents)
    if found:
        print(f"two builds differ in {len(found)} places; the first: {found[0]}")
        return 1
    print(f"the same content twice: {len(contents[0].files)} files")
    return 0


def remove(client: Any, name: str, *, keep_cache: bool = False) -> None:
    """Remove an image's name, and the image with its last one. `keep_cache` keeps the steps it was built on for the next build."""
    from docker.errors import ImageNotFound

    try:
        client.images.remove(name, force=True, noprune=keep_cache)
    except ImageNotFound:
        return


def main(arguments: list[str], root: Path) -> int:
    parser = argparse.ArgumentParser(prog="nox -s build --", description=__doc__.partition("\n")[0])
    parser.add_argument("target", nargs="?", default="train", help=f"{', '.join(TARGETS)} (default: train)")
    parser.add_argument("variant", nargs="?", default="", help="cpu or cuda (default: what this machine has)")
    parser.add_argument("--verify", action="store_true", help="build twice without cache and compare")
    parser.add_argument("--no-cache", action="store_true", help="build every step anew")
    options = parser.parse_args(arguments)
    if options.target not in TARGETS:
        raise VerbatimError(
            "target", expected=f"one of {', '.join(TARGETS)}", found=options.target, then="nox -s build -- train"
        )
    variant = install.choose(options.variant)
    with engine.connect() as client:
        if options.verify:
            return verify(client, root, options.target, variant)
        started = time.monotonic()
        made = build(client, root, options.target, variant, nocache=options.no_cache)
        built_s = time.monotonic() - started
        known = image_store.of(client, made, root)
    from verbatim.progress import Progress

    Progress().table(
        {
            "image": tag(options.target, variant),
            "content": known["digest"],
            "size": f"{made.attrs['Size'] / 1e9:.2f} GB, {known['files']:,} files",
            "lock": known["lock"] or "no environment in it",
            "built": f"{built_s:.1f} s, read {time.monotonic() - started - built_s:.1f} s",
        }
    )
    return 0
