"""Drift of Python: the one that the locks were compiled for, that pyproject.toml names, and that the environment was made with."""

import platform
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from verbatim import environment, lock
from verbatim.drift.finding import Answer, Finding, answer, unchecked
from verbatim.drift.installed import Installed
from verbatim.drift.locks import Locked


def of_python(here: Installed, locks: dict[str, Locked], root: Path) -> Answer:
    """(f) Is it the Python that the locks were compiled for, the one that the environment was made with?"""
    findings, looked_at = [], []
    project = _project(root / "pyproject.toml")
    for what, found in project.items():
        if found != environment.PYTHON:
            findings.append(
                Finding(
                    what=f"pyproject.toml: {what}",
                    expected=environment.PYTHON,
                    found=found or "none",
                    mend=f"write {environment.PYTHON} there",
                )
            )
    for name, locked in locks.items():
        found = locked.stated.get("python", "")
        if locked.pins is not None:
            looked_at.append(f"{name}.txt")
            if found != environment.PYTHON:
                findings.append(
                    Finding(
                        what=f"{name}.txt",
                        expected=f"compiled for Python {environment.PYTHON}",
                        found=found or "no Python stated",
                        mend=lock.COMPILE,
                    )
                )
    if here.site.is_dir():
        looked_at.append(here.path.name)
        findings += _of_interpreter(here)
    else:
        findings.append(unchecked(here.path.name, "no environment there", "nox -s env"))
    return answer("python", f"{environment.PYTHON} in pyproject.toml, {', '.join(looked_at)}", findings)


def _project(path: Path) -> dict[str, str]:
    """Every place in pyproject.toml that names the Python, as `3.11`."""
    import tomllib

    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return {"the file": f"unreadable: {error}"}
    tool = tables.get("tool", {})
    return {
        "project.requires-python": str(tables.get("project", {}).get("requires-python", ""))
        .removeprefix("==")
        .removesuffix(".*"),
        "tool.ruff.target-version": re.sub(r"^py3", "3.", str(tool.get("ruff", {}).get("target-version", ""))),
        "tool.mypy.python_version": str(tool.get("mypy", {}).get("python_version", "")),
    }


def _of_interpreter(here: Installed) -> Iterator[Finding]:
    stated, actual = here.stamp.get("python", ""), _version(here.path)
    if not actual.startswith(f"{environment.PYTHON}."):
        yield Finding(
            what=f"{here.path.name}/bin/python", expected=f"Python {environment.PYTHON}", found=actual, mend=here.anew
        )
    elif stated and stated != actual:
        yield Finding(
            what=f"{here.path.name}/bin/python",
            expected=f"{stated}, with which it was made",
            found=actual,
            mend=here.anew,
        )
    settings = here.path / "pyvenv.cfg"
    if re.search(
        r"^include-system-site-packages\s*=\s*true",
        settings.read_text() if settings.is_file() else "",
        re.MULTILINE | re.IGNORECASE,
    ):
        yield Finding(
            what=f"{here.path.name}/pyvenv.cfg",
            expected="only what the lock names",
            found="the system's packages as well",
            mend=here.anew,
        )


def _version(path: Path) -> str:
    if Path(sys.prefix).resolve() == path.resolve():
        return platform.python_version()
    import subprocess

    try:
        asked = [str(path / "bin" / "python"), "-I", "-S", "-c", "import platform; print(platform.python_version())"]
        return (
            subprocess.run(asked, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
            or "none that answers"
        )
    except (OSError, subprocess.SubprocessError):
        return "none that starts"
