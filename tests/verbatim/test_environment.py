import importlib.metadata
import os
import platform
import subprocess

from conftest import ROOT, python
from verbatim import environment, lock


def test_distributions_are_those_that_importlib_finds():
    found = environment.distributions(environment.site_packages())
    known = {
        lock.normalise(d.metadata["Name"]): d.version
        for d in importlib.metadata.distributions(path=[str(environment.site_packages())])
    }

    assert found == known


def test_the_environment_is_described():
    here = environment.describe(ROOT)

    assert here["python"]["version"] == platform.python_version()
    assert here["lock"]["digest"] == lock.digest(lock.read(ROOT / "requirements" / here["lock"]["file"]))
    assert here["cpu"]["cores"] == len(os.sched_getaffinity(0))
    assert here["cpu"]["model"]
    assert here["image"] is None


def test_the_image_is_what_its_starter_says(monkeypatch):
    monkeypatch.setenv("VERBATIM_IMAGE_DIGEST", "sha256:00")

    assert environment.describe(ROOT)["image"] == {"digest": "sha256:00"}


def test_no_variable_is_recorded_but_those_that_change_bits(monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    here = environment.describe(ROOT)

    assert "hunter2" not in str(here)
    assert here["variables"]["OMP_NUM_THREADS"] == "1"


def test_a_process_is_named_by_pid_and_start():
    process = subprocess.Popen(["sleep", "60"])
    try:
        assert environment.started_ticks(process.pid) >= environment.started_ticks(os.getpid()) > 0
    finally:
        process.kill()
        process.wait()
    assert environment.started_ticks(process.pid) == 0


PROBE = "import os; from verbatim.probe import probe; import torch; torch.set_num_threads({threads}); print(probe())"


def test_the_probe_repeats_and_leaves_the_generators_alone():
    code = "import torch; torch.manual_seed(7); from verbatim.probe import probe; a = probe(); r = torch.rand(1); "
    code += "torch.manual_seed(7); assert torch.rand(1) == r; assert probe() == a; print(a)"

    first, second = (python("-c", code, OMP_NUM_THREADS="1") for _ in range(2))

    assert first.stdout == second.stdout != "", first.stderr


def test_the_probe_sees_other_bits():
    """Negative control: another instruction set for torch's own kernels, as another CPU would have it."""
    here = python("-c", PROBE.format(threads=1)).stdout
    other = python("-c", PROBE.format(threads=1), ATEN_CPU_CAPABILITY="default").stdout

    assert here.startswith("sha256:")
    assert other.startswith("sha256:")
    assert here != other
