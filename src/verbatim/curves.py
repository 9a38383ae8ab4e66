"""Learning curves as a picture, `curves.svg`: drawn here, in 5 ms, since a plotting library takes longer to import than a short run."""

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from verbatim import record

COLOURS = {
    "train": "#0072b2",
    "validation": "#d55e00",
    "test": "#009e73",
}  # Okabe and Ito: the colour-blind tell them apart
OTHER = "#cc79a7"
WIDTH, HEIGHT, LEFT, TOP, GAP = 360, 220, 56, 48, 64


def write(path: Path, rows: Sequence[dict[str, Any]], title: str) -> None:
    """One panel per kind of value (the word after the last `_`: loss, accuracy, …), one line per column, over `epoch` (or by count)."""
    rows = [{"epoch": count} | row for count, row in enumerate(rows, 1)]
    panels: dict[str, list[str]] = {}
    for name in rows[0] if rows else ():
        if name not in ("epoch", "lr"):
            panels.setdefault(name.rpartition("_")[2], []).append(name)
    parts = [_panel(LEFT + i * (WIDTH + GAP), columns, rows) for i, columns in enumerate(panels.values())]
    width = LEFT + max(1, len(panels)) * (WIDTH + GAP)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT + TOP + 56}" width="{width}" '
        f'font-family="sans-serif" font-size="12" fill="#333"><rect width="100%" height="100%" fill="#fff"/>'
        f'<text x="{LEFT}" y="20" font-weight="bold">{escape(title)}</text>'
    )
    record.write_atomically(path, (head + "".join(parts) + "</svg>\n").encode())


def _panel(left: int, columns: list[str], rows: Sequence[dict[str, Any]]) -> str:
    values = [row[column] for row in rows for column in columns]
    ys = _ticks(min(values), max(values))
    first, last = rows[0]["epoch"], rows[-1]["epoch"]

    def across(x: float) -> str:
        return f"{left + (x - first) / max(1, last - first) * WIDTH:.1f}"

    def up(y: float) -> str:
        return f"{TOP + (1 - (y - ys[0]) / (ys[-1] - ys[0])) * HEIGHT:.1f}"

    out = [f'<rect x="{left}" y="{TOP}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#999"/>']
    for y in ys:
        out.append(f'<line x1="{left}" x2="{left + WIDTH}" y1="{up(y)}" y2="{up(y)}" stroke="#ddd"/>')
        out.append(f'<text x="{left - 6}" y="{float(up(y)) + 4:.1f}" text-anchor="end">{y:g}</text>')
    for x in sorted({first, last, *(x for x in _ticks(first, last) if first < x < last and x == int(x))}):
        out.append(f'<text x="{across(x)}" y="{TOP + HEIGHT + 18}" text-anchor="middle">{x:g}</text>')
    out.append(f'<text x="{left + WIDTH / 2}" y="{TOP + HEIGHT + 38}" text-anchor="middle">epoch</text>')
    for i, column in enumerate(columns):
        colour = COLOURS.get(column.partition("_")[0], OTHER)
        points = [(across(row["epoch"]), up(row[column])) for row in rows]
        line = " ".join(",".join(point) for point in points)
        out.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
        if len(points) == 1:  # a line of one point is not seen
            out.append(f'<circle cx="{points[0][0]}" cy="{points[0][1]}" r="3" fill="{colour}"/>')
        out.append(
            f'<text x="{left + i * 130}" y="{TOP - 8}" fill="{colour}">{escape(column.replace("_", " "))}</text>'
        )
    return "".join(out)


def _ticks(low: float, high: float) -> list[float]:
    """Four to eight round values, from one at or below `low` to one at or above `high`."""
    span = (high - low) or abs(high) or 1.0
    power = 10 ** math.floor(math.log10(span / 4))
    step = next(power * factor for factor in (1, 2, 5, 10) if span / (power * factor) <= 6)
    first = math.floor(low / step + 1e-9)
    return [round(i * step, 12) for i in range(first, max(math.ceil(high / step - 1e-9), first + 1) + 1)]
