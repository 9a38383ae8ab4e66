import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from conftest import ROOT
from experiment import schema
from verbatim.multirun.compose import Composer


@pytest.fixture
def loader():
    schema.register()
    with initialize_config_dir(str(ROOT / "configs"), version_base="1.3"):
        yield GlobalHydra.instance().config_loader()


@pytest.fixture
def composer(loader):
    return Composer(loader, loader.load_configuration("train", [], RunMode.MULTIRUN))


def by_hydra(loader, words):
    config = loader.load_configuration("train", words, RunMode.RUN)
    with open_dict(config):
        del config["hydra"]
    return config


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["seed=3"],
        ["seed=3", "optimizer.lr=1e-2"],
        ["optimizer.lr=0.5", "model=mlp", "model.hidden=[8,8]", "optimizer=sgd"],
        ["experiment=digits_vit", "trainer.epochs=2"],
        ["model=vae", "+model.more=1"],
        ["++trainer.epochs=3", "trainer.clip_norm=null"],
        ["paths.data='a b,c=d'", "data=folder", "paths.folder=/x"],
        ["optimizer={_target_: torch.optim.SGD, lr: 1.0}"],
        ["determinism=portable", "trainer.monitor=accuracy"],
        ["~experiment"],
    ],
    ids=" ".join,
)
def test_a_job_is_composed_as_hydra_composes_it(loader, composer, words):
    try:
        expected = by_hydra(loader, words)
    except (HydraException, OmegaConfBaseException) as refused:  # and refuses what Hydra refuses
        with pytest.raises(type(refused)):
            composer(words)
        return

    assert OmegaConf.to_yaml(composer(words)) == OmegaConf.to_yaml(expected)
    assert OmegaConf.get_type(composer(words)) is OmegaConf.get_type(expected)


def test_one_job_leaves_nothing_to_the_next(loader, composer):
    composer(["seed=1", "optimizer.lr=0.7", "+trace.more=1"])

    assert OmegaConf.to_yaml(composer(["seed=2"])) == OmegaConf.to_yaml(by_hydra(loader, ["seed=2"]))


def test_hydra_says_what_the_job_was_called_with(composer):
    words = ["model=mlp", "seed=4"]
    composer.announce(words)

    assert HydraConfig.get().overrides.task == words
    assert HydraConfig.get().runtime.choices.model == "mlp"


@pytest.mark.parametrize("word", ["sed=1", "model=foo", "seed=abc", "trainer.epoch=1"])
def test_what_hydra_refuses_is_refused(composer, word):
    with pytest.raises((HydraException, OmegaConfBaseException)):
        composer([word])
