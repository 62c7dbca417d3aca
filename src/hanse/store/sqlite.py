"""SQLite with group commit, on the caller's loop while the disk is fast, else in a writer thread.

Every commit waits for the disk (`synchronous=FULL`), about 0.2-5 ms. One commit a request would
make that the ceiling of a whole broker, so all writes that wait are run, each undone alone if it
fails, and committed together: under load the disk is waited for once for dozens of requests.

While commits take less than `LOOP_COMMIT_S_MAX` on average they run on the event loop itself:
waking a thread and being woken by it costs more processor time than such a commit. Once the average
is above it, or while another process holds the file, the writer thread has them: a disk that is ten
times slower is noticed at its first commit, one that is a little slower after a dozen.

Reads run on a connection and in a thread of their own (WAL: readers see the last commit and block
nobody). For `:memory:` they run on the writer's connection.

Source: SQLite's documentation on WAL, savepoints and `synchronous`.
"""

import asyncio
import contextlib
import os
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from hanse.protocol.errors import TransientError
from hanse.store.database import Transaction
from hanse.store.group_commit import SqliteTransaction, Write, deliver, refuse, run_shared
from hanse.store.migrations import apply_steps

ResultT = TypeVar("ResultT")

WRITES_PER_COMMIT_MAX = 256
"""Writes that share one commit; bounds how long the first of them waits for the last."""

LOOP_COMMIT_S_MAX = 0.004
"""Average commit time up to which commits may run on the loop; a stream's frame waits as long."""

GATHER_S = 0.003
"""Under load, when the last commit was shared, the next comes no sooner than this after it: waiting
for the disk costs more processor time than the wait costs a caller."""

COMMITS_PER_CHECKPOINT = 500
"""After so many commits on the loop the writer thread moves the WAL's pages into the file, which
takes milliseconds; the WAL stays at a few MB."""

BUSY_TIMEOUT_MS = 10_000
"""How long another process may hold the file (a backup, a second command) before a write fails."""


class SqliteDatabase:
    """A `Database` over one SQLite file. Open it with `open_sqlite`."""

    def __init__(self, path: str, loop_commit_s_max: float = LOOP_COMMIT_S_MAX) -> None:
        self._path = path
        self._queue: deque[Write] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._connection = _connect(path, BUSY_TIMEOUT_MS)
        # On the loop nobody waits for another process: a file that is held goes to the thread.
        self._loop_connection = self._connection
        if path != ":memory:":
            self._loop_connection = _connect(path, 0)
            self._loop_connection.execute("PRAGMA wal_autocheckpoint=0")
        self._loop_commit_s_max = loop_commit_s_max
        self._commit_s = 0.0
        self._turn = threading.Lock()  # held by whoever runs a transaction
        self._next_flush_at = 0.0  # loop time; in the past unless commits are being shared
        self._flush_loop: asyncio.AbstractEventLoop | None = None  # where a flush is due
        self._commits_since_checkpoint = 0
        self._readers = ThreadPoolExecutor(1, thread_name_prefix="hanse-store-read")
        self._reader: sqlite3.Connection | None = None
        self._writer = threading.Thread(target=self._run, name="hanse-store-write", daemon=True)
        self._writer.start()

    async def write(self, function: Callable[[Transaction], ResultT]) -> ResultT:
        """See `Database.write`."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[ResultT] = loop.create_future()
        with self._wake:
            if self._closing:
                raise TransientError("store_unavailable", "the database is closed")
            self._queue.append(Write(function, loop, future))
            if self._commit_s >= self._loop_commit_s_max or self._flush_loop not in (None, loop):
                self._flush_loop = None
                self._wake.notify()
            elif self._flush_loop is None:
                self._flush_loop = loop
                if self._next_flush_at > loop.time():
                    loop.call_at(self._next_flush_at, self._flush, loop)
                else:
                    loop.call_soon(self._flush, loop)
        # A caller that is cancelled stops waiting; what it queued runs to its end all the same.
        try:
            return await future
        finally:
            # With nobody left to take it, asyncio would log a failure with its text.
            future.cancel()

    async def read(self, function: Callable[[Transaction], ResultT]) -> ResultT:
        """See `Database.read`."""
        if self._path == ":memory:":
            return await self.write(function)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._readers, self._read, function)

    async def migrate(self, component: str, steps: Sequence[str]) -> None:
        """See `Database.migrate`."""
        await self.write(lambda tx: apply_steps(tx, component, steps))

    async def close(self) -> None:
        """See `Database.close`."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self._writer.join)
        await loop.run_in_executor(None, self._readers.shutdown)
        if self._reader is not None:
            self._reader.close()
        self._loop_connection.close()
        self._connection.close()

    def _read(self, function: Callable[[Transaction], ResultT]) -> ResultT:
        if self._reader is None:
            self._reader = _connect(self._path, BUSY_TIMEOUT_MS)
            self._reader.execute("PRAGMA query_only=ON")
        self._reader.execute("BEGIN")
        try:
            return function(SqliteTransaction(self._reader))
        finally:
            self._reader.execute("ROLLBACK")

    def _flush(self, loop: asyncio.AbstractEventLoop) -> None:
        """Commit on the loop what its tasks wrote since its last turn."""
        with self._wake:
            self._flush_loop = None
            if not self._turn.acquire(blocking=False):
                self._wake.notify()
                return
            batch = self._take()
        try:
            is_held = not batch or not self._commit(batch, self._loop_connection, loop)
        finally:
            self._turn.release()
        self._commits_since_checkpoint += 1
        self._next_flush_at = loop.time() + GATHER_S if len(batch) > 1 else 0.0
        with self._wake:
            if is_held:
                self._queue.extendleft(reversed(batch))
            if self._queue or self._commits_since_checkpoint >= COMMITS_PER_CHECKPOINT:
                self._wake.notify()

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._has_work() and not self._closing:
                    self._wake.wait()
            with self._turn:
                with self._wake:
                    batch = self._take()
                    if not batch and self._closing:
                        return
                if batch:
                    self._commit(batch, self._connection)
                if self._commits_since_checkpoint >= COMMITS_PER_CHECKPOINT:
                    self._commits_since_checkpoint = 0
                    with contextlib.suppress(sqlite3.Error):  # the next one will do
                        self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def _has_work(self) -> bool:
        return (
            bool(self._queue) and self._flush_loop is None
        ) or self._commits_since_checkpoint >= COMMITS_PER_CHECKPOINT

    def _take(self) -> list[Write]:
        count = min(len(self._queue), WRITES_PER_COMMIT_MAX)
        return [self._queue.popleft() for _ in range(count)]

    def _commit(
        self,
        batch: list[Write],
        connection: sqlite3.Connection,
        own_loop: asyncio.AbstractEventLoop | None = None,
    ) -> bool:
        """Run and commit one batch.

        Returns:
            False, and nothing happened, if on the loop the file is held by another process.
        """
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            if own_loop is not None:
                return False
            deliver(batch, refuse(batch, error), None)
            return True
        results, took = run_shared(batch, connection)
        if took:
            self._commit_s += (took - self._commit_s) / 8
        deliver(batch, results, own_loop)
        return True


async def open_sqlite(
    path: str | os.PathLike[str], *, loop_commit_s_max: float = LOOP_COMMIT_S_MAX
) -> SqliteDatabase:
    """Open a database file, or create it with mode 0600.

    Args:
        path: the file; `:memory:` is one that ends with the process.
        loop_commit_s_max: average commit time up to which commits run on the loop; 0 for never.

    Raises:
        TransientError: `store_unavailable` if the file cannot be opened.
    """
    name = os.fspath(path)
    try:
        if name != ":memory:":
            _create_private(name)
        return SqliteDatabase(name, loop_commit_s_max)
    except (OSError, sqlite3.Error) as error:
        raise TransientError("store_unavailable", f"cannot open {name}: {error}") from None


def _connect(path: str, busy_timeout_ms: int) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, cached_statements=256
    )
    connection.execute(f"PRAGMA busy_timeout={busy_timeout_ms}")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    return connection


def _create_private(name: str) -> None:
    """Make an empty file of mode 0600, and never touch one that is there.

    POSIX drops all of a process's locks on a file when any of its descriptors is closed. Opened and
    closed here, a file that SQLite holds in this process would lose its lock, and the next process
    to close it would delete the log that we go on writing to.
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
