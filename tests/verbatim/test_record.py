import json
import os

import pytest
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement

from verbatim import record
from verbatim.errors import VerbatimError
from verbatim.record import Record

DIGEST = "sha256:" + "ab" * 32


def made(**changes):
    values = {
        "run": "20260101T000000Z-01234567",
        "state": "sealed",
        "started": "2026-01-01T00:00:00Z",
        "finished": "2026-01-01T00:01:00Z",
        "command": ["python", "-m", "experiment.train"],
        "config": {"seed": 0, "model": {"channels": [1, 2]}, "paths": {"runs": "runs"}},
        "recipe_config": {"seed": 0, "model": {"channels": [1, 2]}},
        "overrides": ["seed=0"],
        "level": "exact",
        "code": {"tree": "0" * 40, "ref": "refs/verbatim/x", "reason": ""},
        "lock": {"digest": DIGEST, "differences": []},
        "data": {"fingerprint": DIGEST, "files": {}, "name": "digits"},
        "environment": {"python": {"version": "3.11.7"}},
        "metrics": {"test_accuracy": 0.1 + 0.2},
        "trace": {"digest": DIGEST, "rows": 3},
        "weights": DIGEST,
        "files": {"model.safetensors": DIGEST},
        "wall_s": 1.5,
    }
    return Record(**values | changes)


@pytest.mark.parametrize(
    "run",
    [made(), Record(run="r", started="2026-01-01T00:00:00Z"), made(state="failed", reason="no")],
    ids=lambda r: r.state,
)
def test_every_record_is_a_valid_statement_with_slsa_provenance(run):
    """By the public library: the statement's own rules, then SLSA's message with no unknown field."""
    statement = json_format.Parse(json.dumps(record.statement(run)), statement_pb2.Statement())
    Statement.copy_from_pb(statement).validate()

    assert statement.predicate_type == "https://slsa.dev/provenance/v1"
    predicate = json.dumps(record.statement(run)["predicate"])
    json_format.Parse(predicate, provenance_pb2.Provenance())


def test_the_public_library_would_refuse_a_wrong_one():
    wrong = record.statement(made())
    wrong["subject"] = []
    statement = json_format.Parse(json.dumps(wrong), statement_pb2.Statement())

    with pytest.raises(ValueError, match="At least one subject required"):
        Statement.copy_from_pb(statement).validate()

    with pytest.raises(json_format.ParseError):
        json_format.Parse(json.dumps({"buildDefinitions": {}}), provenance_pb2.Provenance())


def test_a_record_comes_back_as_it_was_written(tmp_path):
    record.write(tmp_path, made())

    assert record.read(tmp_path) == made()
    assert record.read(tmp_path / "record.json") == made()


def test_a_record_says_that_it_claims_less_and_that_it_was_resumed(tmp_path):
    part = {"ended": "killed", "wall_s": 0.0, "cpu": "one"}
    run = made(level="portable", unlisted=["aten::tan"], resumed=[part], environment={"cpu": {"model": "one"}})
    record.write(tmp_path, run)

    assert record.read(tmp_path) == run
    assert run.claim == "exact"
    assert run.remarks == ["claims exact, not portable (aten::tan)", "resumed 1×"]
    assert made(level="portable").remarks == []
    run.unlisted.append("aten::hypot")
    run.resumed += [part | {"cpu": "another"}, {}]
    assert run.remarks == ["claims exact, not portable (aten::tan and 1 more)", "resumed 3×, begun on another"]


def test_a_record_from_before_there_were_claims_is_read(tmp_path):
    statement = record.statement(made())
    for name in ("claim", "unlisted", "resumed"):
        del statement["predicate"]["runDetails"]["byproducts"][0]["annotations"][name]
    (tmp_path / "record.json").write_text(json.dumps(statement))

    assert record.read(tmp_path) == made()


@pytest.mark.parametrize(
    ("change", "recipe", "outcome"),
    [
        ({"recipe_config": {"seed": 1}}, True, False),
        ({"level": "seeded"}, True, False),
        ({"seed": 3}, True, False),
        ({"code": {"tree": "1" * 40}}, True, False),
        ({"lock": {"digest": "sha256:00"}}, True, False),
        ({"data": {"fingerprint": "sha256:00"}}, True, False),
        ({"metrics": {"test_accuracy": 0.3}}, False, True),
        ({"weights": "sha256:00"}, False, True),
        ({"trace": {"digest": "sha256:00"}}, False, True),
        ({"environment": {}}, False, False),
        ({"config": {"paths": {"runs": "elsewhere"}}}, False, False),
        ({"wall_s": 9.0}, False, False),
        ({"run": "another"}, False, False),
        ({"command": []}, False, False),
        ({"unlisted": ["aten::tan"]}, False, False),
        ({"resumed": [{"ended": "killed"}]}, False, False),
    ],
)
def test_recipe_and_outcome_cover_what_they_should_and_nothing_else(change, recipe, outcome):
    other = made(**change)

    assert (other.recipe != made().recipe) == recipe
    assert (other.outcome != made().outcome) == outcome


@pytest.mark.parametrize("missing", ["code", "lock", "data"])
def test_a_recipe_that_is_not_whole_has_no_digest(missing):
    assert made(**{missing: {}}).recipe == ""


@pytest.mark.parametrize("state", ["started", "failed", "interrupted"])
def test_only_a_sealed_run_has_an_outcome(state):
    assert made(state=state).outcome == ""


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('"seed": 0', '"seed": 1', "this record was edited"),
        ('"level": "exact"', '"level": "seeded"', "this record was edited"),
        ("0.30000000000000004", "0.31", "this record was edited"),
        ('"claim": "exact"', '"claim": "portable"', "the claim exact, which its contents give"),
        ('"resumed": []', '"resumed": ["x"]', "a whole record"),
        ("/run/v1", "/run/v2", "update this checkout"),
        ('"state": "sealed"', '"state": "perfect"', "a whole record"),
        ('"metadata"', '"data"', "a whole record"),
        ('"buildDefinition"', '"build"', "an in-toto Statement of a run"),
        ("{", "", "a record"),
    ],
)
def test_a_damaged_record_is_refused(tmp_path, old, new, says):
    record.write(tmp_path, made())
    path = tmp_path / "record.json"
    path.write_text(path.read_text().replace(old, new))

    with pytest.raises(VerbatimError) as error:
        record.read(tmp_path)

    assert says in str(error.value)


@pytest.mark.parametrize("part", [0, 0.3, 0.9])
def test_a_truncated_record_is_refused(tmp_path, part):
    record.write(tmp_path, made())
    path = tmp_path / "record.json"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])

    with pytest.raises(VerbatimError, match="expected a record, found JSONDecodeError"):
        record.read(tmp_path)


def test_a_folder_without_a_record_is_no_run(tmp_path):
    with pytest.raises(VerbatimError) as error:
        record.read(tmp_path)

    assert str(error.value) == (
        f"{tmp_path}: expected a run folder (it holds record.json), found none there\n"
        "  next: nox -s runs lists the runs that there are"
    )


def test_a_failed_write_leaves_the_old_file_whole_and_nothing_beside_it(tmp_path, monkeypatch):
    path = tmp_path / "file"
    record.write_atomically(path, b"old")

    def full(_fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        record.write_atomically(path, b"new")

    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
