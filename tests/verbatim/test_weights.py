"""Two files of weights, bit by bit, and the six ways in which a checker of two runs is known to fail."""

import json
import math
import struct

import numpy as np
import pytest

from conftest import ROOT, python
from planting import plain_rows, write_trace
from verbatim import digest, record, weights
from verbatim.compare import report
from verbatim.comparison import compare
from verbatim.errors import VerbatimError

NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "U8": "u1", "BOOL": "?"}


def write(path, **tensors):
    """A safetensors file; a tensor is an array, or (dtype, shape, bytes)."""
    header, body = {}, b""
    for name, tensor in tensors.items():
        if isinstance(tensor, np.ndarray):
            dtype = next(k for k, v in NUMPY.items() if np.dtype(v) == tensor.dtype)
            tensor = dtype, list(tensor.shape), tensor.tobytes()
        header[name] = {"dtype": tensor[0], "shape": tensor[1], "data_offsets": [len(body), len(body) + len(tensor[2])]}
        body += tensor[2]
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
    return path


@pytest.fixture
def pair(tmp_path):
    """`pair(a, b)`: what differs between two files with one tensor, `w`."""

    def call(a, b):
        return list(weights.compare(write(tmp_path / "a", w=a), write(tmp_path / "b", w=b)))

    return call


def f32(*values):
    return np.array(values, "<f4")


def test_equal_bits_are_no_difference(pair):
    values = np.random.default_rng(0).normal(size=(7, 5)).astype("<f4")

    assert pair(values, values.copy()) == []


def test_our_writer_is_safetensors_own(tmp_path):
    from safetensors.numpy import load_file

    path = write(tmp_path / "a", w=f32(1, 2), n=np.array([[3]], "<i8"))

    loaded = load_file(path)
    assert (loaded["w"].tolist(), loaded["n"].tolist()) == ([1.0, 2.0], [[3]])
    assert weights.read_header(path)["n"].shape == (1, 1)


@pytest.mark.parametrize("dtype", ["<f8", "<f4", "<f2"])
def test_the_distance_is_counted_in_neighbouring_floats(pair, dtype):
    a = np.array([1.0, -2.0, 0.0], dtype)
    b = a.copy()
    for _ in range(3):
        b[1] = np.nextafter(b[1], np.array(-np.inf, dtype))

    (apart,) = pair(a, b)

    assert (apart.count, apart.of, apart.max_ulp, apart.first_index) == (1, 3, 3, (1,))


@pytest.mark.parametrize(
    ("a", "b", "ulp"),
    [
        (0.0, -0.0, 1),
        (np.float32(1e-45), np.float32(-1e-45), 3),
        (-1.0, np.nextafter(np.float32(-1), np.float32(0)), 1),
    ],
)
def test_the_distance_across_zero(pair, a, b, ulp):
    assert pair(f32(a), f32(b))[0].max_ulp == ulp


def test_the_largest_distance_of_all_does_not_overflow(pair):
    top = np.array([np.finfo("<f8").max], "<f8")

    assert pair(top, -top)[0].max_ulp == 2 * 0x7FEFFFFFFFFFFFFF + 1


@pytest.mark.parametrize("at", [0, 1, weights.CHUNK - 1, weights.CHUNK, weights.CHUNK + 6])
def test_one_flipped_bit_is_found_wherever_it_is(pair, at):
    a = np.zeros((weights.CHUNK + 7,), "<f4")
    b = a.copy()
    b.view("<u4")[at] ^= 1

    (apart,) = pair(a, b)

    assert (apart.count, apart.max_ulp, apart.first_index) == (1, 1, (at,))


def test_every_bit_counts(pair):
    a = f32(0.7)
    for bit in range(32):
        b = a.copy()
        b.view("<u4")[0] ^= np.uint32(1 << bit)
        assert pair(a, b)[0].count == 1


def test_the_first_index_is_that_of_the_shape(pair):
    a = np.zeros((4, 5, 6), "<i8")
    b = a.copy()
    b[2, 3, 4] = -9

    (apart,) = pair(a, b)

    assert apart.says == "1 of 120 values differ; first at [2, 3, 4]: 0 → -9"
    assert apart.max_ulp is None


def test_not_a_number_and_infinity_are_counted(pair):
    (apart,) = pair(f32(1, 2, math.inf), f32(math.nan, 2, -math.inf))

    assert (apart.count, apart.nonfinite_a, apart.nonfinite_b, apart.max_ulp) == (2, 1, 2, 0)
    assert apart.says == "2 of 3 values differ, NaN or infinite: 1 and 2; first at [0]: 1 → nan"


@pytest.mark.parametrize(
    ("dtype", "one", "two"), [("BF16", 0x3F80, 0x3F81), ("F8_E5M2", 0x3C, 0x3D), ("F16", 0x3C00, 0x3C01)]
)
def test_small_floats(pair, dtype, one, two):
    width = 1 if dtype.startswith("F8") else 2
    (apart,) = pair((dtype, [1], one.to_bytes(width, "little")), (dtype, [1], two.to_bytes(width, "little")))

    assert (apart.max_ulp, apart.first_a) == (1, 1.0)
    assert apart.first_b > 1.0


def test_empty_tensors_and_scalars(pair):
    assert pair(np.zeros((0, 3), "<f4"), np.zeros((0, 3), "<f4")) == []
    assert pair(np.array(1.0, "<f4"), np.array(2.0, "<f4"))[0].first_index == ()


def test_another_shape_or_type_or_name_is_a_difference(tmp_path):
    a = write(tmp_path / "a", w=f32(1, 2), v=f32(1), gone=f32(1))
    b = write(tmp_path / "b", w=f32(1, 2).reshape(2, 1), v=np.array([1], "<f8"), new=f32(1))

    assert [(x.name, x.says) for x in weights.compare(a, b)] == [
        ("w", "F32 [2] → F32 [2, 1]"),
        ("v", "F32 [1] → F64 [1]"),
        ("gone", "only in the first"),
        ("new", "only in the second"),
    ]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"1234567",
        struct.pack("<Q", 2**60) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 2) + b"{",
        struct.pack("<Q", 63) + b'{"w": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}} ' + b"short",
        struct.pack("<Q", 62) + b'{"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 8]}} ' + b"12345678",
        struct.pack("<Q", 62) + b'{"w": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}} ' + b"1234",
        struct.pack("<Q", 63) + b'{"w": {"dtype": "F32", "shape": [-1], "data_offsets": [4, 0]}} ' + b"1234",
        struct.pack("<Q", 9000) + b"[" * 9000,
    ],
)
def test_a_file_that_does_not_hold_what_it_states_is_refused(tmp_path, content):
    path = tmp_path / "a"
    path.write_bytes(content)

    with pytest.raises(VerbatimError, match="expected a whole safetensors file"):
        weights.read_header(path)


# ------------------------------------------------------------------- where the checker of the course is known to fail


def with_weights(tensors):
    """Give a run these weights, and seal them."""

    def change(run, folder):
        for name in ("model.safetensors", "last.safetensors"):
            run.files[name] = digest.of_file(write(folder / name, **tensors))
        run.weights = digest.of_parts(sorted((name, t.tobytes()) for name, t in tensors.items()))

    return change


LAYERS = {"encoder.weight": f32(0.5, -0.25), "decoder.weight": f32(0.125, 3.0)}


def test_1_weights_are_read_without_torch_and_without_pickle(planted):
    """`torch.load` of a pickled model fails from torch 2.6 on."""
    a, b = planted("a", with_weights(LAYERS)), planted("b", with_weights(LAYERS | {"decoder.weight": f32(0.125, 3.5)}))
    code = "import sys; from verbatim import compare; from pathlib import Path; "
    code += "compare.main(sys.argv[1:], Path('.')); print('torch' in sys.modules)"

    lines = python("-c", code, str(a), str(b)).stdout.splitlines()

    assert "decoder.weight: 1 of 2 values differ" in lines[0]
    assert lines[-1] == "False"


def test_2_weights_scaled_by_a_millionth_are_different(planted):
    scaled = {name: tensor * np.float32(1 + 5e-6) for name, tensor in LAYERS.items()}

    found = compare(planted("a", with_weights(LAYERS)), planted("b", with_weights(scaled)), ROOT)

    assert [d.where for d in found.differences] == [f"last.safetensors, {name}" for name in LAYERS]
    assert all(d.says.startswith("2 of 2 values differ, by ") for d in found.differences)


def test_3_a_deleted_decoder_is_named(planted):
    only = {"encoder.weight": LAYERS["encoder.weight"]}

    found = compare(planted("a", with_weights(LAYERS)), planted("b", with_weights(only)), ROOT)

    assert [str(d) for d in found.differences] == ["last.safetensors, decoder.weight: only in the first"]


def test_4_identical_nans_are_identical(planted):
    nan = {"w": f32(math.nan, 1.0)}

    assert compare(planted("a", with_weights(nan)), planted("b", with_weights(nan)), ROOT).differences == []


def test_5_settings_are_compared(planted):
    def change(run, _):
        run.recipe_config["optimizer"]["lr"] = 0.5

    found = compare(planted("a", with_weights(LAYERS)), planted("b", change), ROOT)

    assert (found.differences[0].part, found.differences[0].where) == ("config", "optimizer.lr")


def test_6_a_vae_with_a_partial_last_batch_trains_and_repeats(train):
    """1,294 training images in batches of 500: the last has 294."""
    settings = (
        "model=vae",
        "model.hidden_dim=8",
        "model.latent_dim=2",
        "trainer.batch_size=500",
        "trainer.max_steps=4",
    )
    a, b = train(*settings), train(*settings)

    assert (a.code, b.code) == (0, 0), a.err
    assert compare(a.folder, b.folder, ROOT).differences == []
    assert record.read(a.folder).trace["rows"] == 4


def test_the_last_epochs_tensors_are_one_line_where_the_best_epochs_are_the_same_ones(planted):
    def run(name, scale, **more):
        def change(run, folder):
            for file, epoch in (("model.safetensors", 1), ("last.safetensors", 2)):
                tensors = {key: tensor * np.float32(scale * epoch) for key, tensor in LAYERS.items()}
                tensors |= more if file == "last.safetensors" else {}
                run.files[file] = digest.of_file(write(folder / file, **tensors))

        return planted(name, change)

    a, b, other = run("a", 1), run("b", 3), run("c", 3, head=f32(1))
    found, differs = compare(a, b, ROOT), compare(a, other, ROOT)

    lines = [line for line in report(found, ROOT).splitlines()[4:] if "safetensors" in line]
    assert [line[10:].partition(":")[0] for line in lines[:2]] == [f"model.safetensors, {name}" for name in LAYERS]
    assert lines[2:] == ["          last.safetensors: the same 2 tensors differ as in model.safetensors"]
    assert report(found, ROOT, everything=True).count("last.safetensors, ") == 3  # the verdict names one as well
    assert len(found.differences) == 4
    assert report(differs, ROOT).count("last.safetensors, ") == 4, "other tensors are listed"


def test_a_changed_weights_file_is_refused(planted):
    a, b = planted("a", with_weights(LAYERS)), planted("b", with_weights(LAYERS | {"decoder.weight": f32(0, 0)}))
    content = bytearray((b / "last.safetensors").read_bytes())
    content[-1] ^= 1
    (b / "last.safetensors").write_bytes(content)

    with pytest.raises(
        VerbatimError, match=r"b/last\.safetensors: expected sha256:\w+, found sha256:\w+: the file was changed"
    ):
        compare(a, b, ROOT)


def test_where_the_weights_are_gone_their_digest_answers(planted):
    a, b = planted("a", with_weights(LAYERS)), planted("b", with_weights(LAYERS | {"decoder.weight": f32(0, 0)}))
    for path in b.glob("*.safetensors"):
        path.unlink()

    found = compare(a, b, ROOT)

    assert [(d.part, d.where) for d in found.differences] == [("tensor", "weights")]
    assert found.notes == [f"{b}: no last.safetensors, so its tensors were not compared"]


def test_the_step_comes_before_the_tensor(planted):
    def both(run, folder):
        rows = plain_rows(12)
        rows[5][3] = b"?" * 16
        write_trace(folder, run, rows)
        with_weights(LAYERS | {"decoder.weight": f32(0, 0)})(run, folder)

    def one(run, folder):
        write_trace(folder, run, plain_rows(12))
        with_weights(LAYERS)(run, folder)

    found = compare(planted("a", one), planted("b", both), ROOT)

    assert [d.part for d in found.differences] == ["step", "tensor"]
