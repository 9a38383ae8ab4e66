"""Drift of the world from the locks, kind (d): newer, yanked, vulnerable. The one part that asks the network, and only when asked.

What could not be asked is `not checked`, never green: pip-audit says "no known vulnerabilities" of packages that it skipped.
"""

import json
import re
import subprocess
import tempfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import quote

from verbatim import compile, digest, environment, install, lock
from verbatim.drift import image, locks
from verbatim.drift.finding import Answer, Finding, answer, unchecked
from verbatim.drift.locks import Locked
from verbatim.drift.question import Question
from verbatim.errors import VerbatimError

TIMEOUT_S = 300.0
_YANKED = re.compile(r"warning: `([\w.-]+)==(\S+)` is yanked(?: \(reason: \"(.*)\"\))?")


def answers(root: Path, as_of: str = "") -> list[Answer]:
    """Of every lock: what a compile would give now (or on a date), what was yanked, what is vulnerable; and the base image."""
    _date(as_of)
    loaded = locks.load(root / "requirements")
    newer, yanked = _resolve(root, loaded, as_of)
    return [newer, yanked, _vulnerable(root, loaded), _base(root)]


def _date(as_of: str) -> None:
    try:
        date.fromisoformat(as_of or "2000-01-01")
    except ValueError:
        raise VerbatimError("--as-of", expected="a date like 2026-01-31", found=as_of, then="give a date that there is") from None  # fmt: skip


def _resolve(root: Path, loaded: dict[str, Locked], as_of: str) -> tuple[Answer, Answer]:
    uv, when = install.find_uv(), f"on {as_of}" if as_of else "now"
    newer: dict[str, Finding] = {}  # several locks hold the same package: it is said once
    yanked: dict[str, Finding] = {}
    asked: list[str] = []
    for name, locked in loaded.items():
        if not uv or locked.pins is None or locked.inputs is None:
            why = f"{name}.txt or its inputs can't be read" if uv else "uv is not there"
            newer[name] = yanked[name] = unchecked(f"{name}.txt", why, "nox -s drift -- --upstream")
            continue
        versions = {pin.name: pin.version for pin in locked.pins.values()} | locked.beside
        with tempfile.TemporaryDirectory(prefix="verbatim-upstream-") as scratch:
            options = ["--upgrade", *([f"--exclude-newer={as_of}"] if as_of else [])]
            try:
                _, says = _uv(uv, root, name, Path(scratch), [])
                yanked |= {match[1]: _yanked(match) for match in _YANKED.finditer(says)}
            except (OSError, subprocess.SubprocessError) as error:
                yanked[name] = unchecked(f"{name}.txt", _says(error))
            try:
                found, _ = _uv(uv, root, name, Path(scratch), options)
            except (OSError, subprocess.SubprocessError) as error:
                newer[name] = _unmet(name, when, _says(error))
                continue
        asked.append(f"{name}.txt")
        for package in sorted(versions.keys() | found.keys()):
            one, other = versions.get(package, ""), found.get(package, "")
            if one != other:
                newer[package] = Finding(what=package, expected=one or "not locked", found=f"{other or 'gone'} {when}", mend=f"nox -s lock -- --upgrade-package {package}" if one else "nox -s lock -- --upgrade")  # fmt: skip
    looked_at = ", ".join(asked) or "nothing"
    return (answer("newer", f"{looked_at}, {when}", newer.values()), answer("yanked", looked_at, yanked.values()))


def _yanked(match: re.Match[str]) -> Finding:
    return Finding(what=match[1], expected=f"{match[2]}, offered", found=f"yanked: {match[3] or 'no reason given'}", mend=f"nox -s lock -- --upgrade-package {match[1]}")  # fmt: skip


def _uv(uv: str, root: Path, name: str, scratch: Path, options: list[str]) -> tuple[dict[str, str], str]:
    """What uv resolves, and its warnings. It starts from the lock's pins, unless told to upgrade."""
    copy = scratch / f"{name}.txt"
    if not copy.exists():
        copy.write_bytes((root / "requirements" / f"{name}.txt").read_bytes())
    command = [
        uv,
        "pip",
        "compile",
        "--no-config",
        "--python-version",
        environment.PYTHON,
        "--no-header",
        "--no-annotate",
        *compile.beside(name),
        *options,
    ]
    command += ["--output-file", str(copy), f"requirements/{name}.in"]
    done = subprocess.run(command, cwd=root, env=install.process_variables(name), capture_output=True, text=True, check=True, timeout=TIMEOUT_S)  # fmt: skip
    found = re.findall(r"^([A-Za-z0-9][\w.-]*)===?(\S+)", copy.read_text(encoding="utf-8"), re.MULTILINE)
    return {lock.normalise(package): version for package, version in found}, done.stderr


def _vulnerable(root: Path, loaded: dict[str, Locked]) -> Answer:
    """By pip-audit, of the versions without what comes after `+`, as advisories name them."""
    pins = sorted({(p.name, p.version.partition("+")[0]) for one in loaded.values() for p in (one.pins or {}).values()})
    python = root / ".nox" / "audit" / "bin" / "python"
    if not python.exists():
        return answer("vulnerable", "nothing", [unchecked("every lock", "pip-audit is not there", "nox -s drift -- --upstream, which brings it")])  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="verbatim-audit-") as scratch:
        listed = Path(scratch) / "pins.txt"
        listed.write_text("".join(f"{name}=={version}\n" for name, version in pins))
        command = [str(python), "-m", "pip_audit", "--requirement", str(listed), "--no-deps", "--disable-pip", "--format=json", "--progress-spinner=off"]  # fmt: skip
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
            report = json.loads(done.stdout)["dependencies"]
            findings = list(_of_audit(report, pins))
        except (OSError, ValueError, KeyError, TypeError, subprocess.SubprocessError) as error:
            why = done.stderr.strip().splitlines()[-1:] if isinstance(error, ValueError) else [str(error)]
            return answer("vulnerable", "nothing", [unchecked("every lock", f"pip-audit failed: {''.join(why)[:200]}")])
    skipped = sum(1 for entry in report if "skip_reason" in entry)
    return answer("vulnerable", f"{len(report) - skipped} of {len(pins)} pins, by pip-audit", findings)


def _of_audit(report: list[dict[str, Any]], pins: list[tuple[str, str]]) -> Iterator[Finding]:
    answered = set()
    skipped: dict[str, list[str]] = {}
    for entry in report:
        name = lock.normalise(entry["name"])
        answered.add(name)
        if "skip_reason" in entry:  # each names its package: without that, they are one and the same
            reason = re.sub(rf":?\s*\(?{re.escape(entry['name'])}\b.*", "", entry["skip_reason"])
            skipped.setdefault(reason, []).append(name)
        for vulnerability in entry.get("vulns", ()):
            fixed = ", ".join(vulnerability.get("fix_versions", ())) or "no version yet"
            yield Finding(what=f"{name} {entry['version']}", expected="no known vulnerability", found=f"{vulnerability['id']}, fixed in {fixed}", mend=f"nox -s lock -- --upgrade-package {name}")  # fmt: skip
    if missing := sorted({name for name, _ in pins} - answered):
        skipped["not answered by pip-audit"] = missing
    for reason, names in skipped.items():
        yield unchecked(
            f"{len(names)} packages: {', '.join(names[:3])}{' …' * (len(names) > 3)}", f"skipped by pip-audit: {reason}"
        )


def _base(root: Path) -> Answer:
    """The digest that the base's tag has now, asked of its registry through the local engine."""
    dockerfile = root / ".devcontainer" / "Dockerfile"
    bases = image.BASE.findall(dockerfile.read_text(encoding="utf-8", errors="replace")) if dockerfile.is_file() else []
    if not bases:
        return answer(
            "base", "nothing", [unchecked("base image", "no .devcontainer/Dockerfile that names one with its digest")]
        )
    findings = []
    for name, pinned in bases:
        try:
            found = Question(f"/distribution/{quote(name)}/json", TIMEOUT_S).answer()["Descriptor"]["digest"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            findings.append(unchecked(name, f"its registry does not answer through the engine ({error})"))
            continue
        if found != pinned:
            findings.append(Finding(what=name, expected=digest.short(pinned), found=f"{digest.short(found)} now", mend="review it, then write the new digest wherever nox -s drift -- twins says"))  # fmt: skip
    return answer("base", ", ".join(name for name, _ in bases), findings)


def _unmet(name: str, when: str, says: str) -> Finding:
    """uv has an answer, that there is none; or none, as where no network is."""
    if "No solution found" not in says or "network was disabled" in says:
        return unchecked(f"{name}.txt", says)
    return Finding(
        what=f"{name}.in",
        expected=f"requirements that can be met {when}",
        found=says,
        mend=f"loosen {name}.in, or ask of another date",
    )


def _says(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        text = " ".join(str(error.stderr).split()).partition(" hint: ")[0]
        return f"uv: {text[:240]}{' …' * (len(text) > 240)}"
    return str(error)
