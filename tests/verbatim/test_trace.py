import struct

import pytest
import torch

from verbatim import trace
from verbatim.digest import of_tensors
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


def fingerprint(parameters, buffers=None):
    return trace.ModelDigest(parameters, buffers or {}).state()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.int64, torch.bool], ids=str)
def test_every_bit_of_a_parameter_counts(dtype):
    values = torch.arange(24).view(2, 3, 4).to(dtype)
    digests = trace.ModelDigest({"w": values}, {})
    seen, memory = {digests.state()}, values.view(-1).view(torch.uint8)
    for at in range(len(memory)):
        for bit in range(8 if dtype != torch.bool else 1):
            memory[at] ^= 1 << bit
            seen.add(digests.state())
            memory[at] ^= 1 << bit

    assert len(seen) == 1 + len(memory) * (8 if dtype != torch.bool else 1)
    assert digests.state() in seen


@pytest.mark.parametrize("format_", [torch.contiguous_format, torch.channels_last], ids=str)
def test_every_swap_of_two_values_counts(format_):
    values = torch.arange(16.0).view(2, 2, 2, 2).contiguous(memory_format=format_)
    digests, flat = trace.ModelDigest({"w": values}, {}), values.permute(0, 1, 2, 3)
    seen = {digests.state()}
    places = [(a, b, c, d) for a in (0, 1) for b in (0, 1) for c in (0, 1) for d in (0, 1)]
    pairs = [(i, j) for n, i in enumerate(places) for j in places[:n]]
    for i, j in pairs:
        flat[i], flat[j] = float(flat[j]), float(flat[i])
        seen.add(digests.state())
        flat[i], flat[j] = float(flat[j]), float(flat[i])

    assert len(seen) == 1 + len(pairs)


def test_what_numbers_cannot_tell_apart_counts():
    zero, nan = torch.zeros(3), torch.tensor([0x7FC00000, 0x7FC00001], dtype=torch.int32).view(torch.float32)

    assert fingerprint({"w": zero}) != fingerprint({"w": -zero})
    assert fingerprint({"w": nan[:1]}) != fingerprint({"w": nan[1:]})


def test_where_a_value_lies_counts_and_how_it_lies_in_memory_does_not():
    a, b = torch.arange(6.0), torch.arange(6.0) + 10
    base = {"a": a, "b": b}
    assert fingerprint(base) == fingerprint({"a": a.clone(), "b": b.clone()})
    others = [{"a": b, "b": a}, {"b": b, "a": a}, {"a": a}, {"a": a, "b": b[:5]}, {"a": a, "b": b, "c": torch.zeros(1)}]
    assert all(fingerprint(other) != fingerprint(base) for other in others)

    # The same values in the same order, under another name, shape or type: another code or configuration, and other weights at the end.
    others = [
        {"b": a, "a": b}, {"a": a, "c": b}, {"a": a.view(2, 3), "b": b}, {"a": a.view(torch.int32), "b": b},
        {"a": torch.cat([a, b[:1]]), "b": b[1:]}, {"a": torch.cat([a, b])}, {"a": a, "b": b, "c": torch.zeros(0)},
    ]  # fmt: skip
    assert len({of_tensors(each) for each in (base, *others)}) == 1 + len(others)

    images = torch.arange(24.0).view(1, 2, 3, 4)
    assert fingerprint({"w": images}) == fingerprint({"w": images.contiguous(memory_format=torch.channels_last)})


def test_which_parameter_a_gradient_is_of_counts():
    one, other = torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(1))
    digests = trace.ModelDigest({"one": one, "other": other}, {})
    seen = {digests.gradient(all_=True)}
    for left in (None, 0.0, -0.0, 1.0):
        for right in (None, 0.0, -0.0, 1.0):
            one.grad, other.grad = (None if v is None else torch.tensor([v]) for v in (left, right))
            seen.add(digests.gradient(all_=True))

    assert len(seen) == 16


def test_a_trace_that_goes_on_is_as_if_it_had_never_stopped(written, tmp_path):
    path, digest = written
    chain = trace.Reader(path).digest_of(4)
    writer = trace.Writer.go_on(path, rows=4, digest=chain)
    assert path.stat().st_size == 64 + 4 * 96
    for step in range(4, 10):
        writer.append(step, step / 3, bytes([step] * 16), b"g" * 16, b"p" * 16 if step % 3 == 0 else trace.NOT_TAKEN)
    writer.close()

    assert (writer.digest, writer.rows) == (digest, 10)
    assert trace.Reader(path).digest == digest
    trace.Reader(path).verify()


@pytest.mark.parametrize("rows", [0, 10])
def test_a_trace_goes_on_from_its_first_and_its_last_row(written, rows):
    path, _ = written
    writer = trace.Writer.go_on(path, rows=rows, digest=trace.Reader(path).digest_of(rows))
    writer.append(rows, 0.0, b"b" * 16, b"g" * 16)
    writer.close()

    assert trace.Reader(path).rows == rows + 1
    trace.Reader(path).verify()


def test_a_trace_that_is_not_the_checkpoints_is_refused_and_left_as_it_is(written):
    path, digest = written
    data = path.read_bytes()

    def refused(rows, digest, says):
        with pytest.raises(VerbatimError) as error:
            trace.Writer.go_on(path, rows=rows, digest=digest)
        assert says in str(error.value)

    refused(4, digest, "expected the 4 rows that the checkpoint goes with, found 10 rows, or others")
    refused(11, digest, "expected the 11 rows that the checkpoint goes with, found 10 rows, or others")
    path.write_bytes(data[:100] + b"x" + data[101:])
    refused(4, trace.Reader(path).digest_of(4), "row 0: expected a row that continues the chain, found a changed row")
    assert len(path.read_bytes()) == len(data)
    path.unlink()
    refused(4, digest, "expected the 4 rows that the checkpoint goes with, found no file")


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
