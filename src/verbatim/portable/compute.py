"""Computes the digests of the operators' cases in a process of its own, and prints them as JSON: `nox -s portability` starts it.

Its own process, because what is compared (cores, threads, workers, caps of libraries, an emulated CPU) is set before torch loads.
"""

import argparse
import json
import os
import sys

from verbatim import determinism
from verbatim.errors import VerbatimError


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m verbatim.portable.compute", description=__doc__)
    parser.add_argument("--level", default="portable", choices=determinism.LEVELS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--cores", type=int, default=0, help="how many this process may use (default: all)")
    parser.add_argument("--only", default="", help="cases whose name holds this")
    options = parser.parse_args()
    if options.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    # A table for 8 threads can be made on 2 cores: slowly, which is why a run refuses it.
    most = min(options.threads, determinism.cores())
    settings = determinism.Determinism(level=options.level, threads=most, workers=options.workers)
    determinism.set_variables(settings)
    determinism.set_switches(settings, 0)

    from verbatim.portable import cases

    determinism.hold_threads(options.threads)
    print(json.dumps(cases.digests(options.only)))


if __name__ == "__main__":
    try:
        main()
    except VerbatimError as error:
        sys.exit(f"error: {error}")
