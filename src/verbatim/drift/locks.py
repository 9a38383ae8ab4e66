"""Drift of `requirements/`: inputs edited after compiling, locks edited by hand, variants apart. No resolver, no network."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from packaging.version import InvalidVersion, Version

from verbatim import digest, inputs, lock
from verbatim.drift.finding import Answer, Finding, answer, broken, unchecked
from verbatim.errors import VerbatimError
from verbatim.inputs import Inputs, Wanted
from verbatim.lock import COMPILE, Pin


@dataclass(frozen=True, kw_only=True, slots=True)
class Locked:
    """One lock and the inputs behind it, as far as they can be read."""

    name: str
    path: Path
    pins: dict[str, Pin] | None = None
    stated: dict[str, str] = field(default_factory=dict)
    beside: dict[str, str] = field(
        default_factory=dict
    )  # of an optional lock: the versions of the others that it needs
    inputs: Inputs | None = None
    errors: tuple[tuple[str, Finding], ...] = ()  # the kind, and what could not be read


def load(folder: Path) -> dict[str, Locked]:
    """Every lock, read once for all kinds."""
    return {name: _load(folder / f"{name}.txt", name) for name in lock.names(folder)}


def _load(path: Path, name: str) -> Locked:
    errors: list[tuple[str, Finding]] = []
    pins, stated, beside, wanted = None, {}, {}, None
    try:
        pins = {pin.name: pin for pin in lock.read(path)}
        stated, beside = lock.header(path), lock.beside(path)
        for pin in pins.values():
            _version(path, pin)
    except VerbatimError as error:
        pins = None
        errors.append(("lock", broken(error)))
    try:
        wanted = inputs.read(path.with_suffix(".in"))
    except VerbatimError as error:
        errors.append(("inputs", broken(error)))
    return Locked(name=name, path=path, pins=pins, stated=stated, beside=beside, inputs=wanted, errors=tuple(errors))


def _version(path: Path, pin: Pin) -> None:
    try:
        Version(pin.version)
    except InvalidVersion:
        where = lock.place(
            path, pin.line - 1, path.read_text(encoding="utf-8-sig").splitlines()[pin.line - 1].find("=") + 2
        )
        raise VerbatimError(where, expected="a version (PEP 440)", found=pin.version, then=COMPILE) from None


def of_requirements(folder: Path) -> list[Answer]:
    """The three kinds that need nothing but `requirements/`: what `nox -s lock -- --check` asks, and what compiling must meet."""
    locks = load(folder)
    return [of_inputs(locks), of_locks(locks), of_variants(locks)]


def sentences(folder: Path) -> list[str]:
    """The same, a sentence for each thing found."""
    found = [finding for answer in of_requirements(folder) for finding in answer.findings]
    return [
        f"{f.what}: expected {f.expected}, found {f.found}" if f.expected else f"{f.what}: {f.found}" for f in found
    ]


def of_inputs(locks: dict[str, Locked]) -> Answer:
    """(a) Are the pins what the `.in` files ask for now?"""
    findings: dict[tuple[str, str], Finding] = {}  # two locks share project.in: what is wrong with it is said once
    for locked in locks.values():
        for found in [finding for kind, finding in locked.errors if kind == "inputs"] or _of_inputs(locked):
            findings.setdefault((found.what, found.expected), found)
    count = len({w.where for locked in locks.values() if locked.inputs for w in locked.inputs.wanted})
    files = sorted({file for locked in locks.values() if locked.inputs for file in locked.inputs.files})
    return answer("inputs", f"{count} requirements of {', '.join(files)}", findings.values())


def _of_inputs(locked: Locked) -> Iterator[Finding]:
    file, source = locked.path.name, locked.inputs
    if locked.pins is None or source is None:
        yield unchecked(f"the inputs of {file}", f"{file} can't be read")
        return
    said = False
    for wanted in source.wanted:
        for found in _of_requirement(locked, locked.pins, wanted):
            said = True
            yield found
    for also in source.also:
        pin = locked.pins.get(also.name)
        if not pin or pin.version != also.version or also.hash not in pin.hashes:
            said = True
            yield Finding(what=also.where, expected=f"{also.name}=={also.version} with {digest.short(also.hash)} in {file}",
                          found=f"{pin.version} without it" if pin else "no pin", mend=COMPILE)  # fmt: skip
    for pin, source_file in _orphans(locked.pins, source):
        said = True
        yield Finding(what=f"{file}, line {pin.line}", expected=f"{source_file} to require {pin.name}, as this pin says",
                      found="no such requirement", mend=COMPILE)  # fmt: skip
    if not said and locked.stated.get("inputs") != source.digest:
        stated = digest.short(locked.stated.get("inputs", "")) or "none"
        yield Finding(what=f"{' or '.join(source.files)}", expected=f"inputs {stated}, from which {file} was compiled",
                      found=f"inputs {digest.short(source.digest)}", mend=COMPILE)  # fmt: skip


def _of_requirement(locked: Locked, pins: dict[str, Pin], wanted: Wanted) -> Iterator[Finding]:
    requirement, file = wanted.requirement, locked.path.name
    try:
        if requirement.marker and not requirement.marker.evaluate(inputs.surroundings()):
            return
    except ValueError as error:  # packaging compares what can't be compared only now
        yield Finding(
            what=wanted.where, expected="a marker that can be evaluated", found=str(error), mend=inputs.BY_HAND
        )
        return
    version = pins[wanted.name].version if wanted.name in pins else locked.beside.get(wanted.name)
    if version is None:
        if not wanted.limit:
            yield Finding(what=wanted.where, expected=f"{requirement} in {file}", found="no pin", mend=COMPILE)
    elif not requirement.specifier.contains(version, prereleases=True):
        yield Finding(what=wanted.where, expected=f"{requirement} in {file}", found=version, mend=COMPILE)


def _orphans(pins: dict[str, Pin], source: Inputs) -> Iterator[tuple[Pin, str]]:
    """Pins said to come from an input file that does not name them."""
    named = {(w.path.name, w.name) for w in source.wanted}
    for pin in pins.values():
        for via in pin.via:
            if via.startswith(("-r ", "-c ")) and (Path(via[3:]).name, pin.name) not in named:
                yield pin, Path(via[3:]).name


def of_locks(locks: dict[str, Locked]) -> Answer:
    """(b) Is each lock as `nox -s lock` wrote it, whole, and every pin there for a reason?"""
    findings: list[Finding] = []
    for locked in locks.values():
        findings += [finding for kind, finding in locked.errors if kind == "lock"] or _of_lock(locked)
    pins = [f"{name}.txt ({len(locked.pins)} pins)" for name, locked in locks.items() if locked.pins is not None]
    return answer("lock", ", ".join(pins) or "nothing", findings)


def _of_lock(locked: Locked) -> Iterator[Finding]:
    assert locked.pins is not None  # noqa: S101 (for mypy: what can't be read was answered before)
    file, pins = locked.path.name, locked.pins
    stated, actual = locked.stated.get("pins", ""), lock.digest(pins.values())
    if stated != actual:
        where, what = _edited(locked, stated, pins)
        yield Finding(what=where, expected=f"pins {digest.short(stated) or '(none stated)'}, as compiled",
                      found=f"pins {digest.short(actual)}{what}: edited by hand", mend=f"git checkout requirements/{file}, or {COMPILE}")  # fmt: skip
    for pin in pins.values():
        for via in pin.via:
            if not via.startswith("-") and lock.normalise(via.partition("[")[0]) not in pins:
                yield Finding(what=f"{file}, line {pin.line}", expected=f"a pin of {via}, which requires {pin.name}", found="none", mend=COMPILE)  # fmt: skip
    for name in sorted(pins.keys() - _reached(pins.values())):
        yield Finding(what=f"{file}, line {pins[name].line}", expected=f"a requirement that leads to {name}", found="none", mend=COMPILE)  # fmt: skip


def _reached(pins: Iterable[Pin]) -> set[str]:
    """The pins that an input leads to, by what the lock says each is required by."""
    children: dict[str, list[str]] = {}
    todo = []
    for pin in pins:
        for via in pin.via:
            if via.startswith("-r "):
                todo.append(pin.name)
            else:
                children.setdefault(lock.normalise(via.partition("[")[0]), []).append(pin.name)
    reached: set[str] = set()
    while todo:
        name = todo.pop()
        if name not in reached:
            reached.add(name)
            todo += children.get(name, [])
    return reached


def _edited(locked: Locked, stated: str, pins: dict[str, Pin]) -> tuple[str, str]:
    """Where a lock was edited, and how, by the last commit's copy, where that is the one its header speaks of."""
    import subprocess

    command = ["git", "show", f"HEAD:./{locked.path.name}"]
    try:
        text = subprocess.run(command, cwd=locked.path.parent, capture_output=True, check=True).stdout
        before = {pin.name: pin for pin in lock.parse(locked.path, text.decode())}
    except (OSError, subprocess.CalledProcessError, UnicodeDecodeError, VerbatimError):
        return locked.path.name, ""
    if lock.digest(before.values()) != stated:
        return locked.path.name, ""
    for name in sorted(before.keys() | pins.keys()):
        one, other = before.get(name), pins.get(name)
        if one is None or other is None:
            return locked.path.name, f", {name} {'added' if other else 'taken out'}"
        if (one.version, one.hashes) != (other.version, other.hashes):
            changed = f"{one.version} → {other.version}" if one.version != other.version else "its hashes changed"
            return f"{locked.path.name}, line {other.line}", f", {name} {changed}"
    return locked.path.name, ""


def of_variants(locks: dict[str, Locked]) -> Answer:
    """(g) Are the variants equal, but for torch and what its CUDA build brings?"""
    cpu, cuda = (locks[name].pins for name in lock.VARIANTS)
    if cpu is None or cuda is None:
        return answer("variants", "nothing", [unchecked("cpu.txt and cuda.txt", "one of them can't be read")])
    findings = []
    for name in sorted(name for name in cpu.keys() | cuda.keys() if not lock.GPU_ONLY.fullmatch(name)):
        one, other = cpu.get(name), cuda.get(name)
        if one is None or other is None or one.version != other.version:
            findings.append(_apart(name, one.version if one else "no pin", other.version if other else "no pin"))
        elif one.hashes != other.hashes:
            findings.append(_apart(name, f"{len(one.hashes)} hashes", f"{len(other.hashes)} hashes, not the same ones"))
    findings += [_apart(n, p.version, "the same: only CUDA's lock may have it") for n, p in cpu.items() if n != "torch" and lock.GPU_ONLY.fullmatch(n)]  # fmt: skip
    torch = [pins["torch"].version.partition("+")[0] if "torch" in pins else "no pin" for pins in (cpu, cuda)]
    if torch[0] != torch[1]:
        findings.append(_apart("torch", *torch))
    extras = [locks[name] for name in lock.EXTRAS if name in locks and locks[name].pins is not None]
    findings += [finding for locked in extras for finding in _of_extra(locked, cpu, cuda)]
    looked_at = [f"{len(cpu)} pins of cpu.txt, {len(cuda)} of cuda.txt", *(f"{e.name}.txt beside them" for e in extras)]
    return answer("variants", ", ".join(looked_at), findings)


def _of_extra(locked: Locked, cpu: dict[str, Pin], cuda: dict[str, Pin]) -> Iterator[Finding]:
    """An optional lock pins nothing that a variant has, and was compiled beside what both have now."""
    for name in locked.pins or {}:
        if name in cpu or name in cuda or lock.GPU_ONLY.fullmatch(name):
            yield Finding(what=name, expected=f"no pin in {locked.path.name}: the variants' locks have it", found="a second pin", mend=COMPILE)  # fmt: skip
    for name, version in locked.beside.items():
        for variant, pins in zip(lock.VARIANTS, (cpu, cuda), strict=True):
            found = pins[name].version if name in pins else "no pin"
            if found != version:
                yield Finding(what=name, expected=f"{version}, beside which {locked.path.name} was compiled", found=f"{variant}.txt: {found}", mend=COMPILE)  # fmt: skip


def _apart(name: str, cpu: str, cuda: str) -> Finding:
    return Finding(what=name, expected=f"cpu.txt: {cpu}", found=f"cuda.txt: {cuda}", mend=COMPILE)
