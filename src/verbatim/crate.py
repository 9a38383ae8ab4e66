"""Describes a packed run for others: RO-Crate metadata (profile Process Run Crate 0.5) and the page that a browser shows.

https://www.researchobject.org/ro-crate/specification/1.1/, https://www.researchobject.org/workflow-run-crate/profiles/process_run_crate/
"""

import json
import mimetypes
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

from verbatim.datafiles import DataFile
from verbatim.record import Record

PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
CONTEXT = "https://w3id.org/ro/crate/1.1/context"
LICENCE = "LICENSE.txt"
WHAT = {
    LICENCE: ("text/plain", "The licence of the code"),
    "record.json": ("application/json", "The record: recipe, environment and outcome, an in-toto Statement"),
    "code.bundle": ("application/octet-stream", "The code, as a git bundle of one commit without history"),
    "config.yaml": ("application/yaml", "The configuration, whole"),
    "trace.bin": ("application/octet-stream", "One row for each training step: loss and digests"),
    "lock.txt": ("text/plain", "The lock: every distribution with its hashes"),
    "epochs.csv": ("text/csv", "Learning curves"),
    "curves.svg": ("image/svg+xml", "Learning curves, drawn"),
    "data.json": ("application/json", "The data files: name, digest, and where a run reads each"),
    "SHA256SUMS": ("text/plain", "The digest of every other file"),
}
BUILT_IN = mimetypes.MimeTypes(filenames=())  # the same on every machine
INPUTS = ("code.bundle", "config.yaml", "lock.txt")


def metadata(
    run: Record, sizes: dict[str, int], data: dict[str, DataFile], author: str = "", licence: str = ""
) -> dict[str, Any]:
    """`ro-crate-metadata.json` for files of these names and sizes in bytes; `data`: the data files, by their own names.

    `author` packs the archive; `licence` is the name of that in LICENSE.txt. What is not known is left out, never made up.
    """
    original = _originals(data)
    named = [{"@id": name} for name in sizes]
    program = next(
        (f"{a} {b}" for a, b in zip(run.command, run.command[1:], strict=False) if a == "-m"), "training script"
    )
    tree = str(run.code.get("tree", "unknown"))
    program_id = f"swh:1:dir:{tree}" if len(tree) == 40 else "#program"  # git's name of a tree is this identifier's
    return {"@context": CONTEXT, "@graph": [
        {"@id": "ro-crate-metadata.json", "@type": "CreativeWork", "about": {"@id": "./"},
         "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"}},
        {"@id": "./", "@type": "Dataset", "name": f"Run {run.run}", "datePublished": run.finished or run.started,
         "description": f"A recorded training run, {run.state}: everything that it takes to make it again, bit for bit",
         "license": {"@id": LICENCE} if LICENCE in sizes else "None is stated", **({"author": {"@id": "#author"}} if author else {}),
         "conformsTo": {"@id": PROFILE},
         "hasPart": named, "mentions": {"@id": "#run"}, "identifier": run.outcome or run.recipe or run.run},
        {"@id": PROFILE, "@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"},
        *([{"@id": "#author", "@type": "Person", "name": author}] if author else []),
        {"@id": "#run", "@type": "CreateAction", "name": f"Training run {run.run}", "instrument": {"@id": program_id},
         "description": f"Level {run.claim}, seed {run.seed}, recipe {run.recipe}, outcome {run.outcome}",
         "startTime": _time(run.started), **({"endTime": _time(run.finished)} if run.finished else {}), "agent": {"@id": "#agent"},
         "actionStatus": f"http://schema.org/{'Completed' if run.state == 'sealed' else 'Failed'}ActionStatus",
         "object": [{"@id": name} for name in sizes if name in INPUTS or name in original],
         "result": [{"@id": name} for name in sizes if name in run.files and name not in INPUTS]},
        {"@id": program_id, "@type": "SoftwareApplication", "name": program,
         "softwareVersion": f"git tree {tree}", "softwareRequirements": {"@id": "lock.txt"}},
        {"@id": "#agent", "@type": "Person", "name": "Whoever ran it: the record names no person"},
        *({"@id": name, "@type": ["File", "CreativeWork"] if name == LICENCE else "File",
           "name": licence if name == LICENCE else original.get(name, name), "contentSize": str(size),
           "encodingFormat": _kind(name, original)[0], "description": _kind(name, original)[1]} for name, size in sizes.items()),
    ]}  # fmt: skip


def _time(utc: str) -> str:
    """The profile's validator knows no `Z`."""
    return utc.replace("Z", "+00:00")


def _originals(data: dict[str, DataFile]) -> dict[str, str]:
    """Name in the archive → the data file's own names: equal files are one."""
    found: dict[str, str] = {}
    for name, file in data.items():
        found[file.packed] = f"{found[file.packed]}, {name}" if file.packed in found else name
    return found


def _kind(name: str, original: dict[str, str]) -> tuple[str, str]:
    if name in original:
        guessed = BUILT_IN.guess_type(original[name].partition(", ")[0])[0]
        return guessed or "application/octet-stream", f"Data: {original[name]}"
    return WHAT.get(
        name, ("application/octet-stream", "Weights" if name.endswith(".safetensors") else "A file of the run")
    )


def page(run: Record, names: Iterable[str], curves: str, data: dict[str, DataFile]) -> str:
    """`ro-crate-preview.html`: self-contained, without a script; `curves` is the SVG, or empty."""
    original = _originals(data)
    listed = "".join(
        f'<li><a href="{escape(name)}">{escape(name)}</a>: {escape(_kind(name, original)[1])}</li>' for name in names
    )
    environment = run.environment
    facts = {
        "state": "; ".join([f"{run.state} {run.reason}".strip(), *run.remarks]), "recipe": run.recipe, "outcome": run.outcome, "level": run.level, "seed": run.seed,
        "started": run.started, "wall": f"{run.wall_s} s", "code": f"git tree {run.code.get('tree')}", "lock": run.lock.get("digest"),
        "data": f"{run.data.get('name')} {run.data.get('fingerprint')}", "image": (environment.get("image") or {}).get("digest", "none"),
        "Python": (environment.get("python") or {}).get("version"), "CPU": (environment.get("cpu") or {}).get("model"),
        "GPU": (environment.get("gpu") or {}).get("name", "none"), "numerics probe": environment.get("probe"),
    }  # fmt: skip
    settings = dict(_leaves(run.recipe_config))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Run {escape(run.run)}</title>
<style>body{{font:16px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}}table{{border-collapse:collapse}}
td,th{{text-align:left;padding:.15em 1em .15em 0;vertical-align:top;overflow-wrap:anywhere}}code{{background:#eee}}
svg{{max-width:100%;height:auto}}</style></head><body>
<h1>Run {escape(run.run)}</h1>
<p>Check this archive: <code>nox -s verify -- &lt;archive&gt;</code>. Make the run again, bit for bit:
<code>nox -s reproduce -- &lt;archive&gt;</code>.</p>
{_table(facts)}
<h2>Metrics</h2>{_table(run.metrics)}
{curves}
<h2>Settings</h2>{_table(settings)}
<h2>Files</h2><ul>{listed}</ul>
</body></html>
"""


def _table(rows: dict[str, Any]) -> str:
    def text(value: Any) -> str:
        return escape(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))

    return f"<table>{''.join(f'<tr><th>{escape(name)}</th><td>{text(value)}</td></tr>' for name, value in rows.items())}</table>"


def _leaves(tree: dict[str, Any], path: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def write(folder: Path, run: Record, files: list[Path], data: dict[str, DataFile], author: str) -> list[Path]:
    """Both, into `folder`, for an archive of these files."""
    sizes = {file.name: file.stat().st_size for file in files}
    drawn = next((file.read_text(encoding="utf-8") for file in files if file.name == "curves.svg"), "")
    text = next((file.read_text(encoding="utf-8") for file in files if file.name == LICENCE), "")
    licence = next((line.strip("# ") for line in text.splitlines() if line.strip()), LICENCE)
    made = [folder / "ro-crate-metadata.json", folder / "ro-crate-preview.html"]
    made[0].write_text(
        json.dumps(metadata(run, sizes, data, author, licence), indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    made[1].write_text(page(run, sizes, drawn if "<script" not in drawn.lower() else "", data), encoding="utf-8")
    return made
