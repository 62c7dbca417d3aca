"""Transactions of an outbox, over a `Database`.

    outbox = Outbox(rpc, key, await open_outbox_storage(database), ...)

Source: the contract of `hanse.chain.storage.OutboxStorage`.
"""

from collections.abc import Callable, Sequence

import msgspec

from hanse.chain import OutboxEntry
from hanse.store.database import Database, Row, Transaction

_COMPONENT = "chain_outbox"
_STEPS = (
    """
    CREATE TABLE chain_outbox (
        scope TEXT NOT NULL,
        entry_key TEXT NOT NULL,
        ordinal INTEGER NOT NULL,
        nonce INTEGER,
        open INTEGER NOT NULL,
        entry TEXT NOT NULL,
        PRIMARY KEY (scope, entry_key)
    );
    CREATE UNIQUE INDEX chain_outbox_ordinal ON chain_outbox (scope, ordinal);
    CREATE INDEX chain_outbox_nonce ON chain_outbox (scope, nonce);
    CREATE INDEX chain_outbox_open ON chain_outbox (scope, open)
    """,
)


class DatabaseOutboxStorage:
    """`hanse.chain.OutboxStorage` over a `Database`. Open it with `open_outbox_storage`."""

    def __init__(self, database: Database, verify: Callable[[Transaction], None]) -> None:
        self._database = database
        self._verify = verify

    async def put_entries(self, entries: Sequence[OutboxEntry]) -> None:
        """See `OutboxStorage`."""
        rows = [
            (
                entry.scope,
                entry.key,
                entry.ordinal,
                entry.nonce,
                int(not entry.is_final),
                msgspec.json.encode(entry).decode(),
            )
            for entry in entries
        ]

        def put(tx: Transaction) -> None:
            self._verify(tx)
            for row in rows:
                tx.execute(
                    "INSERT INTO chain_outbox (scope, entry_key, ordinal, nonce, open, entry) "
                    "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (scope, entry_key) DO UPDATE SET "
                    "ordinal = excluded.ordinal, nonce = excluded.nonce, open = excluded.open, "
                    "entry = excluded.entry",
                    row,
                )

        await self._database.write(put)

    async def find_entry(self, scope: str, key: str) -> OutboxEntry | None:
        """See `OutboxStorage`."""
        return await self._find(
            "SELECT entry FROM chain_outbox WHERE scope = ? AND entry_key = ?", (scope, key)
        )

    async def find_by_nonce(self, scope: str, nonce: int) -> OutboxEntry | None:
        """See `OutboxStorage`."""
        return await self._find(
            "SELECT entry FROM chain_outbox WHERE scope = ? AND nonce = ? LIMIT 1", (scope, nonce)
        )

    async def read_entries(self, scope: str, *, open_only: bool) -> list[OutboxEntry]:
        """See `OutboxStorage`."""
        least = 1 if open_only else 0
        rows = await self._read(
            "SELECT entry FROM chain_outbox WHERE scope = ? AND open >= ? ORDER BY ordinal",
            (scope, least),
        )
        return [_to_entry(row) for row in rows]

    async def read_last(self, scope: str) -> tuple[int, int]:
        """See `OutboxStorage`."""
        rows = await self._read(
            "SELECT COALESCE(MAX(ordinal), 0), COALESCE(MAX(nonce), -1) "
            "FROM chain_outbox WHERE scope = ?",
            (scope,),
        )
        return rows[0][0], rows[0][1]

    async def _find(self, statement: str, parameters: tuple[str | int, ...]) -> OutboxEntry | None:
        rows = await self._read(statement, parameters)
        return _to_entry(rows[0]) if rows else None

    async def _read(self, statement: str, parameters: tuple[str | int, ...]) -> list[Row]:
        return await self._database.read(lambda tx: tx.find_all(statement, parameters))


async def open_outbox_storage(
    database: Database, verify: Callable[[Transaction], None] = lambda tx: None
) -> DatabaseOutboxStorage:
    """Bring the tables up to date.

    Args:
        database: where the entries are.
        verify: raises, inside each write, if this process may not send for the key any more: what
            was not stored is neither signed nor sent.
    """
    await database.migrate(_COMPONENT, _STEPS)
    return DatabaseOutboxStorage(database, verify)


def _to_entry(row: Row) -> OutboxEntry:
    return msgspec.json.decode(row[0], type=OutboxEntry)
