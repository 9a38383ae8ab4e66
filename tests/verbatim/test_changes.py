"""What `nox -s lock` says that it changed, and why."""

from conftest import ROOT
from verbatim import changes, lock

HASHES = ("sha256:" + "0a" * 32,)


def pin(name, version, *via, hashes=HASHES):
    return lock.Pin(name=name, version=version, hashes=hashes, via=via, line=1)


def folder(tmp_path):
    for name in lock.NAMES:
        (tmp_path / f"{name}.in").write_text("# mine\npooch>=1.8  # data\n")
    return tmp_path


OLD = [
    pin("pooch", "1.8", "-r requirements/cpu.in"),
    pin("requests", "2.1", "pooch"),
    pin("idna", "3.1", "requests"),
    pin("old", "1", "requests"),
]


def test_a_change_names_the_requirement_that_leads_to_it_by_the_shortest_way(tmp_path):
    new = [
        pin("pooch", "1.9", "-r requirements/cpu.in"),
        OLD[1],
        pin("idna", "3.2", "odd", "requests"),
        pin("odd", "1", "idna"),
    ]

    assert changes.between({"cpu": OLD}, {"cpu": new}, folder(tmp_path)) == [
        "idna 3.1 → 3.2   cpu: pooch>=1.8 (cpu.in, line 2) → requests → idna",
        "odd new → 1      cpu: pooch>=1.8 (cpu.in, line 2) → requests → idna → odd",
        "old 1 → gone     cpu: was required by requests",
        "pooch 1.8 → 1.9  cpu: pooch>=1.8 (cpu.in, line 2)",
    ]


def test_what_changed_alike_in_several_locks_is_said_once(tmp_path):
    for name in lock.NAMES:
        (tmp_path / f"{name}.in").write_text("-r project.in\n")
    (tmp_path / "project.in").write_text("pooch\n")
    new = [pin("pooch", "1.9", "-r requirements/project.in")]

    assert changes.between({}, {"cpu": new, "cuda": new}, tmp_path) == [
        "pooch new → 1.9  cpu, cuda: pooch (project.in, line 1)"
    ]


def test_other_hashes_of_the_same_version_are_a_change(tmp_path):
    new = [pin("pooch", "1.8", "-r requirements/cpu.in", hashes=("sha256:" + "0b" * 32, *HASHES))]

    assert changes.between({"cpu": OLD[:1]}, {"cpu": new}, folder(tmp_path)) == [
        "pooch 1.8, hashes +1 −0  cpu: pooch>=1.8 (cpu.in, line 2)"
    ]


def test_nothing_changed_says_nothing():
    pins = {name: lock.read(ROOT / "requirements" / f"{name}.txt") for name in lock.NAMES}

    assert changes.between(pins, pins, ROOT / "requirements") == []
