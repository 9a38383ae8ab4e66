import pytest
from omegaconf import OmegaConf

from conftest import python
from experiment.schema import Adam, Train, Trainer
from verbatim import settings
from verbatim.errors import VerbatimError

REFUSED = [
    # (override, key, expected, found)
    ("optimizer.lrr=1", "optimizer.lrr", "one of betas, eps, fused, lr, weight_decay", "no key `lrr` there"),
    (
        "sed=1",
        "sed",
        "one of data, determinism, machine, model, multirun, optimizer, paths, seed, trace, tracker, trainer",
        "no key `sed` there",
    ),
    ("optimizer.lr=abc", "optimizer.lr", "a value of type Float", "abc (a str)"),
    ("optimizer.lr=-1", "optimizer.lr", "a number above 0", "-1.0"),
    ("optimizer.lr=0", "optimizer.lr", "a number above 0", "0.0"),
    ("optimizer.lr=nan", "optimizer.lr", "a number above 0", "nan"),
    ("optimizer.lr=inf", "optimizer.lr", "a number above 0", "inf"),
    ("optimizer.betas=[0.9,1.0]", "optimizer.betas", "a number of at least 0 and below 1", "1.0"),
    ("seed=null", "seed", "a value", "null"),
    ("seed=-1", "seed", "a whole number of at least 0 and below 9.22337e+18", "-1"),
    ("seed=1.5", "seed", "a value of type Integer", "1.5 (a float)"),
    ("trainer.epochs=0", "trainer.epochs", "a whole number of at least 1", "0"),
    ("trainer.epochs=null", "trainer.epochs", "a value", "null"),
    ("trainer.schedule=foo", "trainer.schedule", "one of constant, cosine", "foo"),
    ("trainer.clip_norm=0", "trainer.clip_norm", "a number above 0", "0.0"),
    ("data.validation=1", "data.validation", "a number above 0 and below 1", "1.0"),
    ("model.channels=[8,0]", "model.channels", "a whole number of at least 1", "0"),
    ("model.channels=8", "model.channels", "a list, as [1,2]", "a single value"),
    ("model.hidden=8", "model.hidden", "one of batch_norm, channels, dropout", "no key `hidden` there"),
    ("data=digit", "data", "one of cifar10, digits, fashion_mnist, folder, mnist", "digit"),
    ("determinism=portabel", "determinism", "one of exact, portable, seeded", "portabel"),
    ("determinism.level=best", "determinism.level", "one of seeded, exact, portable", "best"),
    (
        "model=null",
        "configuration",
        "one that composes",
        "Config group override must be a string or a list. Got NoneType",
    ),
    ("lr", "lr", "key=value", "missing EQUAL at '<EOF>'"),
    ("model.channels=[1,", "model.channels=[1,", "key=value", "no viable alternative at input '[1,'"),
]


@pytest.mark.parametrize(("override", "key", "expected", "found"), REFUSED, ids=[r[0] for r in REFUSED])
def test_a_wrong_setting_is_refused_with_key_expected_and_found(train, override, key, expected, found):
    done = train(override)

    assert done.code == 2
    assert done.err.splitlines()[0] == f"error: {key}: expected {expected}, found {found}"
    assert "Traceback" not in done.err
    assert done.folder is None


def test_a_near_miss_is_suggested(train):
    assert "next: did you mean optimizer.lr?" in train("optimizer.lrr=1").err
    assert "next: did you mean data=digits?" in train("data=digit").err


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
