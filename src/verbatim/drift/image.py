"""Drift of images from the lock: of the one that this runs in, by its environment's stamp; of those of a local engine, by labels."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from verbatim import digest, environment, lock
from verbatim.drift.finding import Answer, Finding, answer, unchecked
from verbatim.drift.installed import Installed
from verbatim.drift.locks import Locked
from verbatim.drift.question import LABEL, Question

OCI = "org.opencontainers.image.base."  # name, digest
BASE = re.compile(r"^ARG BASE=(\S+)@(sha256:[0-9a-f]{64})\s*$", re.MULTILINE)


def of_images(root: Path, here: Installed, locks: dict[str, Locked], asked: Question | None) -> Answer:
    """(e) Was each image built from the lock as it is now?"""
    if here.fixed or asked is None:
        return answer("image", f"the image that this runs in, by {here.path.name}", _of_stamp(here, locks))
    try:
        images = [image for image in asked.answer() if isinstance(image, dict)]
    except (OSError, ValueError) as error:
        why = f"this is no image, and no engine answers ({error})"
        return answer(
            "image", "nothing", [unchecked("images", why, "nox -s drift in the container, or start the engine")]
        )
    if not images:
        return answer(
            "image",
            "nothing",
            [unchecked("images", "this is no image, and the engine has none with our labels", "nox -s build")],
        )
    findings = [finding for image in images for finding in _of_labels(root, image, locks)]
    return answer("image", f"{len(images)} images of the engine, by their labels", findings)


def _of_stamp(here: Installed, locks: dict[str, Locked]) -> Iterator[Finding]:
    pins = locks[here.variant].pins
    if pins is None:
        yield unchecked("this image", f"{here.variant}.txt can't be read")
    elif here.stamp.get("lock") != lock.digest(pins.values()):
        stated = digest.short(here.stamp.get("lock", "")) or "no lock stated"
        yield Finding(what="this image", expected=f"built from {here.variant}.txt {digest.short(lock.digest(pins.values()))}", found=stated, mend="rebuild the container")  # fmt: skip


def _of_labels(root: Path, image: dict[str, Any], locks: dict[str, Locked]) -> Iterator[Finding]:
    labels = image.get("Labels") or {}
    name = (image.get("RepoTags") or [digest.short(str(image.get("Id", "")))])[0]
    variant = labels.get(LABEL + "variant", "")
    if variant not in lock.VARIANTS:
        yield Finding(
            what=name, expected=f"the label {LABEL}variant: cpu or cuda", found=variant or "none", mend="nox -s build"
        )
        return
    mend = f"nox -s build -- {labels.get(LABEL + 'target', '')} {variant}".replace("  ", " ")
    pins, base = locks[variant].pins, _base(root)
    if pins is None:
        yield unchecked(name, f"{variant}.txt can't be read")
        return
    expected = [(f"built from {variant}.txt", labels.get(LABEL + "lock", ""), lock.digest(pins.values()))]
    expected += [("built for Python", labels.get(LABEL + "python", ""), environment.PYTHON)]
    if labels.get(OCI + "name") == base[0]:  # a base that was asked for by name is another on purpose
        expected += [(f"built on {base[0]}", labels.get(OCI + "digest", ""), base[1])]
    for what, found, wanted in expected:
        if found != wanted:
            yield Finding(
                what=name,
                expected=f"{what} {digest.short(wanted)}",
                found=digest.short(found) or "not stated",
                mend=mend,
            )


def _base(root: Path) -> tuple[str, str]:
    """The Dockerfile's base, and its digest."""
    path = root / ".devcontainer" / "Dockerfile"
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    found = BASE.search(text)
    return (found[1], found[2]) if found else ("", "")
