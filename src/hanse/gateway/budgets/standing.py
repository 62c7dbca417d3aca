"""How far each limit is used, over all processes, for people who watch.

What a process has taken counts, as it does for the limits themselves: that is a little more than
what was spent. One read of the store.
"""

from collections.abc import Iterator, Sequence

import msgspec

from hanse.gateway.budgets.configuration import Configuration
from hanse.gateway.budgets.limits import MEASURES, WINDOWS, Limits, Window
from hanse.gateway.keys import ApiKey
from hanse.store import Transaction

SHOWN_MAX = 64
"""Limits that are shown, the fullest first."""

SUBJECTS_MAX = 10_000
"""Subjects that are looked at in one read."""

_SUMS = (
    "SELECT subject, sum(requests), sum(tokens), sum(money) FROM gateway_budget_rows "
    "WHERE span = ? AND slot >= ? GROUP BY subject LIMIT ?"
)


class Standing(msgspec.Struct, frozen=True):
    """One limit, and what is taken of it; money in base units, as text like the rest.

    Attributes:
        subject: `gateway`, or the id of a key.
        name: the key's label; empty for the gateway.
        measure: `requests`, `tokens` or `money`.
        window: `minute` or `day`.
        limit, taken: amounts.
    """

    subject: str
    name: str
    measure: str
    window: str
    limit: str
    taken: str


async def read_standings(
    configuration: Configuration, keys: Sequence[ApiKey], now_s: float
) -> list[Standing]:
    """The limits of the gateway and of these keys, which work, the fullest first.

    Raises:
        TransientError: `store_unavailable`.
    """
    limited = [("gateway", "gateway", "", configuration.budgets.limits)]
    limited += [
        (f"key:{key.id}", key.id, key.name, key.terms.limits)
        for key in keys
        if not key.terms.limits.is_none
    ]

    def read(tx: Transaction) -> dict[tuple[str, str], tuple[int, ...]]:
        taken = {}
        for window in WINDOWS:
            first = window.get_first(window.get_slot(now_s))
            for subject, *sums in tx.find_all(_SUMS, (window.name, first, SUBJECTS_MAX)):
                taken[subject, window.name] = tuple(int(value) for value in sums)
        return taken

    if all(limits.is_none for *_, limits in limited):
        return []
    taken = await configuration.database.read(read)
    found = []
    for subject, shown, name, limits in limited:
        for window, index, most in _list_limits(limits):
            used = taken.get((subject, window.name), (0, 0, 0))[index]
            share = used / most if most else 1.0
            row = Standing(shown, name, MEASURES[index], window.name, str(most), str(used))
            found.append((share, row))
    found.sort(key=lambda pair: -pair[0])
    return [row for _, row in found[:SHOWN_MAX]]


def _list_limits(limits: Limits) -> Iterator[tuple[Window, int, int]]:
    for window in WINDOWS:
        for index, most in enumerate(limits.get_most(window)):
            if most is not None:
                yield window, index, most
