import numpy as np
import pytest
import torch

from verbatim import digest


def test_a_file_has_the_digest_that_sha256sum_prints(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")

    assert digest.of_file(tmp_path / "a") == "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_value_has_one_digest_whatever_the_order_of_its_keys():
    assert digest.of_value({"a": 1, "b": [0.1]}) == digest.of_value({"b": [0.1], "a": 1})


@pytest.mark.parametrize("other", [{"a": 2}, {"a": 1.5}, {"b": 1}, {"a": "1"}, {"a": [1]}, {"a": None}, {}])
def test_another_value_has_another_digest(other):
    assert digest.of_value({"a": 1}) != digest.of_value(other)


def test_a_value_that_json_cannot_hold_exactly_is_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest.of_value({"a": float("nan")})


def test_parts_cannot_trade_bytes():
    assert digest.of_parts([("a", b"12"), ("b", b"3")]) != digest.of_parts([("a", b"1"), ("b", b"23")])


STATE = {"w": torch.arange(6.0).view(2, 3), "b": torch.zeros(3), "steps": torch.tensor(7), "none": torch.empty(0)}


def changed(**tensors):
    return STATE | tensors


def flipped_bit():
    w = STATE["w"].clone()
    w.view(torch.int32)[1, 2] ^= 1
    return w


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(changed(w=flipped_bit()), id="one bit"),
        pytest.param(changed(w=STATE["w"].view(3, 2)), id="shape"),
        pytest.param(changed(w=STATE["w"].double()), id="dtype"),
        pytest.param(changed(w=-STATE["w"]), id="sign"),
        pytest.param(changed(b=-STATE["b"]), id="negative zero"),
        pytest.param(changed(steps=torch.tensor(8)), id="a buffer"),
        pytest.param({k: v for k, v in STATE.items() if k != "b"}, id="a missing tensor"),
        pytest.param({("v" if k == "w" else k): v for k, v in STATE.items()}, id="a name"),
        pytest.param(changed(w=STATE["b"], b=STATE["w"]), id="two tensors swapped"),
    ],
)
def test_any_change_of_the_weights_changes_their_digest(other):
    assert digest.of_tensors(other) != digest.of_tensors(STATE)


def test_the_digest_of_weights_sees_values_not_memory():
    transposed = STATE["w"].t().contiguous().t()
    reordered = dict(reversed(STATE.items()))

    assert not transposed.is_contiguous()
    assert digest.of_tensors(changed(w=transposed)) == digest.of_tensors(STATE)
    assert digest.of_tensors(reordered) == digest.of_tensors(STATE)


def test_tensor_bytes_are_little_endian_and_cover_every_dtype():
    assert bytes(digest.tensor_bytes(torch.tensor([1], dtype=torch.int16))) == b"\x01\x00"
    assert bytes(digest.tensor_bytes(torch.tensor([1.0], dtype=torch.bfloat16))) == b"\x80\x3f"
    assert bytes(digest.tensor_bytes(torch.tensor(True))) == b"\x01"
    assert bytes(digest.tensor_bytes(torch.tensor([[1, 2], [3, 4]]).t())) == np.array([1, 3, 2, 4]).tobytes()
