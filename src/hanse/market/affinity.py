"""Which of several equally good providers a session stays with: rendezvous hashing, with spill.

Every provider draws a number from session and address; the least, divided by how close the provider
is to the best one, wins. Whoever computes it comes to the same, without a table: two gateways send
a session to the same provider, and one that comes or goes moves only the sessions that it wins or
had. A provider without a free slot is passed over as long as another one has some.

Source: Thaler and Ravishankar 1998 (highest random weight); the weights as in Wang et al. 2018.
"""

import math
from collections.abc import Callable, Sequence
from hashlib import blake2b

from hanse.market.board import Row
from hanse.market.tree import Found

POOL_MAX = 3
"""Among so many of the best a session is placed. When they are full, their scores fall behind."""


def choose_for(
    affinity: bytes, pool: Found, tolerance: float, get_free: Callable[[Row], int | None]
) -> tuple[Row, bool]:
    """The row that a session belongs to.

    Args:
        affinity: names the session.
        pool: the best rows with their scores, best first; not empty.
        tolerance: the pool's: a score so much above the best has no weight any more.
        get_free: free slots of a row, 0 or less if it is full, None if that is not known.

    Returns:
        The row, and whether the one that it belongs to was full (spill).
    """
    best = pool[0][0]
    if len(pool) == 1:
        return pool[0][2], False
    reach = best * tolerance
    named = blake2b(affinity, digest_size=8)  # once: it may be a document of many pages
    drawn: list[tuple[float, str, Row]] = []
    for score, key, row in pool:
        weight = 1 - (score - best) / reach if reach > 0 else 1.0
        if weight > 0:
            drawn.append((_draw(named, row) / weight, key, row))
    drawn.sort(key=lambda entry: entry[:2])
    return _pass_over_full([row for _, _, row in drawn], get_free)


def _pass_over_full(rows: Sequence[Row], get_free: Callable[[Row], int | None]) -> tuple[Row, bool]:
    for place, row in enumerate(rows):
        free = get_free(row)
        if free is None or free > 0:
            return row, place > 0
    return rows[0], False  # all are full: at home at least the prompt's cache is warm


def _draw(named: blake2b, row: Row) -> float:
    """An exponential variable of mean 1: the least of several wins in proportion to the weights."""
    hasher = named.copy()
    hasher.update(row.listed.provider.encode())
    return -math.log((int.from_bytes(hasher.digest(), "big") + 1) / 2**64)
