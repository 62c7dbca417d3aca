"""SQLite with group commit, on the caller's loop while the disk is fast, else in a writer thread.

Every commit waits for the disk (`synchronous=FULL`), about 0.2-5 ms. One commit a request would
make that the ceiling of a whole broker, so all writes that wait are run, each undone alone if it
fails, and committed together: under load the disk is waited for once for dozens of requests.

While commits take less than `LOOP_COMMIT_S_MAX` on average they run on the event loop itself:
waking a thread costs more processor time. Above it, or while another process holds the file, the
writer thread has them: a disk ten times slower is noticed at its first commit.

In a server (`is_served`) a write that is only begun, and came alone, leaves its transaction open:
what follows within `HOLD_S` shares its commit. With one request at a time that is the voucher
and the receipt of an answer that took no longer, and one commit instead of two.

Reads run on a connection and in a thread of their own (WAL: readers see the last commit and block
nobody). For `:memory:` they run on the writer's connection.

Source: SQLite's documentation on WAL, savepoints and `synchronous`.
"""

import asyncio
import contextlib
import logging
import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from hanse.protocol.errors import TransientError
from hanse.store.database import Begun, Transaction
from hanse.store.group_commit import (
    GATHER_S,
    HOLD_S,
    WRITES_PER_COMMIT_MAX,
    Result,
    SharedTransaction,
    Write,
    deliver,
    do_nothing,
    refuse,
)
from hanse.store.migrations import apply_steps
from hanse.store.sqlite_file import Reader, connect, create_private

ResultT = TypeVar("ResultT")

_log = logging.getLogger(__name__)

LOOP_COMMIT_S_MAX = 0.004
"""Average commit time up to which commits may run on the loop; a stream's frame waits as long."""

COMMITS_PER_CHECKPOINT = 500
"""After so many commits on the loop the writer thread moves the WAL's pages into the file, which
takes milliseconds; the WAL stays at a few MB."""

BUSY_TIMEOUT_MS = 10_000
"""How long another process may hold the file (a backup, a second command) before a write fails."""


class SqliteDatabase:
    """A `Database` over one SQLite file. Open it with `open_sqlite`."""

    def __init__(
        self, path: str, loop_commit_s_max: float = LOOP_COMMIT_S_MAX, *, is_served: bool = False
    ) -> None:
        self._path = path
        self._is_served = is_served
        self._queue: deque[Write] = deque()
        self._lock = threading.Lock()  # over the queue and whose turn it is
        self._wake = threading.Condition(self._lock)
        self._closing = False
        self._connection = connect(path, BUSY_TIMEOUT_MS)
        # On the loop nobody waits for another process: a file that is held goes to the thread.
        self._loop_connection = self._connection
        if path != ":memory:":
            self._loop_connection = connect(path, 0)
            self._loop_connection.execute("PRAGMA wal_autocheckpoint=0")
        self._loop_commit_s_max = loop_commit_s_max
        self._commit_s = 0.0
        self._turn = threading.Lock()  # held by whoever runs a transaction
        self._next_flush_at = 0.0  # loop time; in the past unless commits are being shared
        self._flush_loop: asyncio.AbstractEventLoop | None = None  # where a flush is due
        self._held: SharedTransaction | None = None  # left open; it keeps the turn
        self._held_loop: asyncio.AbstractEventLoop | None = None
        self._hold_timer: asyncio.TimerHandle | None = None
        self._commits_since_checkpoint = 0
        self._reader = Reader(path, BUSY_TIMEOUT_MS)
        self._writer = threading.Thread(target=self._run, name="hanse-store-write", daemon=True)
        self._writer.start()

    async def write(self, function: Callable[[Transaction], ResultT]) -> ResultT:
        """See `Database.write`."""
        future: asyncio.Future[ResultT] = self._enqueue(function, is_begun=False).future
        # A caller that is cancelled stops waiting; what it queued runs to its end all the same.
        try:
            return await future
        finally:
            future.cancel()  # with nobody left to take it, asyncio would log a failure's text

    async def begin(self, function: Callable[[Transaction], ResultT]) -> Begun[ResultT]:
        """See `Database.begin`."""
        write = self._enqueue(function, is_begun=True)
        try:
            result: ResultT = await write.future
        finally:
            write.future.cancel()
        return Begun(result, write.transaction)

    async def read(self, function: Callable[[Transaction], ResultT]) -> ResultT:
        """See `Database.read`."""
        if self._path == ":memory:":
            return await self.write(function)
        if self._held is not None:
            await self.write(do_nothing)
        return await self._reader.read(function)

    async def migrate(self, component: str, steps: Sequence[str]) -> None:
        """See `Database.migrate`."""
        await self.write(lambda tx: apply_steps(tx, component, steps))

    async def close(self) -> None:
        """See `Database.close`."""
        if self._held is not None:
            if self._held_loop is not None and self._held_loop.is_closed():
                self._end_hold(self._held_loop)
            else:
                await self.write(do_nothing)
        with self._lock:
            self._closing = True
            self._wake.notify()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self._writer.join)
        await loop.run_in_executor(None, self._reader.close)
        self._loop_connection.close()
        self._connection.close()

    def _enqueue(self, function: Callable[[Transaction], Any], *, is_begun: bool) -> Write:
        loop = asyncio.get_running_loop()
        write = Write(function, loop, loop.create_future(), is_begun)
        with self._lock:
            if self._closing:
                raise TransientError("store_unavailable", "the database is closed")
            self._queue.append(write)
            if self._commit_s >= self._loop_commit_s_max or self._flush_loop not in (None, loop):
                self._flush_loop = None
                self._wake.notify()
            elif self._flush_loop is None:
                self._flush_loop = loop
                if self._next_flush_at > loop.time():
                    loop.call_at(self._next_flush_at, self._flush, loop)
                else:
                    loop.call_soon(self._flush, loop)
        return write

    def _flush(self, loop: asyncio.AbstractEventLoop) -> None:
        """Run on the loop what its tasks wrote since its last turn; commit it or hold it open."""
        with self._lock:
            self._flush_loop = None
            transaction = self._held
            if transaction is None:
                is_ours = self._turn.acquire(blocking=False)
            else:
                is_ours = self._held_loop is loop
            if not is_ours:
                self._wake.notify()
                return
            batch = self._take()
        if not batch:
            if transaction is None:
                self._turn.release()
            return
        is_lone = transaction is None and len(batch) == 1 and batch[0].is_begun
        keeps_turn = False
        try:
            if transaction is None:
                try:
                    transaction = SharedTransaction(self._loop_connection)
                except sqlite3.Error:
                    transaction = None  # another process holds the file: the thread waits for it
            if transaction is not None:
                results = transaction.run(batch)
                keeps_turn = self._is_served and is_lone and transaction.is_open
                if keeps_turn:
                    self._hold(transaction, batch[0], loop)
                else:
                    results = self._commit(transaction, batch, results)
                deliver(batch, results, loop)
        finally:
            if not keeps_turn:
                self._let_go()
        if keeps_turn:
            return
        self._commits_since_checkpoint += 1
        self._next_flush_at = loop.time() + GATHER_S if len(batch) > 1 else 0.0
        with self._lock:
            if transaction is None:
                self._queue.extendleft(reversed(batch))
            if self._queue or self._commits_since_checkpoint >= COMMITS_PER_CHECKPOINT:
                self._wake.notify()

    def _hold(
        self, transaction: SharedTransaction, write: Write, loop: asyncio.AbstractEventLoop
    ) -> None:
        """Leave it open behind one write that was begun and came alone."""
        # Under load commits are shared anyway, and files that are always held would starve others.
        write.transaction = transaction
        transaction.owner = self
        self._held, self._held_loop = transaction, loop
        self._hold_timer = loop.call_later(HOLD_S, self._end_hold, loop)

    def _end_hold(self, loop: asyncio.AbstractEventLoop) -> None:
        """Commit what was held open, for want of a write that does."""
        if self._held is not None and self._held_loop is loop:
            try:
                self._commit(self._held, [], [])
            finally:
                if self._held.error is not None:
                    _log.warning("what was begun is lost: %s", self._held.error.message)
                self._let_go()
            self._commits_since_checkpoint += 1

    def _let_go(self) -> None:
        """End this turn."""
        if self._hold_timer is not None:
            self._hold_timer.cancel()
            self._hold_timer = None
        self._held = self._held_loop = None
        self._turn.release()

    def _run(self) -> None:
        while True:
            with self._lock:
                while not self._has_work() and not self._closing:
                    self._wake.wait()
            with self._turn:
                with self._lock:
                    batch = self._take()
                    if not batch and self._closing:
                        return
                if batch:
                    self._run_in_thread(batch)
                if self._commits_since_checkpoint >= COMMITS_PER_CHECKPOINT:
                    self._commits_since_checkpoint = 0
                    with contextlib.suppress(sqlite3.Error):  # the next one will do
                        self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def _has_work(self) -> bool:
        return (
            bool(self._queue) and self._flush_loop is None
        ) or self._commits_since_checkpoint >= COMMITS_PER_CHECKPOINT

    def _take(self) -> list[Write]:
        if len(self._queue) > WRITES_PER_COMMIT_MAX:
            return [self._queue.popleft() for _ in range(WRITES_PER_COMMIT_MAX)]
        batch, self._queue = list(self._queue), deque()
        return batch

    def _run_in_thread(self, batch: list[Write]) -> None:
        try:
            transaction = SharedTransaction(self._connection)
        except sqlite3.Error as error:
            deliver(batch, refuse(batch, error), None)
            return
        deliver(batch, self._commit(transaction, batch, transaction.run(batch)), None)

    def _commit(
        self, transaction: SharedTransaction, batch: list[Write], results: list[Result]
    ) -> list[Result]:
        results, took = transaction.commit(batch, results)
        if took:
            self._commit_s += (took - self._commit_s) / 8
        return results


async def open_sqlite(
    path: str | os.PathLike[str],
    *,
    loop_commit_s_max: float = LOOP_COMMIT_S_MAX,
    is_served: bool = False,
) -> SqliteDatabase:
    """Open a database file, or create it with mode 0600.

    Args:
        path: the file; `:memory:` is one that ends with the process.
        loop_commit_s_max: average commit time up to which commits run on the loop; 0 for never.
        is_served: whether its loop is a server's, which always turns. Only then is a transaction
            left open behind what is begun: a loop that stands still would hold the file.

    Raises:
        TransientError: `store_unavailable` if the file cannot be opened.
    """
    name = os.fspath(path)
    try:
        if name != ":memory:":
            create_private(name)
        return SqliteDatabase(name, loop_commit_s_max, is_served=is_served)
    except (OSError, sqlite3.Error) as error:
        raise TransientError("store_unavailable", f"cannot open {name}: {error}") from None
