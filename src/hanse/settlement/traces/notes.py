"""Which trace belongs to which receipt, where it is, and its sealed keys.

    notes = await open_trace_notes(database)
    trace_hash = await notes.find_trace_hash(receipt)      # what a record's leaf binds, or None

| from | event | to |
| --- | --- | --- |
| - | its object is about to be stored | pending |
| pending | the store has it | stored |
| pending | the store never took it, or the process died before | lost |
| pending, stored | forgotten on command, or too old | forgotten |

A note is written before its object and finished after, so a crash in between leaves neither an
object that nobody knows of nor a note that promises what is not there: pending notes are looked up
in the store once they are old enough.

Forgetting destroys the sealed keys first, in one transaction, and deletes the object after that:
from then on its bytes are noise, also where the store keeps versions. The note itself stays, since
its hash is in the record.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from hanse.protocol.errors import RequestError
from hanse.protocol.messages import Receipt
from hanse.protocol.signatures import Address, Hash32
from hanse.settlement.traces import tables
from hanse.settlement.traces.document import Side
from hanse.store.database import Database, Row, Transaction

ROWS_PER_ROUND_MAX = 500
"""Notes that one round of sweeping or forgetting takes; the next goes on."""


class TraceState(StrEnum):
    """Life of one trace; see the module's table."""

    PENDING = "pending"
    STORED = "stored"
    LOST = "lost"
    FORGOTTEN = "forgotten"


@dataclass(frozen=True, slots=True)
class TraceNote:
    """One trace as the books have it.

    Attributes:
        user, provider, signer, sequence: of its receipt.
        request_hash, request_id: of its request.
        trace_hash: content hash of the encrypted object.
        object_bytes: its length.
        location: of the store that has it.
        state: see `TraceState`.
        reason: why it is lost or forgotten.
        has_object: whether the store may still have the bytes.
        created_at: unix seconds.
    """

    user: Address
    provider: Address
    signer: Address
    request_hash: Hash32
    request_id: Hash32
    sequence: int
    trace_hash: Hash32
    object_bytes: int
    location: str
    created_at: int
    state: TraceState = TraceState.PENDING
    reason: str = ""
    has_object: bool = True


@dataclass(frozen=True, slots=True)
class SealedKey:
    """A trace's data key, sealed to one side's public key."""

    recipient: Side
    public_key: Hash32
    sealed: bytes


@dataclass(frozen=True, slots=True)
class Drops:
    """Requests that left no trace for one reason."""

    reason: str
    dropped: int
    last_at: int


class TraceNotes:
    """The notes of one side. Make them with `open_trace_notes`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find_trace_hash(self, receipt: Receipt) -> Hash32 | None:
        """The hash of the trace of a receipt's request; None if there is none, or none yet.

        A trace that was forgotten keeps its hash; one that was lost has none.
        """
        found = await self.find_of_receipt(receipt)
        kept = (TraceState.STORED, TraceState.FORGOTTEN)
        return found.trace_hash if found and found.state in kept else None

    async def find_of_receipt(self, receipt: Receipt) -> TraceNote | None:
        """The note of a receipt's request, in whatever state."""
        key = (receipt.user, receipt.provider, receipt.signer, receipt.request_hash)
        row = await self._database.read(lambda tx: tx.find_one(tables.FIND_OF_RECEIPT, key))
        return _to_note(row) if row else None

    async def get(self, name: Hash32) -> TraceNote:
        """The note of a request id or trace hash.

        Raises:
            RequestError: `not_found`; `usage` if several requests have that id.
        """
        rows = await self._database.read(lambda tx: tx.find_all(tables.FIND_BY_ID, (name, name)))
        if not rows:
            raise RequestError(
                "not_found",
                f"there is no trace of a request or hash {name} here: they are kept where --traces "
                "asks for them, from then on",
            )
        if len(rows) > 1:
            hashes = ", ".join(_to_note(row).trace_hash for row in rows)
            raise RequestError(
                "usage", f"several users' requests have that id; name one of {hashes}"
            )
        return _to_note(rows[0])

    async def list_newest(self, limit: int) -> list[TraceNote]:
        """Notes, newest first."""
        return await self._list(tables.LIST_NEWEST, (limit,))

    async def list_pending(self, before: int) -> list[TraceNote]:
        """Notes that were begun before then and never finished."""
        return await self._list(tables.LIST_PENDING, (before, ROWS_PER_ROUND_MAX))

    async def list_stored(self, before: int) -> list[TraceNote]:
        """Notes of stored traces that are older than that."""
        return await self._list(tables.LIST_OLD, (before, ROWS_PER_ROUND_MAX))

    async def list_left(self) -> list[TraceNote]:
        """Lost and forgotten notes whose objects may still be in the store."""
        return await self._list(tables.LIST_LEFT, (ROWS_PER_ROUND_MAX,))

    async def list_keys(self, trace_hash: Hash32) -> list[SealedKey]:
        """The sealed keys of a trace; none once it is forgotten."""
        rows = await self._database.read(lambda tx: tx.find_all(tables.LIST_KEYS, (trace_hash,)))
        return [SealedKey(Side(row[0]), row[1], bytes.fromhex(row[2])) for row in rows]

    async def list_drops(self) -> list[Drops]:
        """What was dropped, by reason."""
        rows = await self._database.read(lambda tx: tx.find_all(tables.LIST_DROPS))
        return [Drops(*row) for row in rows]

    async def begin(self, note: TraceNote, keys: Sequence[SealedKey]) -> bool:
        """Note a trace that is about to be stored, with its sealed keys; durable on return.

        Returns:
            False if its request has a trace already; then nothing was written.
        """
        values = (
            note.user, note.provider, note.signer, note.request_hash, note.request_id,
            note.sequence, note.trace_hash, note.object_bytes, note.location, note.created_at,
        )  # fmt: skip

        def insert(tx: Transaction) -> bool:
            if not tx.execute(tables.INSERT, values):
                return False
            for key in keys:
                row = (note.trace_hash, key.recipient.value, key.public_key, key.sealed.hex())
                tx.execute(tables.INSERT_KEY, row)
            return True

        return await self._database.write(insert)

    async def finish(self, trace_hash: Hash32) -> bool:
        """The store has it; False if it was forgotten meanwhile."""
        values = (TraceState.STORED.value, "", trace_hash, TraceState.PENDING.value)
        return bool(await self._database.write(lambda tx: tx.execute(tables.UPDATE_STATE, values)))

    async def lose(self, trace_hash: Hash32, reason: str) -> None:
        """The store does not have it: its keys are destroyed, its hash goes into no record."""

        def update(tx: Transaction) -> None:
            pending = TraceState.PENDING.value
            if tx.execute(
                tables.UPDATE_STATE, (TraceState.LOST.value, reason, trace_hash, pending)
            ):
                _destroy_keys(tx, trace_hash)

        await self._database.write(update)

    async def forget(self, trace_hash: Hash32, reason: str) -> bool:
        """Destroy the sealed keys of a trace; returns whether it had not been forgotten before.

        The object is to be deleted after that; `list_left` names those that were not.
        """

        def update(tx: Transaction) -> bool:
            changed = tx.execute(tables.FORGET, (TraceState.FORGOTTEN.value, reason, trace_hash))
            _destroy_keys(tx, trace_hash)
            return bool(changed)

        return await self._database.write(update)

    async def mark_deleted(self, trace_hash: Hash32) -> None:
        """The store was told to delete the object, and did."""
        await self._database.write(lambda tx: tx.execute(tables.MARK_DELETED, (trace_hash,)))

    async def count_drops(self, dropped: dict[str, int], now_s: int) -> None:
        """Add to what was dropped, by reason."""

        def add(tx: Transaction) -> None:
            for reason, count in dropped.items():
                tx.execute(tables.COUNT_DROPS, (reason, count, now_s))

        await self._database.write(add)

    async def _list(self, sql: str, parameters: tuple[int, ...]) -> list[TraceNote]:
        rows = await self._database.read(lambda tx: tx.find_all(sql, parameters))
        return [_to_note(row) for row in rows]


async def open_trace_notes(database: Database) -> TraceNotes:
    """The notes in a side's database."""
    await database.migrate(tables.COMPONENT, tables.STEPS)
    return TraceNotes(database)


def _destroy_keys(tx: Transaction, trace_hash: Hash32) -> None:
    """Overwrite, then delete: a deleted row's bytes stay in the file until its page is used again.

    The row keeps its length, so SQLite writes over the same bytes.
    """
    for _, _, sealed in tx.find_all(tables.LIST_KEYS, (trace_hash,)):
        tx.execute(tables.OVERWRITE_KEYS, ("0" * len(sealed), trace_hash))
    tx.execute(tables.DELETE_KEYS, (trace_hash,))


def _to_note(row: Row) -> TraceNote:
    user, provider, signer, request_hash, request_id, sequence, trace_hash = row[:7]
    object_bytes, location, state, reason, has_object, created_at = row[7:]
    return TraceNote(
        user,
        provider,
        signer,
        request_hash,
        request_id,
        sequence,
        trace_hash,
        object_bytes,
        location,
        created_at,
        TraceState(state),
        reason,
        bool(has_object),
    )
