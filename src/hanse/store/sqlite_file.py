"""Opening an SQLite file: its connections, its mode, and whoever only reads.

Source: SQLite's documentation of its pragmas, and of POSIX locks.
"""

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from hanse.store.database import Transaction
from hanse.store.group_commit import SqliteTransaction

ResultT = TypeVar("ResultT")


class Reader:
    """Reads what is committed, on a connection and in a thread of its own."""

    def __init__(self, path: str, busy_timeout_ms: int) -> None:
        self._path = path
        self._busy_timeout_ms = busy_timeout_ms
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="hanse-store-read")
        self._connection: sqlite3.Connection | None = None

    async def read(self, function: Callable[[Transaction], ResultT]) -> ResultT:
        """Run `function` over one state of the file."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._read, function)

    def close(self) -> None:
        """Wait for what is being read, and close."""
        self._threads.shutdown()
        if self._connection is not None:
            self._connection.close()

    def _read(self, function: Callable[[Transaction], ResultT]) -> ResultT:
        if self._connection is None:
            self._connection = connect(self._path, self._busy_timeout_ms)
            self._connection.execute("PRAGMA query_only=ON")
        self._connection.execute("BEGIN")
        try:
            return function(SqliteTransaction(self._connection))
        finally:
            self._connection.execute("ROLLBACK")


def connect(path: str, busy_timeout_ms: int) -> sqlite3.Connection:
    """A connection whose commits wait for the disk, in WAL mode."""
    connection = sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, cached_statements=256
    )
    connection.execute(f"PRAGMA busy_timeout={busy_timeout_ms}")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    return connection


def create_private(name: str) -> None:
    """Make an empty file of mode 0600, and never touch one that is there.

    POSIX drops all of a process's locks on a file when any of its descriptors is closed. Opened and
    closed here, a file that SQLite holds in this process would lose its lock, and the next process
    to close it would delete the log that we go on writing to.
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
