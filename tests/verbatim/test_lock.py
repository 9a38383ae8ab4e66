import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import ROOT
from verbatim import lock
from verbatim.errors import VerbatimError

HASH = "sha256:" + "0a" * 32
OTHER = "sha256:" + "0b" * 32
LOCK = f"""# inputs sha256:{"1" * 64}
#
a-b==1.0 \\
    --hash={HASH} \\
    --hash={OTHER}
    # via
    #   -r requirements/cpu.in
    #   c
c==2.0+cpu \\
    --hash={HASH}
    # via -r requirements/cpu.in
"""


@pytest.fixture
def path(tmp_path):
    (tmp_path / "cpu.txt").write_text(LOCK)
    return tmp_path / "cpu.txt"


def test_pins_are_read_with_their_hashes_and_reasons(path):
    assert lock.read(path) == [
        lock.Pin(name="a-b", version="1.0", hashes=(HASH, OTHER), via=("-r requirements/cpu.in", "c"), line=3),
        lock.Pin(name="c", version="2.0+cpu", hashes=(HASH,), via=("-r requirements/cpu.in",), line=9),
    ]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            "a-b==1.0",
            "a-b>=1.0",
            "line 3, column 4: expected name==version, --hash=sha256:… or a comment, found a-b>=1.0 \\",
        ),
        ("a-b==1.0", "--index-url x", "line 3, column 1: expected name==version"),
        (
            OTHER,
            "md5:00",
            "line 5, column 12: expected --hash=sha256:<64 hex digits> after a backslash, found --hash=md5:00",
        ),
        ("c==2.0+cpu", "A_B==2.0", "line 9, column 1: expected a-b pinned once, found a second pin, after line 3"),
        (
            f" \\\n    --hash={HASH}\n    # via -r",
            "\n    # via -r",
            "line 9, column 11: expected a backslash and a --hash for c, found none",
        ),
        (
            f"{HASH} \\",
            HASH,
            f"line 4, column {len(HASH) + 12}: expected a backslash, because a --hash follows, found --hash={HASH}",
        ),
        (
            OTHER,
            f"{OTHER} \\",
            "line 6, column 5: expected --hash=sha256:<64 hex digits> after a backslash, found # via",
        ),
        (
            "# via\n",
            "# via\n<<<<<<< HEAD\n",
            "line 7, column 1: expected one version, found a merge conflict (<<<<<<< HEAD)",
        ),
    ],
)
def test_what_is_no_lock_is_refused_with_its_line(path, old, new, says):
    path.write_text(LOCK.replace(old, new))

    with pytest.raises(VerbatimError) as error:
        lock.read(path)

    assert f"{path}, {says}" in str(error.value)


def test_a_lock_that_is_not_there_says_how_to_make_it(tmp_path):
    with pytest.raises(VerbatimError, match="next: nox -s lock"):
        lock.read(tmp_path / "cpu.txt")


def test_the_digest_ignores_order_comments_and_line_ends(path):
    before = lock.digest(lock.read(path))
    blocks = LOCK.partition("#\n")[2].split("\nc==")
    path.write_bytes((f"# new\nc=={blocks[1]}{blocks[0]}\n").replace("\n", "\r\n").encode())

    assert lock.digest(lock.read(path)) == before


@pytest.mark.parametrize(("old", "new"), [("a-b==1.0", "a-b==1.1"), (OTHER, "sha256:" + "0c" * 32), ("c==", "d==")])
def test_the_digest_sees_every_name_version_and_hash(path, old, new):
    before = lock.digest(lock.read(path))
    path.write_text(LOCK.replace(old, new))

    assert lock.digest(lock.read(path)) != before


def test_differences_name_what_is_missing_other_or_extra(path):
    pins = lock.read(path)

    assert lock.differences(pins, {"a-b": "1.0", "c": "2.0+cpu", "pip": "26"}) == []
    assert lock.differences(pins, {"a-b": "1.1", "d": "3"}) == [
        "c: locked 2.0+cpu, not installed",
        "a-b: locked 1.0, installed 1.1",
        "d: installed 3, not locked",
    ]


def test_the_variants_differ_in_torch_and_what_its_cuda_build_brings_alone():
    cpu, cuda = ({pin.name for pin in lock.read(ROOT / "requirements" / f"{v}.txt")} for v in lock.VARIANTS)

    assert cpu <= cuda
    assert all(name.startswith(("nvidia-", "cuda-", "triton")) for name in cuda - cpu)
    assert any(name.startswith("nvidia-") for name in cuda - cpu)


def test_no_lock_names_a_place_or_holds_an_option():
    for path in (ROOT / "requirements").glob("*.txt"):
        text = path.read_text()
        assert "http" not in text
        assert not [line for line in text.splitlines() if line.startswith("-")]


@given(st.text(max_size=300))
def test_any_text_is_read_or_refused(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "fuzzed.txt"
    path.write_text(text, encoding="utf-8", errors="replace", newline="")
    try:
        lock.read(path)
    except VerbatimError as error:
        assert error.where  # noqa: PT017
