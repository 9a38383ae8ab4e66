"""The bundled digits are scikit-learn's, bit for bit, and a changed file is refused."""

import shutil
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from experiment.data import digits
from verbatim.errors import VerbatimError

CONFIG = Path(__file__).parents[3] / "configs" / "data" / "digits.yaml"
PINNED = "sha256:09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"


@pytest.fixture
def bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of scikit-learn's file, found in place of the real one."""
    spec = find_spec("sklearn")
    assert spec is not None
    assert spec.submodule_search_locations
    path = tmp_path / "sklearn" / "datasets" / "data" / "digits.csv.gz"
    path.parent.mkdir(parents=True)
    shutil.copy(Path(spec.submodule_search_locations[0], "datasets", "data", "digits.csv.gz"), path)
    (tmp_path / "sklearn" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "sklearn", raising=False)
    return path


def test_digits_are_scikit_learns() -> None:
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]

    data, theirs = digits(), load_digits()

    assert isinstance(data.images, np.ndarray)
    assert data.images.dtype == np.uint8
    assert data.shape == (1, 8, 8)
    assert np.array_equal(data.images[:, 0], theirs.images)
    assert np.array_equal(data.labels, theirs.target)
    assert data.classes == tuple(map(str, theirs.target_names))
    assert data.images.max() * data.scale == 1
    assert data.files == {"digits.csv.gz": PINNED}


def test_training_may_write_to_the_arrays() -> None:
    """torch.from_numpy warns of a read-only array."""
    data = digits()

    assert isinstance(data.images, np.ndarray)
    assert data.images.flags.writeable
    assert data.labels.flags.writeable


def test_the_fingerprint_is_the_same_on_every_machine() -> None:
    known = "sha256:f454f7b44a84324cd64ad9b2ca7252b21e5a744da5e6ed59fa35c9da8771aeda"
    config = OmegaConf.load(CONFIG)
    del config["defaults"]

    assert digits().fingerprint == known
    assert instantiate(config).fingerprint == known


def test_another_split_of_the_same_pixels_is_refused_by_the_pin() -> None:
    pinned, other = digits().fingerprint, digits(split_seed=1).fingerprint

    with pytest.raises(VerbatimError) as error:
        digits(split_seed=1, fingerprint=pinned)

    assert str(error.value) == (
        f"data.fingerprint: expected {pinned}, found {other}\n"
        f"  next: restore the data and its split, or take them as they are: data.fingerprint={other}"
    )


def test_the_copy_is_read(bundled: Path) -> None:
    """The control of the next test: without a flipped bit, all is well."""
    assert digits().files == {bundled.name: PINNED}


def test_a_flipped_bit_is_refused(bundled: Path, flip: Callable[[Path], None]) -> None:
    flip(bundled)

    with pytest.raises(VerbatimError) as error:
        digits()

    assert str(error.value).startswith(f"{bundled}: expected {PINNED}, found sha256:")
    assert str(error.value).endswith("\n  next: install the locked environment again")


def test_a_missing_file_is_named(bundled: Path) -> None:
    bundled.unlink()

    with pytest.raises(VerbatimError) as error:
        digits()

    assert str(error.value) == (
        f"{bundled}: expected the digits that scikit-learn brings, found no file\n"
        "  next: install the locked environment again"
    )


def test_a_missing_scikit_learn_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)  # how Python itself marks a module that can't be imported

    with pytest.raises(VerbatimError) as error:
        digits()

    assert str(error.value) == (
        "scikit-learn: expected it installed, for the digits it brings, found none\n"
        "  next: install the locked environment again"
    )


def test_digits_are_there_in_a_blink() -> None:
    """3 ms here, fingerprint and all; the bound is wide: importing scikit-learn alone would pass it."""
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        digits()
        seconds.append(time.perf_counter() - start)

    assert min(seconds) < 0.5
