"""Multiruns: many runs of one command, planned, started on an engine, followed, and judged by one metric."""

import argparse
import sys
from typing import Any

from verbatim.errors import VerbatimError

ABOUT = """\
Make many runs, each recorded: every combination of the values that settings are given. A job whose recipe has a sealed outcome is
not run again; a multirun that was killed goes on with the same command."""
EXAMPLES = """\
examples:
  nox -s multirun -- seed=0,1,2 optimizer.lr=1e-2,1e-3            every combination: 6 runs
  nox -s multirun -- sweep=seeds model=cnn                        a sweep that is kept as a file, configs/sweep/seeds.yaml
  nox -s multirun -- hydra/sweeper=optuna 'optimizer.lr=tag(log,interval(1e-4,1e-1))'    searched, not enumerated
  nox -s multirun -- hydra/launcher=slurm seed=0,1,2              on Slurm; or ray: docs/clusters.md

settings: multirun.objective (a metric of the validation part), multirun.goal (auto, minimize, maximize), multirun.retries (of jobs that
were lost: killed, or with their node), and all those of nox -s train -- --help.
exit codes: 0 all jobs are sealed; 1 some failed, lack the objective, or gave another outcome than before; 2 could not be started; 130 Ctrl-C; 143 SIGTERM."""


WORDS = ("--multirun", "-m")  # by which Hydra knows one
PLACES = (("--config-dir", "-cd"), ("--config-name", "-cn"), ("--config-path", "-cp"))  # where Hydra is to read
SHOWS = {"--cfg", "-c", "--info", "-i", "--hydra-help"}  # Hydra's flags that print something, and run nothing
typed: list[str] = []  # the command line as the person gave it
places: list[str] = []  # those of `PLACES` in it: each job needs them too


def prepare(arguments: list[str]) -> bool:
    """Before Hydra reads the command line: turn the flags into settings, and let it know the launcher and the sweepers. False where
    many runs are not what is asked for: a configuration is to be shown."""
    parser = argparse.ArgumentParser(
        prog="nox -s multirun --", usage="%(prog)s [flags] [settings]", description=ABOUT, epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
    )  # fmt: skip
    parser.add_argument(
        "--again", action="store_true", help="run what is sealed again as well: another outcome fails the multirun"
    )
    parser.add_argument(
        "--at-once", metavar="N", help="jobs at a time, on this machine (default: cores by threads, or GPUs)"
    )
    parser.add_argument("--limit", metavar="N", help="how many jobs are meant, where there are more than 1,000")
    parser.add_argument(*WORDS, action="store_true", help=argparse.SUPPRESS)
    for names in PLACES:
        parser.add_argument(*names, help=argparse.SUPPRESS)
    typed[:] = [word for word in arguments[1:] if word not in WORDS]
    given, rest = parser.parse_known_args(arguments[1:])
    said = ((name, getattr(given, name[2:].replace("-", "_"))) for name, _ in PLACES)
    places[:] = [f"{name}={value}" for name, value in said if value]
    if not SHOWS.isdisjoint(word.partition("=")[0] for word in rest):
        arguments[1:] = [*places, *(word for word in rest if not _sweeps(word))]
        return False
    if flags := [word for word in rest if word.startswith("-")]:
        from verbatim.settings import suggest

        there = ("again", "at-once", "limit", "help")
        raise VerbatimError(
            flags[0], expected=f"one of --{', --'.join(there)}, or a setting", found="no such flag",
            then=suggest(flags[0].lstrip("-"), there, "--", "nox -s multirun -- --help"),
        )  # fmt: skip
    for flag, number in (("--at-once", given.at_once), ("--limit", given.limit)):
        if number is not None and not (number.isdecimal() and int(number)):
            raise VerbatimError(flag, expected="a whole number of at least 1", found=number, then=f"{flag} 2, say, or leave it out")  # fmt: skip
    values = {"again": given.again or None, "at_once": given.at_once, "limit": given.limit}
    settings = [f"multirun.{name}={str(v).lower()}" for name, v in values.items() if v is not None]
    arguments[1:] = ["--multirun", *places, *rest, *settings]

    from hydra.core.plugins import Plugins

    # Hydra takes plugins of a package `hydra_plugins` alone, and imports all that lies there at every start. These need no such package.
    known: Any = Plugins.instance().class_name_to_class  # before the next line: it runs its own plugins' files anew
    from verbatim.multirun.launcher import Launcher
    from verbatim.multirun.study import Study
    from verbatim.multirun.sweeper import Grid

    known |= {f"hydra_plugins.verbatim.{plugin.__name__}": plugin for plugin in (Launcher, Grid, Study)}
    return True


def refuse_foreign() -> None:
    """A job of Hydra's own launcher is made in the process that made the one before: it has that one's level, and what it left."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return
    target = HydraConfig.get().launcher._target_
    if not target.startswith("hydra_plugins.verbatim."):
        raise VerbatimError("hydra/launcher", expected="local, slurm or ray", found=target, then="begin the defaults of the configuration with `- base`, as configs/line.yaml does")  # fmt: skip


def _sweeps(word: str) -> bool:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return OverridesParser.create().parse_override(word).is_sweep_override()
    except HydraException:
        return False


def finish(code: Any) -> Any:
    """After Hydra is done: say what came out. `code`: the exit code so far."""
    from verbatim.errors import mendable
    from verbatim.multirun.launcher import finish as conclude

    try:
        said = conclude()
        return code or said
    except KeyboardInterrupt:  # once more, while the report was written
        return 130
    except Exception as error:
        if not (mend := mendable(error)):
            raise
        print(f"error: {mend}", file=sys.stderr)
        return 2
