"""SQLite with one writer thread and group commit.

Every commit waits for the disk (`synchronous=FULL`), about 0.2-5 ms. One commit a request would
make that the ceiling of a whole broker, so the writer takes all writes that wait, runs each in a
savepoint, and commits them together: under load the disk is waited for once for dozens of requests,
and alone a request waits for one commit.

Reads run on a second connection in a thread of its own (WAL: readers see the last commit and block
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
from typing import Any, TypeVar

from hanse.protocol.errors import TransientError
from hanse.store.database import Row, Transaction

ResultT = TypeVar("ResultT")

WRITES_PER_COMMIT_MAX = 256
"""Writes that share one commit; bounds how long the first of them waits for the last."""

BUSY_TIMEOUT_MS = 10_000
"""How long another process may hold the file (a backup, a second command) before a write fails."""


class _SqliteTransaction:
    """`Transaction` over one connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        return self._connection.execute(sql, parameters).rowcount

    def find_one(self, sql: str, parameters: Sequence[Any] = ()) -> Row | None:
        row: Row | None = self._connection.execute(sql, parameters).fetchone()
        return row

    def find_all(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        return self._connection.execute(sql, parameters).fetchall()


_Result = tuple["asyncio.Future[Any]", Any, BaseException | None]


class _Write:
    """A write that waits, and the loop and future of its caller."""

    __slots__ = ("function", "future", "loop")

    def __init__(
        self,
        function: Callable[[Transaction], Any],
        loop: asyncio.AbstractEventLoop,
        future: "asyncio.Future[Any]",
    ) -> None:
        self.function = function
        self.loop = loop
        self.future = future


class SqliteDatabase:
    """A `Database` over one SQLite file. Open it with `open_sqlite`."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._queue: deque[_Write] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._connection = _connect(path)
        self._transaction = _SqliteTransaction(self._connection)
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
            self._queue.append(_Write(function, loop, future))
            self._wake.notify()
        # A caller that is cancelled stops waiting; what it queued runs to its end all the same.
        return await future

    async def read(self, function: Callable[[Transaction], ResultT]) -> ResultT:
        """See `Database.read`."""
        if self._path == ":memory:":
            return await self.write(function)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._readers, self._read, function)

    async def migrate(self, component: str, steps: Sequence[str]) -> None:
        """See `Database.migrate`."""
        await self.write(lambda tx: _migrate(tx, component, steps))

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
        self._connection.close()

    def _read(self, function: Callable[[Transaction], ResultT]) -> ResultT:
        if self._reader is None:
            self._reader = _connect(self._path)
            self._reader.execute("PRAGMA query_only=ON")
        self._reader.execute("BEGIN")
        try:
            return function(_SqliteTransaction(self._reader))
        finally:
            self._reader.execute("ROLLBACK")

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._queue and not self._closing:
                    self._wake.wait()
                count = min(len(self._queue), WRITES_PER_COMMIT_MAX)
                batch = [self._queue.popleft() for _ in range(count)]
                if not batch:
                    return
            self._commit(batch)

    def _commit(self, batch: list[_Write]) -> None:
        results: list[_Result] = []
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            for write in batch:
                try:
                    results.append((write.future, self._run_one(write.function), None))
                except Exception as error:
                    if not self._connection.in_transaction:  # the engine gave up on all of it
                        raise
                    results.append((write.future, None, error))
            self._connection.execute("COMMIT")
        except Exception as error:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            reason = TransientError("store_unavailable", f"the database refused a commit: {error}")
            results = [(write.future, None, reason) for write in batch]
        _deliver(batch, results)

    def _run_one(self, function: Callable[[Transaction], ResultT]) -> ResultT:
        self._connection.execute("SAVEPOINT one")
        try:
            result = function(self._transaction)
        except BaseException:
            with contextlib.suppress(sqlite3.OperationalError):
                self._connection.execute("ROLLBACK TO one")
                self._connection.execute("RELEASE one")
            raise
        self._connection.execute("RELEASE one")
        return result


async def open_sqlite(path: str | os.PathLike[str]) -> SqliteDatabase:
    """Open a database file, or create it with mode 0600.

    `:memory:` is one that ends with the process.

    Raises:
        TransientError: `store_unavailable` if the file cannot be opened.
    """
    name = os.fspath(path)
    try:
        if name != ":memory:":
            _create_private(name)
        return SqliteDatabase(name)
    except (OSError, sqlite3.Error) as error:
        raise TransientError("store_unavailable", f"cannot open {name}: {error}") from None


def _connect(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, cached_statements=256
    )
    connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    return connection


def _deliver(batch: list[_Write], results: list[_Result]) -> None:
    """Wake each loop once for all of its results."""
    loops = {write.loop for write in batch}
    for loop in loops:
        mine = [result for write, result in zip(batch, results, strict=True) if write.loop is loop]
        with contextlib.suppress(RuntimeError):  # that loop has ended, and with it who waited
            loop.call_soon_threadsafe(_resolve, mine)


def _resolve(results: list[_Result]) -> None:
    for future, result, error in results:
        if future.done():
            continue
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)


def _migrate(tx: Transaction, component: str, steps: Sequence[str]) -> None:
    tx.execute(
        "CREATE TABLE IF NOT EXISTS migrations (component TEXT PRIMARY KEY, step INTEGER NOT NULL)"
    )
    row = tx.find_one("SELECT step FROM migrations WHERE component = ?", (component,))
    done = int(row[0]) if row else 0
    if done > len(steps):
        raise TransientError(
            "store_unavailable",
            f"{component} in this database is at step {done}, this program knows {len(steps)}: "
            "use a newer one",
        )
    for script in steps[done:]:
        for statement in script.split(";"):
            if statement.strip():
                tx.execute(statement)
    tx.execute(
        "INSERT INTO migrations (component, step) VALUES (?, ?) "
        "ON CONFLICT (component) DO UPDATE SET step = excluded.step",
        (component, len(steps)),
    )


def _create_private(name: str) -> None:
    """Make an empty file of mode 0600, and never touch one that is there.

    POSIX drops all of a process's locks on a file when any of its descriptors is closed. Opened and
    closed here, a file that SQLite holds in this process would lose its lock, and the next process
    to close it would delete the log that we go on writing to.
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
