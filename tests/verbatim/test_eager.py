import pytest

from conftest import python

TRAIN = """
import torch, hashlib, sys
from verbatim.eager import defer_dynamo
if {defer}: assert defer_dynamo()
torch.manual_seed(0)
for make in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop, torch.optim.Adagrad, torch.optim.NAdam):
    model = torch.nn.Linear(9, 5)
    optimizer = make(model.parameters(), lr=0.01)
    for _ in range(4):
        optimizer.zero_grad()
        model(torch.randn(3, 9)).square().sum().backward()
        optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    print(hashlib.sha256(model.weight.detach().numpy().tobytes()).hexdigest())
print(len([name for name in sys.modules if name.startswith("torch._dynamo")]))
"""


def test_training_without_the_compiler_gives_the_same_bits():
    deferred = python("-c", TRAIN.format(defer=True)).stdout.split()
    loaded = python("-c", TRAIN.format(defer=False)).stdout.split()

    assert deferred[:-1] == loaded[:-1]
    assert int(deferred[-1]) == 1
    assert int(loaded[-1]) > 50


def test_the_compiler_still_works_when_asked_for():
    code = """
import torch, sys
from verbatim import eager
eager.defer_dynamo()
eager.use_deterministic_algorithms(True)
model = torch.nn.Linear(3, 3)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
optimizer.step()
compiled = torch.compile(lambda x: model(x) * 2, backend="eager")
x = torch.ones(2, 3)
assert torch.equal(compiled(x), model(x) * 2)
import torch._dynamo.config
assert torch._dynamo.config is sys.modules["torch._dynamo"].config
optimizer.zero_grad(); compiled(x).sum().backward(); optimizer.step()
import torch._inductor.config
print(type(sys.modules["torch._dynamo"]).__name__, torch._inductor.config.deterministic)
"""
    done = python("-W", "ignore", "-c", code)

    assert done.stdout.split() == ["module", "True"], done.stderr


def test_a_submodule_of_the_compiler_is_loaded_once():
    code = """
import torch, sys
from verbatim.eager import defer_dynamo
defer_dynamo()
import torch._dynamo.utils as utils
assert sys.modules["torch._dynamo"].utils is utils is sys.modules["torch._dynamo.utils"]
assert utils.__spec__.origin.endswith("utils.py")
print("whole")
"""
    assert python("-W", "ignore", "-c", code).stdout == "whole\n"


@pytest.mark.parametrize("code", [
    "torch.testing.assert_close(torch.ones(2), torch.ones(2))",
    "torch.jit.trace(lambda x: x + 1, torch.ones(2))",
    "import torch.distributed.tensor",
    "import torch.distributed.fsdp",
])  # fmt: skip
def test_what_looks_at_every_module_finds_the_stand_in_harmless(code):
    """`inspect` asks each for its file, in the middle of torch's own imports."""
    done = python(
        "-W",
        "ignore",
        "-c",
        f"import torch\nfrom verbatim.eager import defer_dynamo\ndefer_dynamo()\n{code}\nprint('whole')",
    )

    assert done.stdout == "whole\n", done.stderr


def test_another_torch_is_left_alone():
    code = "import torch; torch.__version__ = '9.9'; from verbatim.eager import defer_dynamo; print(defer_dynamo())"

    assert python("-c", code).stdout == "False\n"
