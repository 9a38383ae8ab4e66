import json
import math
import os
import random

import numpy
import pytest
import torch
from safetensors import safe_open

from verbatim import checkpoint, generators, trace
from verbatim.errors import VerbatimError

DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2, torch.complex64,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.bool,
]  # fmt: skip


def back(value):
    return checkpoint.decode(checkpoint.encode({"value": value}))["value"]


@pytest.mark.parametrize(
    "value",
    [
        {},
        [],
        (),
        None,
        {"a": {"b": [1, (2, [3.5, None]), {"c": True}]}, "d": ((),)},
        [True, 1, 1.0, False, 0, -0.0, "1", "", "ä\0\n"],
        {0: "a", "0": "b", None: "c", 1.5: "d", True: "e"},
        [2**200, -(2**63), 5e-324, 0.1, math.inf, -math.inf],
        {"tensor": "no tensor", "shape": [1]},
        {"dict": [], "tuple": []},
    ],
)
def test_plain_values_come_back_with_their_types(value):
    assert repr(back(value)) == repr(value)


def test_not_a_number_comes_back():
    assert math.isnan(back(math.nan))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tensors_of_every_type_come_back_with_their_bits(dtype):
    size = torch.empty(0, dtype=dtype).itemsize
    bits = torch.arange(24 * size, dtype=torch.uint8)
    tensor = (bits % 2 if dtype == torch.bool else bits).view(dtype).view(2, 3, 4)

    for one in (tensor, tensor[1, 2, 3], tensor[:0]):
        found = back(one)
        assert (found.dtype, found.shape, found.stride()) == (one.dtype, one.shape, one.stride())
        assert torch.equal(found.reshape(-1).view(torch.uint8), one.contiguous().reshape(-1).view(torch.uint8))


def test_the_bits_of_not_a_number_and_of_minus_zero_come_back():
    bits = torch.tensor([0x7FC00001, -0x80000000, 0x7F800001, 1, -1], dtype=torch.int32)

    assert torch.equal(back(bits.view(torch.float32)).view(torch.int32), bits)


@pytest.mark.parametrize(
    "laid",
    [
        torch.arange(120.0).view(2, 3, 4, 5).to(memory_format=torch.channels_last),
        torch.arange(9.0).view(1, 1, 3, 3).to(memory_format=torch.channels_last),
        torch.arange(32.0).view(16, 2, 1, 1).to(memory_format=torch.channels_last),
        torch.arange(144.0).view(16, 1, 3, 3).to(memory_format=torch.channels_last),
        torch.arange(6.0).view(2, 3).t(),
        torch.arange(24.0).view(2, 3, 4).permute(1, 2, 0),
        torch.arange(24.0).view(4, 6)[1:3],
    ],
    ids=lambda t: f"{tuple(t.shape)} {t.stride()}",
)
def test_a_tensor_lies_in_memory_as_it_did(laid):
    found = back(laid)

    assert torch.equal(found, laid)
    assert found.stride() == laid.stride()


@pytest.mark.parametrize(
    "loose", [torch.arange(24.0).view(4, 6)[:, 1:3], torch.tensor([1.0]).expand(3, 4), torch.arange(10)[::3]]
)
def test_a_part_of_a_tensor_comes_back_by_itself(loose):
    found = back(loose)

    assert torch.equal(found, loose)
    assert found.is_contiguous()


def test_tensors_that_share_memory_come_back_each_by_itself():
    whole = torch.arange(10.0)
    one, other, again, part = back([whole, whole, whole.view(2, 5), whole[4:7]])

    assert torch.equal(one, whole) and torch.equal(other, whole) and torch.equal(part, whole[4:7])
    assert torch.equal(again, whole.view(2, 5))
    other.zero_()
    assert torch.equal(one, whole)


def test_a_parameter_comes_back_as_a_tensor_that_needs_no_gradient():
    parameter = torch.nn.Parameter(torch.ones(2))
    assert not back(parameter).requires_grad
    assert parameter.requires_grad


def test_keys_that_look_alike_are_told_apart():
    value = {"a.b": torch.tensor(1), "a": {"b": torch.tensor(2)}, 0: torch.tensor(3), "0": torch.tensor(4)}
    found = back(value)

    assert [int(found["a.b"]), int(found["a"]["b"]), int(found[0]), int(found["0"])] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"deep": [1, object()]}, "checkpoint, state.value.deep.1: expected tensors, numbers, strings, and dicts"),
        ({"set": {1}}, "found set"),
        (b"bytes", "found bytes"),
        (numpy.float32(1), "found float32"),
        (numpy.zeros(2), "found ndarray"),
        (torch.float32, "found dtype"),
        ({(1, 2): 3}, "checkpoint, state.value, a key: expected a number or a string, found tuple"),
        (torch.zeros(2, dtype=torch.complex128), "a type that safetensors has, found torch.strided, torch.complex128"),
        (torch.eye(2).to_sparse(), "found torch.sparse_coo, torch.float32"),
    ],
)
def test_what_cannot_be_kept_is_refused_by_name(value, says):
    with pytest.raises(VerbatimError) as error:
        checkpoint.encode({"value": value})

    assert says in str(error.value)
    assert "next: give run.keeps what has a state_dict of these" in str(error.value)


def test_an_optimizer_goes_on_as_if_nothing_had_happened():
    def made():
        torch.manual_seed(0)
        model = torch.nn.Conv2d(1, 16, 3).to(memory_format=torch.channels_last)
        return model, torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)

    def step(model, optimizer):
        optimizer.zero_grad()
        model(torch.randn(4, 1, 8, 8)).square().mean().backward()
        optimizer.step()

    model, optimizer = made()
    for _ in range(3):
        step(model, optimizer)
    data = checkpoint.encode(
        {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "generators": generators.states()}
    )
    for _ in range(3):
        step(model, optimizer)

    other, its = made()
    state = checkpoint.decode(data)
    other.load_state_dict(state["model"])
    its.load_state_dict(state["optimizer"])
    generators.restore(state["generators"])
    for _ in range(3):
        step(other, its)

    assert torch.equal(other.weight, model.weight)
    assert torch.equal(other.bias, model.bias)
    assert its.state_dict()["param_groups"] == optimizer.state_dict()["param_groups"]


def test_every_generator_goes_on_from_where_it_was():
    def draws():
        return random.random(), random.gauss(0, 1), numpy.random.rand(), numpy.random.randn(), float(torch.randn(1))

    draws(), random.gauss(0, 1), numpy.random.randn()  # half of a pair of normal draws is kept for the next
    data = checkpoint.encode(generators.states())
    first = draws()
    draws()
    generators.restore(checkpoint.decode(data))

    assert draws() == first


# ------------------------------------------------------------------------------------------------------------ files


@pytest.fixture
def folder(tmp_path):
    """A run's folder with the checkpoints of the steps 3, 5 and 8, of which the policy keeps some."""
    trace.Writer(tmp_path / trace.FILE, parameters_every=0).close()
    write(tmp_path, checkpoint.Writer(tmp_path, 1.0), 3, 5, 8)
    return tmp_path


def write(folder, writer, *steps, flush=False):
    import xxhash

    for step in steps:
        data = b"weights of step %d" % step
        (folder / ".new").write_bytes(data)
        (folder / ".new").rename(folder / "model.safetensors")
        saved = {"model.safetensors": xxhash.xxh3_128_hexdigest(data)}
        state = {
            "step": step, "saved": saved, "w": torch.full((100,), float(step)), "recipe": "sha256:0",
            "trace": {"rows": 0, "digest": trace.Reader(folder / trace.FILE).digest},
        }  # fmt: skip
        writer.write(step, state, saved, flush=flush)


def steps(folder):
    return [found.step for found in checkpoint.found(folder)]


def newest(folder):
    """Step of the newest whole one, and what was said on the way to it."""
    said = []
    found = checkpoint.newest_whole(folder, "sha256:0", said.append)
    return found and found[1]["step"], said


def test_nothing_is_a_pickle(folder):
    for found in checkpoint.found(folder):
        data = found.path.read_bytes()
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        values = header.pop("__metadata__")

        assert json.loads(values["state"])
        assert {entry["dtype"] for entry in header.values()} == {"F32"}
        assert 8 + length + max(entry["data_offsets"][1] for entry in header.values()) == len(data)
        with safe_open(found.path, "pt") as file:
            assert file.metadata() == values


def test_the_newest_two_are_kept_and_the_first_that_was_flushed(folder):
    assert steps(folder) == [8, 5, 3]  # of the step 3 the writer has flushed, its first

    writer = checkpoint.Writer(folder, 1.0)
    write(folder, writer, 13, flush=True)
    assert steps(folder) == [13, 8]
    write(folder, writer, 14, 15, 16)
    assert steps(folder) == [16, 15, 13]
    write(folder, writer, 17, flush=True)
    assert steps(folder) == [17, 16]
    names = sorted(os.listdir(folder / checkpoint.FOLDER))
    assert [name for name in names if name.endswith("model.safetensors")] == [
        "0000000016.model.safetensors", "0000000017.model.safetensors",
    ]  # fmt: skip
    assert len(names) == 4


def test_what_is_of_a_later_step_is_removed_once_training_went_on_from_before_it(folder):
    write(folder, checkpoint.Writer(folder, 1.0), 6)

    assert steps(folder) == [6, 5]


def test_a_step_that_is_written_twice_is_there_once(folder):
    writer = checkpoint.Writer(folder, 1.0)
    writer.write(8, {"step": 8, "saved": {}, "other": True}, [])

    assert steps(folder) == [8, 5]


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.unlink()  # a hard link's other name keeps its bytes
    path.write_bytes(data)


@pytest.mark.parametrize("at", [0, 8, 100, -200, -1])
def test_a_changed_bit_is_noticed_and_the_one_before_is_taken(folder, at):
    path = checkpoint.found(folder)[0].path
    flip(path, at)

    assert newest(folder) == (5, [f"{path}: damaged; the checkpoint before it is taken"])


@pytest.mark.parametrize("bytes_", [0, 7, 100, -1])
def test_a_torn_one_is_noticed_and_the_one_before_is_taken(folder, bytes_):
    path = checkpoint.found(folder)[0].path
    path.write_bytes(path.read_bytes()[:bytes_])

    assert newest(folder) == (5, [f"{path}: damaged; the checkpoint before it is taken"])


def test_a_changed_or_missing_saved_file_counts_as_damage(folder):
    at = folder / checkpoint.FOLDER
    flip(at / "0000000008.model.safetensors", 3)
    (at / "0000000005.model.safetensors").unlink()

    assert newest(folder) == (
        3,
        [
            f"{at}/0000000008.model.safetensors: damaged; the checkpoint before it is taken",
            f"{at}/0000000005.model.safetensors: No such file or directory; the checkpoint before it is taken",
        ],
    )


def test_where_all_are_damaged_it_says_that_the_run_starts_anew(folder):
    for found in checkpoint.found(folder):
        flip(found.path, -1)

    step, said = newest(folder)

    assert step is None
    assert [line.split("; ")[1] for line in said] == ["the checkpoint before it is taken"] * 2 + ["the run starts anew"]


def test_whole_ones_are_taken_without_a_word(folder):
    assert newest(folder) == (8, [])
    assert newest(folder / "nothing") == (None, [])


def test_a_file_without_its_name_yet_is_no_checkpoint(folder):
    path = checkpoint.found(folder)[0].path
    path.rename(path.with_name(".new"))

    assert newest(folder) == (5, [])
    write(folder, checkpoint.Writer(folder, 1.0), 9)
    assert not (path.parent / ".new").exists()


def test_saved_files_are_put_back_as_they_were_then(folder):
    checkpoint.restore_saved(folder, 5, ["model.safetensors"])
    assert (folder / "model.safetensors").read_bytes() == b"weights of step 5"

    (folder / "model.safetensors").unlink()
    checkpoint.restore_saved(folder, 8, ["model.safetensors"])
    assert (folder / "model.safetensors").read_bytes() == b"weights of step 8"
    assert newest(folder) == (8, [])


def test_a_full_disk_leaves_the_older_ones_whole(folder):
    """As the kernel says it: a file may not grow beyond a limit."""
    import resource

    writer, before = checkpoint.Writer(folder, 1.0), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            writer.write(9, {"step": 9, "saved": {}, "w": torch.zeros(10_000)}, [])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert newest(folder) == (8, [])
    assert not (folder / checkpoint.FOLDER / ".new").exists()
