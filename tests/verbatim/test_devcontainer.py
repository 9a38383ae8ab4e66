import json

import pytest

from conftest import ROOT
from verbatim import devcontainer
from verbatim.errors import VerbatimError


def test_the_files_here_are_what_the_matrix_gives():
    assert devcontainer.drifted(ROOT) == []


def test_an_edit_by_hand_is_found_and_undone(tmp_path, capsys):
    assert devcontainer.main([], tmp_path) == 0
    path = tmp_path / ".devcontainer/cpu/devcontainer.json"
    path.write_text(path.read_text().replace('"cpu"', '"cuda"'))
    capsys.readouterr()

    assert devcontainer.main(["--check"], tmp_path) == 1
    assert capsys.readouterr().out == (
        ".devcontainer/cpu/devcontainer.json: not what the matrix gives\n  next: nox -s devcontainer\n"
    )
    assert devcontainer.main([], tmp_path) == 0
    assert devcontainer.main(["--check"], tmp_path) == 0


def test_a_file_that_the_matrix_does_not_know_is_refused(tmp_path):
    (tmp_path / ".devcontainer/other").mkdir(parents=True)
    (tmp_path / ".devcontainer/other/devcontainer.json").write_text("{}")

    with pytest.raises(VerbatimError, match="expected a file that the matrix knows"):
        devcontainer.main([], tmp_path)


def test_a_gpu_is_optional_and_never_asked_for_by_an_argument():
    for name, own in devcontainer.MATRIX.items():
        made = json.loads(devcontainer.text(name).partition("\n")[2])

        assert made["hostRequirements"].get("gpu") == ("optional" if own["variant"] == "cuda" else None)
        assert "runArgs" not in made
