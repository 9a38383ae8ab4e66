"""Splits are the same on every machine and in every release of NumPy, and never leave a part empty."""

import numpy as np
import pytest

from experiment.data import split
from verbatim.errors import VerbatimError


def test_split_is_known_index_by_index() -> None:
    """Pinned, because records made years apart have to agree on what was held out."""
    parts = {part: indices.tolist() for part, indices in split(10, validation=0.2, test=0.3, seed=0).items()}

    assert parts == {"train": [0, 4, 5, 7, 9], "test": [1, 2, 3], "validation": [6, 8]}


def test_split_puts_each_image_in_one_part_in_sorted_order() -> None:
    parts = split(1797, validation=0.1, test=0.2, seed=3)

    assert {part: len(indices) for part, indices in parts.items()} == {"train": 1258, "test": 359, "validation": 180}
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(1797))
    assert all(indices.dtype == np.int64 and (np.diff(indices) > 0).all() for indices in parts.values())


def test_split_leaves_test_to_data_sets_that_bring_their_own() -> None:
    assert set(split(10, validation=0.2, test=None, seed=0)) == {"train", "validation"}


def test_another_seed_gives_another_split() -> None:
    a, b = (split(100, validation=0.2, test=0.2, seed=seed)["test"].tolist() for seed in (0, 1))

    assert a != b


def test_the_test_part_stays_when_validation_grows() -> None:
    a, b = (split(100, validation=validation, test=0.2, seed=0)["test"].tolist() for validation in (0.1, 0.5))

    assert a == b


def test_numpys_global_seed_has_no_say() -> None:
    np.random.seed(1)
    a = split(100, validation=0.2, test=0.2, seed=0)["test"].tolist()
    np.random.seed(2)

    assert a == split(100, validation=0.2, test=0.2, seed=0)["test"].tolist()


@pytest.mark.parametrize(
    ("validation", "test", "message"),
    [
        (0.0, 0.2, "data.validation: expected a fraction that takes 1 of 10 images or more, found 0.0"),
        (0.01, 0.2, "data.validation: expected a fraction that takes 1 of 10 images or more, found 0.01"),
        (-0.5, 0.2, "data.validation: expected a fraction that takes 1 of 10 images or more, found -0.5"),
        (float("nan"), 0.2, "data.validation: expected a fraction that takes 1 of 10 images or more, found nan"),
        (0.2, 0.0, "data.test: expected a fraction that takes 1 of 10 images or more, found 0.0"),
        (0.2, 1.0, "data.test: expected a fraction that takes 1 of 10 images or more, found 1.0"),
        (0.5, 0.5, "data.test + data.validation: expected 1 of 10 images or more left to train on, found 0.5 + 0.5"),
        (0.96, None, "data.validation: expected 1 of 10 images or more left to train on, found 0.96"),
    ],
)
def test_a_split_that_leaves_a_part_empty_is_refused(validation: float, test: float | None, message: str) -> None:
    with pytest.raises(VerbatimError) as error:
        split(10, validation=validation, test=test, seed=0)

    assert str(error.value) == message


def test_parts_that_would_take_more_than_all_are_refused() -> None:
    with pytest.raises(VerbatimError) as error:
        split(10, validation=0.5, test=0.9, seed=0)

    assert str(error.value) == (
        "data.test + data.validation: expected 1 of 10 images or more left to train on, found 0.9 + 0.5"
    )


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(VerbatimError) as error:
        split(10, validation=0.2, test=0.2, seed=-1)

    assert str(error.value) == "data.split_seed: expected 0 or more, found -1"
