"""Runs a Hydra application as a command: fixed hash seed, errors as people can read them, exit codes that scripts can use.

0 done; 1 a defect in the code (with its traceback); 2 something to mend, said in one screen; 130 Ctrl-C; 143 SIGTERM.
"""

import argparse
import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from verbatim import determinism
from verbatim.errors import Interrupted, VerbatimError, mendable
from verbatim.ranks import LostError

T = TypeVar("T")
begun: list[Any] = []  # configurations that the task, or a multirun of it, has begun with
CONFIGS = str(Path(__file__).resolve().parents[2] / "configs")


def task(main: Callable[[Any], T]) -> Callable[[Any], T]:
    """Goes under `hydra.main`: ends the process on what a person can mend, before Hydra writes of a failed job."""

    @functools.wraps(main)
    def guarded(config: Any) -> T:
        from verbatim import multirun, settings

        begun.append(config)
        try:
            multirun.refuse_foreign()
            settings.check(config)
            return main(config)
        except KeyboardInterrupt:
            sys.exit(130)
        except Interrupted:
            sys.exit(143)
        except Exception as error:
            if mend := mendable(error):
                sys.exit(_refuse(mend))
            raise

    return guarded


def fingerprints(of: Callable[[Any], str]) -> Callable[[Callable[[Any], T]], Callable[[Any], T]]:
    """Goes between `hydra.main` and `task`. `of`: the fingerprint of the data that a configuration's node `data` names; with it a
    multirun knows the whole recipe of a job before it starts it."""

    def mark(main: Callable[[Any], T]) -> Callable[[Any], T]:
        main.fingerprint = of  # type: ignore[attr-defined]
        return main

    return mark


def run(main: Callable[[], Any]) -> None:
    """Run a function decorated with `hydra.main`, and end the process. `--multirun` among its arguments makes many runs of it."""
    determinism.fix_hash_seed()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises what it would print: it is printed here, in one form
    from verbatim import multirun, schema

    schema.register()
    many = False
    try:
        many = not {*multirun.WORDS}.isdisjoint(sys.argv[1:]) and multirun.prepare(sys.argv)
        if not many:
            _refuse_words(sys.argv[1:])
        _run(main)
    except VerbatimError as error:  # of the command line alone: what comes later ends in `_run`
        sys.exit(_refuse(error))
    except SystemExit as ended:
        sys.exit(multirun.finish(ended.code) if many else ended.code)
    if many:
        sys.exit(multirun.finish(0))


def _refuse_words(words: list[str]) -> None:
    """A flag that Hydra does not know, or a setting where it takes none: it would print its own usage, of a page."""
    from hydra._internal.utils import get_args_parser

    from verbatim.settings import suggest

    parser = get_args_parser()
    parser.exit_on_error = False
    try:
        rest = parser.parse_known_args(words)[1]
    except argparse.ArgumentError as error:
        raise VerbatimError(f"{error.argument_name}: {error.message}", then="--help shows how it is called") from None
    if rest:
        word, flags = rest[0], [flag[2:] for flag in parser._option_string_actions if flag.startswith("--")]
        if word.startswith("-"):
            raise VerbatimError(word, expected="a setting, as key=value, or a flag", found="no such flag", then=suggest(word.lstrip("-"), flags, "--", "--help lists what there is"))  # fmt: skip
        raise VerbatimError(word, expected="settings before flags, all together", found="one after a flag", then="put it before the flags")  # fmt: skip


def _run(main: Callable[[], Any]) -> None:
    from omegaconf import OmegaConf

    from verbatim.settings import described

    # For the help of an application's configuration, which is a template: what looks like a variable in it is none.
    OmegaConf.register_new_resolver(
        "verbatim.settings", lambda *, _root_: described(_root_).replace("$", "$$"), replace=True
    )
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, `head` say, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        # Before the task has begun, it is the configuration that Hydra refuses, by whatever exception. After, it is a defect.
        mend = mendable(error)
        if begun and not mend:
            raise
        from verbatim.settings import explain

        sys.exit(_refuse(mend or explain(error)))
    except KeyboardInterrupt:
        sys.exit(130)
    except Interrupted:
        sys.exit(143)


def _refuse(error: VerbatimError) -> int:
    """Of several ranks that have lost another, the first says so."""
    if isinstance(error, LostError) and os.environ.get("RANK", "0") != "0":
        return 2
    from verbatim.progress import console

    console(stderr=True).print(f"error: {error}", style="red", markup=False, soft_wrap=True)
    return 2
