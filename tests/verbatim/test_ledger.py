import json
import os
import platform
import subprocess

import pytest

from conftest import python
from verbatim import environment, ledger, record
from verbatim.errors import VerbatimError
from verbatim.record import Record

DIGEST = "sha256:" + "ab" * 32


@pytest.fixture
def add(runs):
    def call(name, **changes):
        values = {
            "run": name, "state": "sealed", "started": "2026-01-01T00:00:00Z", "recipe_config": {"a": 1},
            "config": {"model": {"_target_": "experiment.models.Cnn"}}, "code": {"tree": "0" * 40}, "lock": {"digest": DIGEST},
            "data": {"fingerprint": DIGEST, "name": "digits"}, "metrics": {"test_accuracy": 0.5}, "weights": DIGEST,
        }  # fmt: skip
        (runs / name).mkdir(parents=True)
        record.write(runs / name, Record(**values | changes))

    return call


def listed(runs, *arguments):
    return python("-m", "verbatim", "runs", str(runs), *arguments)


def test_runs_are_listed_newest_first(runs, add):
    for name in ("20260101T000000Z-a", "20260103T000000Z-c", "20260102T000000Z-b"):
        add(name)
    done = listed(runs)
    lines = done.stdout.splitlines()

    assert done.returncode == 0
    assert lines[0].split() == ["run", "experiment", "seed", "metric", "wall", "recipe", "outcome", "state"]
    assert [line.split()[0] for line in lines[1:]] == [
        "20260103T000000Z-c", "20260102T000000Z-b", "20260101T000000Z-a",
    ]  # fmt: skip
    assert "digits cnn" in lines[1]
    assert "accuracy 0.5000" in lines[1]


def test_one_recipe_with_two_outcomes_is_flagged_and_fails(runs, add):
    add("a")
    add("b")
    assert listed(runs).returncode == 0

    add("c", weights="sha256:00")
    done = listed(runs)

    assert done.returncode == 1
    assert "gave 2 outcomes: " in done.stdout
    assert done.stdout.count("≠ ") == 3 + 1


def test_failed_runs_and_other_recipes_are_no_conflict(runs, add):
    add("a")
    add("b", state="failed", reason="no", weights="sha256:00")
    add("c", recipe_config={"a": 2}, weights="sha256:00")
    add("d", code={}, weights="sha256:00")

    assert listed(runs).returncode == 0


def test_a_started_run_is_running_while_its_process_lives_and_lost_after(add, runs):
    process = subprocess.Popen(["sleep", "60"])
    here = {
        "host": platform.node(),
        "process": {"pid": process.pid, "started_ticks": environment.started_ticks(process.pid)},
    }
    add("a", state="started", environment=here)
    add("b", state="started", environment={"host": "elsewhere"})
    try:
        assert ledger.state(record.read(runs / "a")) == "running"
    finally:
        process.kill()
        process.wait()

    assert ledger.state(record.read(runs / "a")) == "lost"
    assert ledger.state(record.read(runs / "b")) == "started"


def test_another_process_with_the_same_number_is_not_taken_for_it(add, runs):
    add(
        "a", state="started", environment={"host": platform.node(), "process": {"pid": os.getpid(), "started_ticks": 1}}
    )

    assert ledger.state(record.read(runs / "a")) == "lost"


def test_a_damaged_record_is_listed_as_such_and_hides_no_other(runs, add):
    add("a")
    add("b")
    (runs / "b" / "record.json").write_text("{")
    (runs / "c").mkdir()
    done = listed(runs)

    assert done.returncode == 0
    assert done.stdout.count("unreadable") == 2
    assert done.stdout.count("sealed") == 1


def test_json_has_one_object_per_run(runs, add):
    add("a")
    (value,) = map(json.loads, listed(runs, "--json").stdout.splitlines())

    assert value["run"] == "a"
    assert value["conflict"] is False


def test_a_lower_claim_and_a_resumed_run_are_told(runs, add):
    add("a", level="portable", unlisted=["aten::[tan]"], resumed=[{"ended": "killed"}, {"ended": "killed"}])
    add("b", level="portable", seed=1)
    second, first = listed(runs).stdout.splitlines()[1:]
    values = [json.loads(line) for line in listed(runs, "--json").stdout.splitlines()]

    assert first.rstrip().endswith("sealed; claims exact, not portable (aten::[tan]); resumed 2×")
    assert second.rstrip().endswith("sealed")
    assert [(v["run"], v["level"], v["claim"], v["resumed"]) for v in values] == [
        ("b", "portable", "portable", 0), ("a", "portable", "exact", 2),
    ]  # fmt: skip


def test_no_runs_say_how_to_make_one(tmp_path):
    assert listed(tmp_path).stdout == f"no runs in {tmp_path}: nox -s train makes one\n"


def test_the_latest_sealed_run_is_found(runs, add):
    add("1")
    add("2")
    add("3", state="failed")

    assert ledger.latest(runs) == runs / "2"


def test_latest_without_a_sealed_run_says_what_to_do(tmp_path):
    with pytest.raises(VerbatimError, match="next: nox -s train"):
        ledger.latest(tmp_path)


def test_listing_runs_loads_neither_torch_nor_hydra(runs, add):
    add("a")
    done = python("-X", "importtime", "-m", "verbatim", "runs", str(runs))

    assert not [
        line for line in done.stderr.splitlines() if line.endswith((" torch", " hydra", " omegaconf", " numpy"))
    ]
