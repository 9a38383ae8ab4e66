import pytest
from omegaconf import OmegaConf

from conftest import python
from experiment.schema import Adam, Train, Trainer
from verbatim import settings
from verbatim.errors import VerbatimError

REFUSED = [
    # (override, key, expected, found, next)
    ("optimizer.lrr=1", "optimizer.lrr", "one of betas, eps, fused, lr, weight_decay", "no key `lrr` there", "did you mean optimizer.lr?"),
    ("sed=1", "sed", "one of data, determinism, machine, model, multirun, optimizer, paths, seed, trace, tracker, trainer", "no key `sed` there", "did you mean seed?"),
    ("optimizer.lr=abc", "optimizer.lr", "a number above 0", "abc (a str)", "add optimizer.lr=0.003, say"),
    ("optimizer.lr=-1", "optimizer.lr", "a number above 0", "-1.0", "add optimizer.lr=0.003, say"),
    ("optimizer.lr=0", "optimizer.lr", "a number above 0", "0.0", "add optimizer.lr=0.003, say"),
    ("optimizer.lr=nan", "optimizer.lr", "a number above 0", "nan", "add optimizer.lr=0.003, say"),
    ("optimizer.lr=inf", "optimizer.lr", "a number above 0", "inf", "add optimizer.lr=0.003, say"),
    ("optimizer.betas=[0.9,1.0]", "optimizer.betas", "a number of at least 0 and below 1", "1.0", "add optimizer.betas=[0.9,0.999], say"),
    ("seed=null", "seed", "a value", "null", "add seed=0, say"),
    ("seed=", "seed", "a whole number of at least 0 and below 9.22337e+18", "nothing after the =", "add seed=0, say"),
    ("seed=-1", "seed", "a whole number of at least 0 and below 9.22337e+18", "-1", "add seed=0, say"),
    ("seed=1.5", "seed", "a whole number of at least 0 and below 9.22337e+18", "1.5 (a float)", "add seed=0, say"),
    ("trainer.epochs=0", "trainer.epochs", "a whole number of at least 1", "0", "add trainer.epochs=20, say"),
    ("trainer.epochs=abc", "trainer.epochs", "a whole number of at least 1", "abc (a str)", "add trainer.epochs=20, say"),
    ("trainer.epochs=null", "trainer.epochs", "a value", "null", "add trainer.epochs=20, say"),
    ("trainer.amp=maybe", "trainer.amp", "true or false", "maybe", "add trainer.amp=false, say"),
    ("trainer.schedule=foo", "trainer.schedule", "one of constant, cosine", "foo", "add trainer.schedule=constant, say"),
    ("trainer.clip_norm=0", "trainer.clip_norm", "a number above 0", "0.0", "add trainer.clip_norm=1, say, or leave it out"),
    ("data.validation=1", "data.validation", "a number above 0 and below 1", "1.0", "add data.validation=0.1, say"),
    ("model.channels=[8,0]", "model.channels", "a whole number of at least 1", "0", "add model.channels=[32,64], say"),
    ("model.channels=[a]", "model.channels[0]", "a whole number", "a (a str)", settings.SHOW),
    ("model.channels=8", "model.channels", "a list, as [1,2]", "a single value", "add model.channels=[32,64], say"),
    ("model.hidden=8", "model.hidden", "one of batch_norm, channels, dropout", "no key `hidden` there", settings.SHOW),
    ("multirun.goal=max", "multirun.goal", "one of auto, minimize, maximize", "max", "did you mean multirun.goal=maximize?"),
    ("data=digit", "data", "one of cifar10, digits, fashion_mnist, folder, mnist", "digit", "did you mean data=digits?"),
    ("determinism=portabel", "determinism", "one of exact, portable, seeded", "portabel", "did you mean determinism=portable?"),
    ("determinism.level=best", "determinism.level", "one of seeded, exact, portable", "best", "add determinism.level=seeded, say"),
    ("hydra/launcher=slurmm", "hydra/launcher", "one of local, ray, slurm", "slurmm", "did you mean hydra/launcher=slurm?"),
    ("hydra/sweeper=bsic", "hydra/sweeper", "one of grid, optuna", "bsic", settings.SHOW),
    ("hydra.launcher.partition=gpu", "hydra.launcher.partition", "one of engine", "no key `partition` there", "add hydra/launcher=…: its settings come with it"),
    ("model=null", "configuration", "one that composes", "Config group override must be a string or a list. Got NoneType", settings.SHOW),
    ("lr", "lr", "key=value", "no =", "add lr=…, or see nox -s train -- --help"),
    ("model.channels=[1,", "model.channels", "a value with its brackets closed", "[1,", "did you mean 'model.channels=[1]'?"),
    ("seed=range(0,10", "seed", "a value with its brackets closed", "range(0,10", "did you mean 'seed=range(0,10)'?"),
    ("seed=a)", "seed", "a value that Hydra can read", "a)", "where it is text with marks of its own, add \"seed='…'\""),
]  # fmt: skip


@pytest.mark.parametrize(("override", "key", "expected", "found", "then"), REFUSED, ids=[r[0] for r in REFUSED])
def test_a_wrong_setting_is_refused_with_key_expected_found_and_what_to_type_next(train, override, key, expected, found, then):  # fmt: skip
    done = train(override)

    assert done.code == 2
    assert done.err == f"error: {key}: expected {expected}, found {found}\n  next: {then}\n"
    assert done.folder is None


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--xyz"], "--xyz: expected a setting, as key=value, or a flag, found no such flag\n  next: --help lists what there is"),
        (["seed=1", "--cgf", "job"], "--cgf: expected a setting, as key=value, or a flag, found no such flag\n  next: did you mean --cfg?"),
        (["--cfg"], "--cfg/-c: expected one argument\n  next: --help shows how it is called"),
        (["seed=1", "--cfg", "job", "model=mlp"], "model=mlp: expected settings before flags, all together, found one after a flag\n  next: put it before the flags"),
    ],
)  # fmt: skip
def test_a_flag_that_there_is_not_is_refused_without_a_page_of_usage(words, says):
    done = python("-m", "experiment.train", *words)

    assert (done.returncode, done.stderr, done.stdout) == (2, f"error: {says}\n", "")


def test_a_wrong_setting_is_refused_before_torch_is_imported():
    done = python("-X", "importtime", "-m", "experiment.train", "optimizer.lr=-1")

    assert done.returncode == 2
    assert " torch\n" not in done.stderr
    assert " omegaconf\n" in done.stderr


def test_every_setting_inside_its_range_passes():
    settings.check(OmegaConf.structured(Trainer))
    settings.check(OmegaConf.structured(Adam(_target_="x")))


def test_a_missing_value_is_asked_for():
    with pytest.raises(VerbatimError) as error:
        settings.check(OmegaConf.structured(Train))

    assert str(error.value) == "seed: expected a value, found none\n  next: add seed=…"
