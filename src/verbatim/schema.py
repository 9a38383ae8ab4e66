"""The settings that every recorded script has, whatever it trains: configs/base.yaml holds their values.
The comment beside a field is what `--help` says of it.

A script of one's own has them by `base` among the defaults of its configuration; a schema of one's own names them as
`experiment.schema.Train` does.
"""

from dataclasses import dataclass

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from verbatim.settings import choice, number


@dataclass
class Determinism:
    level: str = choice(
        "exact", "seeded", "exact", "portable"
    )  # exact: the same bits on the same kind of machine; portable: on any x86-64 CPU with AVX2 and FMA
    threads: int = number(1, least=1)  # of an operator; another count gives other bits
    unlisted: str = choice("refuse", "refuse", "warn")  # at level portable: an operator that the level does not cover


@dataclass
class Machine:
    """How this machine makes a run. Like `paths` no part of the recipe: it reaches no bit."""

    workers: int | None = number(
        None, least=1
    )  # threads that share out large matrix products at level portable; null: the cores
    ranks: int = number(1, least=1)  # processes that share out the shards of a batch, started by torchrun
    resume: str = "auto"  # go on with an unfinished run of the recipe: auto, never, or that run's name
    checkpoints: float = number(0.03, least=0, below=1)  # the part of the time that checkpoints may take; 0: none


@dataclass
class Multirun:
    """How many runs of one command are made and judged. Like `machine` no part of the recipe."""

    objective: str = "validation_loss"  # a metric of the record: the best epoch's, never the test's
    goal: str = choice("auto", "auto", "minimize", "maximize")  # auto: maximize an accuracy
    at_once: int | None = number(None, least=1)  # jobs, on this machine; null: what cores and GPUs allow
    limit: int = number(1000, least=1)  # more jobs than this are taken for a slip
    retries: int = number(2, least=0)  # of a job that was lost: killed, or with its node
    again: bool = False  # run what is sealed again as well, and compare


@dataclass
class Tracker:
    name: str | None = choice(None, "tensorboard", "mlflow")  # what shows the run, once it is sealed; null: nothing


@dataclass
class Mlflow(Tracker):
    uri: str | None = None  # of a server; null: mlruns/mlflow.db
    experiment: str = "verbatim"  # the name there under which runs are listed


@dataclass
class Trace:
    parameters_every: int = number(
        10, least=0
    )  # steps between two digests of all parameters and large gradients; 0: never


@dataclass
class Paths:
    """Where things lie on this machine. With `machine` the one part of the configuration that is not part of the recipe."""

    runs: str = "runs"  # where runs are kept; relative to the project's folder, never to the current one
    sweeps: str = "sweeps"  # where multiruns are kept
    data: str = MISSING  # where downloads are kept
    folder: str | None = None  # your own images, for data=folder


PARTS = {
    "determinism": Determinism, "trace": Trace, "paths": Paths, "machine": Machine, "multirun": Multirun, "tracker": Tracker,
}  # fmt: skip


def register() -> None:
    """Make them known to Hydra."""
    store = ConfigStore.instance().store
    store(group="determinism/schema", name="determinism", node=Determinism, package="determinism")
    store(group="tracker/schema", name="tracker", node=Tracker, package="tracker")
    store(group="tracker/schema", name="mlflow", node=Mlflow, package="tracker")
    store(group="schema", name="base", node=PARTS, package="_global_")
