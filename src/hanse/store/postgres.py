"""PostgreSQL with the promises of `Database`: group commit, a savepoint a write, durable on return.

All writes of this process that wait are run by one thread, each in a savepoint of its own, inside
one transaction that begins by taking an advisory lock. So one transaction at a time writes to the
database, whichever process it belongs to: a write sees everything that was committed before it, as
on SQLite, nothing fails for being concurrent, and no function is run twice. Reads take neither lock
nor turn: each sees one snapshot of what is committed.

| what goes wrong | a write gets |
| --- | --- |
| the server is away, or too slow | `store_unavailable`; the next write connects anew |
| the connection breaks before COMMIT | `store_unavailable`; the server has undone it |
| it breaks during COMMIT | what really happened: the server is asked for the transaction's fate |
| the same, and nobody answers for long | `store_unavailable`, saying that it is not known |
| disk full, statement or lock too long | `store_unavailable`; its own statements undone |

Every connection's password stays with libpq: no text of ours or of the server's shows it.

Source: PostgreSQL's documentation on advisory locks, `pg_xact_status`, `synchronous_commit`;
`docs/decisions/0018-postgresql.md`.
"""

import asyncio
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import psycopg

from hanse.protocol.errors import TransientError
from hanse.store.database import Begun, Transaction
from hanse.store.group_commit import Result, Write, deliver, refuse
from hanse.store.migrations import apply_steps
from hanse.store.postgres_connection import (
    WRITE_LOCK_KEY,
    Link,
    PostgresTransaction,
    Target,
    describe,
    is_of_the_store,
)
from hanse.store.postgres_sql import to_native_types

ResultT = TypeVar("ResultT")

WRITES_PER_COMMIT_MAX = 256
"""Writes that share one commit, and so one turn of the lock that other processes wait for."""

READERS = 4
"""Connections for reads: a read waits for the network, not for a processor."""

OUTCOME_WAIT_S = 20.0
"""How long the fate of a commit is asked for when the connection broke under it: a server that
recovers from a crash answers within seconds."""

OUTCOME_PAUSE_S = 0.2
"""Between two such questions."""

_FATE = "SELECT pg_xact_status($1::xid8)"
_BEGIN_READ = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"

_log = logging.getLogger(__name__)


class PostgresDatabase:
    """A `Database` in PostgreSQL. Open it with `open_postgres`."""

    def __init__(self, target: Target, outcome_wait_s: float = OUTCOME_WAIT_S) -> None:
        self._link = Link(target, "hanse-write")
        # Each statement sees what was committed before it, whatever the server's default: a
        # snapshot from before the turn would not show a lease that has ended meanwhile.
        begin, lock = (
            "BEGIN ISOLATION LEVEL READ COMMITTED",
            f"pg_advisory_xact_lock({WRITE_LOCK_KEY})",
        )
        self._begin = f"{begin}; SELECT {lock}, pg_current_xact_id()::text; SAVEPOINT one"
        self._outcome_wait_s = outcome_wait_s
        self._queue: deque[Write] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="hanse-store-read")
        self._read_links: queue.SimpleQueue[Link] = queue.SimpleQueue()
        for _ in range(READERS):
            self._read_links.put(Link(target, "hanse-read"))
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
            self._wake.notify()
        try:
            return await future
        finally:
            future.cancel()  # with nobody left to take it, asyncio would log a failure's text

    async def begin(self, function: Callable[[Transaction], ResultT]) -> Begun[ResultT]:
        """See `Database.begin`: here it is durable at once."""
        return Begun(await self.write(function))

    async def read(self, function: Callable[[Transaction], ResultT]) -> ResultT:
        """See `Database.read`."""
        if self._closing:
            raise TransientError("store_unavailable", "the database is closed")
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._readers, self._read, function)

    async def migrate(self, component: str, steps: Sequence[str]) -> None:
        """See `Database.migrate`."""
        await self.write(lambda tx: apply_steps(tx, component, steps, to_native_types))

    async def close(self) -> None:
        """See `Database.close`."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self._writer.join)
        await loop.run_in_executor(None, self._readers.shutdown)
        self._link.drop()
        while not self._read_links.empty():
            self._read_links.get().drop()

    def _read(self, function: Callable[[Transaction], ResultT]) -> ResultT:
        link = self._read_links.get()
        try:
            connection = link.begin(_BEGIN_READ)
            try:
                return function(PostgresTransaction(connection))
            finally:
                link.end_quietly()
        finally:
            self._read_links.put(link)

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._queue and not self._closing:
                    self._wake.wait()
                count = min(len(self._queue), WRITES_PER_COMMIT_MAX)
                batch = [self._queue.popleft() for _ in range(count)]
            if not batch:
                return
            deliver(batch, self._commit(batch), None)

    def _commit(self, batch: list[Write]) -> list[Result]:
        """Run a batch in one transaction; one result a write."""
        link = self._link
        try:
            connection = link.begin(self._begin)
        except Exception as error:
            link.end_quietly()
            return refuse(batch, describe(error))
        transaction_id = link.transaction_id
        try:
            results: list[Result] = []
            for write in batch:
                if results:
                    connection.execute("RELEASE one; SAVEPOINT one")  # one exchange for both
                results.append(_run_one(connection, write))
        except Exception as error:  # the transaction, or the connection, is lost with all of it
            link.end_quietly()
            return refuse(batch, describe(error))
        try:
            connection.execute("COMMIT")
        except psycopg.Error as error:
            if not link.is_broken:
                link.end_quietly()
                return refuse(batch, describe(error))
            return self._find_fate(transaction_id, batch, results)
        return results

    def _find_fate(
        self, transaction_id: str, batch: list[Write], results: list[Result]
    ) -> list[Result]:
        """Ask a new connection whether the commit happened that the old one broke under."""
        deadline = time.monotonic() + self._outcome_wait_s
        while time.monotonic() < deadline:
            try:
                row = self._link.connect().execute(_FATE, (transaction_id,)).fetchone()
            except (psycopg.Error, TransientError):
                self._link.drop()
                row = None
            fate = row[0] if row else None
            if fate == "committed":
                return results
            if fate == "aborted":
                return refuse(batch, Exception("the connection broke, and the server undid it"))
            time.sleep(OUTCOME_PAUSE_S)  # it recovers, or the old session still ends
        _log.error("the fate of a commit is not known: the database has not answered since")
        return refuse(
            batch,
            Exception(
                f"the connection broke during it, and for {self._outcome_wait_s:g} s nobody could "
                "say whether it happened: look before doing it again"
            ),
        )


async def open_postgres(url: str, *, outcome_wait_s: float = OUTCOME_WAIT_S) -> PostgresDatabase:
    """Open a database by its URL, `postgresql://user@host:port/name`.

    The database must exist. A password may stand in the URL, in PGPASSWORD or in a pass file.

    Args:
        url: where it is.
        outcome_wait_s: how long a commit whose connection broke is asked after.

    Raises:
        RequestError: `configuration_invalid` for a URL that is none, or a server that is too old.
        TransientError: `store_unavailable` if nobody answers.
    """
    target = Target.parse(url)
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, target.verify)
    return PostgresDatabase(target, outcome_wait_s)


def _run_one(connection: "psycopg.Connection[tuple[object, ...]]", write: Write) -> Result:
    try:
        result = write.function(PostgresTransaction(connection))
    except Exception as error:
        connection.execute("ROLLBACK TO one")  # raises if the transaction itself is lost
        return write.future, None, describe(error) if is_of_the_store(error) else error
    return write.future, result, None
