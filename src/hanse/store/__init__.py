"""Durable state behind one interface.

    Database           what shells hold: `await db.write(fn)`, `await db.read(fn)`
    open_database      by URL or path: PostgreSQL, SQLite, in memory
    open_sqlite        SQLite file or `:memory:`, with group commit
    open_memory        a store that ends with the process
    hold_folder        one process to a folder of state
    files              files that somebody named, read within bounds

Tables and queries live with whom they belong to (`hanse.settlement`, `hanse.recorder` and others).
"""

from hanse.store.database import Database, Transaction
from hanse.store.folder_lock import hold_folder
from hanse.store.opening import (
    get_database_name,
    has_password,
    is_shared,
    open_database,
    open_memory,
    with_schema,
)
from hanse.store.sqlite import SqliteDatabase, open_sqlite

__all__ = [
    "Database",
    "SqliteDatabase",
    "Transaction",
    "get_database_name",
    "has_password",
    "hold_folder",
    "is_shared",
    "open_database",
    "open_memory",
    "open_sqlite",
    "with_schema",
]
