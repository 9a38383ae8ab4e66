"""Describes a packed run for others: RO-Crate metadata (profile Process Run Crate 0.5) and the page that a browser shows.

https://www.researchobject.org/ro-crate/specification/1.1/, https://www.researchobject.org/workflow-run-crate/profiles/process_run_crate/
"""

import json
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Any

from verbatim.record import Record

PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
CONTEXT = "https://w3id.org/ro/crate/1.1/context"
WHAT = {
    "record.json": ("application/json", "The record: recipe, environment and outcome, an in-toto Statement"),
    "code.bundle": ("application/octet-stream", "The code, as a git bundle of one commit without history"),
    "config.yaml": ("application/yaml", "The configuration, whole"),
    "trace.bin": ("application/octet-stream", "One row for each training step: loss and digests"),
    "lock.txt": ("text/plain", "The lock: every distribution with its hashes"),
    "epochs.csv": ("text/csv", "Learning curves"),
    "curves.svg": ("image/svg+xml", "Learning curves, drawn"),
    "SHA256SUMS": ("text/plain", "The digest of every other file"),
}
INPUTS = ("code.bundle", "config.yaml", "lock.txt")


def metadata(run: Record, sizes: dict[str, int]) -> dict[str, Any]:
    """`ro-crate-metadata.json` for files of these names and sizes in bytes."""
    named = [{"@id": name} for name in sizes]
    program = next(
        (f"{a} {b}" for a, b in zip(run.command, run.command[1:], strict=False) if a == "-m"), "training script"
    )
    return {"@context": CONTEXT, "@graph": [
        {"@id": "ro-crate-metadata.json", "@type": "CreativeWork", "about": {"@id": "./"},
         "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"}},
        {"@id": "./", "@type": "Dataset", "name": f"Run {run.run}", "datePublished": run.finished or run.started,
         "description": f"A recorded training run, {run.state}: everything that it takes to make it again, bit for bit",
         "license": "The licence of the code in code.bundle", "conformsTo": {"@id": PROFILE},
         "hasPart": named, "mentions": {"@id": "#run"}, "identifier": run.outcome or run.recipe or run.run},
        {"@id": PROFILE, "@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"},
        {"@id": "#run", "@type": "CreateAction", "name": f"Training run {run.run}", "instrument": {"@id": "#program"},
         "description": f"Level {run.level}, seed {run.seed}, recipe {run.recipe}, outcome {run.outcome}",
         "startTime": _time(run.started), **({"endTime": _time(run.finished)} if run.finished else {}), "agent": {"@id": "#agent"},
         "actionStatus": f"http://schema.org/{'Completed' if run.state == 'sealed' else 'Failed'}ActionStatus",
         "object": [{"@id": name} for name in sizes if name in INPUTS],
         "result": [{"@id": name} for name in sizes if name in run.files and name not in INPUTS]},
        {"@id": "#program", "@type": "SoftwareApplication", "name": program,
         "softwareVersion": f"git tree {run.code.get('tree', 'unknown')}", "softwareRequirements": {"@id": "lock.txt"}},
        {"@id": "#agent", "@type": "Organization", "name": "Whoever ran it: the record names no person"},
        *({"@id": name, "@type": "File", "name": name, "contentSize": str(size), "encodingFormat": _kind(name)[0],
           "description": _kind(name)[1]} for name, size in sizes.items()),
    ]}  # fmt: skip


def _time(utc: str) -> str:
    """The profile's validator knows no `Z`."""
    return utc.replace("Z", "+00:00")


def _kind(name: str) -> tuple[str, str]:
    return WHAT.get(
        name, ("application/octet-stream", "Weights" if name.endswith(".safetensors") else "A file of the run")
    )


def page(run: Record, names: Iterable[str], curves: str) -> str:
    """`ro-crate-preview.html`: self-contained, without a script; `curves` is the SVG, or empty."""
    environment = run.environment
    facts = {
        "state": f"{run.state} {run.reason}", "recipe": run.recipe, "outcome": run.outcome, "level": run.level, "seed": run.seed,
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
<h2>Files</h2><ul>{"".join(f'<li><a href="{escape(name)}">{escape(name)}</a>: {escape(_kind(name)[1])}</li>' for name in names)}</ul>
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


def write(folder: Path, run: Record, files: list[Path]) -> list[Path]:
    """Both, into `folder`, for an archive of these files."""
    sizes = {file.name: file.stat().st_size for file in files}
    drawn = next((file.read_text(encoding="utf-8") for file in files if file.name == "curves.svg"), "")
    made = [folder / "ro-crate-metadata.json", folder / "ro-crate-preview.html"]
    made[0].write_text(json.dumps(metadata(run, sizes), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    made[1].write_text(page(run, sizes, drawn if "<script" not in drawn.lower() else ""), encoding="utf-8")
    return made
