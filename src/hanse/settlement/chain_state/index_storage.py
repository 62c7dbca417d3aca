"""An event index's progress together with what its events mean, over a `Database`.

The meaning is a set of small documents under text keys, given by a `Fold`: a pure function from one
event and the present documents to the changed ones. A batch's documents, what they replaced, and
its checkpoint are one write; a reorganisation puts back what was replaced, newest first.

    storage = await open_index_storage(database, "broker", fold, on_change)
    index = EventIndex(rpc, contracts, storage, start_block=..., confirmations=...)

Several processes may keep the same index in one database, as a gateway and the command line of one
user do: a batch that another process has applied meanwhile is not applied again, and what it has
changed is taken over the next time the checkpoints are read, which is after the chain's head has
changed (`EventIndex` asks nothing else while it has not).

Source: the contract of `hanse.chain.storage.IndexStorage`.
"""

from collections.abc import Callable, Iterable

from hanse.chain import Checkpoint, Event, EventBatch
from hanse.chain.storage import CHECKPOINTS_KEPT
from hanse.store.database import Database, Transaction

FindDocument = Callable[[str], bytes | None]
Fold = Callable[[Event, FindDocument], Iterable[tuple[str, bytes | None]]]
"""From an event and the present documents to the changed ones; None deletes. Pure."""

OnChange = Callable[[dict[str, bytes | None], Checkpoint | None], None]
"""Told, after each durable change, the changed documents and the checkpoint they belong to."""

_COMPONENT = "chain_index"
_STEPS = (
    """
    CREATE TABLE chain_checkpoints (
        index_name TEXT NOT NULL,
        number INTEGER NOT NULL,
        hash TEXT NOT NULL,
        PRIMARY KEY (index_name, number)
    );
    CREATE TABLE chain_documents (
        index_name TEXT NOT NULL,
        document_key TEXT NOT NULL,
        document BLOB NOT NULL,
        PRIMARY KEY (index_name, document_key)
    );
    CREATE TABLE chain_replaced (
        index_name TEXT NOT NULL,
        number INTEGER NOT NULL,
        ordinal INTEGER NOT NULL,
        document_key TEXT NOT NULL,
        document BLOB,
        PRIMARY KEY (index_name, number, ordinal)
    )
    """,
)


class DatabaseIndexStorage:
    """`hanse.chain.IndexStorage` over a `Database`. Open it with `open_index_storage`."""

    def __init__(self, database: Database, name: str, fold: Fold, on_change: OnChange) -> None:
        self._database = database
        self._name = name
        self._fold = fold
        self._on_change = on_change
        # What `on_change` was told last, to notice what other processes have done since.
        self._known: Checkpoint | None = None
        self._keys: set[str] = set()

    async def read_checkpoints(self) -> list[Checkpoint]:
        """See `IndexStorage`; takes over what another process has applied."""
        rows = await self._database.read(
            lambda tx: tx.find_all(
                "SELECT number, hash FROM chain_checkpoints WHERE index_name = ? "
                "ORDER BY number DESC LIMIT ?",
                (self._name, CHECKPOINTS_KEPT),
            )
        )
        found = [Checkpoint(row[0], row[1]) for row in rows]
        newest = found[0] if found else None
        if newest != self._known:
            await self._take_over(found)
        return found

    async def read_documents(self) -> dict[str, bytes]:
        """All documents as of the newest checkpoint."""
        rows = await self._database.read(
            lambda tx: tx.find_all(
                "SELECT document_key, document FROM chain_documents WHERE index_name = ?",
                (self._name,),
            )
        )
        return {row[0]: bytes(row[1]) for row in rows}

    async def apply_batch(self, batch: EventBatch) -> None:
        """See `IndexStorage`."""
        changed = await self._database.write(lambda tx: self._apply(tx, batch))
        if changed is not None:  # else another process was first; `read_checkpoints` takes it over
            self._tell(changed, batch.checkpoint)

    async def rollback_index(self, to: Checkpoint | None) -> None:
        """See `IndexStorage`."""
        self._tell(await self._database.write(lambda tx: self._rollback(tx, to)), to)

    async def _take_over(self, found: list[Checkpoint]) -> None:
        """Show what others have changed: what they replaced since, or all if that is not known."""
        newest, known = found[0] if found else None, self._known
        if known is not None and known in found:
            changed = await self._database.read(lambda tx: self._read_changed(tx, known))
            self._tell(changed, newest)
            return
        documents = await self.read_documents()
        gone: dict[str, bytes | None] = dict.fromkeys(self._keys - documents.keys())
        self._tell({**gone, **documents}, newest)

    def _read_changed(self, tx: Transaction, since: Checkpoint) -> dict[str, bytes | None]:
        rows = tx.find_all(
            "SELECT DISTINCT document_key FROM chain_replaced WHERE index_name = ? AND number > ?",
            (self._name, since.number),
        )
        return {row[0]: self._find_document(tx, row[0]) for row in rows}

    def _tell(self, changed: dict[str, bytes | None], at: Checkpoint | None) -> None:
        self._known = at
        for key, document in changed.items():
            (self._keys.discard if document is None else self._keys.add)(key)
        self._on_change(changed, at)

    def _apply(self, tx: Transaction, batch: EventBatch) -> dict[str, bytes | None] | None:
        newest = tx.find_one(
            "SELECT number, hash FROM chain_checkpoints WHERE index_name = ? "
            "ORDER BY number DESC LIMIT 1",
            (self._name,),
        )
        if (Checkpoint(newest[0], newest[1]) if newest else None) != self._known:
            return None
        # Each document is read once and written once a batch, however many events it takes part in.
        before: dict[str, bytes | None] = {}
        changed: dict[str, bytes | None] = {}

        def find(key: str) -> bytes | None:
            if key not in before:
                before[key] = self._find_document(tx, key)
            return changed.get(key, before[key])

        for event in batch.events:
            for key, document in list(self._fold(event, find)):
                find(key)
                changed[key] = document
        for ordinal, (key, document) in enumerate(changed.items()):
            tx.execute(
                "INSERT INTO chain_replaced (index_name, number, ordinal, document_key, "
                "document) VALUES (?, ?, ?, ?, ?)",
                (self._name, batch.checkpoint.number, ordinal, key, before[key]),
            )
            self._put_document(tx, key, document)
        tx.execute(
            "INSERT INTO chain_checkpoints (index_name, number, hash) VALUES (?, ?, ?) "
            "ON CONFLICT (index_name, number) DO UPDATE SET hash = excluded.hash",
            (self._name, batch.checkpoint.number, batch.checkpoint.hash),
        )
        self._forget(tx)
        return changed

    def _rollback(self, tx: Transaction, to: Checkpoint | None) -> dict[str, bytes | None]:
        number = -1 if to is None else to.number
        rows = tx.find_all(
            "SELECT document_key, document FROM chain_replaced WHERE index_name = ? AND number > ? "
            "ORDER BY number DESC, ordinal DESC",
            (self._name, number),
        )
        changed: dict[str, bytes | None] = {}
        for key, document in rows:
            before = None if document is None else bytes(document)
            self._put_document(tx, key, before)
            changed[key] = before
        if to is None:  # also what is older than the replaced documents that are kept
            kept = tx.find_all(
                "SELECT document_key FROM chain_documents WHERE index_name = ?", (self._name,)
            )
            changed.update({row[0]: None for row in kept})
            tx.execute("DELETE FROM chain_documents WHERE index_name = ?", (self._name,))
        tx.execute(
            "DELETE FROM chain_replaced WHERE index_name = ? AND number > ?", (self._name, number)
        )
        tx.execute(
            "DELETE FROM chain_checkpoints WHERE index_name = ? AND number > ?",
            (self._name, number),
        )
        return changed

    def _forget(self, tx: Transaction) -> None:
        """Drop checkpoints, and what was replaced, beyond those that a rollback can go to."""
        oldest = tx.find_one(
            "SELECT number FROM chain_checkpoints WHERE index_name = ? "
            "ORDER BY number DESC LIMIT 1 OFFSET ?",
            (self._name, CHECKPOINTS_KEPT - 1),
        )
        if oldest is None:
            return
        tx.execute(
            "DELETE FROM chain_replaced WHERE index_name = ? AND number < ?",
            (self._name, oldest[0]),
        )
        tx.execute(
            "DELETE FROM chain_checkpoints WHERE index_name = ? AND number < ?",
            (self._name, oldest[0]),
        )

    def _find_document(self, tx: Transaction, key: str) -> bytes | None:
        row = tx.find_one(
            "SELECT document FROM chain_documents WHERE index_name = ? AND document_key = ?",
            (self._name, key),
        )
        return bytes(row[0]) if row else None

    def _put_document(self, tx: Transaction, key: str, document: bytes | None) -> None:
        if document is None:
            tx.execute(
                "DELETE FROM chain_documents WHERE index_name = ? AND document_key = ?",
                (self._name, key),
            )
            return
        tx.execute(
            "INSERT INTO chain_documents (index_name, document_key, document) VALUES (?, ?, ?) "
            "ON CONFLICT (index_name, document_key) DO UPDATE SET document = excluded.document",
            (self._name, key, document),
        )


async def open_index_storage(
    database: Database, name: str, fold: Fold, on_change: OnChange = lambda changed, at: None
) -> DatabaseIndexStorage:
    """Bring the tables up to date; `name` keeps several indices in one database apart."""
    await database.migrate(_COMPONENT, _STEPS)
    return DatabaseIndexStorage(database, name, fold, on_change)
