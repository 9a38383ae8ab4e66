"""Verdicts: what they say, who signed them, and that nothing of them can be changed unseen."""

import base64
import json
import subprocess

import pytest
from google.protobuf import json_format
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement

from planting import make_project
from verbatim import attest, digest, record
from verbatim.errors import VerbatimError
from verbatim.verify import verify


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    path = tmp_path_factory.mktemp("keys") / "id_test"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "ada", "-f", path], check=True)
    return path


@pytest.fixture(scope="module")
def signed(tmp_path_factory, key):
    """A run, and the folder of its reproduction, with a signed verdict."""
    project = make_project(tmp_path_factory.mktemp("signed") / "project")
    run = project.train()
    done = project.run("verbatim", "reproduce", str(run), "--sign", str(key))
    assert done.returncode == 0, done.stderr
    return run, project.runs / (project.names() - {run.name}).pop()


def test_a_reproduction_leaves_a_verdict_that_names_both_records(signed):
    run, made = signed
    said = json.loads((made / attest.FILE).read_text())

    assert said["subject"] == [{"name": run.name, "digest": {"sha256": digest.of_file(run / "record.json")[7:]}}]
    predicate = said["predicate"]
    assert (predicate["result"], predicate["level"], predicate["steps"], predicate["firstCause"]) == (
        "identical",
        "exact",
        8,
        "",
    )
    assert predicate["claim"] == "exact"
    assert predicate["outcome"] == record.read(run).outcome == predicate["reproduction"]["outcome"]
    assert predicate["environment"]["probe"] == record.read(made).environment["probe"]
    assert "host" not in json.dumps(said)


def test_the_verdict_is_a_valid_statement_by_the_public_library(signed):
    statement = json_format.Parse((signed[1] / attest.FILE).read_text(), statement_pb2.Statement())

    Statement.copy_from_pb(statement).validate()


def test_who_signed_is_told_and_only_those_who_count_are_taken(signed, key, tmp_path):
    path = signed[1] / attest.SIGNED
    public = key.with_suffix(".pub").read_text()
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.write_text(f"ada@example.org {public}")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"], check=True)
    theirs.write_text(f"eve@example.org {(tmp_path / 'other.pub').read_text()}")

    assert verify(path)[-1].startswith("signed: with ED25519 key SHA256:")
    assert verify(path, ours)[-1].startswith("signed: for ada@example.org with ED25519 key SHA256:")
    with pytest.raises(VerbatimError, match="expected a signature that fits"):
        verify(path, theirs)
    assert verify(signed[1] / attest.FILE)[-1] == "signed: by nobody: whoever has the file can change it"
    with pytest.raises(VerbatimError, match="expected a signed verdict, found no signature"):
        verify(signed[1] / attest.FILE, ours)


def test_any_changed_byte_of_payload_or_signature_is_detected(signed, tmp_path):
    envelope = json.loads((signed[1] / attest.SIGNED).read_text())
    path = tmp_path / "v.json"

    def check(changed):
        path.write_text(json.dumps(changed))
        with pytest.raises(VerbatimError):
            verify(path)

    payload = base64.b64decode(envelope["payload"])
    for place in range(0, len(payload), 97):
        wrong = payload[:place] + bytes([payload[place] ^ 1]) + payload[place + 1 :]
        check(envelope | {"payload": base64.b64encode(wrong).decode()})
    signature = base64.b64decode(envelope["signatures"][0]["sig"])
    for place in range(0, len(signature), 29):
        wrong = signature[:place] + bytes([signature[place] ^ 4]) + signature[place + 1 :]
        check(envelope | {"signatures": [{"sig": base64.b64encode(wrong).decode()}]})
    check(envelope | {"signatures": []})
    check(envelope | {"payloadType": "text/plain"})
    path.write_text(json.dumps(envelope))
    assert verify(path)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"payload": 7}', '{"predicateType": "x"}', '{"payload": "", "payloadType": "x"}']
)
def test_what_is_no_verdict_is_refused(tmp_path, content):
    path = tmp_path / "v.json"
    path.write_text(content)

    with pytest.raises(VerbatimError):
        verify(path)


def test_a_verdict_beside_another_record_is_refused(signed, tmp_path):
    for name in (attest.FILE, "record.json"):
        (tmp_path / name).write_bytes((signed[1 if name == attest.FILE else 0] / name).read_bytes())

    with pytest.raises(VerbatimError, match="expected the record of the reproduction that the verdict names"):
        verify(tmp_path / attest.FILE)


def test_a_missing_key_is_said_before_the_run(project):
    done = project.run("verbatim", "reproduce", "latest", "--sign", "/nowhere/key")

    assert (done.returncode, done.stderr.splitlines()[0]) == (
        2,
        "error: --sign: expected a key file, found /nowhere/key",
    )
