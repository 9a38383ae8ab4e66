"""What asking for drift costs, beside what others ask with: whole processes, interleaved, medians. `nox -s bench -- drift`."""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from verbatim import install

ROOT = Path(__file__).resolve().parents[1]
QUICK, SLOW = 15, 2  # rounds; pip-compile takes some seconds, so it runs in the first rounds only


def commands(scratch: Path) -> dict[str, list[str]]:
    """uv and pip-compile start from copies of the locks, so that neither is written to; both answer kind (a) alone."""
    drift = [sys.executable, "-m", "verbatim", "drift"]
    asked = {
        "drift inputs lock variants": [*drift, "inputs", "lock", "variants"],
        "drift, all seven kinds": drift,
        "drift, all seven kinds, by nox": [_tool("nox"), "-s", "drift"],
    }
    for name in ("cpu", "cuda"):
        shutil.copyfile(ROOT / "requirements" / f"{name}.txt", scratch / f"{name}.txt")
        files = ["--output-file", str(scratch / f"{name}.txt"), f"requirements/{name}.in"]
        asked[f"uv pip compile --offline, {name}"] = [
            _tool("uv"),
            "pip",
            "compile",
            "--offline",
            "--quiet",
            "--generate-hashes",
            *files,
        ]
    options = ["--dry-run", "--quiet", "--generate-hashes", "--allow-unsafe", "--strip-extras"]
    files = ["--output-file", str(scratch / "cpu.txt"), "requirements/cpu.in"]
    asked["pip-compile --dry-run, cpu"] = [_tool("pip-compile"), *options, *files]
    return {name: command for name, command in asked.items() if command[0]}


def _tool(name: str) -> str:
    return shutil.which(name) or ""


def main() -> int:
    variables = install.process_variables("cpu") | {"PYTHONPATH": str(ROOT / "src"), "PYTHONDONTWRITEBYTECODE": ""}
    with tempfile.TemporaryDirectory(prefix="verbatim-bench-") as scratch:
        asked = commands(Path(scratch))
        for name, command in asked.items():  # caches, byte code; uv learns what it may then say offline
            if name.startswith("uv"):
                command = [word for word in command if word != "--offline"]
            if not name.startswith("pip-compile"):
                subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, check=False)
        walls: dict[str, list[float]] = {name: [] for name in asked}
        codes: dict[str, set[int]] = {name: set() for name in asked}
        for turn in range(QUICK):
            for name, command in asked.items():
                if name.startswith("pip-compile") and turn >= SLOW:
                    continue
                started = time.perf_counter()
                done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, check=False)
                walls[name].append(1000 * (time.perf_counter() - started))
                codes[name].add(done.returncode)
    medians = {name: statistics.median(many) for name, many in walls.items()}
    for name, median in medians.items():
        says = f"{min(walls[name]):.0f}–{max(walls[name]):.0f}, exit {'/'.join(map(str, sorted(codes[name])))}"
        print(f"{name:<34} {median:8.0f} ms   ({says}; {len(walls[name])} rounds)")
    _ratios(medians)
    return 0


def _ratios(medians: dict[str, float]) -> None:
    whole, locks = medians["drift, all seven kinds"], medians["drift inputs lock variants"]
    if uv := medians.get("uv pip compile --offline, cpu"):
        print(f"all seven kinds take {whole / uv:.1f} times uv's answer to the first kind for one lock")
    if pip := medians.get("pip-compile --dry-run, cpu"):
        print(f"both locks are checked {pip / locks:.0f} times faster than pip-compile --dry-run looks at one")


if __name__ == "__main__":
    os.environ.pop("VERBATIM_ENV", None)
    sys.exit(main())
