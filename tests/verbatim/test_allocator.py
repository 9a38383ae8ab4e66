from conftest import python

CODE = """
import resource
from verbatim.allocator import keep_freed_memory
KEEP and keep_freed_memory()
import torch
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(12_000_000)
before = faults()
for _ in range(10):
    torch.ones(12_000_000)
print(faults() - before)
"""


def test_a_large_tensor_takes_the_memory_of_the_one_before():
    """48 MB are 11,719 pages, which without it are asked for again each time (or their huge kin, where the kernel has them)."""
    kept, plain = (int(python("-c", CODE.replace("KEEP", keep)).stdout) for keep in ("True", "False"))

    assert kept < 100
    assert plain > 2 * kept + 100
