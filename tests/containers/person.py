"""Someone who has checked the project out, and may use the engine; not root, as the devcontainer CLI treats root apart."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verbatim.environment import site_packages

# Root's own Python may lie where nobody else may look; the machine's runs the same packages.
PYTHON = sys.executable if os.geteuid() else "/usr/bin/python3.11"


@dataclass(frozen=True, kw_only=True)
class Person:
    """Someone who has checked the project out, and may use the engine."""

    uid: int
    gid: int
    groups: list[int]
    home: Path
    checkout: Path

    def run(
        self, *command: str, engine: bool = True, timeout: float = 900, **variables: str
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command, **self.popen(engine=engine, **variables), capture_output=True, timeout=timeout, check=False
        )

    def popen(self, *, engine: bool = True, **variables: str) -> dict[str, Any]:
        keep = {k: v for k, v in os.environ.items() if k not in ("VERBATIM_DATA", "XDG_CACHE_HOME", "PYTHONPATH")}
        own = {
            "HOME": str(self.home),
            "PYTHONPATH": f"{self.checkout / 'src'}:{site_packages()}",
            "PYTHONHASHSEED": "0",
        }
        given: dict[str, Any] = {"cwd": self.checkout, "env": keep | own | variables, "text": True}
        if os.geteuid() == 0:
            given |= {"user": self.uid, "group": self.gid, "extra_groups": self.groups if engine else []}
        return given

    def verbatim(self, *arguments: str, **variables: Any) -> "subprocess.CompletedProcess[str]":
        return self.run(*self.command, *arguments, **variables)

    @property
    def command(self) -> list[str]:
        return [PYTHON, "-m", "verbatim"]
