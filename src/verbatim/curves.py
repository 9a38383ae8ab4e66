"""Learning curves as a picture, `curves.svg`: drawn here, in 5 ms, since a plotting library takes longer to import than a short run."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from verbatim import record

COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
)  # Okabe and Ito: told apart by the colour-blind as well
WIDTH, HEIGHT, LEFT, TOP, GAP = 360, 220, 56, 48, 64


def write(path: Path, rows: Sequence[dict[str, Any]], title: str) -> None:
    """One panel per kind of value (the word after the last `_`: loss, accuracy, …), one line per column, over `epoch`."""
    names = [name for name in (rows[0] if rows else ()) if name not in ("epoch", "lr")]
    panels: dict[str, list[str]] = {}
    for name in names:
        panels.setdefault(name.rpartition("_")[2], []).append(name)
    parts = [_panel(i, columns, rows) for i, columns in enumerate(panels.values())]
    width = LEFT + max(1, len(panels)) * (WIDTH + GAP)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT + TOP + 56}" width="{width}" font-family="sans-serif" '
        f'font-size="12" fill="#333"><rect width="100%" height="100%" fill="#fff"/><text x="{LEFT}" y="20" font-weight="bold">{escape(title)}</text>'
    )
    record.write_atomically(path, (head + "".join(parts) + "</svg>\n").encode())


def _panel(index: int, columns: list[str], rows: Sequence[dict[str, Any]]) -> str:
    left = LEFT + index * (WIDTH + GAP)
    xs = [row["epoch"] for row in rows]
    values = [row[c] for row in rows for c in columns]
    low, high = min(values), max(values)
    pad = (high - low) * 0.05 or abs(high) * 0.05 or 0.5
    low, high = low - pad, high + pad
    across, up = max(1, xs[-1] - xs[0]), high - low

    def point(x: float, y: float) -> str:
        return f"{left + (x - xs[0]) / across * WIDTH:.1f},{TOP + (1 - (y - low) / up) * HEIGHT:.1f}"

    out = [f'<rect x="{left}" y="{TOP}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#999"/>']
    for i in range(5):
        value = low + up * i / 4
        y = TOP + (1 - i / 4) * HEIGHT
        out.append(f'<line x1="{left}" x2="{left + WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        out.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>')
    for x in sorted({xs[0], xs[len(xs) // 2], xs[-1]}):
        at = left + (x - xs[0]) / across * WIDTH
        out.append(f'<text x="{at:.1f}" y="{TOP + HEIGHT + 18}" text-anchor="middle">{x:g}</text>')
    out.append(f'<text x="{left + WIDTH / 2}" y="{TOP + HEIGHT + 38}" text-anchor="middle">epoch</text>')
    for i, column in enumerate(columns):
        colour = COLOURS[i % len(COLOURS)]
        line = " ".join(point(row["epoch"], row[column]) for row in rows)
        out.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
        if len(rows) == 1:
            cx, cy = point(xs[0], rows[0][column]).split(",")
            out.append(f'<circle cx="{cx}" cy="{cy}" r="3" fill="{colour}"/>')
        out.append(
            f'<text x="{left + i * 130}" y="{TOP - 8}" fill="{colour}">{escape(column.replace("_", " "))}</text>'
        )
    return "".join(out)
