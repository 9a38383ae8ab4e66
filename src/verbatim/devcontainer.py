"""Writes the devcontainer.json files from one matrix, and says when one was edited by hand: `nox -s devcontainer [-- --check]`."""

import argparse
import json
from pathlib import Path
from typing import Any

from verbatim import record
from verbatim.errors import VerbatimError

FOLDER = ".devcontainer"
HEAD = "// Made by `nox -s devcontainer` from src/verbatim/devcontainer.py: edit that, not this.\n"
HOME = "/home/verbatim"

# Where the file lies → what is its own. Codespaces' smallest machine has 2 cores and 8 GB.
MATRIX: dict[str, dict[str, Any]] = {
    "devcontainer.json": {
        "name": "Verbatim (GPU where there is one)",
        "variant": "cuda",
        # `optional`, never `--gpus all` in runArgs: that fails on every machine without a GPU, Codespaces among them.
        "hostRequirements": {"cpus": 2, "memory": "8gb", "storage": "32gb", "gpu": "optional"},
    },
    "cpu/devcontainer.json": {
        "name": "Verbatim (CPU)",
        "variant": "cpu",
        "hostRequirements": {"cpus": 2, "memory": "4gb", "storage": "16gb"},
    },
}

EXTENSIONS = [
    "ms-python.python", "ms-python.vscode-pylance", "ms-python.debugpy", "ms-python.mypy-type-checker",
    "charliermarsh.ruff", "redhat.vscode-yaml", "tamasfe.even-better-toml",
]  # fmt: skip
SETTINGS = {
    "python.defaultInterpreterPath": "/opt/venv/bin/python",
    "python.terminal.activateEnvironment": False,  # the image's PATH has it already
    "python.testing.pytestEnabled": True,
    "python.testing.unittestEnabled": False,
    "python.testing.pytestArgs": ["tests"],
    "python.analysis.extraPaths": ["src"],
    "mypy-type-checker.importStrategy": "fromEnvironment",  # the locked ruff and mypy, not the extensions' own
    "ruff.importStrategy": "fromEnvironment",
    "files.watcherExclude": {"**/runs/**": True, "**/.nox/**": True},
}


def text(name: str) -> str:
    """One file's text. Everything that installs is in the image, so each command below takes a second or two."""
    own = MATRIX[name]
    up = "../" * name.count("/")
    made = {
        "name": own["name"],
        "build": {
            "dockerfile": f"{up}Dockerfile",
            "context": f"{up}..",
            "target": "dev",
            "args": {"VARIANT": own["variant"]},
        },
        "hostRequirements": own["hostRequirements"],
        "remoteUser": "verbatim",
        "containerEnv": {"PYTHONPATH": "${containerWorkspaceFolder}/src"},
        # What is downloaded lives on when the container is made again.
        "mounts": [f"source=verbatim-cache-${{devcontainerId}},target={HOME}/.cache,type=volume"],
        # A prebuild runs the first two; only the last is left for the person who opens it.
        "onCreateCommand": "nox -s env",
        "updateContentCommand": "python -m compileall -q src",
        "postCreateCommand": "python -m verbatim doctor --welcome || true",
        "customizations": {
            "vscode": {"extensions": EXTENSIONS, "settings": SETTINGS},
            "codespaces": {"openFiles": ["README.md"]},
        },
    }
    return HEAD + json.dumps(made, indent=2, ensure_ascii=False) + "\n"


def drifted(root: Path) -> list[str]:
    """The files that are not what the matrix gives, or are missing, or that the matrix does not know."""
    folder = root / FOLDER
    there = {str(path.relative_to(folder)) for path in folder.rglob("devcontainer.json")}
    return sorted(
        name for name in there | MATRIX.keys() if _read(folder / name) != (text(name) if name in MATRIX else "")
    )


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


def main(arguments: list[str], root: Path) -> int:
    parser = argparse.ArgumentParser(prog="nox -s devcontainer --", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit code 1 where a file is not the matrix's"
    )
    options = parser.parse_args(arguments)
    names = drifted(root)
    if options.check:
        for name in names:
            print(f"{FOLDER}/{name}: not what the matrix gives\n  next: nox -s devcontainer")
        return 1 if names else 0
    if unknown := [name for name in names if name not in MATRIX]:
        raise VerbatimError(
            f"{FOLDER}/{unknown[0]}", expected="a file that the matrix knows", found="another",
            then=f"add it to MATRIX in src/verbatim/devcontainer.py, or rm {FOLDER}/{unknown[0]}",
        )  # fmt: skip
    for name in names:
        path = root / FOLDER / name
        path.parent.mkdir(parents=True, exist_ok=True)
        record.write_atomically(path, text(name).encode())
        print(f"{FOLDER}/{name}: written")
    return 0
