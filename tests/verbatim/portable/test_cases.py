import json

import pytest

from verbatim.portable.operators import GROUPS, INSTEAD, LISTED, MARKS

COVERAGE = """
import json
from verbatim import determinism
settings = determinism.Determinism(level="portable", threads=1)
determinism.set_variables(settings)
import torch
from verbatim.portable import kernels

used = set()
def counted(name, kernel):
    def call(*given, **settings):
        used.add(name)
        return kernel(*given, **settings)
    return call
kernels.KERNELS.update({name: counted(name, kernel) for name, kernel in kernels.KERNELS.items()})
determinism.set_switches(settings, 0)
from verbatim.portable import cases

def reached(only=""):
    used.clear()
    with torch.autograd.profiler.profile(use_kineto=False) as profile:
        names = list(cases.digests(only, quick=True))
    return {"cases": names, "operators": sorted({event.name for event in profile.function_events}), "kernels": sorted(used)}

every = [name for name, _ in cases.cases()]
print(json.dumps({"quick": reached(), "few": reached("isnan"), "every": every, "all kernels": list(kernels.KERNELS)}))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    from conftest import python

    done = python("-c", COVERAGE, PYTHONWARNINGS="ignore")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def bases(names):
    short = [name.removeprefix("aten::") for name in names]
    return {name if name.endswith("__") else name.removesuffix("_") for name in short}


def test_the_probe_reaches_every_listed_operator(found):
    """All but those that compute nothing. Where one is not computed by a case, nobody has compared it."""
    reached = bases(found["quick"]["operators"])

    assert sorted(LISTED - set(MARKS.split()) - reached) == []


def test_the_probe_reaches_every_rerouted_kernel(found):
    assert sorted(set(found["all kernels"]) - set(found["quick"]["kernels"])) == []


def test_what_a_case_does_not_reach_is_seen(found):
    """The control: one case reaches a few operators, and no kernel of matrices."""
    reached = bases(found["few"]["operators"])

    assert found["few"]["cases"] == ["isnan"]
    assert "eq" in reached | {"ne"}
    assert not reached & {"mm", "convolution", "native_layer_norm"}
    assert found["few"]["kernels"] == []


def test_the_probe_is_a_part_of_the_whole(found):
    every, quick = found["every"], found["quick"]["cases"]

    assert len(set(every)) == len(every)
    assert set(quick) < set(every)
    assert len(quick) < len(every) / 2


def test_each_group_of_operators_is_said_once():
    names = [name for text in (*GROUPS.values(), MARKS) for name in text.split()]

    assert sorted(names) == sorted(LISTED)
    assert not LISTED & INSTEAD.keys()
