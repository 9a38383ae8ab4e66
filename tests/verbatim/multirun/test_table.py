import io

from rich.console import Console

from verbatim.multirun import results
from verbatim.multirun.table import Table


def test_commands_are_whole_on_a_narrow_terminal(tmp_path):
    job = results.Job(index=0, words=["seed=0"], state="sealed", value=1.0, folder="runs/" + "a" * 60).plain()
    waiting = results.Job(index=1, words=["seed=1"]).plain()
    command = "nox -s multirun -- seed=0,1 " + "paths.runs=somewhere/else/" * 3
    table = Table(tmp_path, "validation_loss", "minimize")
    table.console = Console(file=io.StringIO(), width=40, force_terminal=True, color_system=None)
    table.conclude({"jobs": [job, waiting], "goal": "minimize", "command": command}, stopped=True)
    lines = table.console.file.getvalue().splitlines()

    assert f"again   {job['again']}" in lines
    assert f"go on   {command}  (1 of 2 jobs are left)" in lines
