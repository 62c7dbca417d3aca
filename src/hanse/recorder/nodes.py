"""A commit's tree as rows, made once: a proof reads two of them, and hashes nothing.

    rows = pack_leaves(leaves)                           # hashes; outside of any transaction
    store_tree(tx, number, rows)                         # with the commit, in its transaction
    siblings = read_siblings(find_part, count, place)    # for each proof

The inner hashes are kept in parts of `PART_LEVELS` levels: a part holds 256 neighbours of one level
and all that is above them, short of the level where they are one. A leaf and its siblings up there
are in one part, so the 16 siblings in the largest commit are in two, of 16 KB each. Whoever asks
for receipts out of many large commits so costs no more than whoever asks for neighbours.

Source: `hanse.protocol.merkle` for the tree; `docs/records.md`, section "On the wire".
"""

from collections.abc import Callable, Sequence

from hanse.protocol.errors import InvariantError
from hanse.protocol.merkle import get_levels
from hanse.protocol.records import Leaf
from hanse.protocol.records.proofs import order_leaves
from hanse.recorder import tables as sql
from hanse.store.database import Transaction

PART_LEVELS = 8
"""Levels of a part: with 8 the largest tree is 257 rows, and a proof reads 2."""

HASH_BYTES = 32

PARTS_KEPT_MAX = 16
"""Parts remembered within one read: 256 KB, whatever is asked for."""

FindPart = Callable[[int, int], bytes]
"""The hashes of a part, by its lowest level and its place there."""


def pack_leaves(leaves: Sequence[Leaf]) -> list[tuple[int, int, bytes]]:
    """The parts of a commit's tree, in whatever order its leaves come."""
    return pack_tree([leaf.get_value() for leaf in order_leaves(leaves)])


def store_tree(tx: Transaction, number: int, parts: Sequence[tuple[int, int, bytes]]) -> None:
    """Keep a commit's parts for ever: 65 bytes a receipt, as much as two of its hashes."""
    for part in parts:
        tx.execute(sql.INSERT_NODES, (number, *part))


class PartReader:
    """Parts as they are stored, some of them remembered: neighbours ask for the same."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx
        self._kept: dict[tuple[int, int, int], bytes] = {}

    def of(self, number: int) -> FindPart:
        """The parts of one commit."""
        return lambda level, place: self._find(number, level, place)

    def _find(self, *key: int) -> bytes:
        number, level, place = key
        if (number, level, place) not in self._kept:
            row = self._tx.find_one(sql.FIND_NODES, key)
            if row is None:
                raise InvariantError(
                    "invariant_broken", f"commit {number} lacks a part of its tree"
                )
            if len(self._kept) >= PARTS_KEPT_MAX:
                self._kept.clear()
            self._kept[number, level, place] = bytes(row[0])
        return self._kept[number, level, place]


def pack_tree(values: list[bytes]) -> list[tuple[int, int, bytes]]:
    """The parts (level, place, hashes) of the tree over these leaves; none for a single leaf."""
    levels = get_levels(values)[:-1]  # the top has no sibling
    parts = []
    for first in range(0, len(levels), PART_LEVELS):
        held = levels[first : first + PART_LEVELS]
        for place in range(_count_parts(len(held[0]))):
            hashes = [_cut(level, place, PART_LEVELS - up) for up, level in enumerate(held)]
            parts.append((first, place, b"".join(hashes)))
    return parts


def read_siblings(find_part: FindPart, count: int, place: int) -> tuple[bytes, ...]:
    """The siblings from the leaf at `place` up, in a tree of `count` leaves."""
    siblings: list[bytes] = []
    width, position, level = count, place, 0
    while width > 1:
        if level % PART_LEVELS == 0:
            part, offset = find_part(level, position >> PART_LEVELS), 0
            first = position >> PART_LEVELS << PART_LEVELS
            held_most = 1 << PART_LEVELS
        sibling = position ^ 1
        if sibling < width:
            at = offset + (sibling - first) * HASH_BYTES
            siblings.append(part[at : at + HASH_BYTES])
        offset += min(width - first, held_most) * HASH_BYTES
        first, held_most = first // 2, held_most // 2
        position, width, level = position // 2, (width + 1) // 2, level + 1
    return tuple(siblings)


def _count_parts(width: int) -> int:
    return (width + (1 << PART_LEVELS) - 1) >> PART_LEVELS


def _cut(level: Sequence[bytes], place: int, height: int) -> bytes:
    return b"".join(level[place << height : (place + 1) << height])
