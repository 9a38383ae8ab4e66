"""The command: what it says of a project without drift, its exit codes, its output for programs."""

import json
import subprocess
import sys

import pytest

import drift_world as world
from conftest import ENVIRONMENT, ROOT
from verbatim import drift, lock
from verbatim.drift import locks
from verbatim.errors import VerbatimError


def findings(given):
    return [finding for answer in given for finding in answer.findings]


def test_a_project_without_drift_is_green_in_every_kind_that_was_looked_at(project):
    given = drift.answers(project, deep=True)

    generated = world.DEVCONTAINER is not None
    assert [f.what for f in findings(given)] == [".devcontainer/devcontainer.json"] * (not generated)
    assert [a.state for a in given] == ["agrees"] * 6 + ["agrees" if generated else "not checked", "agrees"]
    assert [a.looked_at for a in given] == [
        "9 requirements of audit.in, cpu.in, cuda.in, project.in, tools.in",
        "tools.txt (2 pins), audit.txt (1 pins), cpu.txt (6 pins), cuda.txt (7 pins)",
        "6 distributions and 30 requirements in .venv, by cpu.txt",
        "2 images of the engine, by their labels",
        "3.11 in pyproject.toml, tools.txt, audit.txt, cpu.txt, cuda.txt, .venv",
        "6 pins of cpu.txt, 7 of cuda.txt",
        "sessions and README.md, sessions and .vscode/tasks.json, base image and its digest, tools and their lock"
        + ", devcontainer and its matrix" * generated,
        given[-1].looked_at,
    ]


def test_the_projects_own_requirements_agree():
    assert findings(locks.of_requirements(ROOT / "requirements")) == []
    assert findings(drift.answers(ROOT, ("python",))) == []


def test_exit_codes_are_0_agrees_1_drift_2_unreadable_or_asked_for_and_not_checked(project, capsys):
    assert drift.main([], project) == 0
    assert drift.main(["inputs"], project) == 0
    (project / "README.md").unlink()
    assert drift.main([], project) == 0
    assert drift.main(["twins"], project) == 2
    (project / "requirements" / "project.in").write_text("packaging>=99\n")
    assert drift.main([], project) == 1
    assert drift.main(["lock"], project) == 0
    (project / "requirements" / "project.in").write_text("packaging>=\n")
    assert drift.main([], project) == 2


def test_the_table_names_kind_what_expected_found_and_mend(project, capsys):
    (project / "requirements" / "project.in").write_text(
        world.INPUTS["project.in"].replace("iniconfig>=2", "iniconfig>=99")
    )
    drift.main(["inputs"], project)
    version = {pin.name: pin.version for pin in lock.read(project / "requirements" / "cpu.txt")}["iniconfig"]

    lines = capsys.readouterr().out.splitlines()

    assert lines[0].split() == [
        "inputs",
        "DRIFT",
        "9",
        "requirements",
        "of",
        "audit.in,",
        "cpu.in,",
        "cuda.in,",
        "project.in,",
        "tools.in",
    ]
    assert lines[2].split() == ["kind", "what", "expected", "found", "mend"]
    assert " ".join(lines[3].split()) == f"inputs project.in, line 5 iniconfig>=99 in cpu.txt {version} nox -s lock"


def test_json_holds_the_same(project, capsys):
    (project / "requirements" / "cpu.txt").unlink()

    assert drift.main(["--json", "lock"], project) == 2

    says = json.loads(capsys.readouterr().out)
    assert says["exit"] == 2
    assert says["answers"][0]["state"] == "broken"
    assert says["answers"][0]["findings"][0] == {
        "what": str(project / "requirements" / "cpu.txt"), "expected": "a lock file", "found": "nothing there", "mend": "nox -s lock",
        "state": "broken",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["locks"],
            "drift locks: expected a kind: inputs, lock, installed, image, python, variants, twins, found locks",
        ),
        (["--as-of", "2026-01-01"], "drift --as-of: expected --upstream as well, found no --upstream"),
        (["--upstream", "--as-of", "soon"], "--as-of: expected a date like 2026-01-31, found soon"),
    ],
)
def test_what_can_not_be_asked_is_refused(project, arguments, says):
    with pytest.raises(VerbatimError) as error:
        drift.main(arguments, project)

    assert says in str(error.value)


def test_the_exit_code_reaches_the_shell_and_nothing_heavy_is_loaded():
    code = "import sys; from verbatim import drift; from pathlib import Path; code = drift.main(['lock'], Path('.')); "
    code += (
        "print(sorted({'torch', 'rich', 'omegaconf', 'docker', 'numpy', 'email'} & set(sys.modules))); sys.exit(code)"
    )
    whole = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    bad = subprocess.run(
        [sys.executable, "-m", "verbatim", "drift", "no"], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )

    assert (whole.returncode, whole.stdout.splitlines()[-1]) == (0, "[]")
    assert bad.returncode == 2
    assert bad.stderr.startswith("error: drift no: expected a kind")


def test_nothing_that_a_file_holds_is_obeyed_by_the_terminal(project, capsys):
    (project / "requirements" / "cpu.txt").write_text("\x1b[31mred\n")
    drift.main(["lock"], project)

    assert "\x1b" not in capsys.readouterr().out
