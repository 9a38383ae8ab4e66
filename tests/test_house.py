"""The whole: imports go one way, sessions, VS Code tasks and README agree, nothing is left that should not be."""

import ast
import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from conftest import ROOT, python
from experiment import schema
from verbatim import settings

SOURCES = sorted((ROOT / "src").rglob("*.py"))


def imports(path):
    """Every module that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT / "src")))
def test_the_machinery_never_imports_the_experiment(path):
    if "verbatim" in path.parts[-2]:
        assert not [name for name in imports(path) if name.partition(".")[0] == "experiment"]


@pytest.mark.parametrize("command", [["-m", "verbatim", "--help"], ["-m", "experiment.train", "--help"], ["-m", "experiment.train", "--cfg", "job"]])  # fmt: skip
def test_asking_costs_no_torch(command):
    done = python("-X", "importtime", *command)

    assert done.returncode == 0, done.stderr
    assert not [line for line in done.stderr.splitlines() if line.endswith(" torch")]


def sessions():
    """Name → docstring, from noxfile.py."""
    tree = ast.parse((ROOT / "noxfile.py").read_text())
    found = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and any("nox.session" in ast.unparse(d) for d in node.decorator_list):
            found[node.name] = ast.get_docstring(node)
    return found


def test_every_session_says_how_it_is_called():
    for name, text in sessions().items():
        assert text, name
        assert text.partition("\n")[0].endswith((".", ")")), name


def test_every_session_has_a_task_and_every_task_a_session():
    tasks = json.loads((ROOT / ".vscode" / "tasks.json").read_text())["tasks"]

    assert {task["label"] for task in tasks} == set(sessions())
    for task in tasks:
        assert f"noxfile.py -s {task['label']}" in task["command"]


def test_every_session_is_in_the_readme_and_the_readme_names_no_other():
    named = set(re.findall(r"(?:nox|noxfile\.py) -s (\w+)", (ROOT / "README.md").read_text()))

    assert named == set(sessions())


def test_ci_runs_exactly_the_test_command_of_the_readme():
    readme = (ROOT / "README.md").read_text()
    commands = re.search(r"```console\n\$ (.+)\n\$ (.+)\n```", readme)
    ci = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line.startswith("python3.11 ")]

    assert commands, "the README opens with its two commands"
    assert commands[1].split("  #")[0].strip() == "python3.11 noxfile.py -s train"
    optional, tests, *others = ci
    assert commands[2].split("  #")[0].strip() == tests
    assert optional == "python3.11 noxfile.py -s env -- ray trackers"
    assert others == [f"python3.11 noxfile.py -s {name}" for name in ("containers", "engines")]


def test_every_experiment_opens_with_its_command_cost_and_result():
    for path in (ROOT / "configs" / "experiment").glob("*.yaml"):
        head = path.read_text().split("defaults:")[0]

        assert f"# nox -s train -- experiment={path.stem}\n" in head
        assert "Two cores: " in head
        assert re.search(r"Expected(: |, as published .*: )", head)


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "experiment").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_experiment_composes(path):
    done = python("-m", "experiment.train", f"experiment={path.stem}", "--cfg", "job")

    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["seed"] == 0


def test_help_teaches():
    text = python("-m", "experiment.train", "--help").stdout

    assert "nox -s train -- model=mlp optimizer.lr=0.01" in text
    for group in ("data", "model", "optimizer", "trainer", "determinism", "tracker", "experiment"):
        options = re.search(rf"^  {group}: (.*)", text, re.MULTILINE)
        assert options, group
        assert sorted(options[1].split(", ")) == sorted(path.stem for path in (ROOT / "configs" / group).glob("*.yaml"))


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_help_says_what_each_setting_means(command):
    done = python("-m", f"experiment.{command}", "--help")
    lines = re.split(r"takes:|there are:", done.stdout)[1].split("\n")

    assert done.returncode == 0, done.stderr
    assert len(lines) > 10
    assert not [line for line in lines if line and not re.match(r" *\w+:( \S+)?  +# .", line)]
    assert "${oc.env:HOME}" in done.stdout


def test_every_field_of_the_schema_has_its_comment():
    kinds = [kind for kind in vars(schema).values() if dataclasses.is_dataclass(kind)]
    bare = [
        f"{kind.__name__}.{f.name}"
        for kind in kinds
        for f in dataclasses.fields(kind)
        if f.name not in settings.comments(kind)
    ]

    assert len(kinds) > 10
    assert not bare
    assert settings.comments(schema.Sgd)["momentum"] == "0: none"
    assert settings.comments(schema.Sgd)["lr"].startswith("learning rate")  # from the class that it is made from
    assert settings.comments(schema.Trainer)["parallel"].startswith("tree, ddp; ddp: Distributed")


@pytest.mark.parametrize("name", ["settings.json", "launch.json", "tasks.json", "extensions.json"])
def test_vscode_files_are_plain_json(name):
    json.loads((ROOT / ".vscode" / name).read_text())


def test_the_inputs_that_tasks_ask_for_are_declared():
    for name in ("tasks.json", "launch.json"):
        text = (ROOT / ".vscode" / name).read_text()
        declared = {i["id"] for i in json.loads(text)["inputs"]}

        assert set(re.findall(r"\$\{input:(\w+)\}", text)) == declared


def tracked():
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    return [ROOT / name for name in names]


@pytest.mark.skipif(not tracked(), reason="not a git checkout")
def test_no_file_is_left_that_is_made_here():
    assert not [
        p for p in tracked() if p.suffix in (".pyc", ".pt", ".pkl", ".safetensors", ".ckpt") or "runs" in p.parts
    ]


def test_noxfile_runs_by_itself_and_lists_its_sessions():
    """As a newcomer starts it: by another Python's `python3.11 noxfile.py`; the tools are there or are made."""
    done = subprocess.run(
        [sys.executable, "noxfile.py", "-l"], cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    for name in sessions():
        assert re.search(rf"^[*-] {name} -> ", done.stdout, re.MULTILINE)


def test_another_python_is_refused_in_one_line():
    others = [p for p in map(Path, ("/usr/bin/python3.12", "/usr/bin/python3.13", "/usr/bin/python3")) if p.exists()]
    for other in others:
        done = subprocess.run([other, "noxfile.py", "-l"], cwd=ROOT, capture_output=True, text=True, check=False)
        if "expected Python 3.11" in done.stderr:
            assert done.stderr.count("\n") == 2
            return
    pytest.skip("no other Python here")
