"""The types and ranges of every setting that `verbatim.schema` has not: Hydra refuses a wrong name or type by them,
`verbatim.settings.check` a wrong range.

The YAML files of configs/ hold the values; each starts from its class here. The comment beside a field is what `--help` says of it.
Nothing here imports torch.
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
    _target_: str = MISSING  # the class or function that makes it
    validation: float = number(0.1, above=0, below=1)  # the part of the training images that picks the best epoch
    split_seed: int = number(0, least=0)  # which images are for validation and test
    fingerprint: str | None = None  # refused where the data differ; null: recorded, not compared


@dataclass
class Digits(Split):
    test: float = number(0.2, above=0, below=1)  # the part of the images that tests the best epoch


@dataclass
class Idx(Split):
    name: str = MISSING  # of the data set, as messages say it
    url: str = MISSING  # where its files are, for what is not there yet
    sha256: dict[str, str] = MISSING  # of each file: another is refused
    files: dict[str, str] = MISSING  # their names there
    classes: list[str] = MISSING  # names, in the order of the labels
    folder: str = MISSING  # where downloads are kept


@dataclass
class Cifar10(Split):
    url: str = MISSING  # of the archive, where it is not there yet
    sha256: str = MISSING  # of the archive: another is refused
    folder: str = MISSING  # where downloads are kept


@dataclass
class Folder(Split):
    test: float = number(0.2, above=0, below=1)  # the part of the images that tests the best epoch
    path: str | None = None  # one folder in it for each class: paths.folder
    size: int = number(32, least=4, most=1024)  # pixels, height and width
    in_memory: bool = True  # false: each image is read when it is needed, by trainer.workers processes
    manifest: str | None = None  # a sha256sum file elsewhere than <path>/SHA256SUMS


# ------------------------------------------------------------------------------------------------------------ model


@dataclass
class Mlp:
    _target_: str = "experiment.models.Mlp"  # the class or function that makes it
    hidden: list[int] = number([256, 256], least=1)  # width of each hidden layer
    dropout: float = number(0.0, least=0, below=1)  # the part of the activations that a step leaves out


@dataclass
class Cnn:
    _target_: str = "experiment.models.Cnn"  # the class or function that makes it
    channels: list[int] = number([32, 64], least=1)  # of each convolution
    batch_norm: bool = False  # over each shard of a batch
    dropout: float = number(0.0, least=0, below=1)  # the part of the activations that a step leaves out


@dataclass
class Vit:
    _target_: str = "experiment.models.Vit"  # the class or function that makes it
    patch: int = number(2, least=1)  # pixels; the image's height and width are multiples of it
    width: int = number(64, least=1)  # values that stand for a patch
    depth: int = number(4, least=1)  # blocks
    heads: int = number(4, least=1)  # of the attention in each block
    dropout: float = number(0.0, least=0, below=1)  # the part of the activations that a step leaves out


@dataclass
class Vae:
    _target_: str = "experiment.models.Vae"  # the class or function that makes it
    x_dim: int | None = number(None, least=1)  # values of one image; null: as the data say
    hidden_dim: int = number(400, least=1)  # width of the hidden layers
    latent_dim: int = number(20, least=1)  # values that an image is coded in


# -------------------------------------------------------------------------------------------------------- optimizer


@dataclass
class Optimizer:
    _target_: str = MISSING  # the class or function that makes it
    _partial_: bool = True  # it gets the parameters later
    lr: float = number(3e-3, above=0)  # learning rate, at its highest
    weight_decay: float = number(0.0, least=0)  # as torch has it: 0 none
    fused: bool = True  # one kernel for the whole update: the same on CPU and GPU, and 0.8 of the time


@dataclass
class Sgd(Optimizer):
    momentum: float = number(0.9, least=0, below=1)  # 0: none
    nesterov: bool = False  # Nesterov's momentum


@dataclass
class Adam(Optimizer):
    betas: list[float] = number([0.9, 0.999], least=0, below=1)  # decay of the means of gradient and square
    eps: float = number(1e-8, above=0)  # added to the divisor


# ---------------------------------------------------------------------------------------------------------- trainer


@dataclass
class Trainer:
    epochs: int = number(20, least=1)  # times through the training images, at most
    batch_size: int = number(64, least=1)  # images of a step, all ranks together
    accumulate: int = number(1, least=1)  # parts in which a batch (or a shard of it) goes through the model
    shards: int = number(1, least=1)  # pieces of a batch, a power of two, that up to as many ranks share out
    parallel: str = choice(
        "tree", "tree", "ddp"
    )  # ddp: DistributedDataParallel, whose bits depend on the number of ranks
    ranks: int | None = number(None, least=1)  # for ddp alone: how many; part of the recipe
    clip_norm: float | None = number(None, above=0)  # gradients longer than this are shortened to it; null: none are
    schedule: str = choice("constant", "constant", "cosine")  # of the learning rate after the warmup; cosine: down to 0
    warmup_steps: int = number(0, least=0)  # over which the learning rate rises from 0
    patience: int | None = number(None, least=1)  # epochs without a better validation before training ends
    monitor: str = choice("loss", "loss", "accuracy")  # what of the validation part picks the best epoch
    max_steps: int | None = number(None, least=1)  # training ends after as many; null: after the epochs
    device: str = choice("auto", "auto", "cpu", "cuda")  # auto: the GPU, where there is one
    amp: bool = False  # bfloat16 where autocast allows it
    workers: int = number(0, least=0)  # processes that load images which do not fit in memory


@dataclass
class Train:
    seed: int = number(MISSING, least=0, below=2**63)  # of weights, order of images, dropout
    data: Any = MISSING  # what is learned from
    model: Any = MISSING  # what learns
    optimizer: Any = MISSING  # how weights follow from gradients
    trainer: Trainer = field(default_factory=Trainer)  # the training loop
    determinism: Determinism = field(default_factory=Determinism)  # what is promised of the bits
    trace: Trace = field(default_factory=Trace)  # what is recorded of each step
    paths: Paths = field(default_factory=Paths)  # where things lie on this machine: no part of the recipe
    machine: Machine = field(default_factory=Machine)  # how this machine makes the run: no part of the recipe
    multirun: Multirun = field(default_factory=Multirun)  # how many runs are made and judged: no part of the recipe
    tracker: Tracker = field(default_factory=Tracker)  # where else a run is shown: no part of the recipe


@dataclass
class Evaluate:
    run: str = MISSING  # its folder or its name, or latest
    split: str = choice("test", "train", "validation", "test")  # which part of the data
    weights: str = "model.safetensors"  # of the best epoch; last.safetensors: of the last
    device: str = choice("auto", "auto", "cpu", "cuda")  # auto: the GPU, where there is one
    paths: Paths = field(default_factory=Paths)  # where things lie on this machine


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
