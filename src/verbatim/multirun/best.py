"""The best run of a multirun by its objective, where it lies, and the commands that make it again and test it."""

import argparse
import json
import shlex
from pathlib import Path

from verbatim import folders, record
from verbatim.errors import VerbatimError
from verbatim.multirun import folder, results


def main(arguments: list[str], root: Path) -> int:
    parser = argparse.ArgumentParser(
        prog="nox -s best --", description="The best run of a multirun, by the objective that it was judged by: a validation metric of the best epoch."
    )  # fmt: skip
    parser.add_argument(
        "sweep", nargs="?", default="latest", help="the sweep's folder, its name, or latest (the default)"
    )
    parser.add_argument("-n", metavar="N", type=int, default=1, help="how many, the best first (default: 1)")
    parser.add_argument("--sweeps", type=Path, default=root / "sweeps", help="where the sweeps lie (default: sweeps)")
    parser.add_argument("--json", action="store_true", help="one JSON object per run, one per line")
    options = parser.parse_args(arguments)
    path, everything = folder.find(options.sweep, options.sweeps, root)
    ranked = results.ranked(everything)
    if not ranked and (lacking := results.without_objective(everything["jobs"], everything["objective"])):
        raise lacking
    if not ranked:
        raise VerbatimError(path, expected="a sealed run", found=f"none of {len(everything['jobs'])} jobs is", then=everything["command"])  # fmt: skip
    for job in ranked[: max(1, options.n)]:
        found = record.read(root / job["folder"])  # refused where it was edited
        if found.outcome != job["outcome"]:
            raise VerbatimError(
                job["folder"], expected=f"the outcome {job['outcome']}", found=found.outcome, then=everything["command"]
            )
        if options.json:
            print(json.dumps(job))
            continue
        from verbatim.progress import Progress

        place = shlex.quote(job["folder"])
        Progress().table(
            {
                everything["objective"]: f"{job['value']:.6g} (to {everything['goal']})",
                "settings": " ".join(job["overrides"]),
                "run": job["folder"],
                "outcome": job["outcome"],
                "again": f"nox -s reproduce -- {place}",
                **({"evaluate": f"nox -s evaluate -- run={place}"} if "data" in found.config else {}),
                "report": folders.show((path / folder.REPORT).absolute(), root),
            }
        )
    return 0
