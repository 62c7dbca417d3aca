"""Durable state behind one interface.

    Database           what shells hold: `await db.write(fn)`, `await db.read(fn)`
    open_sqlite        SQLite file or `:memory:`, one writer thread with group commit
    hold_folder        one process to a folder of state

Books and queries over it live where they belong (`hanse.settlement`, `hanse.market`).
"""

from hanse.store.database import Database, Transaction
from hanse.store.folder_lock import hold_folder
from hanse.store.sqlite import SqliteDatabase, open_sqlite

__all__ = ["Database", "SqliteDatabase", "Transaction", "hold_folder", "open_sqlite"]
