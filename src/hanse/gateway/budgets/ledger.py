"""Reservations against limits: exact, in memory, and durable before they are relied on.

    ledger = await open_ledger(database, time.time)
    hold = await ledger.reserve(demands, (1, 900, 12_000))     # or a Refusal that says why
    ledger.settle(hold, (1, 40, 310))                          # what it really took
    await ledger.run(1.0)                                      # as a task

A process takes from the store a little more than it needs (`SHARES`), and reserves from that in
memory. So most reservations cost no write, what is spent was durably taken before, and processes on
one database share each limit without asking one another. What was taken and is not used goes back
within a second or so.

| state of an amount | counts against the limit | becomes |
| --- | --- | --- |
| taken in advance | yes | reserved here, or given back by `flush` |
| reserved | yes: the maximum | spent, by `settle` |
| spent | yes | nothing, when its slot leaves the window |
| of a process that died | yes, all it had taken | the same |

The invariant is that stored >= reserved + spent, row by row; all rows together never exceed the
limit, because `extend_rows` looks and takes in one transaction and writers take turns. A write that
fails leaves the store with more than memory has, never with less.

Source: docs/decisions/0025-keys-and-budgets.md.
"""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable, Sequence
from typing import TypeVar

from hanse.gateway.budgets.holds import (
    Demand,
    Hold,
    Refusal,
    Row,
    Waiter,
    find_never,
    get_wish,
    refuse,
    take,
)
from hanse.gateway.budgets.limits import MEASURES, WINDOWS, Most, Triple
from hanse.gateway.budgets.rows import MIGRATIONS, Granted, extend_rows, purge_rows, put_rows
from hanse.protocol.errors import HanseError
from hanse.store import Database, Transaction

FLUSH_S = 1.0
"""Between rounds that give back what lies idle."""

PURGE_S = 60.0
"""Between rounds that delete what no window reaches."""

REFUSED_S = 0.1
"""A refusal stands for so long without another look into the store, unless something was settled
here: callers who are over their limit cannot make it work harder than this."""

NOTHING: Triple = (0, 0, 0)

_LOG = logging.getLogger("hanse.gateway")

ResultT = TypeVar("ResultT")


class Ledger:
    """The reservations of one process. Open it with `open_ledger`."""

    def __init__(self, database: Database, now_s: Callable[[], float], process: str) -> None:
        self._database = database
        self._now_s = now_s
        self._process = process
        self._rows: dict[tuple[str, str], dict[int, Row]] = {}
        self._slots = {window.name: 0 for window in WINDOWS}
        self._waiters: list[Waiter] = []
        self._extending: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()  # of whoever writes
        self._freed = asyncio.Event()
        self._purge_at = float("-inf")

    async def reserve(self, demands: Sequence[Demand], amounts: Triple) -> Hold | Refusal:
        """Reserve within all demands, or nothing; raises TransientError `store_unavailable`."""
        rows = [self._get_row(demand) for demand in demands]
        hold = take(demands, rows, amounts)
        if hold is not None:
            return hold
        refusal = find_never(demands, amounts) or self._find_refused(rows, amounts)
        return refusal or await self._wait(demands, rows, amounts)

    def settle(self, hold: Hold, amounts: Triple) -> None:
        """Replace what was reserved by what it took; a second call changes nothing.

        More than was reserved is counted all the same: the limit is then exceeded, and nothing more
        is admitted until the window has passed.
        """
        parts = hold.parts if hold.is_open else []
        hold.is_open = False
        for row, most in parts:
            row.open -= 1
            for index in range(3):
                if most[index] is not None:
                    row.used[index] += amounts[index] - hold.amounts[index]
                    if row.used[index] > row.stored[index]:
                        row.stored[index] = row.used[index]
                        row.is_dirty = True
            for other in self._rows.get((row.subject, row.window.name), {}).values():
                other.refused = None
        self._freed.set()

    async def wait_freed(self, within_s: float) -> None:
        """Return once something was settled here, or after this time."""
        self._freed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._freed.wait()

    async def flush(self) -> None:
        """Give back what was taken and lies idle, and forget what is past.

        Raises:
            TransientError: `store_unavailable`; the next flush repeats it.
        """
        async with self._turn:
            now_s = self._now_s()
            changed = [row for row in self._list_rows() if self._is_due(row)]
            purges = now_s >= self._purge_at
            if changed or purges:
                puts = [row.shrink() for row in changed]

                def write(tx: Transaction) -> None:
                    put_rows(tx, self._process, puts)
                    if purges:
                        purge_rows(tx, now_s)

                await self._write(write, changed)
                if purges:
                    self._purge_at = now_s + PURGE_S
            self._forget()

    async def run(self, every_s: float = FLUSH_S) -> None:
        """Flush for ever; a store that is away for a while is no end."""
        while True:
            await asyncio.sleep(every_s)
            try:
                await self.flush()
            except HanseError as error:
                _LOG.warning("budgets wait for the store: %s", error.message)

    async def close(self) -> None:
        """Give back everything that is not used; what is reserved stays counted."""
        for row in self._list_rows():
            row.is_touched = False
        await self.flush()

    def _get_row(self, demand: Demand) -> Row:
        window = demand.window
        slot, known = int(self._now_s() // window.slot_s), self._slots[window.name]
        if slot < known:  # a clock that was set back: older slots were forgotten
            slot = known
        elif slot > known:
            self._slots[window.name] = slot
        rows = self._rows.get((demand.subject, window.name))
        if rows is None:
            rows = self._rows[demand.subject, window.name] = {}
        row = rows.get(slot)
        if row is None:
            row = rows[slot] = Row(demand.subject, window, slot)
        return row

    async def _wait(
        self, demands: Sequence[Demand], rows: list[Row], amounts: Triple
    ) -> Hold | Refusal:
        answer: asyncio.Future[Hold | Refusal] = asyncio.get_running_loop().create_future()
        for row in rows:
            row.open += 1
        self._waiters.append(Waiter(demands, rows, amounts, answer))
        if self._extending is None or self._extending.done():
            self._extending = asyncio.create_task(self._extend_all())
        try:
            return await answer
        except asyncio.CancelledError:
            if answer.done() and not answer.cancelled() and answer.exception() is None:
                given = answer.result()
                if isinstance(given, Hold):
                    self.settle(given, NOTHING)
            raise

    async def _extend_all(self) -> None:
        while self._waiters:
            async with self._turn:
                waiters, self._waiters = self._waiters, []
                try:
                    granted = await self._extend(waiters)
                except Exception as error:  # it belongs to those who wait
                    for waiter in waiters:
                        self._end(waiter, error)
                else:
                    for waiter in waiters:
                        self._end(waiter, granted)

    def _end(self, waiter: Waiter, outcome: dict[Row, Granted] | Exception) -> None:
        for row in waiter.rows:
            row.open -= 1
        if waiter.answer.done():  # its caller has left
            return
        if isinstance(outcome, Exception):
            waiter.answer.set_exception(outcome)
        else:
            waiter.answer.set_result(self._answer(waiter, outcome))

    async def _extend(self, waiters: list[Waiter]) -> dict[Row, Granted]:
        """Take for all that wait, in one write."""
        needed: dict[Row, list[int]] = {}
        mosts: dict[Row, Most] = {}
        for waiter in waiters:
            for row, demand in zip(waiter.rows, waiter.demands, strict=True):
                mosts[row] = demand.most
                sums = needed.setdefault(row, [0, 0, 0])
                for index in range(3):
                    sums[index] += waiter.amounts[index]
        wishes = [get_wish(row, sums, mosts[row]) for row, sums in needed.items()]
        others = [
            other
            for row in needed
            for other in self._rows[row.subject, row.window.name].values()
            if other not in needed and (other.is_dirty or other.stored != other.used)
        ]
        puts = [other.shrink() for other in others]
        puts += [row.get_put() for row in needed if row.is_dirty]

        def write(tx: Transaction) -> list[Granted]:
            put_rows(tx, self._process, puts)
            return extend_rows(tx, self._process, wishes)

        granted = await self._write(write, [*others, *needed])
        for row, grant in zip(needed, granted, strict=True):
            row.stored = [a + b for a, b in zip(row.stored, grant.amounts, strict=True)]
        return dict(zip(needed, granted, strict=True))

    def _answer(self, waiter: Waiter, granted: dict[Row, Granted]) -> Hold | Refusal:
        hold = take(waiter.demands, waiter.rows, waiter.amounts)
        if hold is not None:
            return hold
        now_s = self._now_s()
        found: list[Refusal] = []
        for row, demand in zip(waiter.rows, waiter.demands, strict=True):
            refusal = refuse(row, demand, waiter.amounts, granted[row], now_s)
            if refusal is not None:
                row.refused = refusal, now_s + REFUSED_S
                found.append(refusal)
        return max(found, key=lambda refusal: refusal.retry_after_s or 0.0)

    def _find_refused(self, rows: list[Row], amounts: Triple) -> Refusal | None:
        now_s = self._now_s()
        for row in rows:
            if row.refused is not None and row.refused[1] > now_s:
                refusal = row.refused[0]
                if amounts[MEASURES.index(refusal.measure)] >= refusal.needed:
                    return refusal
        return None

    async def _write(self, function: Callable[[Transaction], ResultT], rows: list[Row]) -> ResultT:
        before = [list(row.stored) for row in rows]
        try:
            found = await self._database.write(function)
        except BaseException:  # what the store says now is not known
            for row in rows:
                row.is_dirty = True
            raise
        for row, stored in zip(rows, before, strict=True):
            row.is_dirty = row.stored != stored  # more was spent meanwhile than was reserved
        return found

    def _is_due(self, row: Row) -> bool:
        """Whether its surplus goes back now: it is of the past, or lay idle since the last time."""
        was_touched, row.is_touched = row.is_touched, False
        is_past = row.slot < row.window.get_slot(self._now_s())
        return row.is_dirty or (row.stored != row.used and (is_past or not was_touched))

    def _forget(self) -> None:
        """Drop rows that nothing will change any more; the current slot's are still needed."""
        now_s = self._now_s()
        for key in list(self._rows):
            rows = self._rows[key]
            for slot, row in list(rows.items()):
                is_clean = not row.is_dirty and row.stored == row.used
                if slot < row.window.get_slot(now_s) and not row.open and is_clean:
                    del rows[slot]
            if not rows:
                del self._rows[key]

    def _list_rows(self) -> list[Row]:
        return [row for rows in self._rows.values() for row in rows.values()]


async def open_ledger(database: Database, now_s: Callable[[], float], process: str = "") -> Ledger:
    """The ledger of one process; `process` is its name, never used twice."""
    await database.migrate("gateway_budget_rows", MIGRATIONS)
    return Ledger(database, now_s, process or secrets.token_hex(8))
