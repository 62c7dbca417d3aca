"""What one process holds of the limits: its rows, its reservations, and why one was refused.

Plain state and pure rules; `hanse.gateway.budgets.ledger` owns it and writes.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from hanse.gateway.budgets.limits import MEASURES, Most, Triple, Window
from hanse.gateway.budgets.rows import Extension, Granted, Put

SHARES = 32
"""A process takes a 32nd of a limit in advance: few writes, and little that lies idle or is lost in
a crash."""

WAIT_S_MIN = 0.05
"""Shortest wait that a refusal names."""


class Demand(NamedTuple):
    """One window's limits of one subject, which a request must be within."""

    subject: str
    window: Window
    most: Most


class Refusal(NamedTuple):
    """Why a limit does not let a request through.

    Attributes:
        demand: whose limit.
        measure: `requests`, `tokens` or `money`.
        limit: the most within the window.
        spent: of it, spent and reserved.
        needed: this request's maximum.
        retry_after_s: when enough comes free at the latest; None if that never will.
    """

    demand: Demand
    measure: str
    limit: int
    spent: int
    needed: int
    retry_after_s: float | None


@dataclass(slots=True, eq=False)
class Row:
    """What this process has taken and used of one subject's slot."""

    subject: str
    window: Window
    slot: int
    stored: list[int] = field(default_factory=lambda: [0, 0, 0])
    used: list[int] = field(default_factory=lambda: [0, 0, 0])
    open: int = 0  # holds and waiters that will still change it
    is_touched: bool = False
    is_dirty: bool = False  # the store may say something else than `stored`
    refused: "tuple[Refusal, float] | None" = None  # and until when that stands

    def shrink(self) -> Put:
        """Give back what is not used; how the store is to know."""
        self.stored = list(self.used)
        return self.get_put()

    def get_put(self) -> Put:
        """The row as the store is to have it."""
        return self.subject, self.window, self.slot, as_triple(self.stored)

    def has(self, most: Most, amounts: Triple) -> bool:
        """Whether these amounts can be reserved from what was taken."""
        (stored_0, stored_1, stored_2), (used_0, used_1, used_2) = self.stored, self.used
        return (
            (most[0] is None or used_0 + amounts[0] <= stored_0)
            and (most[1] is None or used_1 + amounts[1] <= stored_1)
            and (most[2] is None or used_2 + amounts[2] <= stored_2)
        )


@dataclass(slots=True, eq=False)
class Hold:
    """One reservation. It is `settle`d once, however its request ends."""

    parts: list[tuple[Row, Most]]
    amounts: Triple
    is_open: bool = True


@dataclass(slots=True, eq=False)
class Waiter:
    """A request that what is here does not suffice for."""

    demands: Sequence[Demand]
    rows: list[Row]
    amounts: Triple
    answer: "asyncio.Future[Hold | Refusal]"


def take(demands: Sequence[Demand], rows: list[Row], amounts: Triple) -> Hold | None:
    """Reserve from what is here already; None, and nothing happened, if it is too little."""
    for row, demand in zip(rows, demands, strict=True):
        if not row.has(demand.most, amounts):
            return None
    parts = []
    for row, demand in zip(rows, demands, strict=True):
        most, used = demand.most, row.used
        if most[0] is not None:
            used[0] += amounts[0]
        if most[1] is not None:
            used[1] += amounts[1]
        if most[2] is not None:
            used[2] += amounts[2]
        row.open += 1
        row.is_touched = True
        parts.append((row, most))
    return Hold(parts, amounts)


def find_never(demands: Sequence[Demand], amounts: Triple) -> Refusal | None:
    """The limit that this request alone is above, whatever was spent."""
    for demand in demands:
        for measure, most, amount in zip(MEASURES, demand.most, amounts, strict=True):
            if most is not None and amount > most:
                return Refusal(demand, measure, most, 0, amount, None)
    return None


def get_wish(row: Row, needed: Sequence[int], most: Most) -> Extension:
    """What to take so that `needed` fits, and a share of each limit beyond it."""
    short, spare = [0, 0, 0], [0, 0, 0]
    for index, limit in enumerate(most):
        if limit is not None:
            lacking = needed[index] - (row.stored[index] - row.used[index])
            if lacking > 0:
                short[index], spare[index] = lacking, limit // SHARES
    stored = as_triple(row.stored)
    short_of, beyond = as_triple(short), as_triple(spare)
    return Extension(row.subject, row.window, row.slot, stored, short_of, beyond, most)


def refuse(
    row: Row, demand: Demand, amounts: Triple, granted: Granted, now_s: float
) -> Refusal | None:
    """Which limit this row has too little of, and when enough comes free; None if it has enough."""
    for index, most in enumerate(demand.most):
        left = row.stored[index] - row.used[index]
        if most is None or left >= amounts[index]:
            continue
        held = sum(slot[index + 1] for slot in granted.slots) + granted.amounts[index]
        excess, last = held - left + amounts[index] - most, row.slot
        for slot in granted.slots:
            excess -= slot[index + 1]
            if excess <= 0:
                last = slot[0]
                break
        wait_s = max(WAIT_S_MIN, demand.window.get_end_s(last) - now_s)
        return Refusal(demand, MEASURES[index], most, held - left, amounts[index], wait_s)
    return None


def as_triple(amounts: Sequence[int]) -> Triple:
    """Three numbers, as they are."""
    return amounts[0], amounts[1], amounts[2]
