"""What people write in `.in` files: read as pip reads it, refused with line and column."""

import pytest

from verbatim import inputs
from verbatim.errors import VerbatimError

HASH = "sha256:" + "ab" * 32


@pytest.fixture
def path(tmp_path):
    (tmp_path / "other.in").write_text("beta==2\n")
    return tmp_path / "cpu.in"


def read(path, text):
    path.write_text(text)
    return inputs.read(path)


def test_requirements_are_read_with_their_place_and_those_of_other_files_with_theirs(path):
    found = read(path, f"# mine\nAlpha_x >= 1,<2  # why\n-r other.in\n# also beta==2 --hash={HASH}\n")

    assert [(w.name, str(w.requirement.specifier), w.where) for w in found.wanted] == [
        ("alpha-x", "<2,>=1", "cpu.in, line 2"),
        ("beta", "==2", "other.in, line 1"),
    ]
    assert found.also == (inputs.Also(name="beta", version="2", hash=HASH, where="cpu.in, line 4"),)
    assert found.files == ("cpu.in", "other.in")


def test_a_circle_of_files_ends(path):
    path.with_name("other.in").write_text("-r cpu.in\nbeta\n")

    assert [w.name for w in read(path, "-r other.in\nalpha\n").wanted] == ["beta", "alpha"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a\nb >= \n", "line 2, column 3: expected a requirement: expected "),
        ("  a b\n", "line 1, column 5: expected a requirement: expected "),
        ("a; os == \n", "line 1, column 4: expected a requirement: expected a marker variable or quoted string"),
        ("--index-url x\n", "line 1, column 1: expected a requirement, -r FILE or -c FILE: where packages come from is the machine's"),
        ("-r nowhere.in\n", "line 1, column 4: expected a file of requirements, found no nowhere.in there"),
        (f"-r {'n' * 300}\n", "line 1, column 4: expected a file of requirements"),
        ("a @ file:///a\n", "line 1, column 3: expected a version, found an address, which no lock may name"),
        ("a\n=======\n", "line 2, column 1: expected one version, found a merge conflict (=======)"),
        (f"# also a==1 --hash={HASH[:-1]}\n", "line 1, column 3: expected `# also NAME==VERSION --hash=sha256:<64 hex digits>`"),
        ("a; " + "(" * 5000, "line 1, column 1"),
    ],
)  # fmt: skip
def test_what_is_no_requirement_is_refused_with_line_and_column(path, text, says):
    with pytest.raises(VerbatimError) as error:
        read(path, text)

    assert str(error.value).startswith(f"{path}, {says}")


def test_what_is_no_text_is_refused_with_line_and_column(path):
    path.write_bytes(b"alpha\nbet\xe4\n")

    with pytest.raises(VerbatimError) as error:
        inputs.read(path)

    assert str(error.value).startswith(f"{path}, line 2, column 4: expected UTF-8, found 0xe4")


SAME = [
    "alpha<2,>=1\nbeta",
    "beta\n\n# why\nALPHA >=1, <2",
    "alpha (>=1,<2) # why\nbeta\nbeta",
    "alpha>=1,<2\n-r one.in",
]


@pytest.mark.parametrize("text", SAME)
def test_the_digest_is_that_of_what_is_asked_for_not_of_how_it_is_written(path, text):
    path.with_name("one.in").write_text("beta\n")

    assert read(path, text).digest == read(path, SAME[0]).digest


@pytest.mark.parametrize(
    "text",
    [
        "alpha<3,>=1\nbeta",
        "alpha<2,>=1",
        "alpha[x]<2,>=1\nbeta",
        "alpha<2,>=1\nbeta; os_name=='nt'",
        f"alpha<2,>=1\nbeta\n# also a==1 --hash={HASH}",
    ],
)
def test_the_digest_sees_whatever_is_asked_for(path, text):
    assert read(path, text).digest != read(path, SAME[0]).digest
