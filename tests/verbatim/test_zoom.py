"""Which operator it was: planted in real runs, and in logs made by hand."""

import json
import math

import pytest
import torch

from conftest import python
from verbatim import parting, record, weights, zoom
from verbatim.observe import Observer, digest
from verbatim.trace import Reader

aten = torch.ops.aten
STEP = "        optimizer.step()\n"


def entry(name, out="x", inputs=("i",), phase="forward", source="", **arguments):
    return {"operator": name, "phase": phase, "inputs": list(inputs), "outputs": [out], "arguments": arguments,
            "module": "", "line": "", "source": source, "parameters": []}  # fmt: skip


def logged(names):
    return [entry(name) for name in names]


def test_equal_logs_have_no_first_difference():
    assert zoom.first(logged("abcd"), logged("abcd")) is None


def test_an_output_that_differs_from_equal_inputs_is_the_operators():
    b = logged("abcd")
    b[2]["outputs"] = ["y"]
    b[3] = entry("d", "z", ["y"])

    found = zoom.first(logged("abcd"), b)

    assert (found.a, found.b, found.what) == (2, 2, "outputs")


def test_an_input_that_came_from_no_operator_is_told_apart():
    b = logged("abcd")
    b[1] = entry("b", "y", ["other"])

    found = zoom.first(logged("abcd"), b)

    assert (found.a, found.what) == (1, "inputs")


def test_an_argument_that_is_no_tensor_is_named():
    a, b = logged("abc"), logged("abc")
    a[1], b[1] = entry("b", "y", lr="0.1"), entry("b", "z", lr="0.2")

    found = zoom.first(a, b)

    assert (found.a, found.what, found.says) == (1, "arguments", "lr: 0.1 → 0.2")


@pytest.mark.parametrize(
    ("a", "b", "at"), [("abcd", "abxcd", (None, 2)), ("abxcd", "abcd", (2, None)), ("abc", "abcd", (None, 3))]
)
def test_an_operator_that_one_run_lacks_is_named(a, b, at):
    found = zoom.first(logged(a), logged(b))

    assert ((found.a, found.b), found.what) == (at, "operator")


def test_logs_of_different_length_are_aligned_past_what_one_lacks():
    pairs = zoom.align(logged("abcdefgh"), logged("abXcdeYZfgh"))

    assert [pair for pair in pairs if None in pair] == [(None, 2), (None, 6), (None, 7)]
    assert (7, 10) in pairs


def test_an_edited_line_pairs_with_what_it_was():
    a, b = logged("abc"), logged("abc")
    a[1], b[1] = entry("b", "y", source="x * 0.5", other="0.5"), entry("b", "z", source="x * 0.25", other="0.25")

    assert zoom.first(a, b).says == "other: 0.5 → 0.25"


def test_an_inserted_line_does_not_pair_with_the_same_operator_of_another():
    a = [entry("a", source="one"), entry("detach", "p", source="two"), entry("c", source="three")]
    b = [entry("a", source="one"), entry("detach", "q", source="y = w.data"), *a[1:]]

    found = zoom.first(a, b)

    assert (found.a, found.b, found.what) == (None, 1, "operator")


@pytest.fixture
def zoomed(project):
    """`zoomed(a, b)`: what `compare --zoom` says of the operator."""

    def call(a, b):
        state = project.state()
        done = project.run("verbatim", "compare", str(a), str(b), "--zoom")
        assert done.returncode == 1, done.stderr
        assert (project.state(), project.worktrees()) == (state, 1)
        assert "gave other bits under observation" not in done.stdout
        return done.stdout[done.stdout.index("\noperator  ") + 1 :].splitlines()

    return call


def test_another_seed_shows_in_the_first_draw_of_a_weight(project, zoomed):
    lines = zoomed(project.train(), project.train("seed=1"))

    assert "aten.uniform_.default, forward (src/experiment/models.py:" in lines[0]
    assert lines[0].endswith("its inputs are the same, its outputs differ")
    assert lines[1].startswith("          output 0: 512 of 512 values differ, by ")


def test_the_operator_as_json(project):
    a, b = project.train(), project.train("seed=1")

    done = project.run("verbatim", "compare", str(a), str(b), "--zoom", "--json")

    found = json.loads(done.stdout)["zoom"]
    assert done.returncode == 1, done.stderr
    assert "observing" in done.stderr
    assert (found["steps"], found["what"], found["repeated"]) == ([0, 0], "outputs", [True, True])
    assert found["a"]["operator"] == found["b"]["operator"] == "aten.uniform_.default"
    assert (found["a"]["number"], found["a"]["outputs"] == found["b"]["outputs"]) == (found["b"]["number"], False)
    assert (found["tensors"][0]["name"], found["tensors"][0]["count"], found["tensors"][0]["of"]) == (
        "output 0",
        512,
        512,
    )
    same = project.run("verbatim", "compare", str(a), str(a), "--zoom", "--json")
    assert (same.returncode, json.loads(same.stdout)["zoom"]) == (0, None)


def test_what_json_has_no_number_for_is_named():
    apart = weights.Apart(name="output 0", says="", first_a=math.nan, first_b=math.inf, max_absolute=0.5)
    log = zoom.Log(entries=[], repeated=True)
    found = zoom.Zoomed(runs=("a", "b"), steps=(0, 0), logs=(log, log), found=None, tensors=[apart])

    (tensor,) = json.loads(json.dumps(found.as_dict(), allow_nan=False))["tensors"]

    assert (tensor["first_a"], tensor["first_b"], tensor["max_absolute"]) == ("nan", "inf", 0.5)


def test_another_learning_rate_shows_in_the_optimizers_update(project, zoomed):
    lines = zoomed(project.train(), project.train("optimizer.lr=0.004"))

    assert lines[0].startswith("operator  step 0, operator ")
    assert "aten._fused_adam_.default, update" in lines[0]
    assert lines[0].endswith(": lr: 0.003 → 0.004")


def test_a_portable_run_repeats_under_observation_and_a_drawn_mask_is_the_models(project, zoomed):
    portable = ("determinism=portable", "trainer.max_steps=2")

    lines = zoomed(project.train(*portable), project.train(*portable, "model.dropout=0.5"))

    assert "forward (Dropout, src/experiment/models.py:" in lines[0]
    assert lines[0].endswith(": only B runs it")


def test_of_several_ranks_the_first_ones_operators_are_compared(project, zoomed):
    two = ("trainer.parallel=ddp", "trainer.ranks=2", "trainer.max_steps=2")

    lines = zoomed(project.train(*two), project.train(*two, "trainer.clip_norm=0.01"))

    assert "forward (src/experiment/trainer.py:" in lines[0]
    assert lines[0].endswith(": only B runs it")


def test_a_bit_that_flips_in_a_later_step_is_found_between_two_digests(project, zoomed):
    """Parameters are digested at steps 0 and 10; the bit flips after step 3, so 1 to the guilty step are watched."""
    a = project.train("trainer.max_steps=12")
    flip = "list(parallel.model.parameters())[-1].data.view(torch.int32).view(-1)[0] ^= 1 << 20"
    project.edit("src/experiment/trainer.py", STEP, f"{STEP}        if step == 3:\n            {flip}\n")
    b = project.train("trainer.max_steps=12")
    number = (project.root / "src" / "experiment" / "trainer.py").read_text().splitlines().index(
        f"            {flip}"
    ) + 1

    lines = zoomed(a, b)

    assert lines[0].startswith("operator  steps 1 to 4, operator ")
    assert f"src/experiment/trainer.py:{number}): only B runs it" in lines[0]


def test_a_run_that_does_not_repeat_is_said_to(project, zoomed):
    noise = "next(parallel.model.parameters()).grad.mul_(1 + __import__('os').getpid() / 1e7)"
    project.edit("src/experiment/trainer.py", STEP, f"        if step == 2:\n            {noise}\n{STEP}")
    a, b = project.train(), project.train()

    done = project.run("verbatim", "compare", str(a), str(b), "--zoom")

    assert done.stdout.count("gave other bits under observation than it recorded") == 2
    assert "aten.mul_.Tensor" in done.stdout


@pytest.fixture
def see(tmp_path):
    """`see(operator, *arguments)`: what it gives, and the digests that the observer takes of its inputs and outputs."""
    observer = Observer(tmp_path / "log.jsonl", 0, 0, -1)
    with observer.log.open("w") as observer._file:

        def call(operator, *arguments, **named):
            result = observer.see(operator, arguments, named)
            observer._file.flush()
            entry = json.loads(observer.log.read_text().splitlines()[-1])
            return result, entry["inputs"], entry["outputs"]

        yield call


def test_what_was_not_written_to_has_no_digest_until_it_is(see):
    blank, _, outputs = see(aten.empty.memory_format, [8])
    end, _, of_end = see(aten.slice.Tensor, blank, 0, 4, 8)
    _, _, filled = see(aten.fill_.Scalar, end, 1.0)

    assert (outputs, of_end) == (["unwritten"], ["unwritten"])
    assert filled == [digest(torch.ones(4))]


def test_memory_that_another_storage_has_now_is_not_blank(see):
    blank, _, _ = see(aten.empty.memory_format, [8])
    other = torch.from_numpy(blank.numpy()).fill_(1.0)  # as memory that was freed and given out again, but for certain

    assert other.data_ptr() == blank.data_ptr()
    assert see(aten.neg.default, other)[1] == [digest(torch.ones(8))]


def test_observing_changes_no_bit(project, tmp_path):
    a, made = project.train(), tmp_path / "observed"
    state = project.state()
    observer = project.root / "src" / "verbatim" / "observe.py"
    small = ("model=mlp", "model.hidden=[8]", "trainer.max_steps=8", f"paths.runs={made}")
    words = ["-P", str(observer), str(tmp_path / "log"), "0", "7", "-1", "-m", "experiment.train", *small]

    done = python(*words, cwd=project.root, PYTHONPATH=str(project.root / "src"))

    (b,) = made.iterdir()
    found = parting.find(Reader(a / "trace.bin"), Reader(b / "trace.bin"))
    assert (done.returncode, record.read(b).state) == (130, "interrupted")
    assert (found.a, found.compared) == (None, 8)
    assert project.state() == state
