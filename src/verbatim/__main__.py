"""The command line of the machinery: `python -m verbatim <command>`. Each command imports what it needs, none of them torch."""

import argparse
import importlib
import sys
from pathlib import Path

from verbatim.errors import VerbatimError

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = {
    "runs": ("verbatim.ledger", "list recorded runs"),
    "best": ("verbatim.multirun.best", "name the best run of a multirun"),
    "compare": ("verbatim.compare", "name the first thing that differs between two runs"),
    "reproduce": ("verbatim.reproduce", "make a run again from its record, and compare"),
    "report": ("verbatim.report", "write all runs and verdicts as a page for a browser"),
    "pack": ("verbatim.pack", "pack a run into one file for others"),
    "verify": ("verbatim.verify", "check a run or an archive to its last byte"),
    "drift": ("verbatim.drift", "check what is pinned against what is there"),
    "sbom": ("verbatim.sbom", "list what is shipped, and its licences"),
    "build": ("verbatim.image", "build an image"),
    "image_diff": ("verbatim.image_digest", "name what differs between two images"),
    "portability": ("verbatim.portable.proof", "prove the level `portable` here, and on emulated CPUs"),
    "devcontainer": ("verbatim.devcontainer", "write the devcontainer.json files, or check them"),
    "doctor": ("verbatim.doctor", "what is here against what is pinned"),
    "in_image": ("verbatim.container", "train or evaluate in an image"),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m verbatim", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "command", choices=COMMANDS, help="; ".join(f"{name}: {what}" for name, (_, what) in COMMANDS.items())
    )
    options = parser.parse_args(sys.argv[1:2])
    try:
        return int(importlib.import_module(COMMANDS[options.command][0]).main(sys.argv[2:], ROOT))
    except VerbatimError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
