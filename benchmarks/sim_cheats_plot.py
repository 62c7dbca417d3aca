"""Draws what `benchmarks.sim_cheats` printed as SVG: one panel a stake, one line a cheat.

Written by hand, so that no plotting package is needed. Across: the rate of audits, logarithmic. Up:
profit beyond an honest month's, in prices of a request, by the root of its size, so that small
gains stay visible beside large losses.
"""

import math
from typing import Any
from xml.sax.saxutils import escape

WIDTH, HEIGHT, LEFT, TOP, GAP = 330, 300, 60, 40, 40
COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00",
    "#8c564b", "#000000", "#7f7f7f", "#9467bd", "#bcbd22",
)  # fmt: skip


def draw_plot(documents: list[dict[str, Any]]) -> str:
    """The SVG file's text."""
    points = [d for d in documents if "profit_over_honest" in d and d["weighing_share"] != 1.0]
    stakes = sorted({d["stake_over_price"] for d in points})
    names = list(dict.fromkeys(d["cheat"] for d in points if d["stake_over_price"] == stakes[-1]))
    rates = sorted({d["audit_rate"] for d in points})
    most = max(math.sqrt(abs(d["profit_over_honest"])) for d in points)
    width = LEFT + len(stakes) * (WIDTH + GAP) + 150
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{HEIGHT + 110}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{HEIGHT + 110}" fill="white"/>',
        _text(
            LEFT, 18, "Profit beyond an honest provider's month, in prices of a request (simulated)"
        ),
    ]
    for number, stake in enumerate(stakes):
        at = LEFT + number * (WIDTH + GAP)
        parts += _draw_frame(at, f"stake = {stake:,} x price", rates, most, is_first=number == 0)
        for colour, name in zip(COLOURS, names, strict=False):
            line = [d for d in points if d["cheat"] == name and d["stake_over_price"] == stake]
            parts += _draw_line(at, line, rates, most, colour)
    for number, (colour, name) in enumerate(zip(COLOURS, names, strict=False)):
        x, y = LEFT + len(stakes) * (WIDTH + GAP) - 20, TOP + 20 + number * 20
        parts.append(f'<path d="M{x} {y - 4}h24" stroke="{colour}" stroke-width="2.5"/>')
        parts.append(_text(x + 30, y, name))
    return "\n".join([*parts, "</svg>", ""])


def _draw_frame(
    at: float, title: str, rates: list[float], most: float, *, is_first: bool
) -> list[str]:
    parts = [
        f'<rect x="{at}" y="{TOP}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#999"/>',
        _text(at + 8, TOP + 18, title),
        _text(at + WIDTH / 2, TOP + HEIGHT + 40, "rate of audits", "middle"),
    ]
    for rate in rates:
        x = at + _get_x(rate, rates)
        parts.append(f'<path d="M{x:.1f} {TOP}v{HEIGHT}" stroke="#eee"/>')
        if rate in (rates[0], 0.01, rates[-1], 0.003, 0.03):
            parts.append(_text(x, TOP + HEIGHT + 18, f"{rate:.1%}", "middle"))
    for value in (-100_000, -30_000, -10_000, -1_000, 0, 1_000, 10_000, 30_000):
        if math.sqrt(abs(value)) > most:
            continue
        y = _get_y(value, most)
        colour, thick = ("#333", 1.2) if value == 0 else ("#eee", 1)
        parts.append(f'<path d="M{at} {y:.1f}h{WIDTH}" stroke="{colour}" stroke-width="{thick}"/>')
        if is_first:
            parts.append(_text(at - 6, y + 4, f"{value:,}", "end"))
    return parts


def _draw_line(
    at: float, line: list[dict[str, Any]], rates: list[float], most: float, colour: str
) -> list[str]:
    places = [
        f"{at + _get_x(d['audit_rate'], rates):.1f},{_get_y(d['profit_over_honest'], most):.1f}"
        for d in line
    ]
    if not places:
        return []
    return [
        f'<polyline points="{" ".join(places)}" fill="none" stroke="{colour}" stroke-width="2"/>'
    ]


def _get_x(rate: float, rates: list[float]) -> float:
    share = math.log(rate / rates[0]) / math.log(rates[-1] / rates[0])
    return 12 + share * (WIDTH - 24)


def _get_y(value: float, most: float) -> float:
    root = math.copysign(math.sqrt(abs(value)), value) / most
    return TOP + HEIGHT / 2 - root * (HEIGHT / 2 - 8)


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
