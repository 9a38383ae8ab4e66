"""10,000 spoiled inputs and locks: each is read, or refused with line and column; never a traceback."""

import random
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import drift_world as world
from verbatim import inputs, lock
from verbatim.drift import locks
from verbatim.errors import VerbatimError

PLACE = re.compile(r", line [1-9]\d*, column [1-9]\d*: expected .+, found .+\n  next: .+", re.DOTALL)
# What these files are made of, so that the random is near to the real; and what no file should hold.
PIECES = [
    "==", "===", ">=", "~=", "<", ",", ";", " ; ", "[", "]", "(", ")", "@", "\\", " \\\n", "\n", "\r\n", "\t", " ", "#", "# via", "#   ", "--hash=",
    "--hash=sha256:", "sha256:" + "a" * 64, "-r ", "-c ", "-e ", "--", "* ", "!", "python_version", " and ", " or ", "'3'", '"', "extra", "1.0", "2.13.0+cpu",
    "torch", "a-b", "<<<<<<< x", "=======", ">>>>>>> y", "# also torch==1 --hash=", "\0", "\ufeff", "\u2028", "\x85", "é", "🦆", "٣", "${X}", "file:///", "..",
]  # fmt: skip
SEED = st.integers(0, 2**64)  # one draw for all edits: drawing each would take longer than what is tested


def spoil(text: str, seed: int) -> bytes:
    """Put pieces in the place of up to 40 characters, one to four times."""
    chance = random.Random(seed)
    for _ in range(chance.randint(1, 4)):
        start, length = chance.randint(0, len(text)), chance.choice([0, 0, 1, 2, chance.randint(3, 40)])
        piece = chance.choice([*PIECES, chr(chance.randint(0, 0x2FFF)), "".join(chance.choices(text or "x", k=3))])
        text = text[:start] + piece + text[start + length :]
    data = text.encode("utf-8", "surrogatepass")
    at = chance.randint(0, len(data)) if chance.random() < 0.05 else len(data)  # cut, at times in mid-character
    return data[:at]


@pytest.fixture(scope="module")
def folder(pristine, tmp_path_factory):
    made = tmp_path_factory.mktemp("fuzzed")
    for path in (pristine / "requirements").iterdir():
        (made / path.name).write_bytes(path.read_bytes())
    return made


@pytest.fixture(scope="module")
def whole(pristine):
    return {name: (pristine / "requirements" / f"{name}.txt").read_text() for name in lock.NAMES}


MANY = settings(max_examples=5000, deadline=None, database=None, suppress_health_check=list(HealthCheck))


@MANY
@given(st.sampled_from(sorted(world.INPUTS)), SEED)
def test_a_spoiled_input_is_read_or_refused_with_its_place(folder, name, seed):
    (folder / name).write_bytes(spoil(world.INPUTS[name], seed))
    try:
        inputs.read(folder / name)
    except VerbatimError as error:
        assert PLACE.search(str(error)), str(error)  # noqa: PT017
    if name == "project.in":  # the others read it too
        (folder / name).write_text(world.INPUTS[name])


@MANY
@given(st.sampled_from(lock.NAMES), SEED)
def test_a_spoiled_lock_is_read_or_refused_with_its_place(whole, folder, name, seed):
    data = spoil(whole[name], seed)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        (folder / f"{name}.txt").write_bytes(data)
        with pytest.raises(VerbatimError, match=PLACE):
            lock.read(folder / f"{name}.txt")
        return
    try:
        lock.parse(folder / f"{name}.txt", text)
    except VerbatimError as error:
        assert PLACE.search(str(error)), str(error)  # noqa: PT017


@settings(max_examples=300, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(SEED, SEED)
def test_whatever_is_spoiled_every_kind_gives_an_answer(whole, folder, seed, other):
    (folder / "cpu.txt").write_bytes(spoil(whole["cpu"], seed))
    (folder / "project.in").write_bytes(spoil(world.INPUTS["project.in"], other))

    assert [answer.kind for answer in locks.of_requirements(folder)] == ["inputs", "lock", "variants"]
