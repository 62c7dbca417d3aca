"""Writes that share one commit: run apart, committed together, told each its own result.

Each runs in a savepoint, so that its failure undoes nothing of the others'. The first of a
transaction needs none if it came alone. A transaction may stay open for a moment behind writes
that were only begun, so that what follows shares their commit.

Used by `hanse.store.sqlite`, on the loop and in its writer thread alike.

Source: SQLite's documentation on savepoints.
"""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from hanse.protocol.errors import TransientError
from hanse.store.database import Database, Row, Transaction

WRITES_PER_COMMIT_MAX = 256
"""Writes that share one commit; bounds how long the first of them waits for the last."""

GATHER_S = 0.003
"""Under load, when the last commit was shared, the next comes no sooner than this after it: waiting
for the disk costs more processor time than the wait costs a caller."""

HOLD_S = 0.01
"""How long a transaction stays open behind a write that was only begun; another process that writes
waits as long."""

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


class Write(msgspec.Struct, eq=False):
    """A write that waits, and the loop and future of its caller.

    Attributes:
        is_begun: its caller goes on once it has run, before the commit (`Database.begin`).
        transaction: that was left open behind it.
    """

    function: Callable[[Transaction], Any]
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Any]"
    is_begun: bool = False
    transaction: "SharedTransaction | None" = None


class SharedTransaction:
    """One transaction, begun at once, in which batches of writes run until it is committed.

    Where it is left open it is the `OpenCommit` of what was begun in it.

    Attributes:
        is_open: neither committed nor undone.
        error: why all of it was undone; None if it was not.
        owner: whose next write commits it, where it is left open.
    """

    __slots__ = ("_connection", "_face", "_is_fresh", "error", "is_open", "owner")

    def __init__(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        self._connection = connection
        self._face = SqliteTransaction(connection)
        self._is_fresh = True
        self.is_open = True
        self.error: TransientError | None = None
        self.owner: Database | None = None

    def run(self, batch: list[Write]) -> list[Result]:
        """Run a batch.

        Returns:
            One result a write; refusals where the engine gave up on the whole transaction.
        """
        connection = self._connection
        if not connection.in_transaction:  # undone by the engine since, or by an interruption
            return self._undo(batch, sqlite3.OperationalError("the transaction was ended"))
        is_alone = self._is_fresh and len(batch) == 1
        self._is_fresh = False
        if is_alone:
            return [self._run_alone(batch[0])]
        results: list[Result] = []
        for write in batch:
            try:
                results.append((write.future, _run_one(connection, self._face, write), None))
            except Exception as error:
                if not connection.in_transaction:  # the engine gave up on all of it
                    return self._undo(batch, error)
                results.append((write.future, None, error))
            except BaseException as error:  # an interruption: nobody else will tell the callers
                deliver(batch, self._undo(batch, error), None)
                raise
        return results

    def commit(self, batch: list[Write], results: list[Result]) -> tuple[list[Result], float]:
        """Commit what has run.

        Returns:
            The results of the last batch, and the seconds that the commit took (0.0 if it failed:
            then every result says so, and nothing happened).
        """
        if not self.is_open:
            return results, 0.0
        started = time.perf_counter()
        try:
            self._connection.execute("COMMIT")
        except Exception as error:
            return self._undo(batch, error), 0.0
        except BaseException as error:  # an interruption, before the commit or after it
            if self._connection.in_transaction:
                results = self._undo(batch, error)
            self.is_open = False
            deliver(batch, results, None)
            raise
        self.is_open = False
        return results, time.perf_counter() - started

    async def wait(self) -> None:
        """See `OpenCommit.wait`."""
        if self.is_open and self.owner is not None:
            await self.owner.write(do_nothing)
        if self.error is not None:
            raise TransientError(self.error.code, str(self.error))

    def _run_alone(self, write: Write) -> Result:
        """For the one write of a fresh transaction: its failure undoes that, without savepoint."""
        try:
            return write.future, write.function(self._face), None
        except BaseException as error:
            is_whole = self._connection.in_transaction  # else the engine gave up on all of it
            refusal = self._undo([write], error)[0]
            if not isinstance(error, Exception):
                deliver([write], [refusal], None)
                raise
            return (write.future, None, _name_refusal(error) or error) if is_whole else refusal

    def _undo(self, batch: list[Write], error: BaseException) -> list[Result]:
        with contextlib.suppress(sqlite3.Error):
            self._connection.execute("ROLLBACK")
        self.is_open = False
        self.error = _name_failure(error)
        return _refuse_with(batch, self.error)


def refuse(batch: list[Write], error: Exception) -> list[Result]:
    """Tell every write of a batch that nothing of it happened."""
    return _refuse_with(batch, _name_failure(error))


def deliver(
    batch: list[Write], results: list[Result], own_loop: asyncio.AbstractEventLoop | None
) -> None:
    """Wake each loop once for all of its results; `own_loop` runs this and needs no waking."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Result]] = {}
    for write, result in zip(batch, results, strict=True):
        by_loop.setdefault(write.loop, []).append(result)
    for loop, theirs in by_loop.items():
        if loop is own_loop:
            _resolve(theirs)
            continue
        with contextlib.suppress(RuntimeError):  # that loop has ended, and with it who waited
            loop.call_soon_threadsafe(_resolve, theirs)


def _name_failure(error: BaseException) -> TransientError:
    return TransientError("store_unavailable", f"the database refused a commit: {error}")


def _refuse_with(batch: list[Write], reason: TransientError) -> list[Result]:
    return [(write.future, None, reason) for write in batch]


def do_nothing(tx: Transaction) -> None:
    """A write for the sake of the commit that it comes with."""


def _run_one(connection: sqlite3.Connection, face: Transaction, write: Write) -> Any:
    connection.execute("SAVEPOINT one")
    try:
        result = write.function(face)
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
