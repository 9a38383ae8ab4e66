"""A verdict that others can check: an in-toto Statement that says how a run was reproduced, signed where the user has a key.

`verdict.json`, in the new run's folder, is the Statement: its subject is the original's record, its predicate what came of it.
Signed, it is a DSSE envelope (`verdict.dsse.json`) whose signature ssh-keygen made with the user's own key; no key is kept here.

https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md, https://github.com/secure-systems-lab/dsse/blob/master/protocol.md
"""

import base64
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from verbatim import digest, record
from verbatim.errors import VerbatimError
from verbatim.record import Record

FILE, SIGNED = "verdict.json", "verdict.dsse.json"
TYPE = "https://verbatim.invalid/reproduction/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
NAMESPACE = "verbatim"  # ssh-keygen's: a signature made for another purpose is refused
RESULTS = ("identical", "identical as far as compared", "different")


def statement(original: Path, made: Path, *, result: str, steps: int, first_cause: str) -> dict[str, Any]:
    """`original` and `made` are the two `record.json` files; both are named by the digest of their bytes."""
    a, b = record.read(original), record.read(made)
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": a.run, "digest": {"sha256": _file(original)}}],
        "predicateType": TYPE,
        "predicate": {
            "result": result, "level": a.level, "claim": a.claim, "steps": steps, "firstCause": first_cause,
            "recipe": a.recipe, "outcome": a.outcome,
            "reproduction": {"name": b.run, "digest": {"sha256": _file(made)}, "outcome": b.outcome, "finishedOn": b.finished},
            "environment": environment(b),
        },
    }  # fmt: skip


def environment(run: Record) -> dict[str, Any]:
    """Where it was reproduced, as far as it reaches the bits; never the host's name."""
    full = run.environment
    part = {
        key: full.get(key)
        for key in ("image", "python", "os", "cpu", "gpu", "device", "threads", "cpu_capability", "probe")
    }
    return part | {"lock": run.lock.get("digest"), "torch": full.get("torch")}


def _file(path: Path) -> str:
    return digest.of_file(path).removeprefix("sha256:")


def write(folder: Path, verdict: dict[str, Any], key: Path | None) -> list[Path]:
    """`verdict.json`, and signed by `key` (a private key of ssh-keygen's, or a public one whose private half an agent has)."""
    text = (json.dumps(verdict, indent=1, ensure_ascii=False) + "\n").encode()
    record.write_atomically(folder / FILE, text)
    if key is None:
        return [folder / FILE]
    signature = _ssh("sign", ["-n", NAMESPACE, "-f", str(key.expanduser())], _pae(text))
    envelope = {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(text).decode(),
        "signatures": [{"keyid": _public(key), "sig": base64.b64encode(signature.encode()).decode()}],
    }
    record.write_atomically(folder / SIGNED, (json.dumps(envelope, indent=1) + "\n").encode())
    return [folder / FILE, folder / SIGNED]


def _pae(payload: bytes) -> bytes:
    """What is signed: DSSE's encoding of type and payload, so that neither can be taken for the other."""
    return b"DSSEv1 %d %s %d %s" % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode(), len(payload), payload)


def _public(key: Path) -> str:
    public = key.expanduser().with_name(f"{key.name.removesuffix('.pub')}.pub")
    return " ".join(public.read_text().split()[:2]) if public.exists() else ""


def read(path: Path, signers: Path | None = None) -> tuple[dict[str, Any], str]:
    """A verdict and who signed it (the key's fingerprint, or the name that `signers` gives it; empty where nobody did).

    `signers` is a file of allowed signers, as ssh-keygen takes it; with it, an unsigned verdict is refused.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if "payload" not in value:
            if signers:
                raise VerbatimError(path, expected="a signed verdict", found="no signature")
            return _checked(path, value), ""
        if value["payloadType"] != PAYLOAD_TYPE:
            raise VerbatimError(path, expected=f"a payload of type {PAYLOAD_TYPE}", found=value["payloadType"])
        payload = base64.b64decode(value["payload"], validate=True)
        signatures = [base64.b64decode(s["sig"], validate=True).decode() for s in value["signatures"]]
        verdict = _checked(path, json.loads(payload))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise VerbatimError(
            path, expected="a verdict (verdict.json or verdict.dsse.json)", found=f"{type(error).__name__}: {error}"
        ) from None
    if not signatures:
        raise VerbatimError(path, expected="a signature", found="none")
    return verdict, ", ".join(_verify(path, payload, signature, signers) for signature in signatures)


def _checked(path: Path, value: dict[str, Any]) -> dict[str, Any]:
    if value["predicateType"] != TYPE:
        raise VerbatimError(path, expected=f"a verdict of type {TYPE}", found=value["predicateType"])
    predicate = value["predicate"]
    if predicate["result"] not in RESULTS or not value["subject"][0]["digest"]["sha256"]:
        raise ValueError(predicate["result"])
    return value


def _verify(path: Path, payload: bytes, signature: str, signers: Path | None) -> str:
    with tempfile.NamedTemporaryFile("w", suffix=".sig") as file:
        file.write(signature)
        file.flush()
        try:
            if signers is None:
                said = _ssh("check-novalidate", ["-n", NAMESPACE, "-s", file.name], _pae(payload))
            else:
                names = _ssh("find-principals", ["-s", file.name, "-f", str(signers)], b"").split()
                said = _ssh(
                    "verify", ["-n", NAMESPACE, "-s", file.name, "-f", str(signers), "-I", names[0]], _pae(payload)
                )
        except VerbatimError as error:
            raise VerbatimError(path, expected="a signature that fits", found=error.found) from None
    return said.strip().removeprefix(f'Good "{NAMESPACE}" signature ')


def _ssh(action: str, options: list[str], data: bytes) -> str:
    try:
        done = subprocess.run(["ssh-keygen", "-Y", action, *options], input=data, capture_output=True, check=False)
    except FileNotFoundError:
        raise VerbatimError(
            "ssh-keygen", expected="it, to sign and to check", found="none on the PATH", then="install openssh-client"
        ) from None
    if done.returncode:
        said = (done.stderr or done.stdout).decode(errors="replace").strip().splitlines()
        raise VerbatimError(
            f"ssh-keygen -Y {action}", expected="it to succeed", found=said[-1] if said else done.returncode
        )
    return done.stdout.decode()
