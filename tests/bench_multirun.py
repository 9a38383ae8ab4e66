"""Jobs per second of multiruns: this launcher beside Hydra's own, joblib, submitit on this machine, and one process per job.

The job is the same for all: a model of one layer, four steps. Once bare torch, once recorded by `verbatim.run`. Launchers that start a
process per job get fewer jobs. The plugins are of an optional lock: `nox -s env -- bench`.
"""

import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXTRA = ROOT / ".nox" / "extra" / "bench"
JOB = """
import os
import sys

import hydra

import verbatim
from verbatim import app


def steps(config, run=None):
    import torch
    torch.manual_seed(config.seed)
    model = torch.nn.Linear(64, 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = torch.randn(32, 64), torch.randint(0, 10, (32,))
    if run:
        run.watches(dict(model.named_parameters()), {})
    for step in range(4):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        if run:
            run.trace(step, torch.arange(32), loss.item())
    return model, loss.item()


def bare(config):
    import torch
    torch.set_num_threads(1)
    return steps(config)[1]


def recorded(config):
    with verbatim.run(config) as run:
        run.uses("sha256:" + "0" * 64, {})
        model, loss = steps(config, run)
        run.finish(model.state_dict(), validation_loss=loss)
    return loss


ours, task = "hydra/launcher=local" in sys.argv, globals()[os.environ["JOB_KIND"]]
main = hydra.main(version_base="1.3", config_path=os.environ["JOB_CONFIGS"], config_name="job")(
    app.fingerprints(lambda data: "sha256:" + "0" * 64)(app.task(task)) if ours else task  # which refuses other launchers
)
if __name__ == "__main__":
    app.run(main) if ours else main()
"""
CONFIG = """
defaults: [_self_, {override hydra/job_logging: none}, {override hydra/hydra_logging: none}]
seed: 0
data: {}
determinism: {level: exact, threads: 1}
trace: {parameters_every: 10}
paths: {runs: RUNS, sweeps: SWEEPS}
multirun: {objective: validation_loss, goal: auto, at_once: 2, limit: 10000, retries: 2, again: true}
hydra: {output_subdir: null, run: {dir: .}, sweep: {dir: SWEEPS/other}}
"""
FEW = 8  # jobs of the launchers that take seconds for each


def main(rounds: int, jobs: int = 100) -> None:
    for kind in ("bare", "recorded"):
        with tempfile.TemporaryDirectory() as name:
            ways = _ways(Path(name), kind, jobs)
            rates: dict[str, list[float]] = {way: [] for way in ways}
            for round_ in range(rounds):
                for way, (count, start) in ways.items():
                    if count == FEW and round_ >= 2:
                        continue
                    began = time.perf_counter()
                    start()
                    rates[way].append(count / (time.perf_counter() - began))
                    print(f"  {kind}, {way}: {rates[way][-1]:.2f} jobs/s", file=sys.stderr)
        ours = statistics.median(rates["this launcher"])
        print(
            f"\n{jobs} tiny {kind} torch jobs, two at a time\n{'':34}{'jobs/s':>10}{'ms/job':>10}   this launcher's rate to it"
        )
        for way, found in rates.items():
            rate = statistics.median(found)
            print(f"{way:34}{rate:10.2f}{1e3 / rate:10.0f}   {ours / rate:.2f}")


def many(jobs: int = 1000) -> None:
    """A sweep of many small runs; then the same command again, which finds them all. And the memory of the process that follows them."""
    with tempfile.TemporaryDirectory() as folder:
        small = ("model=mlp", "model.hidden=[8]", "trainer.max_steps=1", "machine.checkpoints=0")
        print(f"\n{'small runs':>12}{'made in':>12}{'ms/run':>10}{'found in':>12}{'peak memory of the launcher':>32}")
        for count in (jobs // 10, jobs):
            command = [*_multirun(Path(folder), *small), f"seed=range(0,{count})"]
            times = []
            for _ in range(2):
                began = time.perf_counter()
                process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
                _, status, usage = os.wait4(process.pid, 0)
                times.append(time.perf_counter() - began)
                if status:
                    sys.exit(f"{' '.join(command)}: status {status}")
            new = count - (0 if count < jobs else jobs // 10)
            print(
                f"{count:12,}{times[0]:10.1f} s{times[0] / new * 1e3:10.0f}{times[1]:10.2f} s{usage.ru_maxrss / 1024:28.0f} MiB"
            )


def kills(number: int = 20) -> int:
    """SIGKILL of a sweep at random moments, and the same command again until it ends; the table must be that of one left alone, with
    no recipe sealed twice. 1 where it is not."""
    sys.path.insert(0, str(ROOT / "src"))
    from verbatim import record

    words = ("model=mlp", "trainer.epochs=60", "machine.checkpoints=0.3", "seed=range(0,4)", "optimizer.lr=1e-2,1e-3")
    chance, killed, wrong, sweeps = random.Random(11), 0, 0, 0

    def table(folder: Path) -> list[tuple[str, ...]]:
        (found,) = (folder / "sweeps").glob("*/results.json")
        return [(" ".join(j["overrides"]), j["state"], j["outcome"]) for j in json.loads(found.read_text())["jobs"]]

    with tempfile.TemporaryDirectory() as name:
        alone = Path(name) / "alone"
        began = time.perf_counter()
        subprocess.run(_multirun(alone, *words), cwd=ROOT, check=True, capture_output=True)
        took_s = time.perf_counter() - began
        while killed < number:
            folder, sweeps = Path(name) / str(killed), sweeps + 1
            while True:
                process = subprocess.Popen(_multirun(folder, *words), cwd=ROOT, stdout=subprocess.DEVNULL)
                try:
                    process.wait(chance.uniform(0.3, took_s) if killed < number else None)
                    break
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                    killed += 1
            runs = [record.read(path) for path in (folder / "runs").iterdir()]
            sealed = [run.recipe for run in runs if run.state == "sealed"]
            same = table(folder) == table(alone) and len(sealed) == len(set(sealed)) and not process.returncode
            wrong += not same
    print(
        f"\n{sweeps} sweeps of 8 runs, {killed} times killed: {sweeps - wrong} with the table of one left alone and no recipe sealed twice"
    )
    return int(wrong > 0)


def _multirun(folder: Path, *words: str) -> list[str]:
    places = (f"paths.runs={folder}/runs", f"paths.sweeps={folder}/sweeps")
    return [sys.executable, "-m", "experiment.train", "--multirun", *places, *words]


def _ways(folder: Path, kind: str, jobs: int) -> dict[str, tuple[int, Callable[[], None]]]:
    configs = folder / "configs"
    shutil.copytree(ROOT / "configs" / "hydra", configs / "hydra")
    (configs / "job.yaml").write_text(CONFIG.replace("RUNS", f"{folder}/runs").replace("SWEEPS", f"{folder}/sweeps"))
    (folder / "job.py").write_text(JOB)
    python = [sys.executable, str(folder / "job.py")]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "src", EXTRA))), "JOB_CONFIGS": str(configs), "JOB_KIND": kind,
        "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
    }  # fmt: skip

    def run(*words: str) -> None:
        done = subprocess.run(
            [*python, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        expected = kind == "bare" and "hydra/launcher=local" in words  # a job that records nothing can't be judged
        if done.returncode and not expected:
            sys.exit(f"{' '.join(words)}: exit code {done.returncode}\n{done.stdout[-500:]}\n{done.stderr[-2000:]}")

    def many(launcher: str, sweeper: str, *words: str, count: int = jobs) -> Callable[[], None]:
        return lambda: run(
            "--multirun", f"hydra/launcher={launcher}", f"hydra/sweeper={sweeper}", f"seed=range(0,{count})", *words
        )

    def each() -> None:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda seed: run(f"seed={seed}"), range(FEW)))

    ways = {
        "this launcher": (jobs, many("local", "grid")),
        "Hydra's basic (isolates nothing)": (jobs, many("basic", "basic")),
        "one process per job": (FEW, each),
    }
    if EXTRA.is_dir():
        ways["hydra-joblib-launcher"] = (jobs, many("joblib", "basic", "hydra.launcher.n_jobs=2"))
        ways["submitit on this machine"] = (FEW, many("submitit_local", "basic", count=FEW))
    else:
        print("joblib and submitit are left out: nox -s env -- bench installs them", file=sys.stderr)
    return ways


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
