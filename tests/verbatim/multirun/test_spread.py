"""Mean, deviation and interval over seeds: against scipy, and where there is nothing to tell."""

import math
import subprocess
import sys

import pytest
from scipy import stats

from conftest import ENVIRONMENT
from multirun_results import job, many
from verbatim.multirun.spread import groups, student, swept


@pytest.mark.parametrize("freedom", [*range(1, 41), 99, 100, 1000, 10001])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
def test_the_quantile_is_that_of_scipy(freedom, level):
    assert student(freedom, level) == pytest.approx(stats.t.ppf(0.5 + level / 2, freedom), rel=1e-9)


def test_a_group_is_the_jobs_of_equal_overrides_but_for_their_seed():
    values = [0.5, 0.25, 0.75, 0.625]
    jobs = [job(i, f"seed={i}", "model=cnn", value=value) for i, value in enumerate(values)]
    jobs += [job(9, "+seed=0", "model=mlp", value=0.125)]

    alone, together = groups(jobs)

    assert (alone.words, alone.values, alone.mean, alone.sd, alone.low, alone.high) == (
        ("model=mlp",), (0.125,), 0.125, None, None, None,
    )  # fmt: skip
    assert (together.words, together.values) == (("model=cnn",), tuple(values))
    expected = stats.t.interval(0.95, 3, loc=stats.tmean(values), scale=stats.sem(values))
    assert (together.mean, together.sd) == pytest.approx((stats.tmean(values), stats.tstd(values)))
    assert (together.low, together.high) == pytest.approx(expected)


def test_the_best_mean_comes_first_and_groups_without_one_last():
    jobs = [job(0, "a=1", "seed=0", value=0.5), job(1, "a=2", "seed=0", state="failed"), job(2, "a=3", "seed=0", value=0.25)]  # fmt: skip

    assert [group.words for group in groups(jobs)] == [("a=3",), ("a=1",), ("a=2",)]
    assert [group.words for group in groups(jobs, "maximize")] == [("a=1",), ("a=3",), ("a=2",)]


def test_jobs_without_a_value_are_told_and_not_averaged():
    jobs = [job(i, f"seed={i}", value=value) for i, value in enumerate([0.5, 0.25])]
    jobs += [job(2, "seed=2", state="failed"), {**jobs[0], "value": math.nan, "overrides": ["seed=3"]}]

    (group,) = groups(jobs)

    assert (group.values, group.mean, group.without) == ((0.5, 0.25), 0.375, 2)


def test_a_seed_that_was_given_twice_counts_once():
    jobs = [job(0, "seed=0", value=0.5), job(1, "seed=0", value=0.5), job(2, "seed=1", value=0.25)]

    assert groups(jobs)[0].values == (0.5, 0.25)


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e-200, 1e299])
def test_equal_values_have_no_spread_and_large_ones_do_not_overflow(value):
    (group,) = groups([job(seed, f"seed={seed}", value=value) for seed in range(7)])

    assert (group.mean, group.sd, group.low, group.high) == (value, 0.0, value, value)


def test_seeds_are_swept_only_where_nothing_else_differs():
    assert swept(many()["jobs"])
    assert not swept([job(0, "seed=0", "a=1", value=1.0), job(1, "seed=1", "a=2", value=1.0)])
    assert not swept([job(0, "model=cnn", value=1.0), job(1, "model=mlp", value=1.0)])
    assert not swept([])


def test_it_waits_for_no_large_library():
    script = (
        "import sys, verbatim.multirun.spread; print(sorted({'numpy', 'scipy', 'torch', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], env=ENVIRONMENT, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
