"""Size against loss of a model's files, as text for a terminal and as SVG for a page.

Two dozen points and two axes need no plotting library: a logarithmic axis upwards (how far from the
source), a linear one to the right (bytes). The best files are at the bottom left.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

COLUMNS, ROWS = 64, 14
"""Of the terminal's plot, without its axes."""
WIDTH, HEIGHT, MARGIN = 720, 420, 64
"""Of the picture, in its own units."""
DECADE_TICKS = 8
"""Above so many powers of ten on the axis only some are written."""


@dataclass(frozen=True)
class Point:
    """One file: its label, its megabytes, and its mean KL from the source (above zero)."""

    label: str
    size_mb: float
    kl: float


@dataclass(frozen=True)
class _Frame:
    """What the axes span: megabytes, and powers of ten of KL."""

    left: float
    right: float
    bottom: int
    top: int

    def place(self, point: Point) -> tuple[float, float]:
        """Where the point lies, each from 0 to 1, right and up."""
        return (
            (point.size_mb - self.left) / (self.right - self.left),
            (math.log10(point.kl) - self.bottom) / (self.top - self.bottom),
        )


def draw_text(points: Sequence[Point]) -> str:
    """The plot in characters; every point is a star with its label beside it."""
    frame = _find_frame(points)
    grid = [[" "] * COLUMNS for _ in range(ROWS)]
    for point in sorted(points, key=lambda point: point.size_mb):
        right, up = frame.place(point)
        column, row = round(right * (COLUMNS - 1)), ROWS - 1 - round(up * (ROWS - 1))
        text = f"* {point.label}"
        if column + len(text) > COLUMNS:
            text, column = f"{point.label} *", column - len(point.label) - 1
        row = _find_free_row(grid, row, column, len(text))
        grid[row][column : column + len(text)] = text
    lines = ["KL from the source, nats a token (logarithmic)"]
    for row, cells in enumerate(grid):
        mark = {0: f"1e{frame.top}", ROWS - 1: f"1e{frame.bottom}"}.get(row, "")
        lines.append(f"{mark:>6} |{''.join(cells).rstrip()}")
    lines.append(f"{'':6} +{'-' * COLUMNS}")
    left, right_end = f"{frame.left:.0f}", f"{frame.right:.0f} MB"
    lines.append(f"{'':8}{left}{right_end:>{COLUMNS - len(left)}}")
    return "\n".join(lines)


def draw_svg(points: Sequence[Point], title: str) -> str:
    """The plot as a picture of its own; colours follow the reader's (light or dark)."""
    frame = _find_frame(points)
    across, high = WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'font-family="sans-serif" font-size="13" fill="#555">',
        f"<title>{escape(title)}</title>",
        f'<text x="{WIDTH / 2}" y="28" text-anchor="middle" font-size="16">{escape(title)}</text>',
        f'<path d="M{MARGIN} {MARGIN}V{HEIGHT - MARGIN}H{WIDTH - MARGIN}" fill="none" '
        'stroke="#888"/>',
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 16}" text-anchor="middle">file size, MB</text>',
        f'<text transform="translate(18 {HEIGHT / 2}) rotate(-90)" text-anchor="middle">'
        "KL from the source, nats a token</text>",
    ]
    step = -(-(frame.top - frame.bottom) // DECADE_TICKS)
    for power in range(frame.bottom, frame.top + 1, max(1, step)):
        y = HEIGHT - MARGIN - high * (power - frame.bottom) / (frame.top - frame.bottom)
        parts.append(f'<path d="M{MARGIN} {y:.1f}H{WIDTH - MARGIN}" stroke="#8884"/>')
        parts.append(f'<text x="{MARGIN - 8}" y="{y + 4:.1f}" text-anchor="end">1e{power}</text>')
    for share in (0, 0.25, 0.5, 0.75, 1):
        x, size = MARGIN + across * share, frame.left + share * (frame.right - frame.left)
        y = HEIGHT - MARGIN + 18
        parts.append(f'<text x="{x:.1f}" y="{y}" text-anchor="middle">{size:.0f}</text>')
    for point in points:
        right, up = frame.place(point)
        x, y_point = MARGIN + across * right, HEIGHT - MARGIN - high * up
        parts.append(f'<circle cx="{x:.1f}" cy="{y_point:.1f}" r="5" fill="#2a7ab8"/>')
        anchor, beside = ("end", -9) if right > 0.85 else ("start", 9)
        parts.append(
            f'<text x="{x + beside:.1f}" y="{y_point + 4:.1f}" text-anchor="{anchor}">'
            f"{escape(point.label)}</text>"
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def _find_frame(points: Sequence[Point]) -> _Frame:
    sizes, powers = [p.size_mb for p in points], [math.log10(p.kl) for p in points]
    spare = max(0.05 * (max(sizes) - min(sizes)), 0.01 * max(sizes))
    bottom = math.floor(min(powers))
    return _Frame(
        max(0.0, min(sizes) - spare),
        max(sizes) + spare,
        bottom,
        max(bottom + 1, math.ceil(max(powers))),
    )


def _find_free_row(grid: list[list[str]], row: int, column: int, length: int) -> int:
    """The nearest row whose cells there are empty, else the row itself."""
    for away in range(ROWS):
        for near in (row - away, row + away):
            if 0 <= near < ROWS and not "".join(grid[near][column : column + length]).strip():
                return near
    return row
