"""The types and ranges of every setting that `verbatim.schema` has not: Hydra refuses a wrong name or type by them,
`verbatim.settings.check` a wrong range.

The YAML files of configs/ hold the values; each starts from its class here. Nothing here imports torch.
"""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from verbatim import schema
from verbatim.schema import Determinism, Machine, Multirun, Paths, Trace, Tracker
from verbatim.settings import choice, number

# ------------------------------------------------------------------------------------------------------------- data


@dataclass
class Split:
    _target_: str = MISSING
    validation: float = number(0.1, above=0, below=1)  # the part of the training images that picks the best epoch
    split_seed: int = number(0, least=0)
    fingerprint: str | None = None  # refused where the data differ; null: recorded, not compared


@dataclass
class Digits(Split):
    test: float = number(0.2, above=0, below=1)


@dataclass
class Idx(Split):
    name: str = MISSING
    url: str = MISSING
    sha256: dict[str, str] = MISSING
    files: dict[str, str] = MISSING
    classes: list[str] = MISSING
    folder: str = MISSING


@dataclass
class Cifar10(Split):
    url: str = MISSING
    sha256: str = MISSING
    folder: str = MISSING


@dataclass
class Folder(Split):
    test: float = number(0.2, above=0, below=1)
    path: str | None = None
    size: int = number(32, least=4, most=1024)  # pixels, height and width
    in_memory: bool = True
    manifest: str | None = None


# ------------------------------------------------------------------------------------------------------------ model


@dataclass
class Mlp:
    _target_: str = "experiment.models.Mlp"
    hidden: list[int] = number([256, 256], least=1)
    dropout: float = number(0.0, least=0, below=1)


@dataclass
class Cnn:
    _target_: str = "experiment.models.Cnn"
    channels: list[int] = number([32, 64], least=1)
    batch_norm: bool = False
    dropout: float = number(0.0, least=0, below=1)


@dataclass
class Vit:
    _target_: str = "experiment.models.Vit"
    patch: int = number(2, least=1)
    width: int = number(64, least=1)
    depth: int = number(4, least=1)
    heads: int = number(4, least=1)
    dropout: float = number(0.0, least=0, below=1)


@dataclass
class Vae:
    _target_: str = "experiment.models.Vae"
    x_dim: int | None = number(None, least=1)
    hidden_dim: int = number(400, least=1)
    latent_dim: int = number(20, least=1)


# -------------------------------------------------------------------------------------------------------- optimizer


@dataclass
class Optimizer:
    _target_: str = MISSING
    _partial_: bool = True
    lr: float = number(3e-3, above=0)
    weight_decay: float = number(0.0, least=0)
    fused: bool = True  # one kernel for the whole update: the same on CPU and GPU, and 0.8 of the time


@dataclass
class Sgd(Optimizer):
    momentum: float = number(0.9, least=0, below=1)
    nesterov: bool = False


@dataclass
class Adam(Optimizer):
    betas: list[float] = number([0.9, 0.999], least=0, below=1)
    eps: float = number(1e-8, above=0)


# ---------------------------------------------------------------------------------------------------------- trainer


@dataclass
class Trainer:
    epochs: int = number(20, least=1)
    batch_size: int = number(64, least=1)
    accumulate: int = number(1, least=1)  # parts in which a batch (or a shard of it) goes through the model
    shards: int = number(1, least=1)  # pieces of a batch, a power of two, that up to as many ranks share out
    parallel: str = choice(
        "tree", "tree", "ddp"
    )  # ddp: DistributedDataParallel, whose bits depend on the number of ranks
    ranks: int | None = number(None, least=1)  # for ddp alone: how many; part of the recipe
    clip_norm: float | None = number(None, above=0)
    schedule: str = choice("constant", "constant", "cosine")
    warmup_steps: int = number(0, least=0)
    patience: int | None = number(None, least=1)  # epochs without a better validation before training ends
    monitor: str = choice("loss", "loss", "accuracy")
    max_steps: int | None = number(None, least=1)
    device: str = choice("auto", "auto", "cpu", "cuda")
    amp: bool = False  # bfloat16 where autocast allows it
    workers: int = number(0, least=0)  # processes that load images which do not fit in memory


@dataclass
class Train:
    seed: int = number(MISSING, least=0, below=2**63)
    data: Any = MISSING
    model: Any = MISSING
    optimizer: Any = MISSING
    trainer: Trainer = field(default_factory=Trainer)
    determinism: Determinism = field(default_factory=Determinism)
    trace: Trace = field(default_factory=Trace)
    paths: Paths = field(default_factory=Paths)
    machine: Machine = field(default_factory=Machine)
    multirun: Multirun = field(default_factory=Multirun)
    tracker: Tracker = field(default_factory=Tracker)


@dataclass
class Evaluate:
    run: str = MISSING
    split: str = choice("test", "train", "validation", "test")
    weights: str = "model.safetensors"
    device: str = choice("auto", "auto", "cpu", "cuda")
    paths: Paths = field(default_factory=Paths)


def register() -> None:
    """Make every schema known to Hydra, as `<group>/schema/<name>`: apart from the options that people choose from."""
    schema.register()
    store = ConfigStore.instance().store
    groups: dict[str, dict[str, type]] = {
        "data": {"digits": Digits, "idx": Idx, "cifar10": Cifar10, "folder": Folder},
        "model": {"mlp": Mlp, "cnn": Cnn, "vit": Vit, "vae": Vae},
        "optimizer": {"sgd": Sgd, "adam": Adam},
        "trainer": {"trainer": Trainer},
    }
    for group, schemas in groups.items():
        for name, node in schemas.items():
            store(group=f"{group}/schema", name=name, node=node, package=group)
    store(group="schema", name="train", node=Train, package="_global_")
    store(group="schema", name="evaluate", node=Evaluate, package="_global_")
