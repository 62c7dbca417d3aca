"""Finds the best rows among many without looking at most of them.

Rows with like features stand together, eight in a leaf, leaves under nodes, nodes under nodes. A
node knows the least of each feature below it; as a score rises with every feature, no row below can
be better than the node's own score. The search opens the most promising node first and ends when
the next one cannot beat what it has: the same rows as by scoring all, which a property test holds
it to. Among 100,000 rows it scores a few dozen and twice as many nodes.

A row that changes takes its leaf and the nodes above along (`move`); rows come and go one by one
(`add`, `remove`). All of it is plain Python: the user's side needs no numpy.

Source: branch and bound over a k-d tree (Bentley 1975; Hjaltason and Samet 1999 for best-first).
"""

from collections.abc import Callable, Iterable
from functools import reduce
from heapq import heappop, heappush
from operator import or_
from typing import Any, Protocol

from hanse.market.scoring import Coefficients, Features
from hanse.protocol.wire import VERIFIABILITIES

LEAF_ROWS = 8
"""Below, a leaf's own cost outweighs what it saves; above, rows that cannot win are scored."""

LEAF_ROWS_MAX = 24
"""A leaf that grew to this is divided."""

MENDED_ROWS_MAX = 4_096
"""Rows that are built anew between two requests, in about 40 ms, and as seldom as they are many."""

FAN = 4
"""Children of a node, as it is built."""

STRENGTH_MAX = len(VERIFIABILITIES) - 1
"""Steps below the strongest check that there can be."""

_SAMPLE = 64
"""Rows by which it is decided how to divide many."""

_SPREADS = (1.0, 1.0, 1.0, 1.0, 0.5, 0.2, 0.1)
"""How much a feature's spread counts for dividing: what most policies weigh little comes late."""


class TreeRow(Protocol):
    """What the tree needs of a row.

    `key` orders rows of equal score; `mask` has a bit for each label (region, quantisation), and
    at least one; `leaf` is the tree's own note of where the row is.
    """

    features: Features
    key: str
    mask: int
    leaf: Any


class _Node:
    """Least features and key of what is below, and all its labels; either `rows` or `children`."""

    __slots__ = ("children", "features", "key", "mask", "parent", "rows")

    def __init__(self) -> None:
        self.features: Features = _NOTHING
        self.key = ""
        self.mask = 0  # of an empty node, which no search enters therefore
        self.children: list[_Node] = []
        self.rows: list[Any] = []
        self.parent: _Node | None = None


_INFINITE = float("inf")
_NOTHING: Features = (_INFINITE, _INFINITE, _INFINITE, _INFINITE, _INFINITE, 0, 0)

Found = list[tuple[float, str, Any]]
"""Score, key and row, best first."""


class RankTree:
    """Rows in a k-d tree; what is one for all of them is added up once.

    Attributes:
        strength: steps below the strongest check; like their place, one for all rows.
        is_one_speed: whether their times are one too, those of rows that were never measured.
    """

    def __init__(self, strength: int, *, is_one_speed: bool = False) -> None:
        self.strength, self.is_one_speed = strength, is_one_speed
        self._root = _Node()
        self._size = 0
        self._changes = 0

    def __len__(self) -> int:
        return self._size

    @property
    def is_worn(self) -> bool:
        """Whether so much has changed that building it anew pays."""
        return self._changes > 64 + self._size

    def mend(self) -> None:
        """Build it anew if that pays and takes little: rows that came one by one stand badly."""
        if self.is_worn and self._size <= MENDED_ROWS_MAX:
            self.rebuild(self.list_rows())

    def rebuild(self, rows: Iterable[Any]) -> None:
        """Hold exactly these rows."""
        held = list(rows)
        self._size, self._changes = len(held), 0
        self._root = _build(held)

    def list_rows(self) -> list[Any]:
        """Every row, in no order."""
        found, open_nodes = [], [self._root]
        while open_nodes:
            node = open_nodes.pop()
            found += node.rows
            open_nodes += node.children
        return found

    def add(self, row: TreeRow) -> None:
        """Take a row in, where it is like its neighbours."""
        node = self._root
        while node.children:
            node = min(node.children, key=lambda child: _get_distance(child, row.features))
        node.rows.append(row)
        row.leaf = node
        self._size += 1
        self._changes += 1
        if len(node.rows) > LEAF_ROWS_MAX:
            _divide(node)
        _tighten(node)

    def remove(self, row: TreeRow) -> None:
        """Let a row go."""
        leaf: _Node = row.leaf
        leaf.rows.remove(row)
        row.leaf = None
        self._size -= 1
        self._changes += 1
        _tighten(leaf)

    def move(self, row: TreeRow) -> None:
        """Take notice of a row's new features; it stays in its leaf."""
        self._changes += 1
        _tighten(row.leaf)


def search(
    trees: Iterable[RankTree],
    coefficients: Coefficients,
    fits: Callable[[Any], bool],
    *,
    most: int = 1,
    tolerance: float = 0.0,
    strength_max: int = STRENGTH_MAX,
    masks: tuple[int, int] | None = None,
) -> Found:
    """The best rows that fit, best first; ties by key.

    Args:
        trees: all rows are in one of them.
        coefficients: of the request.
        fits: asked of the best rows only, one by one.
        most: rows at most.
        tolerance: beside the best only rows whose score is at most so much above it, as a part.
        strength_max: most steps below the strongest check.
        masks: a row must share a bit with each; None for no such limit.
    """
    c0, c1, c2 = coefficients.input_price, coefficients.output_price, coefficients.first_token
    c3, c4, c5, c6 = (
        coefficients.token,
        coefficients.risk,
        coefficients.check,
        coefficients.far,
    )
    first_mask, second_mask = masks or (-1, -1)
    push, pop = heappush, heappop
    is_limited = masks is not None
    heap: list[tuple[float, str, int, Any, tuple[float, bool] | None]] = []
    number = 0
    for tree in trees:
        root = tree._root
        if tree.strength <= strength_max and root.mask:
            f0, f1, f2, f3, f4, f5, f6 = root.features
            shared = c5 * f5 + c6 * f6
            score = c0 * f0 + c1 * f1 + c4 * f4 + (c2 * f2 + c3 * f3 + shared)
            if tree.is_one_speed:
                shared = c2 * f2 + c3 * f3 + shared
            number += 1
            push(heap, (score, root.key, number, root, (shared, tree.is_one_speed)))
    found: Found = []
    limit = _INFINITE
    while heap:
        bound, key, _, at, terms = pop(heap)
        if bound > limit:
            break
        if terms is None:  # a row
            if fits(at):
                found.append((bound, key, at))
                if len(found) == most:
                    break
                if len(found) == 1:
                    limit = bound * (1 + tolerance)
            continue
        shared, is_one_speed = terms
        rows = at.rows
        below = None if rows else terms
        for child in rows or at.children:
            if is_limited and not (child.mask & first_mask and child.mask & second_mask):
                continue  # before anything is added up: of a limit's rows most go here
            f0, f1, f2, f3, f4, _, _ = child.features
            if is_one_speed:
                score = c0 * f0 + c1 * f1 + c4 * f4 + shared
            else:
                score = c0 * f0 + c1 * f1 + c4 * f4 + (c2 * f2 + c3 * f3 + shared)
            if score <= limit:  # of an empty node: infinite or no number
                number += 1
                push(heap, (score, child.key, number, child, below))
    return found


def _build(rows: list[Any]) -> _Node:
    node = _Node()
    if len(rows) <= LEAF_ROWS:
        _fill(node, rows)
    else:
        parts = FAN if len(rows) > LEAF_ROWS * FAN else 2
        _put_under(node, rows, parts)
    _sum_up(node)
    return node


def _put_under(node: _Node, rows: list[Any], parts: int) -> None:
    feature = _choose_feature(rows)
    rows.sort(key=lambda row: (row.features[feature], row.key))
    step = -(-len(rows) // parts)
    node.children = [_build(rows[at : at + step]) for at in range(0, len(rows), step)]
    for child in node.children:
        child.parent = node


def _fill(node: _Node, rows: list[Any]) -> None:
    node.rows = rows
    for row in rows:
        row.leaf = node


def _divide(leaf: _Node) -> None:
    rows, leaf.rows = leaf.rows, []
    _put_under(leaf, rows, 2)  # its own features are summed up next


def _choose_feature(rows: list[Any]) -> int:
    """The feature that differs most, for its size, among the better nine tenths."""
    some = rows[:: max(1, len(rows) // _SAMPLE)]
    best, widest = 0, -1.0
    for feature, weight in enumerate(_SPREADS):
        values = sorted([row.features[feature] for row in some])
        low, middle, high = values[0], values[len(values) // 2], values[len(values) * 9 // 10]
        spread = weight * (high - low) / (middle or 1.0)
        if spread > widest:
            best, widest = feature, spread
    return best


def _get_distance(node: _Node, features: Features) -> float:
    if not node.mask:
        return 0.0
    pairs = zip(features, node.features, strict=True)
    return sum(abs(here - there) / ((here + there) or 1.0) for here, there in pairs)


def _sum_up(node: _Node) -> bool:
    """Take the least of what is below; whether that changes anything."""
    below: list[Any] = node.rows or [child for child in node.children if child.mask]
    before = node.features, node.key, node.mask
    if not below:
        node.features, node.key, node.mask = _NOTHING, "", 0
    else:
        f0, f1, f2, f3, f4, f5, f6 = zip(*[one.features for one in below], strict=True)
        node.features = (min(f0), min(f1), min(f2), min(f3), min(f4), min(f5), min(f6))
        node.key = min([one.key for one in below])
        node.mask = reduce(or_, [one.mask for one in below])
    return before != (node.features, node.key, node.mask)


def _tighten(node: _Node) -> None:
    """Take what changed in a leaf up to the root, as far as it changes anything."""
    at: _Node | None = node
    while at is not None and _sum_up(at):
        at = at.parent
