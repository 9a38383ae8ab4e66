"""A process at level `portable`, and what it gives: here, torch's own kernels stay in place."""

import pytest
from safetensors.torch import load_file

from conftest import ROOT, python

START = """
import sys
from verbatim import determinism
settings = determinism.Determinism(level="portable", threads=1, workers={workers}, unlisted="{unlisted}")
determinism.set_variables(settings)
determinism.set_switches(settings, 0, lambda name: None)
import torch
"""


@pytest.fixture(scope="session")
def portably():
    """`portably("print(torch.ones(2) @ torch.ones(2))")`: runs it at level portable."""

    def call(code, *arguments, workers=1, unlisted="refuse", **variables):
        paths = f"{ROOT / 'src'}:{ROOT / 'tests'}"
        return python(
            "-c", START.format(workers=workers, unlisted=unlisted) + code, *map(str, arguments), PYTHONPATH=paths, PYTHONWARNINGS="ignore", **variables
        )  # fmt: skip

    return call


@pytest.fixture(scope="session")
def given(portably, tmp_path_factory):
    """`given("everything")`: the tensors of that function of `rerouted`, by name, as level portable gives them."""
    made = {}

    def call(function, workers=1):
        if (function, workers) not in made:
            file = tmp_path_factory.mktemp("given") / "tensors.safetensors"
            code = f"import rerouted\nfrom safetensors.torch import save_file\ntensors = dict(rerouted.{function}())\n"
            code += "save_file({k: x.contiguous().clone() for k, x in tensors.items()}, sys.argv[1])"
            done = portably(code, file, workers=workers)
            assert done.returncode == 0, done.stderr
            made[function, workers] = load_file(file)
        return made[function, workers]

    return call
