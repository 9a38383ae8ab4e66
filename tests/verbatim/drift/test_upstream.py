"""Kind (d), with stand-ins for uv, pip-audit and a registry, because what upstream says changes by the day."""

import json
import stat

import pytest

import drift_world as world
from verbatim import drift, install
from verbatim.drift import upstream


def script(path, body):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def uv(tmp_path, monkeypatch):
    """`says(upgrade, always)`: what its shell script does to `$file`, a copy of a lock, only for an upgrade or in any case."""

    def says(upgrade="", always=":"):
        find = 'for a; do [ "$p" = --output-file ] && file=$a; p=$a; done; case "$*" in *--upgrade*) up=1;; esac'
        path = script(tmp_path / "uv", f"{find}\n{always}\nif [ $up ]; then :; {upgrade or ':'}; fi")
        monkeypatch.setattr(install, "find_uv", lambda: str(path))

    says()
    return says


@pytest.fixture
def audit(project):
    """pip-audit, with a report of its own."""

    def says(dependencies, body=""):
        (project / "report.json").write_text(json.dumps({"dependencies": dependencies}))
        script(project / ".nox" / "audit" / "bin" / "python", body or f"cat {project / 'report.json'}")

    says([{"name": name, "version": "1", "vulns": []} for name in PINNED])
    return says


PINNED = [*world.PROJECT, "torch", "triton", "nox", "pip-audit"]


def answers(project, as_of=""):
    return {answer.kind: answer for answer in upstream.answers(project, as_of)}


def rows(answer):
    return [(f.state, f.what, f.expected, f.found) for f in answer.findings]


def test_where_upstream_is_as_locked_everything_agrees(project, uv, audit):
    given = answers(project)

    assert [(kind, answer.state) for kind, answer in given.items()] == [
        ("newer", "agrees"), ("yanked", "agrees"), ("vulnerable", "agrees"), ("base", "agrees"),
    ]  # fmt: skip
    assert given["vulnerable"].looked_at == "9 of 9 pins, by pip-audit"
    assert drift.main(["--upstream"], project) == 0


def test_a_newer_version_is_named_once_with_the_command_that_takes_it(project, uv, audit):
    uv("sed -i 's/^nox==[^ ]*/nox==2099/; /^mdurl==/d' $file; echo more==1 >> $file")
    found = {f.what: (f.expected, f.found, f.mend) for f in answers(project)["newer"].findings}

    assert found["nox"] == ("2025.1.1", "2099 now", "nox -s lock -- --upgrade-package nox")
    assert found["mdurl"][1] == "gone now"
    assert found["more"] == ("not locked", "1 now", "nox -s lock -- --upgrade")
    assert drift.main(["--upstream"], project) == 1


def test_a_date_is_passed_on(project, uv, audit):
    uv('case "$*" in *--exclude-newer=2026-01-31*) sed -i "s/^nox==[^ ]*/nox==2024/" $file;; esac')

    assert rows(answers(project, "2026-01-31")["newer"]) == [("drift", "nox", "2025.1.1", "2024 on 2026-01-31")]


def test_a_yanked_version_is_named_with_its_reason(project, uv, audit):
    uv(always="""echo 'warning: `nox==2025.1.1` is yanked (reason: "it was broken")' >&2""")

    assert rows(answers(project)["yanked"]) == [("drift", "nox", "2025.1.1, offered", "yanked: it was broken")]


def test_where_nothing_answers_nothing_is_green(project, uv, audit, engine):
    uv(always="echo 'error: Failed to fetch' >&2; exit 2")
    audit([], "echo no route >&2; exit 1")
    engine.status = 500

    assert {answer.state for answer in answers(project).values()} == {"not checked"}
    assert drift.main(["--upstream"], project) == 2


def test_inputs_that_can_not_be_met_any_more_are_drift(project, uv, audit):
    uv("printf 'error: No solution found when\\n  resolving\\n\\nhint: no\\n' >&2; exit 1")

    given = answers(project, "2026-01-31")
    assert rows(given["newer"])[0] == (
        "drift", "tools.in", "requirements that can be met on 2026-01-31", "uv: error: No solution found when resolving",
    )  # fmt: skip
    assert given["yanked"].state == "agrees"


def test_without_uv_or_pip_audit_nothing_is_green(project, monkeypatch):
    monkeypatch.setattr(install, "find_uv", lambda: "")
    given = answers(project)

    assert [given[kind].state for kind in ("newer", "yanked", "vulnerable")] == ["not checked"] * 3
    assert "uv is not there" in given["newer"].findings[0].found


def test_what_pip_audit_skipped_is_not_checked_though_it_says_that_nothing_is_known(project, uv, audit):
    audit(
        [
            {"name": name, "skip_reason": f"Dependency not found and could not be audited: {name} (1.0)"}
            for name in PINNED
        ]
    )
    answer = answers(project)["vulnerable"]

    assert answer.looked_at == "0 of 9 pins, by pip-audit"
    assert rows(answer) == [
        ("not checked", "9 packages: packaging, markdown-it-py, mdurl …", "", "skipped by pip-audit: Dependency not found and could not be audited"),
    ]  # fmt: skip


def test_what_pip_audit_does_not_mention_is_not_checked(project, uv, audit):
    audit([{"name": name, "version": "1", "vulns": []} for name in PINNED[1:]])

    assert rows(answers(project)["vulnerable"]) == [
        ("not checked", "1 packages: packaging", "", "skipped by pip-audit: not answered by pip-audit")
    ]


def test_a_vulnerable_version_is_named_with_what_mends_it(project, uv, audit):
    known = [{"id": "PYSEC-1", "fix_versions": ["2.1", "3"]}, {"id": "PYSEC-2", "fix_versions": []}]
    audit([{"name": n, "version": "1", "vulns": known if n == "nox" else []} for n in PINNED])
    answer = answers(project)["vulnerable"]

    assert rows(answer) == [
        ("drift", "nox 1", "no known vulnerability", "PYSEC-1, fixed in 2.1, 3"),
        ("drift", "nox 1", "no known vulnerability", "PYSEC-2, fixed in no version yet"),
    ]
    assert answer.findings[0].mend == "nox -s lock -- --upgrade-package nox"


@pytest.mark.parametrize("report", ["[]", "{}", '{"dependencies": [1]}', "no"])
def test_a_report_that_is_none_is_not_checked(project, uv, audit, report):
    audit([], f"echo '{report}'")

    assert answers(project)["vulnerable"].state == "not checked"


def test_a_newer_base_image_is_named(project, uv, audit, engine):
    engine.registry = "sha256:" + "c0" * 32

    assert rows(answers(project)["base"]) == [("drift", world.BASE[0], "b0b0b0b0b0b0", "c0c0c0c0c0c0 now")]
