"""Searches: a small Hydra application, whose launcher runs a job where it is called, killed wherever it may be and gone on with."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from conftest import ENVIRONMENT, python
from verbatim.errors import VerbatimError
from verbatim.multirun import results, study, trials

APP = """
import json, os, signal, sys
from pathlib import Path
import hydra
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from verbatim import app
from verbatim.multirun.study import Study

class Here(Launcher):
    goal = "minimize"
    def setup(self, *, hydra_context, task_function, config):
        self.loader, self.task, self.config = hydra_context.config_loader, task_function, config
    def refuse_many(self, jobs):
        pass
    def open(self, words):
        return Path.cwd()
    def launch(self, job_overrides, initial_job_idx):
        return [self.job(initial_job_idx + i, words) for i, words in enumerate(job_overrides)]
    def job(self, index, words):
        at = Path(f"{index}.json")  # what a sealed record is to the real one
        if not at.exists():
            config = self.loader.load_sweep_config(self.config, list(words))
            if index == int(os.environ.get("KILL", -1)):
                os.kill(os.getpid(), signal.SIGKILL)
            at.write_text(json.dumps([list(words), None if config.kind == "bad" else self.task(config)]))
        value = json.loads(at.read_text())[1]
        done = JobReturn(status=JobStatus.FAILED if value is None else JobStatus.COMPLETED)
        done.return_value = RuntimeError("bad") if value is None else value
        return done

Plugins.instance().class_name_to_class.update({"hydra_plugins.t.Here": Here, "hydra_plugins.t.Study": Study})

@hydra.main(version_base="1.3", config_path="conf", config_name="app")
def main(config):
    return (config.x - 0.3) ** 2 + config.n / 10

app.run(main)
"""
CONFIG = """
defaults: [override hydra/sweeper: search, override hydra/launcher: here, override hydra/hydra_logging: none, _self_]
x: 0.5
n: 1
kind: a
"""
SPACE = ("x=tag(log,interval(0.001,1))", "n=range(1,9,2)", "kind=a,b,bad")


@pytest.fixture
def app(tmp_path):
    """`app("x=interval(0,1)", KILL="3")` → the ended process; the sweep's folder is `tmp_path`."""
    (tmp_path / "app.py").write_text(APP)
    for name, text in {
        "app": CONFIG,
        "hydra/sweeper/search": "_target_: hydra_plugins.t.Study\nn_trials: 14\nat_once: 4\nsampler: tpe\nseed: 0\nparams: {}\n",
        "hydra/launcher/here": "_target_: hydra_plugins.t.Here\n",
    }.items():
        path = tmp_path / "conf" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def start(*words, folder="sweep", **variables):
        (tmp_path / folder).mkdir(exist_ok=True)
        return subprocess.Popen(
            [sys.executable, tmp_path / "app.py", "--multirun", "hydra.sweep.dir=.", *words], cwd=tmp_path / folder,
            env=ENVIRONMENT | variables, start_new_session=True, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def call(*words, **options):
        process = start(*words, **options)
        err = process.communicate()[1]
        return process.returncode, err

    call.start, call.folder = start, tmp_path
    return call


def read(folder):
    """number → (state, value, parameters), from the file itself."""
    with contextlib.closing(sqlite3.connect(f"file:{folder / study.FILE}?mode=ro", uri=True)) as file:
        found = {
            number: (state, value, {})
            for number, state, value in file.execute("select number, state, value from trials left join trial_values using (trial_id)")
        }  # fmt: skip
        for number, name, value in file.execute("select number, param_name, param_value from trials join trial_params using (trial_id)"):  # fmt: skip
            found[number][2][name] = value
    return found


def jobs(folder):
    return {int(path.stem): json.loads(path.read_text()) for path in folder.glob("*.json")}


def test_the_trials_are_the_same_whether_or_not_the_search_was_killed_between(app):
    assert app(*SPACE, folder="whole") == (0, "")
    whole = read(app.folder / "whole")

    for job in ("6", "13"):  # in a job: of a later batch, and the last of all
        assert app(*SPACE, folder="killed", KILL=job)[0] == -signal.SIGKILL
        assert [trial[0] for trial in read(app.folder / "killed").values()].count("RUNNING") > 0
    process = app.start(*SPACE, folder="proposing")  # and while a batch is proposed
    while process.poll() is None and count(app.folder / "proposing") < 9:
        time.sleep(0.002)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    assert process.communicate()[1] == ""
    for folder in ("killed", "proposing"):
        assert app(*SPACE, folder=folder) == (0, "")
        assert read(app.folder / folder) == whole
        assert jobs(app.folder / folder) == jobs(app.folder / "whole")

    assert len(whole) == 14
    assert {state for state, _, _ in whole.values()} == {"COMPLETE", "FAIL"}
    assert len({str(parameters) for _, _, parameters in whole.values()}) > 10
    for number, (words, value) in jobs(app.folder / "whole").items():
        assert [word.partition("=")[0] for word in words] == ["x", "n", "kind"]
        assert (whole[number][0] == "FAIL") == (words[2] == "kind=bad")
        assert whole[number][1] == value


def count(folder):
    """How many trials there are; 0 while there is no file, or none that can be asked."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{folder / study.FILE}?mode=ro", uri=True)) as file:
            return int(file.execute("select count(*) from trials").fetchone()[0])
    except sqlite3.Error:
        return 0


def test_more_trials_go_on_with_the_same_search_and_another_search_does_not(app):
    few, more = ("hydra.sweeper.n_trials=4", "hydra.sweeper.n_trials=6")
    assert app(*SPACE, few)[0] == 0
    before = read(app.folder / "sweep")
    assert app(*SPACE, more)[0] == 0
    after = read(app.folder / "sweep")
    code, err = app(*SPACE, few, "hydra.sweeper.seed=1")

    assert len(before) == 4
    assert {number: after[number] for number in before} == before
    assert len(after) == 6
    assert code == 2
    assert "expected the study of this search, found one of another seed" in err
    assert app(*SPACE, few, "hydra.sweeper.seed=1", folder="other")[0] == 0
    assert read(app.folder / "other") != before


def test_a_search_that_was_cut_short_within_a_batch_goes_on_as_if_it_had_not_been(app):
    """Batches are of four: after ten trials, two more belong to the third."""
    assert app(*SPACE, "hydra.sweeper.n_trials=14", folder="whole")[0] == 0
    for number in (10, 14):
        assert app(*SPACE, f"hydra.sweeper.n_trials={number}")[0] == 0

    assert read(app.folder / "sweep") == read(app.folder / "whole")


def test_a_trial_that_failed_and_was_run_again_counts_by_what_it_gave_then(app):
    """Which Optuna's own file can't say: a trial that has ended there stays what it was."""
    few, more = ("hydra.sweeper.n_trials=20", "hydra.sweeper.n_trials=24")
    for folder in ("failed", "mended"):
        assert app(*SPACE, few, folder=folder)[0] == 0
    bad = next(number for number, (state, _, _) in read(app.folder / "mended").items() if state == "FAIL")
    at = app.folder / "mended" / f"{bad}.json"
    at.write_text(json.dumps([json.loads(at.read_text())[0], -5.0]))
    for folder in ("failed", "mended"):
        assert app(*SPACE, more, folder=folder)[0] == 0

    one, other = (
        [words for _, (words, _) in sorted(jobs(app.folder / folder).items())] for folder in ("failed", "mended")
    )
    assert one[:20] == other[:20]
    assert one[20:] != other[20:]


def test_a_grid_of_many_points_makes_none_but_those_asked_for(app):
    assert app("n=range(0,2000000000)", "hydra.sweeper.sampler=grid", "hydra.sweeper.n_trials=2")[0] == 0

    assert [words for _, (words, _) in sorted(jobs(app.folder / "sweep").items())] == [["n=0"], ["n=1"]]


def test_a_grid_is_every_combination_in_order(app):
    assert app("n=range(1,4)", "kind=a,b", "hydra.sweeper.sampler=grid", "x=0.1")[0] == 0

    assert [words for _, (words, _) in sorted(jobs(app.folder / "sweep").items())] == [
        ["x=0.1", f"n={n}", f"kind={kind}"] for n in (1, 2, 3) for kind in ("a", "b")
    ]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["x=0.1"], "the search: expected a setting to search"),
        (["x=interval(0,1)", "hydra.sweeper.sampler=grid"], "x: expected values that can be counted, for sampler=grid, found an interval"),
        (["n=1,2", "hydra.sweeper.n_trials=null"], "hydra.sweeper.n_trials: expected a number of trials, found none"),
        (["n=1,2", "hydra.sweeper.n_trials=0"], "hydra.sweeper.n_trials: expected a whole number of at least 1, found 0 next: add hydra.sweeper.n_trials=20, say"),
        (["n=1,2", "hydra.sweeper.sampler=gird"], "hydra.sweeper.sampler: expected one of tpe, random, grid, found gird next: did you mean hydra.sweeper.sampler=grid?"),
    ],
)  # fmt: skip
def test_what_can_not_be_searched_is_refused_before_a_trial_is_made(app, words, says):
    code, err = app(*words)

    assert code == 2
    assert says in " ".join(err.split())
    assert not (app.folder / "sweep" / study.FILE).exists()


def parse(word):
    return study.domain(OverridesParser.create().parse_override(word))


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("a.b=interval(1e-4,1)", {"low": 1e-4, "high": 1.0}),
        ("a.b=tag(log,interval(1e-4,1))", {"low": 1e-4, "high": 1.0, "log": True}),
        ("a.b=interval(1,8)", {"low": 1.0, "high": 8.0}),
        ("a.b=int(interval(1,8))", {"low": 1, "high": 8, "whole": True}),
        ("a.b=range(1,9)", {"low": 1, "high": 8, "whole": True}),
        ("a.b=range(1,9,3)", {"low": 1, "high": 7, "step": 3, "whole": True}),
        ("a.b=range(9,1,-3)", {"low": 3, "high": 9, "step": 3, "whole": True}),
        ("a.b=range(0.5,2,0.5)", {"choices": ("0.5", "1.0", "1.5")}),
        ("a.b=choice(x,'y z',true,[1,2])", {"choices": ("x", "y\\ z", "True", "[1,2]")}),
        ("+a.b=x,y,x", {"key": "+a.b", "choices": ("x", "y")}),
    ],
)
def test_the_space_is_what_hydra_reads(word, expected):
    found = parse(word)

    assert found == trials.Domain(**{"key": "a.b", **expected})
    assert type(found.low) is type(expected.get("low", 0))


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("a=interval(2,1)", "expected an interval from a lower to a higher number, found interval(2.0,1.0)"),
        ("a=tag(log,interval(0,1))", "to a higher number, above 0, found interval(0.0,1.0)"),
        ("a=tag(log,choice(1,2))", "expected tag(log,interval(…)), the one tag there is, found tag(log,…)"),
        ("a=tag(fast,log,interval(1,2))", "found tag(fast,log,…)"),
        ("a=shuffle(1,2,3)", "expected values as they are: a search has its own order, found shuffle(…)"),
        ("a=range(3,3)", "expected a range with a number in it, found an empty one"),
        ("hydra.job.name=a,b", "expected one value: Hydra's own settings can't be searched, found a sweep"),
    ],
)
def test_a_sweep_that_is_no_space_is_refused(word, says):
    with pytest.raises(VerbatimError) as error:
        parse(word)

    assert str(error.value).startswith(f"{word}: ")
    assert says in str(error.value)


def test_a_search_of_real_runs_goes_on_where_it_was_with_more_trials(tmp_path):
    small = (
        "model=mlp",
        "model.hidden=[8]",
        "trainer.max_steps=3",
        f"paths.runs={tmp_path}/runs",
        f"paths.sweeps={tmp_path}/sweeps",
    )
    space = (
        "hydra/sweeper=optuna",
        "hydra.sweeper.at_once=2",
        "optimizer.lr=tag(log,interval(1e-4,1e-1))",
        "model.hidden=[4],[8]",
    )
    for count in (2, 3):
        done = python("-m", "experiment.train", "--multirun", *small, *space, f"hydra.sweeper.n_trials={count}")
        assert done.returncode == 0, done.stdout + done.stderr

        (folder,) = (tmp_path / "sweeps").glob("*-*")
        made = json.loads((folder / results.FILE).read_text())["jobs"]
        assert [(job["job"], job["state"]) for job in made] == [(index, "sealed") for index in range(count)]
        assert len(list((tmp_path / "runs").glob("*-*"))) == count  # none was made again
        assert [value for _, value, _ in read(folder).values()] == [job["value"] for job in made]
