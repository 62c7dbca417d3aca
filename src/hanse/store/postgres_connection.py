"""Connections to PostgreSQL: where to, with which limits, and what may be said of a failure.

    target = Target.parse("postgresql://user@host/name")
    link = Link(target, "hanse-write")
    connection = link.begin("BEGIN")        # connects anew, once, if the old connection is gone

Used by `hanse.store.postgres`.

Source: PostgreSQL's documentation on connection parameters and client settings; psycopg's on raw
queries and adapters.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.adapt import Loader
from psycopg.conninfo import conninfo_to_dict
from psycopg.types.numeric import Int8Dumper

from hanse.protocol.errors import RequestError, TransientError
from hanse.store.database import Row
from hanse.store.opening import SCHEMA
from hanse.store.postgres_sql import to_native, to_parameters

CONNECT_TIMEOUT_S = 5
"""To reach the server; a local network needs milliseconds."""

STATEMENT_TIMEOUT_S = 60
"""One statement, waiting for its turn included; the longest of ours reads a whole index."""

LOCK_TIMEOUT_S = 15
"""For the turn to write: other processes hold it for one commit at a time, some milliseconds."""

IDLE_TIMEOUT_S = 10
"""A session that stalls inside a transaction is ended by the server, so that a process which was
stopped cannot keep the turn from the others."""

KEEPALIVE = {
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}
"""A peer that vanished without a word is noticed after about 10 s."""

WRITE_LOCK_KEY = f"hashtextextended(COALESCE(current_schema()::text, ''), {0x48616E7365})"
"""SQL of the advisory lock's key that a writer holds: one for each schema of a database, however
its URL names it. The seed is "Hanse" in ASCII."""

VERSION_MIN = 130_000
"""PostgreSQL 13: the first with `pg_xact_status` over 64-bit transaction ids."""

Connection = psycopg.Connection[tuple[Any, ...]]


@dataclass(frozen=True)
class Target:
    """Where a database is, parsed. Its password shows in neither `repr` nor `name`."""

    parameters: dict[str, Any] = field(repr=False)
    schema: str = ""

    @classmethod
    def parse(cls, url: str) -> "Target":
        """Read a URL.

        Raises:
            RequestError: `configuration_invalid`; the text does not repeat the URL.
        """
        named = SCHEMA.search(url)
        if named:  # ours; libpq would refuse it
            url = SCHEMA.sub(lambda found: found[1], url).rstrip("?&")
        try:
            parameters = dict(conninfo_to_dict(url))
        except psycopg.Error:
            # libpq's text may quote a part of the URL, and that part may be the password.
            raise RequestError(
                "configuration_invalid",
                "the database's URL cannot be read: write postgresql://user@host:port/name, with "
                "special characters of the password as %XX",
            ) from None
        given = {**KEEPALIVE, "connect_timeout": CONNECT_TIMEOUT_S, **parameters}
        return cls(given, named[2] if named else "")

    @property
    def name(self) -> str:
        """For people: database, user and server."""
        shown = {key: str(self.parameters.get(key) or "") for key in ("user", "host", "port")}
        where = shown["host"] + (f":{shown['port']}" if shown["port"] else "")
        who = f"{shown['user']}@" if shown["user"] else ""
        which = f"?schema={self.schema}" if self.schema else ""
        return f"postgresql://{who}{where}/{self.parameters.get('dbname') or ''}{which}"

    def connect(self, application: str) -> Connection:
        """A new connection with our limits and types.

        Raises:
            TransientError: `store_unavailable`.
        """
        try:
            connection = psycopg.Connection.connect(
                **{"application_name": application, **self.parameters},
                autocommit=True,
                cursor_factory=psycopg.RawCursor,
            )
            connection.execute(_SETTINGS)
            if self.schema:
                connection.execute(f'SET search_path = "{self.schema}"'.encode())
        except psycopg.Error as error:
            raise TransientError(
                "store_unavailable", f"cannot reach {self.name}: {self._redact(str(error))}"
            ) from None
        connection.adapters.register_dumper(int, Int8Dumper)
        connection.adapters.register_loader("numeric", _IntLoader)
        return connection

    def verify(self) -> None:
        """Check that the server answers and is new enough.

        Raises:
            RequestError: `configuration_invalid`, with its version and the oldest that will do.
            TransientError: `store_unavailable`.
        """
        connection = self.connect("hanse-open")
        try:
            version = connection.info.server_version
            if version < VERSION_MIN:
                raise RequestError(
                    "configuration_invalid",
                    f"{self.name} is PostgreSQL {version // 10_000}, at least "
                    f"{VERSION_MIN // 10_000} is needed",
                )
            if self.schema:
                connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{self.schema}"'.encode())
        except psycopg.Error as error:
            raise TransientError(
                "store_unavailable", f"cannot use {self.name}: {self._redact(str(error))}"
            ) from None
        finally:
            connection.close()

    def _redact(self, text: str) -> str:
        password = str(self.parameters.get("password") or "")
        return text.replace(password, "***") if password else text


class Link:
    """One connection that is made when it is needed, and again when it is gone."""

    def __init__(self, target: Target, application: str) -> None:
        self._target = target
        self._application = application
        self._connection: Connection | None = None
        self.transaction_id = ""
        """Of the transaction that `begin` began, where its statement asks for it."""

    @property
    def is_broken(self) -> bool:
        """Whether there is no connection that could go on."""
        return self._connection is None or self._connection.broken or self._connection.closed

    def connect(self) -> Connection:
        """The connection; a new one if there is none that works.

        Raises:
            TransientError: `store_unavailable`.
        """
        if self._connection is None or self.is_broken:
            self.drop()
            self._connection = self._target.connect(self._application)
        return self._connection

    def begin(self, statement: str) -> Connection:
        """Begin a transaction. A connection that turns out to be gone is replaced once.

        Raises:
            TransientError, psycopg.Error: nothing was begun.
        """
        was_open = not self.is_broken
        try:
            return self._begin(statement)
        except psycopg.OperationalError:
            if not (was_open and self.is_broken):
                raise
        return self._begin(statement)

    def end_quietly(self) -> None:
        """Undo what is open; a connection that cannot is dropped."""
        if self._connection is None:
            return
        try:
            self._connection.execute("ROLLBACK")
        except psycopg.Error:
            self.drop()

    def drop(self) -> None:
        """Close, whatever state it is in."""
        if self._connection is not None:
            with contextlib.suppress(psycopg.Error):
                self._connection.close()
            self._connection = None

    def _begin(self, statement: str) -> Connection:
        connection = self.connect()
        # bytes: psycopg takes no str that was put together, for fear of values in it
        cursor = connection.execute(statement.encode())
        if cursor.nextset():
            row = cursor.fetchone()
            self.transaction_id = str(row[1]) if row else ""
        return connection


class PostgresTransaction:
    """`Transaction` over one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """See `Transaction.execute`."""
        return self._run(sql, parameters).rowcount

    def find_one(self, sql: str, parameters: Sequence[Any] = ()) -> Row | None:
        """See `Transaction.find_one`."""
        return self._run(sql, parameters).fetchone()

    def find_all(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """See `Transaction.find_all`."""
        return self._run(sql, parameters).fetchall()

    def _run(self, sql: str, parameters: Sequence[Any]) -> "psycopg.Cursor[Row]":
        return self._connection.execute(to_native(sql).encode(), to_parameters(parameters) or None)


class _IntLoader(Loader):
    """Sums of 64-bit integers come as `numeric`; ours are whole."""

    def load(self, data: Any) -> int | float:
        text = bytes(data).decode()
        return float(text) if "." in text else int(text)


def is_of_the_store(error: BaseException) -> bool:
    """Whether the server or the way to it failed, and not the statement."""
    return isinstance(error, (psycopg.OperationalError, psycopg.InternalError))


def describe(error: Exception) -> Exception:
    """A failure as callers may see it: what the server said, in one line."""
    if isinstance(error, TransientError) or not is_of_the_store(error):
        return error
    said = " ".join(str(error).split())[:300]
    return TransientError("store_unavailable", f"the database failed: {said}")


_SETTINGS = f"""
SET statement_timeout = '{STATEMENT_TIMEOUT_S}s';
SET lock_timeout = '{LOCK_TIMEOUT_S}s';
SET idle_in_transaction_session_timeout = '{IDLE_TIMEOUT_S}s';
SET standard_conforming_strings = on;
SET client_encoding = 'UTF8';
SELECT set_config('synchronous_commit', 'on', false)
    WHERE current_setting('synchronous_commit') <> 'remote_apply'
""".encode()
