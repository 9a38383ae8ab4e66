"""The ledger as one page for a browser: recipes, their runs and outcomes, who reproduced them and what broke. `nox -s report`.

Self-contained: no script, nothing from elsewhere. It reads records and verdicts and decides nothing.
"""

import argparse
from collections import defaultdict
from html import escape
from pathlib import Path

from verbatim import digest, ledger, record, verdicts
from verbatim.errors import VerbatimError
from verbatim.record import Record
from verbatim.verdicts import Verdict

STYLE = """body{font:16px/1.5 sans-serif;max-width:75em;margin:2em auto;padding:0 1em}table{border-collapse:collapse;width:100%}
td,th{text-align:left;padding:.3em .8em .3em 0;vertical-align:top;border-bottom:1px solid #ddd;overflow-wrap:anywhere}
code{font-size:.9em}figure{margin:1em 0}.good{color:#00694a}.bad{color:#b03a00;font-weight:bold}svg{max-width:100%;height:auto}summary{cursor:pointer}
@media(min-width:50em){table{table-layout:fixed}th:first-child{width:24%}}
@media(max-width:50em){table{display:block;overflow-x:auto}td,th{white-space:nowrap}}"""
WIDTH, BAR, ROW = 640, 16, 22
# Of a row: the recipe's name before the bar, the counts after it; and how wide one verdict is at most.
LEFT, RIGHT, WIDEST = 120, 180, 40


def page(runs: Path) -> str:
    """Newest recipe first."""
    found = ledger.read(runs)
    records = [run for run in found if isinstance(run, Record)]
    by_record, passed_over = verdicts.find(runs)
    by_recipe: dict[str, list[Record]] = defaultdict(list)
    for run in records:
        by_recipe[run.recipe or "no whole recipe"].append(run)
    said = {run.run: verdicts.of(runs / run.run, by_record) for run in records}
    unreadable = [str(run) for run in found if isinstance(run, VerbatimError)]
    several = ledger.conflicts(records)
    reproduced = [recipe for recipe, same in by_recipe.items() if any(said[run.run] for run in same)]
    broke = [
        recipe for recipe in by_recipe if recipe in several or any(_broke(said[run.run]) for run in by_recipe[recipe])
    ]
    sections = "".join(
        _section(recipe, same, said, recipe in broke, runs, newest=not index)
        for index, (recipe, same) in enumerate(by_recipe.items())
    )
    notes = "".join(f"<li>{escape(text)}</li>" for text in [*unreadable, *passed_over])
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Runs</title><style>{STYLE}</style></head>
<body><h1>Runs</h1>
<p>{len(records)} runs of {len(by_recipe)} recipes; <span class="good">{len(reproduced)} recipes with a verdict</span>,
<span class="{"bad" if broke else "good"}">{len(broke)} broke</span>.</p>
{_bars(by_recipe, said)}
{sections or "<p>No runs yet: <code>nox -s train</code> makes one.</p>"}
{f"<h2>Passed over</h2><ul>{notes}</ul>" if notes else ""}
</body></html>
"""


def _broke(found: list[Verdict]) -> bool:
    return any(verdict.result == "different" for verdict in found)


def _section(
    recipe: str, same: list[Record], said: dict[str, list[Verdict]], broke: bool, runs: Path, *, newest: bool
) -> str:
    outcomes = {run.outcome for run in same if run.outcome}
    state = "broke" if broke else "one outcome" if len(outcomes) == 1 else "no outcome yet"
    rows = "".join(_row(run, said[run.run]) for run in same)
    verdict_rows = "".join(
        f"<li class='{'bad' if v.result == 'different' else 'good'}'>{escape(run.run)}: {escape(v.result)} on {escape(v.place)}"
        f"{escape(f', signed {v.signer}') if v.signer else ''}{escape(f': {v.first_cause}') if v.first_cause else ''}</li>"
        for run in same
        for v in said[run.run]
    )
    curves = next((runs / run.run / "curves.svg" for run in same if (runs / run.run / "curves.svg").is_file()), None)
    drawn = curves.read_text(encoding="utf-8") if curves else ""
    plot = (
        f"<details{' open' * newest}><summary>learning curves</summary>{drawn}</details>"
        if drawn.startswith("<svg") and "<script" not in drawn.lower()
        else ""
    )
    return f"""<h2><span class="{"bad" if broke else "good"}">{state}</span>: recipe <code>{escape(digest.short(recipe))}</code></h2>
<table><tr><th>run</th><th>experiment</th><th>state</th><th>outcome</th><th>metric</th><th>reproduced</th></tr>{rows}</table>
{f"<ul>{verdict_rows}</ul>" if verdict_rows else ""}{plot}"""


def _row(run: Record, found: list[Verdict]) -> str:
    row = ledger.summary(run)
    metric = f"{row['of'].removeprefix('test_')} {row['metric']:.4f}" if isinstance(row["metric"], int | float) else ""
    cells = [
        run.run,
        row["experiment"],
        "; ".join([f"{row['state']} {run.reason}".strip(), *run.remarks]),
        digest.short(run.outcome),
        metric,
        verdicts.summary(found),
    ]
    return f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"


def _bars(by_recipe: dict[str, list[Record]], said: dict[str, list[Verdict]]) -> str:
    """How many verdicts each recipe has: those that held, then those that broke."""
    counts = [(recipe, [v for run in same for v in said[run.run]]) for recipe, same in by_recipe.items()]
    counts = [(recipe, found) for recipe, found in counts if found][:30]
    if not counts:
        return ""
    unit = min(WIDEST, (WIDTH - LEFT - RIGHT) / max(len(found) for _, found in counts))
    bars = ""
    for index, (recipe, found) in enumerate(counts):
        y, broke = index * ROW, sum(v.result == "different" for v in found)
        held = len(found) - broke
        bars += f'<text x="0" y="{y + 13}">{escape(digest.short(recipe))}</text>'
        bars += f'<rect x="{LEFT}" y="{y}" width="{held * unit:.1f}" height="{BAR}" fill="#009e73"/>'
        bars += f'<rect x="{LEFT + held * unit:.1f}" y="{y}" width="{broke * unit:.1f}" height="{BAR}" fill="#d55e00"/>'
        bars += f'<text x="{LEFT + 6 + len(found) * unit:.1f}" y="{y + 13}">{held} held, {broke} broke</text>'
    title = "Verdicts by recipe"
    return f'<figure><figcaption>{title}</figcaption><svg role="img" aria-label="{title}" viewBox="0 0 {WIDTH} {len(counts) * ROW}" width="{WIDTH}" font-size="13">{bars}</svg></figure>'


def main(arguments: list[str], root: Path) -> int:
    parser = argparse.ArgumentParser(prog="nox -s report --", description="Write the ledger as one page for a browser.")
    parser.add_argument(
        "folder", nargs="?", default=root / "runs", type=Path, help="where the runs lie (default: runs)"
    )
    parser.add_argument("--to", type=Path, help="the file to write (default: report.html in that folder)")
    options = parser.parse_args(arguments)
    if not options.folder.is_dir():
        raise VerbatimError(options.folder, expected="a folder of runs", found="none", then="nox -s train")
    to = options.to or options.folder / "report.html"
    record.write_atomically(to, page(options.folder).encode())
    print(f"{to}: open it in a browser")
    return 0
