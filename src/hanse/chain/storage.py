"""What the chain layer must remember across crashes: two small interfaces and their memory form.

`OutboxStorage` and `IndexStorage` are what a shell implements over its database. Contract of every
write: it is **atomic** (all of it or nothing) and **durable** (survives power loss) before it
returns. Reads see all writes that returned.

| call | atomic with | why durable |
| --- | --- | --- |
| put_entries | all entries of the call | nonce and bytes must be on disk before a broadcast |
| apply_batch | the batch's meaning and its checkpoint | an event is applied exactly once |
| rollback_index | undoing the meaning and dropping checkpoints | as above |

The memory forms keep the same promises for as long as the process lives: for tests and for
read-only tools.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from hanse.chain.chain_types import BlockNumber, Call, Event

CHECKPOINTS_KEPT = 64
"""Checkpoints of one index to keep, among which a rewind looks for the common ancestor."""


class TransactionState(StrEnum):
    """Life of one outbox entry; the table is in `hanse.chain.outbox`."""

    QUEUED = "queued"
    SIGNED = "signed"
    MINED = "mined"
    CONFIRMED = "confirmed"
    FAILED = "failed"


@dataclass(frozen=True)
class Attempt:
    """One signed form of an entry; a later one pays more under the same nonce."""

    hash: str
    raw: bytes
    tip_wei: int
    max_fee_wei: int


@dataclass(frozen=True)
class OutboxEntry:
    """One transaction, from the wish to the proof.

    Attributes:
        scope: chain id and sender, `<chain id>:<address>`; nonces are unique within it.
        key: idempotency key, unique within the scope.
        ordinal: position in the scope, from 1: entries are signed in this order.
        nonce: None until signed.
        attempts: oldest first; any of them may be the one that is mined.
        signed_at_block: chain height when the nonce was taken: nothing of it can be mined before.
        block_number, block_hash, transaction_hash: where it was mined, once it was.
        gas_used, effective_gas_price_wei: what it cost, once mined.
        reason: why it failed, or why it waits; "" if neither.
    """

    scope: str
    key: str
    ordinal: int
    call: Call
    state: TransactionState = TransactionState.QUEUED
    nonce: int | None = None
    gas_limit: int = 0
    attempts: tuple[Attempt, ...] = ()
    signed_at_block: BlockNumber = 0
    block_number: BlockNumber | None = None
    block_hash: str = ""
    transaction_hash: str = ""
    gas_used: int = 0
    effective_gas_price_wei: int = 0
    reason: str = ""

    @property
    def is_final(self) -> bool:
        """Whether nothing will change any more."""
        return self.state in (TransactionState.CONFIRMED, TransactionState.FAILED)


@dataclass(frozen=True)
class Checkpoint:
    """Up to and with this block all events were applied."""

    number: BlockNumber
    hash: str


@dataclass(frozen=True)
class EventBatch:
    """Confirmed events of the blocks first .. checkpoint.number, in chain order. Often empty."""

    first: BlockNumber
    checkpoint: Checkpoint
    timestamp_s: int
    events: tuple[Event, ...]


class OutboxStorage(Protocol):
    """Durable entries of outboxes."""

    async def put_entries(self, entries: Sequence[OutboxEntry]) -> None:
        """Insert or replace by (scope, key), all or none, durable on return."""
        ...

    async def find_entry(self, scope: str, key: str) -> OutboxEntry | None:
        """One entry, in whatever state."""
        ...

    async def read_entries(self, scope: str, *, open_only: bool) -> list[OutboxEntry]:
        """Entries of a scope by ordinal; with `open_only` those in queued, signed and mined."""
        ...

    async def read_last(self, scope: str) -> tuple[int, int]:
        """Highest ordinal (0 if none) and highest nonce (-1 if none) ever stored in the scope."""
        ...

    async def find_by_nonce(self, scope: str, nonce: int) -> OutboxEntry | None:
        """The entry that holds this nonce, in whatever state."""
        ...


class IndexStorage(Protocol):
    """Durable progress and meaning of one event index."""

    async def read_checkpoints(self) -> list[Checkpoint]:
        """The last `CHECKPOINTS_KEPT` checkpoints, newest first; empty before the first batch."""
        ...

    async def apply_batch(self, batch: EventBatch) -> None:
        """Store what the events mean and `batch.checkpoint`, all or none, durable on return."""
        ...

    async def rollback_index(self, to: Checkpoint | None) -> None:
        """Undo all events and checkpoints above `to` (all if None), all or none."""
        ...


class MemoryOutboxStorage:
    """`OutboxStorage` in memory."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str], OutboxEntry] = {}

    async def put_entries(self, entries: Sequence[OutboxEntry]) -> None:
        """See `OutboxStorage`."""
        self._entries.update({(entry.scope, entry.key): entry for entry in entries})

    async def find_entry(self, scope: str, key: str) -> OutboxEntry | None:
        """See `OutboxStorage`."""
        return self._entries.get((scope, key))

    async def read_entries(self, scope: str, *, open_only: bool) -> list[OutboxEntry]:
        """See `OutboxStorage`."""
        found = [entry for entry in self._entries.values() if entry.scope == scope]
        found.sort(key=lambda entry: entry.ordinal)
        return [entry for entry in found if not (open_only and entry.is_final)]

    async def read_last(self, scope: str) -> tuple[int, int]:
        """See `OutboxStorage`."""
        found = await self.read_entries(scope, open_only=False)
        nonces = [entry.nonce for entry in found if entry.nonce is not None]
        return max((entry.ordinal for entry in found), default=0), max(nonces, default=-1)

    async def find_by_nonce(self, scope: str, nonce: int) -> OutboxEntry | None:
        """See `OutboxStorage`."""
        found = await self.read_entries(scope, open_only=False)
        return next((entry for entry in found if entry.nonce == nonce), None)


class MemoryIndexStorage:
    """`IndexStorage` in memory: keeps every event."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._checkpoints: list[Checkpoint] = []

    async def read_checkpoints(self) -> list[Checkpoint]:
        """See `IndexStorage`."""
        return self._checkpoints[: -CHECKPOINTS_KEPT - 1 : -1]

    async def apply_batch(self, batch: EventBatch) -> None:
        """See `IndexStorage`."""
        self.events += batch.events
        self._checkpoints.append(batch.checkpoint)

    async def rollback_index(self, to: Checkpoint | None) -> None:
        """See `IndexStorage`."""
        number = -1 if to is None else to.number
        self.events = [event for event in self.events if event.block_number <= number]
        self._checkpoints = [point for point in self._checkpoints if point.number <= number]
