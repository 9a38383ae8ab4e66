"""A tolerance is asked for by name, measures every loss and metric, and never says that runs are the same."""

import math

import pytest

from conftest import ROOT, python
from planting import plain_rows, write_trace
from verbatim import tolerance
from verbatim.comparison import compare


@pytest.mark.parametrize(
    ("a", "b", "apart"),
    [(1.0, 1.0, 0.0), (1.0, 0.5, 0.5), (-1.0, 1.0, 2.0), (0.0, 0.0, 0.0), (0.0, 1e-9, 1.0), (math.nan, math.nan, 0.0),
     (math.inf, math.inf, 0.0), (math.nan, 1.0, math.inf), (math.inf, -math.inf, math.inf)],
)  # fmt: skip
def test_the_measure(a, b, apart):
    assert tolerance.relative(a, b) == tolerance.relative(b, a) == apart


def losses(factor, at):
    def change(run, folder):
        rows = plain_rows(12)
        rows[at][1] *= factor
        write_trace(folder, run, rows)

    return change


def test_the_largest_difference_is_named_and_decides(planted):
    a, b = planted("a", losses(1, 0)), planted("b", losses(1.001, 7))

    apart = tolerance.measure(compare(a, b, ROOT), a, b)
    close = python("-m", "verbatim", "compare", str(a), str(b), "--tolerance", "0.01")
    far = python("-m", "verbatim", "compare", str(a), str(b), "--tolerance", "0.0001")

    assert apart.where == "the loss of step 7"
    assert apart.relative == pytest.approx(0.000999, rel=1e-3)
    assert (close.returncode, far.returncode) == (0, 1)
    assert close.stdout.splitlines()[0].startswith("first cause: step, step 7: loss")
    assert close.stdout.splitlines()[-1] == (
        "within the tolerance of 0.01: the loss of step 7 is apart the most, by 0.000999. "
        "Close is not the same: no claim is made of any bit."
    )
    assert far.stdout.splitlines()[-1].startswith("not within the tolerance of 0.0001: ")


def test_metrics_count_as_well(planted, base):
    b = planted("b", lambda run, _: run.metrics.update(test_loss=run.metrics["test_loss"] * 2))

    apart = tolerance.measure(compare(base, b, ROOT), base, b)

    assert (apart.where, apart.relative) == ("test_loss", 0.5)
