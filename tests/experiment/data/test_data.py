"""The fingerprint covers all that training reads; splits are sorted, disjoint and the same everywhere."""

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from experiment.data import Data, check, make, split
from experiment.data.data import PARTS, Indices
from verbatim.errors import VerbatimError

N = 10
OVERLAP = "sample: splits: expected each image in one part at most, found one in two of them, or one that is not there"


def sample(**changes: Any) -> Data:
    parts: dict[str, Any] = {
        "name": "sample",
        "images": np.arange(N * 3 * 2 * 2, dtype=np.uint8).reshape(N, 3, 2, 2),
        "labels": np.arange(N) % 2,
        "classes": ("cat", "dog"),
        "scale": 1 / 255,
        "splits": split(N, validation=0.2, test=0.2, seed=0),
        "files": {"a.png": "sha256:aa", "b.png": "sha256:bb"},
    }
    return make(**parts | changes)


def splits(train: list[int], validation: list[int], test: list[int]) -> dict[str, Indices]:
    return {part: np.array(each, np.int64) for part, each in zip(PARTS, (train, validation, test), strict=True)}


def test_shape_is_that_of_one_image() -> None:
    assert sample().shape == (3, 2, 2)


def test_the_same_data_have_the_same_fingerprint() -> None:
    assert sample().fingerprint == sample().fingerprint


def test_names_of_files_do_not_change_the_fingerprint_of_an_array() -> None:
    assert sample(files={}, name="another").fingerprint == sample().fingerprint


def one_pixel() -> dict[str, Any]:
    images = np.array(sample().images)
    images[0, 0, 0, 0] ^= 1
    return {"images": images}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(one_pixel(), id="pixel"),
        pytest.param({"images": np.array(sample().images).reshape(N, 3, 4, 1)}, id="shape"),
        pytest.param({"labels": (np.arange(N) + 1) % 2}, id="labels"),
        pytest.param({"classes": ("cat", "dogs")}, id="class name"),
        pytest.param({"classes": ("cat", "dog", "cow")}, id="class without images"),
        pytest.param({"scale": 1 / 16}, id="scale"),
        pytest.param({"splits": split(N, validation=0.2, test=0.2, seed=1)}, id="split seed"),
        pytest.param({"splits": split(N, validation=0.3, test=0.2, seed=0)}, id="split size"),
    ],
)
def test_any_change_changes_the_fingerprint(changes: dict[str, Any]) -> None:
    assert sample(**changes).fingerprint != sample().fingerprint


def test_an_image_that_moves_from_train_to_test_changes_the_fingerprint() -> None:
    before = sample(splits=splits([0, 1, 2, 3], [4], [5]))
    after = sample(splits=splits([0, 1, 2], [4], [3, 5]))

    assert before.fingerprint != after.fingerprint


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"images": np.zeros((N, 3, 2, 2))},
            "sample: images: expected uint8 (N, C, H, W), found float64 (10, 3, 2, 2)",
        ),
        (
            {"images": np.zeros((N, 2, 2), np.uint8)},
            "sample: images: expected uint8 (N, C, H, W), found uint8 (10, 2, 2)",
        ),
        ({"labels": np.zeros(9)}, "sample: labels: expected one for each of 10 images, found 9"),
        ({"labels": np.full(N, 2)}, "sample: labels: expected 0 to 1, found 2"),
        ({"labels": np.full(N, -1)}, "sample: labels: expected 0 to 1, found -1"),
        ({"splits": splits([0, 1], [2], [1])}, OVERLAP),
        ({"splits": splits([0, 1], [2], [10])}, OVERLAP),
    ],
)
def test_make_refuses_what_does_not_fit(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(VerbatimError) as error:
        sample(**changes)

    assert str(error.value) == message


def test_check_gives_the_data_back_when_nothing_is_pinned_or_the_pin_holds() -> None:
    data = sample()

    assert check(data, None) is data
    assert check(data, data.fingerprint) is data


@pytest.mark.parametrize(
    ("files", "why"),
    [
        (None, ""),
        ({"a.png": "sha256:aa", "b.png": "sha256:00"}, "; the first file that differs is b.png"),
        ({"a.png": "sha256:aa"}, "; the first file that differs is b.png"),
        ({"0.png": "sha256:00", "a.png": "sha256:00"}, "; the first file that differs is 0.png"),
        ({"a.png": "sha256:aa", "b.png": "sha256:bb"}, "; every file is the same, the split is not"),
    ],
)
def test_check_refuses_other_data_and_names_the_first_file_that_differs(files: dict[str, str] | None, why: str) -> None:
    data = sample()

    with pytest.raises(VerbatimError) as error:
        check(data, "sha256:00", files)

    assert str(error.value) == (
        f"data.fingerprint: expected sha256:00, found {data.fingerprint}{why}\n"
        f"  next: restore the data and its split, or take them as they are: data.fingerprint={data.fingerprint}"
    )


def test_nothing_in_the_package_imports_torch_or_another_heavy_library() -> None:
    heavy = "{'torch', 'sklearn', 'scipy', 'pooch', 'rich', 'PIL'}"
    code = f"import sys, experiment.data as d; d.digits(); print({heavy} & {{m.split('.')[0] for m in sys.modules}})"
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)

    assert done.stdout == "set()\n"
