"""What processes have taken out of each window's slots, as it is stored.

One row says how much one process has taken for one subject in one slot. The sum over all processes
and over the slots that a window reaches is what counts against a limit. A process writes its own
rows only, always with their whole value, so a repeated write changes nothing.

A row may say more than was spent (what was taken in advance, what is at work), never less. Rows of
a process that died stay as they are until the window has passed: that is their time to live.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from hanse.gateway.budgets.limits import WINDOWS, Most, Triple, Window
from hanse.store import Transaction

MIGRATIONS = (
    """
    CREATE TABLE gateway_budget_rows (
        subject TEXT NOT NULL,
        span TEXT NOT NULL,
        slot INTEGER NOT NULL,
        process TEXT NOT NULL,
        requests INTEGER NOT NULL,
        tokens INTEGER NOT NULL,
        money INTEGER NOT NULL,
        PRIMARY KEY (subject, span, slot, process)
    );
    CREATE INDEX gateway_budget_rows_by_slot ON gateway_budget_rows (span, slot)
    """,
)

SLOTS_KEPT = 32
"""Slots kept beyond a window, for processes whose clock is behind."""

_PUT = (
    "INSERT INTO gateway_budget_rows (subject, span, slot, process, requests, tokens, money) "
    "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (subject, span, slot, process) DO UPDATE SET "
    "requests = excluded.requests, tokens = excluded.tokens, money = excluded.money"
)
_SUM = (
    "SELECT slot, sum(requests), sum(tokens), sum(money) FROM gateway_budget_rows "
    "WHERE subject = ? AND span = ? AND slot >= ? GROUP BY slot ORDER BY slot"
)
_PURGE = "DELETE FROM gateway_budget_rows WHERE span = ? AND slot < ?"


class Extension(NamedTuple):
    """A wish to take more of one subject's slot.

    Attributes:
        subject, window, slot: of which row.
        stored: what this process has taken already.
        short: what is needed beyond it at least, by measure.
        spare: what is welcome beyond that.
        most: the limits.
    """

    subject: str
    window: Window
    slot: int
    stored: Triple
    short: Triple
    spare: Triple
    most: Most


class Granted(NamedTuple):
    """What an extension got, and what each slot of the window held before, by all processes."""

    amounts: Triple
    slots: list[tuple[int, int, int, int]]


Put = tuple[str, Window, int, Triple]
"""A row's subject, window, slot and whole value."""


def put_rows(tx: Transaction, process: str, rows: Iterable[Put]) -> None:
    """Write rows of one process."""
    for subject, window, slot, amounts in rows:
        tx.execute(_PUT, (subject, window.name, slot, process, *amounts))


def extend_rows(tx: Transaction, process: str, wishes: Sequence[Extension]) -> list[Granted]:
    """Take more where the limits allow it: all that is short and spare, or what there is."""
    found = []
    for wish in wishes:
        first = wish.window.get_first(wish.slot)
        slots = tx.find_all(_SUM, (wish.subject, wish.window.name, first))
        granted = _grant(wish, slots)
        value = tuple(a + b for a, b in zip(wish.stored, granted, strict=True))
        if any(granted):
            tx.execute(_PUT, (wish.subject, wish.window.name, wish.slot, process, *value))
        found.append(Granted(granted, [(row[0], row[1], row[2], row[3]) for row in slots]))
    return found


def purge_rows(tx: Transaction, now_s: float) -> None:
    """Delete what no window reaches any more."""
    for window in WINDOWS:
        first = window.get_first(window.get_slot(now_s)) - SLOTS_KEPT
        tx.execute(_PURGE, (window.name, first))


def _grant(wish: Extension, slots: Sequence[tuple[Any, ...]]) -> Triple:
    amounts = [0, 0, 0]
    for index, most in enumerate(wish.most):
        if most is not None:
            left = most - sum(row[index + 1] for row in slots)
            amounts[index] = max(0, min(left, wish.short[index] + wish.spare[index]))
    return amounts[0], amounts[1], amounts[2]
