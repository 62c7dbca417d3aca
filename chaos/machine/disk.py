"""A component's database: real SQLite on a real file, with the moment of each commit in our hands.

The statements, savepoints and shared commits are Hanse's own (`hanse.store.group_commit`). What is
replaced is who calls them when: no thread, a wait drawn by lot before and after each commit, so
that a crash can fall on either side of it, and a disk that can be slow or full. Full is real:
SQLite's `max_page_count` refuses the next page.

A killed process closes its connection, as the kernel does: what was not committed is gone.

Two of the injected bugs of `chaos.bugs` live here: `volatile_store` answers before it commits,
and statements can be exchanged.
"""

import asyncio
import contextlib
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from chaos.bugs import Bug
from chaos.machine.loop import get_process
from hanse.protocol.errors import TransientError
from hanse.store.database import Begun, Row, Transaction
from hanse.store.group_commit import (
    SharedTransaction,
    SqliteTransaction,
    Write,
    do_nothing,
)
from hanse.store.migrations import apply_steps

ResultT = TypeVar("ResultT")

WAITS_S = (0.0, 0.0, 0.0, 0.0005, 0.003, 0.02)
"""Before and after a commit on a healthy disk."""


class Disk:
    """The disk of one component, or of two that share it; it outlives their processes."""

    def __init__(self, path: Path, lot: Random, counts: "Counter[str]", bug: Bug) -> None:
        self.path = path
        self.lot = lot
        self.counts = counts
        self.bug = bug
        self.is_shared = False
        self.slow = False
        self.full = False

    def get_wait_s(self) -> float:
        """How long the next turn of the disk takes."""
        if self.slow:
            self.counts["disk_slow"] += 1
            return self.lot.uniform(0.2, 3.0)
        return self.lot.choice(WAITS_S)


class ChaosDatabase:
    """`hanse.store.Database` on a `Disk`, for one process."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        # No process holds the file over a step, so nobody ever waits for another's lock.
        self._connection = sqlite3.connect(disk.path, isolation_level=None, timeout=0.0)
        for pragma in ("journal_mode=WAL", "synchronous=OFF", "foreign_keys=ON"):
            self._connection.execute(f"PRAGMA {pragma}")
        self._waiting: list[Write] = []
        self._is_due = False
        self._held: SharedTransaction | None = None  # left open behind writes that were only begun
        process = get_process()
        assert process is not None
        process.on_death.append(self._connection.close)

    async def write(self, function: Callable[[Transaction], ResultT]) -> ResultT:
        """See `Database`."""
        future: asyncio.Future[ResultT] = self._enqueue(function, is_begun=False).future
        try:
            return await future
        finally:
            future.cancel()

    async def begin(self, function: Callable[[Transaction], ResultT]) -> Begun[ResultT]:
        """See `Database`."""
        write = self._enqueue(function, is_begun=True)
        try:
            result: ResultT = await write.future
        finally:
            write.future.cancel()
        return Begun(result, write.transaction)

    async def read(self, function: Callable[[Transaction], ResultT]) -> ResultT:
        """See `Database`."""
        wait_s = self._disk.get_wait_s()
        if wait_s:
            await asyncio.sleep(wait_s)
        if self._held is not None:
            await self.write(do_nothing)
        return function(self._open())

    async def migrate(self, component: str, steps: Sequence[str]) -> None:
        """See `Database`."""
        await self.write(lambda tx: apply_steps(tx, component, steps))

    async def close(self) -> None:
        """See `Database`."""
        if self._waiting or self._held:
            await self.write(do_nothing)  # shares the commit that is due, or comes after it
        self._connection.close()

    def _enqueue(self, function: Callable[[Transaction], Any], *, is_begun: bool) -> Write:
        loop = asyncio.get_running_loop()
        write = Write(self._exchange(function), loop, loop.create_future(), is_begun)
        self._waiting.append(write)
        if not self._is_due:
            self._is_due = True
            loop.call_later(self._disk.get_wait_s(), self._commit)
        return write

    def _commit(self) -> None:
        self._is_due = False
        batch, self._waiting = self._waiting, []
        connection = self._connection
        pages = 1_073_741_823
        if self._disk.full:
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count={pages}")
        if self._disk.bug is Bug.VOLATILE_STORE and not self._disk.is_shared:
            self._commit_late(batch)
            return
        transaction = self._held or SharedTransaction(connection)
        self._held = None
        results = transaction.run(batch)
        is_held = transaction.is_open and batch and all(write.is_begun for write in batch)
        if is_held and not self._disk.is_shared:  # PostgreSQL leaves nothing open either
            self._hold(transaction, batch, results)
            return
        results, _ = transaction.commit(batch, results)
        if self._disk.full and any(isinstance(error, TransientError) for _, _, error in results):
            self._disk.counts["disk_full"] += 1
        wait_s = self._disk.get_wait_s()
        if wait_s:
            asyncio.get_running_loop().call_later(wait_s, _deliver, results)
        else:
            _deliver(results)

    def _hold(self, transaction: SharedTransaction, batch: list[Write], results: list[Any]) -> None:
        """Leave it open until a write waits for it, or for a wait of the disk's."""
        self._held, transaction.owner = transaction, self
        for write in batch:
            write.transaction = transaction
        _deliver(results)
        if not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_later(self._disk.get_wait_s(), self._commit)

    def _commit_late(self, batch: list[Write]) -> None:
        """The injected bug: callers go on at once, the commit comes half a second later."""
        connection = self._connection
        if not connection.in_transaction:
            connection.execute("BEGIN IMMEDIATE")
            asyncio.get_running_loop().call_later(0.5, self._commit_at_last)
        results: list[Any] = []
        for write in batch:
            try:
                results.append((write.future, write.function(self._open()), None))
            except sqlite3.OperationalError as error:
                refusal = TransientError("store_unavailable", f"injected bug: {error}")
                results.append((write.future, None, refusal))
            except Exception as error:
                results.append((write.future, None, error))
        _deliver(results)

    def _commit_at_last(self) -> None:
        with contextlib.suppress(sqlite3.Error):  # a full disk or a stop has ended it
            self._connection.execute("COMMIT")

    def _open(self) -> Transaction:
        return SqliteTransaction(self._connection)

    def _exchange(self, function: Callable[[Transaction], Any]) -> Callable[[Transaction], Any]:
        exchanged = self._disk.bug.statements
        if not exchanged:
            return function
        return lambda tx: function(_Exchanged(tx, exchanged))


class _Exchanged:
    """A transaction in which some statements are others: an injected bug."""

    def __init__(self, tx: Transaction, exchanged: tuple[tuple[str, str], ...]) -> None:
        self._tx = tx
        self._exchanged = exchanged

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        for before, after in self._exchanged:
            sql = sql.replace(before, after)
        return self._tx.execute(sql, parameters)

    def find_one(self, sql: str, parameters: Sequence[Any] = ()) -> Row | None:
        return self._tx.find_one(sql, parameters)

    def find_all(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        return self._tx.find_all(sql, parameters)


def _deliver(results: list[Any]) -> None:
    for future, result, error in results:
        if future.done():
            continue
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)
