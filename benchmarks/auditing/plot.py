"""Draws the report as SVG: how far answers lie from their threshold, honest and cheating.

One row a cheat, and the honest of each pair of runtimes on top. Across: the worst fingerprint
statistic of an answer over its threshold, logarithmic; a stroke for each answer. Beyond 1 an answer
is doubtful, beyond 2 the verdict is cheat. Written by hand, so that no plotting package is needed.
"""

import math
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

LEFT, TOP, WIDTH, ROW = 170, 46, 640, 30
LEAST, MOST = 0.05, 40.0
MARKS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0)
HONEST, CHEAT = "#0072b2", "#d55e00"


def draw_plot(rows: Mapping[str, Sequence[float]], honest_rows: int) -> str:
    """The SVG file's text; the first `honest_rows` rows are honest."""
    height = TOP + len(rows) * ROW + 60
    bottom = TOP + len(rows) * ROW
    width = LEFT + WIDTH + 90
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        _text(LEFT, 20, "Worst fingerprint statistic of each answer, over its threshold"),
    ]
    colours = {1.0: "#e69f00", 2.0: "#c00"}
    for mark in MARKS:
        colour = colours.get(mark, "#eee")
        x = _get_x(mark)
        parts.append(f'<path d="M{x:.1f} {TOP}V{bottom}" stroke="{colour}" stroke-width="1.5"/>')
        parts.append(_text(x, bottom + 16, f"{mark:g}", "middle"))
    parts.append(_text(_get_x(1) - 4, TOP - 6, "threshold", "end"))
    parts.append(_text(_get_x(2) + 4, TOP - 6, "verdict: cheat"))
    for place, (name, values) in enumerate(rows.items()):
        y = TOP + place * ROW
        colour = HONEST if place < honest_rows else CHEAT
        parts.append(_text(LEFT - 8, y + 19, name, "end"))
        parts.append(_text(LEFT + WIDTH + 8, y + 19, f"n = {len(values):,}"))
        parts.append(
            f'<path d="{_draw_strokes(values, y)}" stroke="{colour}" stroke-opacity="0.25"/>'
        )
    parts.append(_text(LEFT, bottom + 40, "0 is drawn at the left edge; one stroke an answer"))
    return "\n".join([*parts, "</svg>", ""])


def _draw_strokes(values: Sequence[float], y: float) -> str:
    """A stroke for each different place: many answers lie on the same."""
    places = sorted({round(_get_x(value), 1) for value in values})
    return "".join(f"M{place:g} {y + 6}v18" for place in places)


def _get_x(value: float) -> float:
    held = min(MOST, max(LEAST, value))
    return LEFT + WIDTH * math.log(held / LEAST) / math.log(MOST / LEAST)


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
