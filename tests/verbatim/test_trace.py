import struct

import pytest
import torch

from verbatim import trace
from verbatim.errors import VerbatimError


@pytest.fixture
def written(tmp_path):
    """Ten rows."""
    writer = trace.Writer(tmp_path / "trace.bin", parameters_every=3)
    for step in range(10):
        writer.append(step, step / 3, bytes([step] * 16), b"g" * 16, b"p" * 16 if step % 3 == 0 else trace.NOT_TAKEN)
    writer.close()
    return tmp_path / "trace.bin", writer.digest


def test_rows_come_back_as_they_were_written(written):
    path, digest = written
    reader = trace.Reader(path)

    assert reader.rows == 10
    assert reader.parameters_every == 3
    assert reader.digest == digest
    assert reader.row(4) == trace.Row(4, 4 / 3, bytes([4] * 16), b"g" * 16, trace.NOT_TAKEN)
    assert [row.step for row in reader] == list(range(10))
    reader.verify()


def test_the_file_is_as_documented(written):
    data = written[0].read_bytes()

    assert data[:16] == b"verbatim trace 1"
    assert struct.unpack_from("<II", data, 16) == (96, 3)
    assert len(data) == 64 + 10 * 96
    assert struct.unpack_from("<Qd", data, 64 + 96) == (1, 1 / 3)


@pytest.mark.parametrize("cut", [1, 50, 95])
def test_a_torn_last_row_is_left_out(written, cut):
    path, _ = written
    path.write_bytes(path.read_bytes()[:-cut])

    reader = trace.Reader(path)

    assert reader.rows == 9
    reader.verify()


def test_a_last_row_of_garbage_is_left_out(written):
    path, _ = written
    path.write_bytes(path.read_bytes()[:-96] + bytes(96))

    assert trace.Reader(path).rows == 9


@pytest.mark.parametrize("row", range(10))
@pytest.mark.parametrize("offset", [0, 8, 16, 32, 48, 64, 95])
def test_a_changed_byte_in_any_row_is_named(written, row, offset):
    path, _ = written
    data = bytearray(path.read_bytes())
    data[64 + row * 96 + offset] ^= 1
    path.write_bytes(data)

    reader = trace.Reader(path)

    if row == 9:
        assert reader.rows == 9
    else:
        with pytest.raises(VerbatimError) as error:
            reader.verify()
        assert str(error.value) == f"{path}, row {row}: expected a row that continues the chain, found a changed row"


def test_removed_rows_are_noticed(written):
    path, _ = written
    data = path.read_bytes()
    path.write_bytes(data[: 64 + 96 * 4] + data[64 + 96 * 5 :])

    with pytest.raises(VerbatimError, match="row 4: expected a row that continues the chain"):
        trace.Reader(path).verify()


@pytest.mark.parametrize("data", [b"", b"verbatim trace 1", b"x" * 200])
def test_another_file_is_refused(tmp_path, data):
    (tmp_path / "t").write_bytes(data)

    with pytest.raises(VerbatimError, match="expected a trace"):
        trace.Reader(tmp_path / "t")


def test_a_trace_is_never_overwritten(written):
    with pytest.raises(FileExistsError):
        trace.Writer(written[0], parameters_every=3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_gradients_and_parameters_have_digests_in_every_dtype(dtype):
    layer = torch.nn.Linear(3, 2, dtype=dtype)
    digests = trace.ModelDigest(dict(layer.named_parameters()), {})
    before, none = digests.state(), digests.gradient(all_=True)
    layer.weight.grad = torch.ones_like(layer.weight)
    first = digests.gradient(all_=True)
    layer.weight.grad[0, 0] = 2
    second = digests.gradient(all_=True)
    with torch.no_grad():
        layer.bias[1] += 1

    assert len({none, first, second}) == 3
    assert digests.state() != before


def test_the_order_of_a_batch_counts():
    assert trace.of_indices(torch.tensor([1, 2])) != trace.of_indices(torch.tensor([2, 1]))


def test_large_gradients_are_left_out_of_the_steps_between():
    layer = torch.nn.Linear(300, 300)  # 352 KiB of weights, 1.2 KiB of biases
    digests = trace.ModelDigest(dict(layer.named_parameters()), {})
    layer.weight.grad, layer.bias.grad = torch.zeros_like(layer.weight), torch.zeros_like(layer.bias)
    small, whole = digests.gradient(all_=False), digests.gradient(all_=True)
    layer.weight.grad[0, 0] = 1

    assert digests.gradient(all_=False) == small
    assert digests.gradient(all_=True) != whole

    layer.bias.grad[0] = 1

    assert digests.gradient(all_=False) != small
