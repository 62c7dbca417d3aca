"""Writes that share one commit: run apart, committed together, told each its own result.

Each runs in a savepoint, so that its failure undoes nothing of the others'. One that has a commit
to itself needs none.

Used by `hanse.store.sqlite`, on the loop and in its writer thread alike.

Source: SQLite's documentation on savepoints.
"""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from hanse.protocol.errors import TransientError
from hanse.store.database import Row, Transaction

ResultT = TypeVar("ResultT")

_OF_THE_DISK = (
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
)
"""Errors of one statement that pass, and are no defect of it. Often SQLite gives up on the whole
transaction then, but not always."""


class SqliteTransaction:
    """`Transaction` over one connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """See `Transaction.execute`."""
        return self._connection.execute(sql, parameters).rowcount

    def find_one(self, sql: str, parameters: Sequence[Any] = ()) -> Row | None:
        """See `Transaction.find_one`."""
        row: Row | None = self._connection.execute(sql, parameters).fetchone()
        return row

    def find_all(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """See `Transaction.find_all`."""
        return self._connection.execute(sql, parameters).fetchall()


Result = tuple["asyncio.Future[Any]", Any, BaseException | None]
"""A caller's future, and the result or the error that it gets."""


class Write:
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


def run_shared(batch: list[Write], connection: sqlite3.Connection) -> tuple[list[Result], float]:
    """Run a batch inside the transaction that was begun, and commit it.

    Returns:
        One result a write, and the seconds that the commit took (0.0 if it failed: then every
        result says so, and nothing happened).
    """
    if len(batch) == 1:
        return _run_alone(batch[0], connection)
    results: list[Result] = []
    try:
        for write in batch:
            try:
                results.append((write.future, _run_one(connection, write.function), None))
            except Exception as error:
                if not connection.in_transaction:  # the engine gave up on all of it
                    raise
                results.append((write.future, None, error))
        started = time.perf_counter()
        connection.execute("COMMIT")
        return results, time.perf_counter() - started
    except Exception as error:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        return refuse(batch, error), 0.0


def refuse(batch: list[Write], error: Exception) -> list[Result]:
    """Tell every write of a batch that nothing of it happened."""
    reason = TransientError("store_unavailable", f"the database refused a commit: {error}")
    return [(write.future, None, reason) for write in batch]


def deliver(
    batch: list[Write], results: list[Result], own_loop: asyncio.AbstractEventLoop | None
) -> None:
    """Wake each loop once for all of its results; `own_loop` runs this and needs no waking."""
    for loop in {write.loop for write in batch}:
        mine = [result for write, result in zip(batch, results, strict=True) if write.loop is loop]
        if loop is own_loop:
            _resolve(mine)
            continue
        with contextlib.suppress(RuntimeError):  # that loop has ended, and with it who waited
            loop.call_soon_threadsafe(_resolve, mine)


def _run_alone(write: Write, connection: sqlite3.Connection) -> tuple[list[Result], float]:
    """The same for one write: its failure undoes the transaction, so it needs no savepoint."""
    try:
        result = write.function(SqliteTransaction(connection))
    except BaseException as error:
        is_whole = connection.in_transaction  # else the engine gave up on all of it
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        if not isinstance(error, Exception):
            raise
        if not is_whole:
            return refuse([write], error), 0.0
        return [(write.future, None, _name_refusal(error) or error)], 0.0
    try:
        started = time.perf_counter()
        connection.execute("COMMIT")
        return [(write.future, result, None)], time.perf_counter() - started
    except Exception as error:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        return refuse([write], error), 0.0


def _run_one(connection: sqlite3.Connection, function: Callable[[Transaction], ResultT]) -> ResultT:
    connection.execute("SAVEPOINT one")
    try:
        result = function(SqliteTransaction(connection))
    except BaseException as error:
        with contextlib.suppress(sqlite3.OperationalError):
            connection.execute("ROLLBACK TO one")
            connection.execute("RELEASE one")
        refusal = _name_refusal(error)
        if refusal is not None:
            raise refusal from None
        raise
    connection.execute("RELEASE one")
    return result


def _name_refusal(error: BaseException) -> TransientError | None:
    """What an error of the disk is called to a caller; None for any other error."""
    if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _OF_THE_DISK:
        return None
    return TransientError("store_unavailable", f"the database refused a write: {error}")


def _resolve(results: list[Result]) -> None:
    for future, result, error in results:
        if future.done():
            continue
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)
