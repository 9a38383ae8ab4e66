"""What changed between two states of a lock, and why: which requirement of an `.in` file leads to the package. Reads, writes nothing."""

from pathlib import Path

from verbatim import inputs, lock
from verbatim.lock import Pin


def between(before: dict[str, list[Pin]], after: dict[str, list[Pin]], folder: Path) -> list[str]:
    """A line per package; one that changed in the same way in several locks is said once. `folder` holds the inputs of `after`."""
    said: dict[tuple[str, str], list[str]] = {}
    for name, made in after.items():
        old, new = ({pin.name: pin for pin in pins} for pins in (before.get(name, []), made))
        for package in sorted(old.keys() | new.keys()):
            if change := _change(old.get(package), new.get(package)):
                why = _why(package, new, folder / f"{name}.in") if package in new else _was(old[package])
                said.setdefault((f"{package} {change}", why), []).append(name)
    width = max((len(what) for what, _ in said), default=0)
    return [f"{what:<{width}}  {', '.join(names)}: {why}" for (what, why), names in sorted(said.items())]


def _change(old: Pin | None, new: Pin | None) -> str:
    if old is None or new is None:
        return f"{old.version} → gone" if old else f"new → {new.version}" if new else ""
    if old.version != new.version:
        return f"{old.version} → {new.version}"
    more, fewer = len(set(new.hashes) - set(old.hashes)), len(set(old.hashes) - set(new.hashes))
    return f"{new.version}, hashes +{more} −{fewer}" if more or fewer else ""


def _was(pin: Pin) -> str:
    return f"was required by {', '.join(via.removeprefix('-r requirements/') for via in pin.via) or 'nothing'}"


def _why(package: str, pins: dict[str, Pin], path: Path) -> str:
    """The shortest way from an input to a package: `pooch>=1.8 (project.in, line 10) → requests → idna`."""
    wanted = {w.name: w for w in reversed(inputs.read(path).wanted)}
    ways = [[package]]
    seen = {package}
    for way in ways:  # grows while it is gone through: breadth first
        if found := wanted.get(way[0]):
            first = f"{found.requirement} ({found.where})"
            return " → ".join([first, *way[1:]])
        parents = [lock.normalise(via.partition("[")[0]) for via in pins[way[0]].via if not via.startswith("-")]
        fresh = [parent for parent in parents if parent in pins and parent not in seen]
        seen.update(fresh)
        ways += [[parent, *way] for parent in fresh]
    return "nothing that can be named"
