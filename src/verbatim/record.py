"""The record of a run, `record.json`: recipe, environment and outcome, as an in-toto Statement v1 with SLSA provenance v1.

Written before training (state `started`), written again when the recipe is complete, sealed after. What is where:

    subject                                  the outcome's files (while there are none: the run's recipe), each with its sha256
    predicate.buildDefinition
      .externalParameters                    the recipe that a person gave: config, overrides, level, seed
      .internalParameters                    the environment, and what it was called with
      .resolvedDependencies                  the recipe's pinned parts: code (a git tree), lock, data
    predicate.runDetails
      .metadata                              run id, started, finished
      .byproducts[name=outcome].annotations  state, reason, metrics, and the recipe's and outcome's digests

https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md, https://slsa.dev/spec/v1.0/provenance
"""

import dataclasses
import json
import os
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from verbatim import digest
from verbatim.errors import VerbatimError

FILE = "record.json"
SCHEMA = 1
BUILD_TYPE = f"https://verbatim.invalid/run/v{SCHEMA}"
STATES = ("started", "sealed", "failed", "interrupted")


@dataclass(kw_only=True)
class Record:
    """One run. Digests are `sha256:<hex>`; times are UTC, ISO 8601, to the second."""

    run: str
    state: str = "started"
    reason: str = ""
    started: str = ""
    finished: str = ""
    command: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)  # everything, resolved, as the run saw it
    recipe_config: dict[str, Any] = field(default_factory=dict)  # without the places of this machine
    overrides: list[str] = field(default_factory=list)
    level: str = ""
    seed: int = 0
    code: dict[str, Any] = field(default_factory=dict)
    lock: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    trace: dict[str, Any] = field(default_factory=dict)
    weights: str = ""
    unlisted: list[str] = field(
        default_factory=list
    )  # operators that level portable does not cover, where it was told to go on
    resumed: list[dict[str, Any]] = field(
        default_factory=list
    )  # earlier starts of a run that went on, and how each ended
    files: dict[str, str] = field(default_factory=dict)  # name in the run folder → digest
    wall_s: float = 0.0

    @property
    def recipe_parts(self) -> dict[str, str]:
        """What the recipe is made of, by name; empty where it is not known yet."""
        return {
            "code": self.code.get("tree", ""),
            "lock": self.lock.get("digest", ""),
            "data": self.data.get("fingerprint", ""),
            "configuration": configuration(self.recipe_config, self.level, self.seed),
        }

    @property
    def recipe(self) -> str:
        """Digest of all that the run is made from; empty until code, lock and data are known."""
        parts = [self.code.get("tree"), self.lock.get("digest"), self.data.get("fingerprint")]
        if not all(parts):
            return ""
        return digest.of_value([*parts, self.recipe_config, self.level, self.seed])

    @property
    def claim(self) -> str:
        """The level that the outcome may claim: lower than asked where operators ran that the level does not cover."""
        return "exact" if self.unlisted else self.level

    @property
    def remarks(self) -> list[str]:
        """What a reader should know besides the level and the state: that the claim is lower, that the run was not made in one go."""
        said = []
        if self.claim != self.level:
            more = f" and {len(self.unlisted) - 1} more" if len(self.unlisted) > 1 else ""
            said.append(f"claims {self.claim}, not {self.level} ({self.unlisted[0]}{more})")
        if self.resumed:
            last = (self.environment.get("cpu") or {}).get("model", "")
            others = dict.fromkeys(str(part["cpu"]) for part in self.resumed if part.get("cpu", last) != last)
            said.append(f"resumed {len(self.resumed)}×" + "".join(f", begun on {cpu}" for cpu in others))
        return said

    @property
    def outcome(self) -> str:
        """Digest of all that the run gave; empty until it is sealed."""
        if self.state != "sealed":
            return ""
        return digest.of_value([self.trace.get("digest"), self.weights, self.metrics])


def configuration(recipe_config: dict[str, Any], level: str, seed: int) -> str:
    """Digest of that part of a recipe which settings make."""
    return digest.of_value([recipe_config, level, seed])


def statement(record: Record) -> dict[str, Any]:
    """The record as an in-toto Statement, ready for JSON."""
    subjects = [{"name": name, "digest": _sha256(value)} for name, value in sorted(record.files.items())]
    started = configuration(record.recipe_config, record.level, record.seed)
    annotations = {
        "state": record.state, "reason": record.reason, "recipe": record.recipe, "outcome": record.outcome,
        "metrics": record.metrics, "trace": record.trace, "weights": record.weights, "wall_s": record.wall_s,
        "claim": record.claim, "unlisted": record.unlisted, "resumed": record.resumed,
    }  # fmt: skip
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": subjects if record.state == "sealed" and subjects else [{"name": "recipe", "digest": _sha256(started)}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "config": record.config, "recipe_config": record.recipe_config, "overrides": record.overrides,
                    "level": record.level, "seed": record.seed,
                },
                "internalParameters": {"environment": record.environment, "command": record.command},
                "resolvedDependencies": _dependencies(record),
            },
            "runDetails": {
                "builder": {"id": "https://verbatim.invalid/nox-session"},
                "metadata": {"invocationId": record.run, "startedOn": record.started}
                | ({"finishedOn": record.finished} if record.finished else {}),
                "byproducts": [{"name": "outcome", "annotations": annotations}],
            },
        },
    }  # fmt: skip


def _dependencies(record: Record) -> list[dict[str, Any]]:
    """SLSA wants each to have a name, URI or digest; what isn't known yet, or can't be, keeps its reason as an annotation."""
    tree = record.code.get("tree")
    code = {"name": "code", "annotations": record.code} | ({"digest": {"gitTree": tree}} if tree else {})
    others = [
        {"name": name, "annotations": part} | ({"digest": _sha256(part[key])} if part.get(key) else {})
        for name, part, key in (("lock", record.lock, "digest"), ("data", record.data, "fingerprint"))
    ]
    return [code, *others]


def _sha256(value: str) -> dict[str, str]:
    return {"sha256": value.removeprefix("sha256:")}


def write(folder: Path, record: Record, *, flush: bool = True) -> None:
    """Replace `record.json` in one step, on the disk before its name points to it."""
    text = json.dumps(statement(record), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(folder / FILE, text.encode(), flush=flush)


def write_atomically(path: Path, data: bytes, *, flush: bool = True) -> None:
    """Write beside, flush to disk, rename: a reader, or a crash, finds the old bytes or the new ones, never a part. Unflushed, that
    holds for a crash of the process, and not for one of the machine."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            file.write(data)
            if flush:
                file.flush()
                os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        error.filename = error.filename or str(path)  # a full disk names no file
        raise


def read(where: Path) -> Record:
    """The record of a run folder, or of a `record.json`. What is no record, is damaged or newer is refused, saying how."""
    path = where / FILE if where.is_dir() else where
    then = "nox -s runs lists the runs that there are"
    try:
        value = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except FileNotFoundError:
        raise VerbatimError(where, expected=f"a run folder (it holds {FILE})", found="none there", then=then) from None
    except (OSError, ValueError) as error:
        raise VerbatimError(path, expected="a record", found=f"{type(error).__name__}: {error}", then=then) from None
    try:
        build_type = value["predicate"]["buildDefinition"]["buildType"]
    except (KeyError, TypeError):
        raise VerbatimError(path, expected="an in-toto Statement of a run", found="other JSON", then=then) from None
    if build_type != BUILD_TYPE:
        raise VerbatimError(
            path, expected=f"a record of schema {BUILD_TYPE}", found=build_type, then="update this checkout: git pull"
        )
    try:
        return _from_statement(value)
    except (KeyError, TypeError, IndexError, AttributeError, ValueError, StopIteration) as error:
        raise VerbatimError(
            path, expected="a whole record", found=f"{type(error).__name__}: {error}", then=then
        ) from None


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _check_types(record: Record) -> None:
    """Every field holds the kind of value that it is declared to hold, so that no reader has to look again."""
    for field_ in dataclasses.fields(Record):
        value = getattr(record, field_.name)
        kind, inner = typing.get_origin(field_.type) or field_.type, typing.get_args(field_.type)
        wrong = not isinstance(value, (int, float) if kind is float else kind)  # type: ignore[arg-type]
        if inner and inner[-1] is str and not wrong:
            wrong = not all(isinstance(item, str) for item in (value.values() if kind is dict else value))
        if inner and typing.get_origin(inner[-1]) is dict and not wrong:
            wrong = not all(isinstance(item, dict) for item in value)
        if wrong or isinstance(value, bool):
            raise TypeError(f"{field_.name} is {type(value).__name__} {value!r:.40}")


def _from_statement(value: dict[str, Any]) -> Record:
    build, details = value["predicate"]["buildDefinition"], value["predicate"]["runDetails"]
    given, inner = build["externalParameters"], build["internalParameters"]
    parts = {part["name"]: part["annotations"] for part in build["resolvedDependencies"]}
    outcome = next(b["annotations"] for b in details["byproducts"] if b["name"] == "outcome")
    record = Record(
        run=details["metadata"]["invocationId"], started=details["metadata"]["startedOn"],
        finished=details["metadata"].get("finishedOn", ""), command=inner["command"], environment=inner["environment"],
        **{name: given[name] for name in ("config", "recipe_config", "overrides", "level", "seed")},
        **{name: outcome[name] for name in ("state", "reason", "metrics", "trace", "weights", "wall_s")},
        **{name: outcome.get(name, []) for name in ("unlisted", "resumed")},
        **{name: parts[name] for name in ("code", "lock", "data")},
        files={s["name"]: f"sha256:{s['digest']['sha256']}" for s in value["subject"] if s["name"] != "recipe"},
    )  # fmt: skip
    _check_types(record)
    if record.state not in STATES:
        raise KeyError(record.state)
    for name, own, stated in (
        ("recipe digest", record.recipe, outcome["recipe"]),
        ("outcome digest", record.outcome, outcome["outcome"]),
        ("claim", record.claim, outcome.get("claim", record.claim)),  # older records state none
    ):
        if own != stated:
            raise VerbatimError(
                f"{record.run}/{FILE}", expected=f"the {name} {own}, which its contents give",
                found=stated, then="this record was edited: use another copy of it",
            )  # fmt: skip
    return record


def as_dict(record: Record) -> dict[str, Any]:
    return dataclasses.asdict(record)
