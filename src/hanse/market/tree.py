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
from heapq import heappop, heappush
from itertools import count
from typing import Any, Protocol

from hanse.market.scoring import Coefficients, Features

LEAF_ROWS = 8
"""Below, a leaf's own cost outweighs what it saves; above, rows that cannot win are scored."""

LEAF_ROWS_MAX = 24
"""A leaf that grew to this is divided."""

FAN = 4
"""Children of a node, as it is built."""

_SAMPLE = 64
"""Rows by which it is decided how to divide many."""

_SPREADS = tuple(range(5))


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
    """`lows`: least features, least key, and the labels below. Either `rows` or `children`."""

    __slots__ = ("children", "lows", "parent", "rows")

    def __init__(self) -> None:
        self.lows: _Lows = _EMPTY
        self.children: list[_Node] = []
        self.rows: list[Any] = []
        self.parent: _Node | None = None


_Lows = tuple[float, float, float, float, float, str, int]
_INFINITE = float("inf")
_EMPTY: _Lows = (_INFINITE, _INFINITE, _INFINITE, _INFINITE, _INFINITE, "", 0)

Found = list[tuple[float, str, Any]]
"""Score, key and row, best first."""


class RankTree:
    """Rows of one kind of check and place."""

    def __init__(self, rows: Iterable[Any] = ()) -> None:
        self._root = _Node()
        self._size = 0
        self._changes = 0
        self.rebuild(rows)

    def __len__(self) -> int:
        return self._size

    @property
    def is_worn(self) -> bool:
        """Whether so much has changed that building it anew pays."""
        return self._changes > 64 + self._size

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
    trees: Iterable[tuple[RankTree, float]],
    coefficients: Coefficients,
    fits: Callable[[Any], bool],
    *,
    most: int = 1,
    tolerance: float = 0.0,
    masks: tuple[int, int] | None = None,
) -> Found:
    """The best rows that fit, best first; ties by key.

    Args:
        trees: with what all rows of each have in common in their score.
        coefficients: of the request.
        fits: asked of promising rows only.
        most: rows at most.
        tolerance: beside the best only rows whose score is at most so much above it, as a part.
        masks: a row must share a bit with each; None for no such limit.
    """
    first_mask, second_mask = masks or (-1, -1)
    a, b, c = coefficients.input_price, coefficients.output_price, coefficients.first_token
    d, e = coefficients.token, coefficients.risk
    heap: list[tuple[float, str, int, _Node, float]] = []
    number = count()
    for tree, of_class in trees:
        if tree._size:
            heappush(heap, (0.0, "", next(number), tree._root, of_class))
    found: Found = []
    limit, limit_key = float("inf"), ""
    while heap:
        bound, key, _, node, of_class = heappop(heap)
        if bound > limit or (bound == limit and key >= limit_key):
            break
        for child in node.children:
            w0, w1, w2, w3, w4, key, mask = child.lows
            if not (mask & first_mask and mask & second_mask):  # also of an empty node: no bits
                continue
            score = a * w0 + b * w1 + c * w2 + d * w3 + e * w4 + of_class
            if score > limit:
                continue
            heappush(heap, (score, key, next(number), child, of_class))
        for row in node.rows:
            if not (row.mask & first_mask and row.mask & second_mask):
                continue
            w0, w1, w2, w3, w4 = row.features
            score = a * w0 + b * w1 + c * w2 + d * w3 + e * w4 + of_class
            if score > limit or (score == limit and row.key >= limit_key) or not fits(row):
                continue
            _insert(found, (score, row.key, row), most)
            if len(found) == most:
                limit, limit_key = found[-1][0], found[-1][1]
            limit, limit_key = _narrow(found[0][0] * (1 + tolerance), limit, limit_key)
    return [entry for entry in found if entry[0] <= found[0][0] * (1 + tolerance)]


_LAST_KEY = "\U0010ffff"


def _narrow(most: float, limit: float, limit_key: str) -> tuple[float, str]:
    return (most, _LAST_KEY) if most < limit else (limit, limit_key)


def _insert(found: Found, entry: tuple[float, str, Any], most: int) -> None:
    place = len(found)
    while place and entry[:2] < found[place - 1][:2]:
        place -= 1
    found.insert(place, entry)
    del found[most:]


def _build(rows: list[Any]) -> _Node:
    node = _Node()
    if len(rows) <= LEAF_ROWS:
        _fill(node, rows)
    else:
        parts = FAN if len(rows) > LEAF_ROWS * FAN else 2
        _put_under(node, rows, parts)
    node.lows = _get_lows(node)
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
    _put_under(leaf, rows, 2)


def _choose_feature(rows: list[Any]) -> int:
    """The feature that differs most, for its size, among the better nine tenths."""
    some = rows[:: max(1, len(rows) // _SAMPLE)]
    best, widest = 0, -1.0
    for feature in _SPREADS:
        values = sorted(row.features[feature] for row in some)
        low, middle, high = values[0], values[len(values) // 2], values[len(values) * 9 // 10]
        spread = (high - low) / middle if middle else 0.0
        if spread > widest:
            best, widest = feature, spread
    return best


def _get_distance(node: _Node, features: Features) -> float:
    lows = node.lows
    if lows is _EMPTY:
        return 0.0
    pairs = zip(features, lows[:5], strict=True)
    return sum(abs(here - there) / ((here + there) or 1.0) for here, there in pairs)


def _get_lows(node: _Node) -> _Lows:
    lows = [(*row.features, row.key, row.mask) for row in node.rows]
    lows += [child.lows for child in node.children if child.lows is not _EMPTY]
    if not lows:
        return _EMPTY
    if len(lows) == 1:
        return lows[0]
    w0, w1, w2, w3, w4, keys, masks = zip(*lows, strict=True)
    mask = 0
    for one in masks:
        mask |= one
    return min(w0), min(w1), min(w2), min(w3), min(w4), min(keys), mask


def _tighten(node: _Node) -> None:
    """Take what changed in a leaf up to the root, as far as it changes anything."""
    at: _Node | None = node
    while at is not None:
        lows = _get_lows(at)
        if lows == at.lows:
            return
        at.lows = lows
        at = at.parent
