"""What a `_target_` makes, and what is said where it can't: a class of one's own, without a schema."""

import sys

import pytest
from omegaconf import OmegaConf

from verbatim import targets
from verbatim.errors import VerbatimError

MINE = """
class Plain:
    def __init__(self, shape, width, depth=2):
        self.made = [shape] * (width + depth)

class Typed:
    def __init__(self, shape, width: int, rate: "float" = 0.5):
        self.made = (shape, width + 0, rate + 0)

class Any:
    def __init__(self, shape, **settings):
        self.made = settings

class Outer:
    def __init__(self, inner):
        self.made = inner

class Broken:
    def __init__(self, shape):
        self.nothing.made = shape
"""


@pytest.fixture(autouse=True)
def mine(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_models.py").write_text(MINE)
    (tmp_path / "own_broken.py").write_text("import none_such_module\n")
    yield
    sys.modules.pop("own_models", None)


def make(**node):
    return targets.make(OmegaConf.create({"model": node}).model, shape=1)


def test_what_fits_is_made():
    assert make(_target_="own_models.Typed", width=3).made == (1, 3, 0.5)
    assert make(_target_="own_models.Any", width=3, **{"else": 4}).made == {"width": 3, "else": 4}
    partial = OmegaConf.create({"_target_": "own_models.Typed", "_partial_": True, "width": 3})
    assert targets.make(partial, 2).made == (2, 3, 0.5)


@pytest.mark.parametrize(
    ("node", "says"),
    [
        ({"_target_": "own_models.Plian"}, "model._target_: expected a class that can be imported, found own_models.Plian\n  next: did you mean model._target_=own_models.Plain?"),
        ({"_target_": "own_models.typed"}, "found own_models.typed\n  next: did you mean model._target_=own_models.Typed?"),
        ({"_target_": "own_models.Xyz"}, "found own_models.Xyz\n  next: own_models has Plain, Typed, Any, Outer, Broken"),
        ({"_target_": "verbatim.target.make"}, "next: did you mean model._target_=verbatim.targets.make?"),
        ({"_target_": "verbatm.targets.make"}, "next: did you mean model._target_=verbatim.targets.make?"),
        ({"_target_": "own_models"}, "found own_models, a module\n  next: own_models has Plain"),
        ({"_target_": "own_broken.Model"}, "found own_broken, which can't be imported: ModuleNotFoundError at "),
        ({"width": 3}, "model._target_: expected a class that can be imported, found none"),
        ({"_target_": "own_models.Plain", "widht": 3}, "model.widht: expected one of depth, width: what own_models.Plain takes, found no `widht` there\n  next: did you mean model.width?"),
        ({"_target_": "own_models.Plain"}, "model.width: expected a value, which own_models.Plain needs, found none\n  next: add +model.width=…"),
        ({"_target_": "own_models.Outer", "inner": 1}, "model._target_: expected a class or function that takes shape, found own_models.Outer, without shape"),
        ({"_target_": "own_models.Typed", "width": "abc"}, "model.width: expected a value of type int, as own_models.Typed says, found abc (a str)"),
        ({"_target_": "own_models.Typed", "width": 1, "rate": "x"}, "model.rate: expected a value of type float"),
        ({"_target_": "own_models.Plain", "width": "abc"}, "model: expected settings that own_models.Plain can be made of, found width=abc: TypeError at "),
        ({"_target_": "own_models.Any", "inner": {"_target_": "own_models.Typd"}}, "model.inner._target_: expected a class that can be imported, found own_models.Typd"),
        ({"_target_": "own_models.Any", "inner": {"_target_": "own_models.Typed", "shape": 1, "width": "abc"}}, "model.inner.width: expected a value of type int"),
    ],
    ids=str,
)  # fmt: skip
def test_what_does_not_fit_is_refused_by_its_key(node, says):
    with pytest.raises(VerbatimError) as error:
        make(**node)

    assert says in str(error.value)


def test_the_place_in_ones_own_code_is_named(tmp_path):
    with pytest.raises(VerbatimError, match=rf"{tmp_path}/own_models.py, line 4: can only concatenate"):
        make(_target_="own_models.Plain", width="abc")


def test_a_defect_of_the_code_is_no_wrong_setting():
    with pytest.raises(Exception, match="no attribute 'nothing'") as error:
        make(_target_="own_models.Broken")

    assert not isinstance(error.value, VerbatimError)
