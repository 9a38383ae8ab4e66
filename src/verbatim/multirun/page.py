"""A multirun as one page for a browser: what was swept, which run was best, what failed, curves, settings against the objective, all jobs.

Self-contained: its policy lets in one style and one script, by their digests, and nothing from elsewhere. All words are there without the
script; what it adds is pictures, order and filters. It reads results and decides nothing.
"""

import base64
import functools
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from verbatim.multirun import figures, spread
from verbatim.multirun import results as run_results
from verbatim.multirun.figures import Axis
from verbatim.multirun.spread import Group, finite

SHADES = 12  # of a line's colour, the best first: `.k0` … in page.css
SHOWN = 20  # groups with a picture, and commands of one reason; the others are told, not drawn
LONG = 600  # characters of a reason


def page(
    results: dict[str, Any], folder: Path, root: Path, epochs: Callable[[dict[str, Any]], list[dict[str, Any]]], asked: Sequence[str] = (),
) -> str:  # fmt: skip
    """`results`: as results.json has them. `folder`: where the page will lie. `root`: what the runs' own folders are relative to.
    `epochs`: the rows of a job's learning curve. `asked`: what was to be tried, as `optimizer.lr=tag(log,interval(1e-4,1e-1))`."""
    jobs: list[dict[str, Any]] = results["jobs"]
    sign = -1 if results["goal"] == "maximize" else 1
    ranked = sorted(range(len(jobs)), key=lambda i: sign * jobs[i]["value"] if finite(jobs[i].get("value")) else 1e301)
    columns, words = figures.swept(jobs), figures.settings(asked)
    axes = [figures.axis_of_words(name, column, words.get(name, "")) for name, column in columns.items()]
    style, script = _file("page.css"), _file("page.js")
    policy = f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; base-uri 'none'; form-action 'none'"
    made = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">
<title>Multirun {escape(results["sweep"])}</title><style>{style}</style></head>
<body><main>{_head(results, jobs, ranked, columns, axes)}
{_failures(jobs)}
{_spread(jobs, results)}
{_plots(results, columns)}
{_table(results, jobs, ranked, columns, folder, root)}
</main><p id="readout" role="status"></p><script type="application/json" id="data">{_data(results, jobs, ranked, axes, epochs)}</script>
<script>{script}</script></body></html>
"""
    return made.encode("utf-8", "replace").decode()  # a path's undecodable bytes can't be written


@functools.cache
def _file(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _head(
    results: dict[str, Any], jobs: Sequence[dict[str, Any]], ranked: Sequence[int],
    columns: dict[str, list[str]], axes: Sequence[Axis],
) -> str:  # fmt: skip
    states = Counter(job["state"] for job in jobs)
    counts = " ".join(f"<li class='{_class(s)}'><b>{n}</b> {escape(s)}</li>" for s, n in states.most_common())
    found, other = sum(bool(job.get("found")) for job in jobs), [job for job in jobs if job.get("different")]
    notes = f"<li><b>{found}</b> had been sealed before</li>" if found else ""
    notes += f"<li class='bad'><b>{len(other)}</b> gave other bits than before</li>" if other else ""
    swept = "".join(
        f"<dt><code>{escape(axis.name)}</code></dt><dd>{_values(axis, columns[axis.name])}</dd>" for axis in axes
    )
    same = _words(figures.same(jobs))
    when = " to ".join(escape(str(time)) for time in (_began(results), results.get("finished")) if time)
    return f"""<h1>Multirun <small>{escape(results["sweep"])}</small></h1>
<p class="command"><code>{escape(results["command"])}</code>{_copy(results["command"])}</p>
<ul class="counts">{counts} {notes}</ul>
<div class="head">{_best(results, jobs, ranked)}
<section><h2>What was swept</h2><dl>{swept or "<dd>nothing: all jobs are the same</dd>"}</dl>
{f"<p>The same in all: {same}</p>" if same else ""}<p class="small">{when}</p></section></div>"""


def _began(results: dict[str, Any]) -> str:
    """The first start, which the folder is named by: `started` is that of the process which wrote the results, and may have gone on."""
    try:
        first = datetime.strptime(results["sweep"].partition("-")[0], "%Y%m%dT%H%M%S%z")
    except ValueError:  # renamed
        return str(results.get("started") or "")
    return f"{first:%Y-%m-%dT%H:%M:%SZ}"


def _values(axis: Axis, column: list[str]) -> str:
    different = dict(sorted(dict(zip(column, axis.at, strict=True)).items(), key=lambda item: item[1] or 0))
    if len(different) > 2 * figures.FEW and axis.kind != "category":
        ends = (figures.brief(word) for word in (next(iter(different)), next(reversed(different))))
        return f"{len(different)} values from {' to '.join(map(escape, ends))}"
    shown = ", ".join(escape(figures.brief(value)) for value in list(different)[: 2 * figures.FEW])
    return shown + (f" and {len(different) - 2 * figures.FEW} more" if len(different) > 2 * figures.FEW else "")


def _best(results: dict[str, Any], jobs: Sequence[dict[str, Any]], ranked: Sequence[int]) -> str:
    goal = f"{escape(results['objective'])}, to {escape(results['goal'])}"
    best = jobs[ranked[0]] if ranked and finite(jobs[ranked[0]].get("value")) else None
    if not best:
        return f"<section class='best'><h2>Best run</h2><p>None yet has a value of {goal}.</p></section>"
    words = _words(best["overrides"])
    again = f"<p><code>{escape(best['again'])}</code>{_copy(best['again'])}</p>" if best.get("again") else ""
    return f"""<section class="best"><h2>Best run</h2><p class="value">{best["value"]:.6g}</p>
<p class="small">{goal}</p><p>Job {best["job"]}: {words}</p>{again}</section>"""


def _failures(jobs: list[dict[str, Any]]) -> str:
    reasons, parts = run_results.reasons(jobs, run_results.ENDED_BADLY), ""
    few = sum(len(same) for _, _, same in reasons) < 4
    for state, reason, same in reasons[:SHOWN]:
        commands = "".join(f"<li><code>{escape(j['train'])}</code>{_copy(j['train'])} <a href='jobs/{j['job']}.log'>log</a></li>" for j in same[:SHOWN])  # fmt: skip
        more = f"<p>{len(same) - SHOWN} more are in the table.</p>" if len(same) > SHOWN else ""
        parts += f"""<details{" open" if few else ""}><summary><b class="bad">{len(same)} {escape(state)}</b>:
<span class="reason">{escape(reason if len(reason) <= LONG else reason[:LONG] + " …")}</span></summary><ul class="commands">{commands}</ul>{more}</details>"""
    if len(reasons) > SHOWN:
        parts += f"<p>{len(reasons) - SHOWN} more reasons are in results.json.</p>"
    return f"<section><h2>Without an outcome</h2><p>Each command makes one of them alone.</p>{parts}</section>" if parts else ""  # fmt: skip


def _spread(jobs: Sequence[dict[str, Any]], results: dict[str, Any]) -> str:
    if not spread.swept(jobs):
        return ""
    groups, same = spread.groups(jobs, results["goal"]), set(figures.same(jobs))
    seen = [value for group in groups[:SHOWN] for value in group.values] or [0.0]
    least, most = min(seen), max(seen)
    strips = [_strip(group, least, most) for group in groups[:SHOWN]]
    rows = [_group(group, same, strip) for group, strip in zip(groups, strips + [""] * len(groups), strict=False)]
    head = "<tr><th>settings</th><th class='n'>n</th><th class='n'>mean</th><th class='n'>sd</th><th class='n'>95 % interval of the mean</th>"
    more = f"<details><summary>{len(rows) - SHOWN} more</summary><div class='wide'><table>{head}</tr>{''.join(rows[SHOWN:])}</table></div></details>"
    return f"""<section><h2>Spread over seeds</h2>
<p>{escape(results["objective"])} of jobs that differ in nothing but their seed, best mean first. The interval is Student’s, of each
group alone: the best of many groups looks better than it is. In the picture, a dot is a seed, the bar the interval, with an arrow’s
head where it goes on past all values, the line the mean.</p><div class="wide" tabindex="0" role="region" aria-label="Spread over seeds"><table class="spread">
{head}<th><div class="ends"><span>lowest {least:.4g}</span><span>highest {most:.4g}</span></div></th></tr>{"".join(rows[:SHOWN])}</table></div>{more if len(rows) > SHOWN else ""}</section>"""


def _group(group: Group, same: set[str], strip: str) -> str:
    words = _words(word for word in group.words if word not in same)
    n = f"{len(group.values)}{f' of {len(group.values) + group.without}' if group.without else ''}"
    mean = "" if group.mean is None else f"{group.mean:.5g}"
    interval = "" if group.low is None or group.high is None else f"{group.low:.5g} to {group.high:.5g}"
    numbers = [n, mean, "" if group.sd is None else f"{group.sd:.2g}", interval]
    cells = "".join(f'<td class="n">{text}</td>' for text in numbers)
    return f"<tr><td>{words or 'all'}</td>{cells}{f'<td>{strip}</td>' if strip else ''}</tr>"


def _strip(group: Group, least: float, most: float) -> str:
    """A dot for each seed; the interval as a bar, with an arrow's head where it leaves the scale."""

    def across(value: float) -> float:
        return round(10 + (value - least) / ((most - least) or 1) * 200, 1)

    marks = ""
    if group.mean is not None and group.low is not None and group.high is not None:
        low, mean, high = across(group.low), across(group.mean), across(group.high)
        left = "M9 3V0L0 8L9 16V13" if low < 0 else f"M{low} 3V13"
        right = "H211V16L220 8L211 0V3z" if high > 220 else f"H{max(low + 1, high):.1f}V3z"
        marks = f'<path class="bar" d="{left}{right}"/><path d="M{mean} 1v14"/>'
    marks += "".join(f'<circle cx="{across(value)}" cy="8" r="2.5"/>' for value in group.values)
    return f'<svg class="strip" viewBox="0 0 220 16" width="220" height="16" aria-hidden="true">{marks}</svg>'


def _plots(results: dict[str, Any], columns: dict[str, list[str]]) -> str:
    objective = escape(results["objective"])
    settings = f"""<section class="needs-script"><h2>Settings and {objective}</h2>
<p class="small">A line is a job. Click a value, or drag along an axis, to see only its jobs; the table follows.</p>{_switch("settings-log", f"{objective} on a log scale")}
<div class="wide"><div class="plot" id="parallel"></div></div><div id="slices"></div></section>"""
    return f"""<section class="needs-script" id="learning"><h2>Learning curves</h2>
<div class="legend"><label class="filters">Metric <select id="metric"></select></label>{
        _switch("curves-log", "log scale")
    }<span class="small" id="drawn"></span>
<span class="small ramp">best <svg id="legend" viewBox="0 0 {
        SHADES
    } 1" width="144" height="12" preserveAspectRatio="none" aria-hidden="true">{
        "".join(f'<rect class="k{i}" x="{i}" width="1.05" height="1"/>' for i in range(SHADES))
    }</svg> last of these, by {objective}</span></div>
<div class="plot" id="curves"></div></section>
{settings if columns else ""}"""


def _switch(name: str, text: str) -> str:
    return f'<label class="filters small"><input type="checkbox" id="{name}">{text}</label>'


def _table(
    results: dict[str, Any], jobs: Sequence[dict[str, Any]], ranked: Sequence[int],
    columns: dict[str, list[str]], folder: Path, root: Path,
) -> str:  # fmt: skip
    metrics = dict.fromkeys(name for job in jobs for name in job.get("metrics") or {} if name != results["objective"])
    names = ["job", results["objective"], *columns, "state", "seconds", "run", "command", *metrics]
    order = "descending" if results["goal"] == "maximize" else "ascending"
    numeric, commands = {"job", results["objective"], *metrics, "seconds"} - {*columns}, 5 + len(columns)
    head = "".join(
        f"<th{' class=n' * (name in numeric)}{f' aria-sort={order}' * (i == 1)}>{_breakable(name)}</th>"
        if i != commands
        else '<th class="needs-script">command</th>'
        for i, name in enumerate(names)
    )
    rows = []
    for index in ranked:
        job = jobs[index]
        state = (
            job["state"]
            + (", found" if job.get("found") else "")
            + (", went on" if job.get("went_on") else "")
            + (", other bits" if job.get("different") else "")
        )
        numbers = [job.get("value"), *((job.get("metrics") or {}).get(name) for name in metrics)]
        cells = [_n(str(job["job"])), _n(_number(numbers[0])), *(_brief("td", column[index]) for column in columns.values()),
                 f"<td class={_class(state)}>{escape(state)}</td>", _n(_number(job.get("wall_s"), 3)),
                 f"<td>{_links(job, folder, root)}</td>", _copy_cell(job), *(_n(_number(value)) for value in numbers[1:])]  # fmt: skip
        rows.append(f"<tr data-i={index}>{''.join(cells)}</tr>\n")
    return f"""<section><h2>Jobs</h2><p class="filters needs-script"><label>Filter <input id="filter" type="search" size="36"
placeholder="words, name=value, name&lt;=number" autocomplete="off" spellcheck="false"></label>
<button id="all" hidden>Show all</button> <output id="count"></output></p>
<p class="small">Made again and compared, bit for bit: <code>nox -s reproduce -- runs/&lt;run&gt;</code>.</p>
<div class="wide" tabindex="0" role="region" aria-label="Jobs"><table id="jobs"><thead><tr>{head}</tr></thead>
<tbody>{"".join(rows)}</tbody></table></div></section>"""


def _breakable(name: str) -> str:
    """After its dots and underscores."""
    return re.sub(r"(?<=[._])(?=\w)", "<wbr>", escape(name))


def _n(text: str) -> str:
    return f"<td class=n>{escape(text)}</td>"


def _brief(tag: str, text: str) -> str:
    """What was shortened can be read in full."""
    short = figures.brief(text)
    whole = f' title="{escape(text)}"' if short != text else ""
    return f"<{tag}{whole}>{escape(short)}</{tag}>"


def _words(words: Iterable[str]) -> str:
    return " ".join(_brief("code", word) for word in words)


def _number(value: Any, digits: int = 6) -> str:
    return f"{value:.{digits}g}" if isinstance(value, int | float) else "" if value is None else str(value)


def _class(state: str) -> str:
    return "good" if state.startswith("sealed") and "other" not in state else "bad" if state.startswith(("sealed", *run_results.ENDED_BADLY)) else "open"  # fmt: skip


def _links(job: dict[str, Any], folder: Path, root: Path) -> str:
    """To what is there."""
    name, where = job.get("run") or "", job.get("folder") or ""
    if not where:
        return escape(name)
    target = root / where
    relative = quote(os.path.relpath(target, folder.absolute()))
    record = f'<a href="{relative}/record.json">{escape(name)}</a>' if (target / "record.json").is_file() else escape(name)  # fmt: skip
    return record + (f' <a href="{relative}/curves.svg">curves</a>' if (target / "curves.svg").is_file() else "")


def _copy(command: str) -> str:
    return f'<button class="copy needs-script" data-copy="{escape(command)}">copy</button>'


def _copy_cell(job: dict[str, Any]) -> str:
    command = (job.get("again") if job.get("outcome") else "") or job.get("train") or ""
    return f'<td class="needs-script" data-copy="{escape(command)}"></td>'


def _data(
    results: dict[str, Any], jobs: Sequence[dict[str, Any]], ranked: Sequence[int], axes: Sequence[Axis],
    epochs: Callable[[dict[str, Any]], list[dict[str, Any]]],
) -> str:  # fmt: skip
    objective = figures.either(results["objective"], [job.get("value") for job in jobs])
    data = {"axes": [axis.plain() | {"at": axis.at} for axis in (*axes, objective)], "valued": [i for i in ranked if finite(jobs[i].get("value"))],
            "curves": figures.curves(jobs, ranked, results["objective"], epochs)}  # fmt: skip
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
