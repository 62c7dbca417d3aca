"""Size against loss of a model's files, as text for a terminal and as SVG for a page.

Two dozen points and two axes need no plotting library: a logarithmic axis upwards (how far from the
source), a linear one to the right (bytes). The best files are at the bottom left.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

COLUMNS, ROWS = 64, 16
"""Of the terminal's plot, without its axes."""
WIDTH, HEIGHT, MARGIN = 720, 420, 64
"""Of the picture, in its own units."""
LABEL_HEIGHT, LABEL_WIDTH = 15, 8
"""Of a label in the picture, the width for each character: to keep them apart."""
TICKS = (1, 2, 5)
"""Of each power of ten."""


@dataclass(frozen=True)
class Point:
    """One file: its label, its megabytes, and its mean KL from the source (above zero)."""

    label: str
    size_mb: float
    kl: float


@dataclass(frozen=True)
class _Frame:
    """What the axes span: megabytes, and the decimal logarithm of KL."""

    left: float
    right: float
    bottom: float
    top: float

    def place(self, point: Point) -> tuple[float, float]:
        """Where the point lies, each from 0 to 1, right and up."""
        return (point.size_mb - self.left) / (self.right - self.left), self.raise_to(point.kl)

    def raise_to(self, kl: float) -> float:
        """How far up, from 0 to 1."""
        return (math.log10(kl) - self.bottom) / (self.top - self.bottom)

    def list_ticks(self) -> list[float]:
        """Round values of KL within the frame."""
        powers = range(math.floor(self.bottom), math.ceil(self.top) + 1)
        values = [tick * 10.0**power for power in powers for tick in TICKS]
        return [value for value in values if 0 <= self.raise_to(value) <= 1]


def draw_text(points: Sequence[Point]) -> str:
    """The plot in characters; every point is a star in its place, its label where there is room."""
    frame = _find_frame(points)
    grid = [[" "] * COLUMNS for _ in range(ROWS)]
    placed = []
    for point in sorted(points, key=lambda point: point.size_mb):
        right, up = frame.place(point)
        column, row = round(right * (COLUMNS - 1)), _to_row(up)
        grid[row][column] = "*"
        placed.append((row, column, point.label))
    for row, column, label in placed:
        at = _find_room(grid, row, column, len(label))
        if at is not None:
            grid[at[0]][at[1] : at[1] + len(label)] = label
    marks = {_to_row(frame.raise_to(value)): f"{value:g}" for value in frame.list_ticks()}
    lines = ["KL from the source, nats a token"]
    for row, cells in enumerate(grid):
        lines.append(f"{marks.get(row, ''):>6} |{''.join(cells).rstrip()}")
    lines.append(f"{'':6} +{'-' * COLUMNS}")
    left, right_end = f"{frame.left:.0f}", f"{frame.right:.0f} MB"
    lines.append(f"{'':8}{left}{right_end:>{COLUMNS - len(left)}}")
    return "\n".join(lines)


def draw_svg(points: Sequence[Point], title: str) -> str:
    """The plot as a picture of its own, legible on light and dark."""
    frame = _find_frame(points)
    across, high = WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        'font-family="sans-serif" font-size="13" fill="#777">',
        f"<title>{escape(title)}</title>",
        f'<text x="{WIDTH / 2}" y="28" text-anchor="middle" font-size="16">{escape(title)}</text>',
        f'<path d="M{MARGIN} {MARGIN}V{HEIGHT - MARGIN}H{WIDTH - MARGIN}" fill="none" '
        'stroke="#888"/>',
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 16}" text-anchor="middle">file size, MB</text>',
        f'<text transform="translate(16 {HEIGHT / 2}) rotate(-90)" text-anchor="middle">'
        "KL from the source, nats a token</text>",
    ]
    for value in frame.list_ticks():
        y = HEIGHT - MARGIN - high * frame.raise_to(value)
        parts.append(f'<path d="M{MARGIN} {y:.1f}H{WIDTH - MARGIN}" stroke="#8884"/>')
        parts.append(f'<text x="{MARGIN - 8}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for share in (0, 0.25, 0.5, 0.75, 1):
        x, size = MARGIN + across * share, frame.left + share * (frame.right - frame.left)
        y = HEIGHT - MARGIN + 18
        parts.append(f'<text x="{x:.1f}" y="{y}" text-anchor="middle">{size:.0f}</text>')
    taken: list[tuple[float, float, float]] = []
    for point in sorted(points, key=lambda point: -point.kl):
        right, up = frame.place(point)
        x, y = MARGIN + across * right, HEIGHT - MARGIN - high * up
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="#2a7ab8"/>')
        length = LABEL_WIDTH * len(point.label)
        start = x - 9 - length if right > 0.85 else x + 9
        y = _lower_until_free(taken, start, length, y + 4)
        taken.append((start, length, y))
        parts.append(f'<text x="{start:.1f}" y="{y:.1f}">{escape(point.label)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _find_frame(points: Sequence[Point]) -> _Frame:
    """The points with a little room around them."""
    sizes, powers = [p.size_mb for p in points], [math.log10(p.kl) for p in points]
    aside = max(0.05 * (max(sizes) - min(sizes)), 0.01 * max(sizes))
    above = max(0.08 * (max(powers) - min(powers)), 0.2)
    return _Frame(
        max(0.0, min(sizes) - aside), max(sizes) + aside, min(powers) - above, max(powers) + above
    )


def _to_row(up: float) -> int:
    return ROWS - 1 - round(up * (ROWS - 1))


def _find_room(grid: list[list[str]], row: int, column: int, length: int) -> tuple[int, int] | None:
    """Row and column for a label: beside its star, else just below or above it."""
    beside = ((row, column + 2), (row, column - length - 1))
    around = ((row + 1, column), (row - 1, column), (row + 1, column + 2), (row - 1, column + 2))
    for at, start in (*beside, *around):
        inside = 0 <= at < ROWS and start >= 0 and start + length <= COLUMNS
        if inside and not "".join(grid[at][start : start + length]).strip():
            return at, start
    return None


def _lower_until_free(
    taken: Sequence[tuple[float, float, float]], start: float, length: float, y: float
) -> float:
    """The nearest height at or below `y` where no label is yet."""
    while any(
        abs(y - other_y) < LABEL_HEIGHT and start < other + other_length and other < start + length
        for other, other_length, other_y in taken
    ):
        y += 1
    return y
