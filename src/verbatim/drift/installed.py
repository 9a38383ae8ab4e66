"""Drift of an environment from its lock: versions, what requires what, and where it came from. It changes nothing.

Optional packages that are installed beside it are looked at in the same way; those that are not are nobody's loss.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement

from verbatim import digest, environment, extras, inputs, lock
from verbatim.drift.finding import Answer, Finding, answer, unchecked
from verbatim.drift.locks import Locked


@dataclass(frozen=True, kw_only=True, slots=True)
class Installed:
    """An environment as it lies on the disk."""

    path: Path
    site: Path
    stamp: dict[str, str]
    dists: list[tuple[str, str, Path]]
    fixed: bool  # an image's, which is never installed into
    extra: str = ""  # an optional lock's name, where this is a folder of optional packages

    @property
    def variant(self) -> str:
        stated = self.stamp.get("variant", "")
        return (
            stated
            if stated in lock.VARIANTS
            else environment.variant({name: version for name, version, _ in self.dists})
        )

    @property
    def mend(self) -> str:
        return "rebuild the container" if self.fixed else extras.mend(self.extra) if self.extra else "nox -s env"

    @property
    def shown(self) -> str:
        return f".nox/extra/{self.extra}" if self.extra else self.path.name

    @property
    def anew(self) -> str:
        """For what `nox -s env` does not look at, every time, for speed."""
        return "rebuild the container" if self.fixed else f"rm -r {self.shown} && {self.mend}"


def find(root: Path) -> Installed:
    path, fixed = environment.place(root)
    site = environment.site_packages(path)
    return Installed(
        path=path, site=site, stamp=environment.read_stamp(path), dists=environment.dist_infos(site), fixed=fixed
    )


def find_extras(root: Path) -> list[Installed]:
    found = []
    for name in lock.EXTRAS:
        path = extras.place(root, name)
        if path.is_dir():
            stamp, dists = environment.read_stamp(path), environment.dist_infos(path)
            found.append(Installed(path=path, site=path, stamp=stamp, dists=dists, fixed=False, extra=name))
    return found


def of_installed(here: Installed, locks: dict[str, Locked], beside: Sequence[Installed] = ()) -> Answer:
    """(c) Is what is installed what the lock names, whole, and does each part have what it requires?"""
    pins = locks[here.variant].pins
    if not here.site.is_dir():
        return answer("installed", "nothing", [unchecked(here.path.name, "no environment there", "nox -s env")])
    if pins is None:
        return answer("installed", "nothing", [unchecked(here.path.name, f"{here.variant}.txt can't be read")])
    metadata = {name: _metadata(folder) for name, _, folder in here.dists}
    findings = [*_versions(here, pins, metadata), *_origins(here)]
    stated, actual = here.stamp.get("lock", ""), lock.digest(pins.values())
    if stated and stated != actual and not here.fixed:  # of an image, that is its own kind of drift
        findings.append(
            Finding(
                what=here.path.name,
                expected=f"made from {here.variant}.txt {digest.short(actual)}",
                found=digest.short(stated),
                mend=here.mend,
            )
        )
    findings += _closure(here, metadata, here.mend if findings else lock.COMPILE)
    required = sum(len(fields["Requires-Dist"]) for fields in metadata.values())
    looked_at = [
        f"{len(here.dists)} distributions and {required} requirements in {here.path.name}, by {here.variant}.txt"
    ]
    for extra in beside:
        if extra.extra in locks and (own := locks[extra.extra].pins) is not None:
            findings += _of_extra(extra, own, here)
            looked_at.append(f"{len(extra.dists)} in {extra.shown}")
    return answer("installed", ", ".join(looked_at), findings)


def _of_extra(extra: Installed, pins: dict[str, lock.Pin], here: Installed) -> Iterator[Finding]:
    """Optional packages; what they require may lie in the environment."""
    metadata = {name: _metadata(folder) for name, _, folder in extra.dists}
    yield from _versions(extra, pins, metadata)
    yield from _origins(extra)
    stated, actual = extra.stamp.get("lock", ""), lock.digest(pins.values())
    if stated and stated != actual:
        yield Finding(what=extra.shown, expected=f"made from {extra.extra}.txt {digest.short(actual)}", found=digest.short(stated), mend=extra.mend)  # fmt: skip
    yield from _closure(extra, metadata, lock.COMPILE, here.dists)


def _versions(
    here: Installed, pins: dict[str, lock.Pin], metadata: dict[str, dict[str, list[str]]]
) -> Iterator[Finding]:
    installed = {name: version for name, version, _ in here.dists}
    for name, one, other in lock.compare(pins.values(), installed):
        yield Finding(what=name, expected=one or "not installed", found=other or "not installed", mend=here.mend)
    for (name, version, _), (after, other, _) in zip(here.dists, here.dists[1:], strict=False):
        if name == after:
            yield Finding(what=name, expected="one version", found=f"{version} and {other}", mend=here.anew)
    for name, version, folder in here.dists:
        fields = metadata[name]
        stated = (lock.normalise("".join(fields["Name"][:1])), "".join(fields["Version"][:1]))
        if stated != (name, version):
            yield Finding(what=f"{folder.name}/METADATA", expected=f"{name} {version}", found=" ".join(stated).strip() or "none", mend=here.anew)  # fmt: skip


def _metadata(folder: Path) -> dict[str, list[str]]:
    """The three fields that are looked at, of the header alone: `email` would take longer than all the rest."""
    fields: dict[str, list[str]] = {"Name": [], "Version": [], "Requires-Dist": []}
    try:
        with (folder / "METADATA").open(encoding="utf-8", errors="replace") as file:
            for line in file:
                name, colon, value = line.partition(":")
                if not line.strip():
                    break
                if colon and name in fields:
                    fields[name].append(value.strip())
    except OSError:
        pass  # no name and no version is what will be found
    return fields


def _origins(here: Installed) -> Iterator[Finding]:
    """What can be put in beside the lock without a version changing."""
    records = environment.records(here.site)
    for name, _, folder in here.dists:
        if not records.get(folder.name, b"pip's"):
            yield Finding(what=f"{folder.name}/RECORD", expected="the list of its files", found="none", mend=here.anew)
        if (folder / "direct_url.json").is_file():
            yield Finding(
                what=name,
                expected="installed from a package index",
                found="installed from an address or a folder",
                mend=here.anew,
            )
    for path in sorted(here.site.glob("*.pth")):
        if path.name != "verbatim.pth" and not any(
            f"\n{path.name},".encode() in b"\n" + record for record in records.values()
        ):
            yield Finding(what=path.name, expected="no such file: no distribution lists it", found="it adds to what Python imports", mend=f"rm {path}")  # fmt: skip
    own = here.site / "verbatim.pth"
    if own.is_file() and own.read_text(encoding="utf-8", errors="replace") != f"{here.path.parent / 'src'}\n":
        yield Finding(
            what=own.name,
            expected=str(here.path.parent / "src"),
            found=own.read_text(errors="replace").strip(),
            mend=here.anew,
        )
    stated, actual = here.stamp.get("records"), digest.of_parts(records.items())
    if not here.stamp:
        yield Finding(
            what=here.shown, expected="an installation that was finished", found="one that was not", mend=here.mend
        )
    elif stated is None:
        yield unchecked(f"{here.shown}: the lists of installed files", "made before these were kept", here.anew)
    elif stated != actual:
        yield Finding(what=f"{here.shown}: the lists of installed files", expected=digest.short(stated), found=f"{digest.short(actual)}: something was installed again", mend=here.anew)  # fmt: skip


def _closure(
    here: Installed,
    metadata: dict[str, dict[str, list[str]]],
    mend: str,
    more: Sequence[tuple[str, str, Path]] = (),
) -> Iterator[Finding]:
    versions = {name: version for name, version, _ in (*more, *here.dists)}
    surroundings: dict[str, Any] = dict(inputs.surroundings())
    for name in sorted(metadata.keys() - {"pip"}):
        for text in metadata[name]["Requires-Dist"]:
            if re.search(r"\bextra\s*==", text) and " or " not in text:
                continue  # no lock here asks for extras; most requirements are of this kind, and reading them takes longest
            try:
                requirement = Requirement(text)
                if requirement.marker and not requirement.marker.evaluate(surroundings):
                    continue
            except (InvalidRequirement, ValueError) as error:
                yield Finding(what=f"{name} requires", expected="a requirement", found=f"{text}: {str(error).splitlines()[0]}", mend=here.anew)  # fmt: skip
                continue
            found = versions.get(lock.normalise(requirement.name), "")
            if not found or not requirement.specifier.contains(found, prereleases=True):
                yield Finding(what=f"{name} requires", expected=f"{requirement.name}{requirement.specifier}", found=found or "not installed", mend=mend)  # fmt: skip
