"""What one side has submitted to recorders: durable, so a crash submits again and forgets nothing.

    await book.collect(source, to_entry, now_s)     # receipts that are new in the side's own book
    due = await book.list_due(now_s, 500)
    await book.note_answer(url, answers, promises, now_s)
    await book.note_recorded(url, proven)

| state | means | leaves by |
| --- | --- | --- |
| new | in our book, at no recorder | an answer |
| waiting | at a recorder, unmatched; `reason` says why | an answer; going to another recorder |
| matched | a recorder promised its root by block `commit_by` | a proof; a recorder found bad |
| recorded | its proof is held against the chain, and kept here | - |

Submitting an entry twice is harmless, so nothing here has to be exact about what a recorder already
has. What must not be lost is a promise: it is stored with its entries before the next step, and is
the evidence if the block passes without a root.

Source: `docs/records.md`, section "Watching a recorder".
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from hanse.protocol.messages import SignedReceipt
from hanse.protocol.records import RecordEntry, RecordProof, SignedPromise
from hanse.protocol.records.proof_wire import proof_from_json, proof_to_json
from hanse.protocol.records.wire import entry_to_json, promise_to_json
from hanse.protocol.signatures import Address, Hash32
from hanse.settlement.records import submission_tables as sql
from hanse.store.database import Database, Row, Transaction

HEADS_KEPT = 10_000
"""Verified commits of one recorder; a proof of an older one is held against its transaction."""

RETRY_S_FIRST = 5
RETRY_S_MAX = 3_600
"""An unmatched entry is submitted again after 5 s, 10 s, 20 s ... at most an hour."""


@dataclass(frozen=True, slots=True)
class SubmittedEntry:
    """One receipt on its way into a root."""

    entry: RecordEntry
    state: str
    reason: str
    recorder: str
    assigned_at: int
    tries: int
    commit_by: int
    promise: int
    proof: RecordProof | None


@dataclass(frozen=True, slots=True)
class EntryAnswer:
    """What a recorder said about one entry."""

    entry: RecordEntry
    state: str
    reason: str
    commit_by: int


@dataclass(frozen=True, slots=True)
class KnownRecorder:
    """A recorder as this side knows it.

    Attributes:
        url, address: where it is; the key that it was first met with.
        number, head: how far its chain of heads is verified.
        fault: `lie`, `stall`, `fork`, or "" while it is used.
        reason, evidence: what was found, for people and as JSON; kept.
        found_at: unix seconds.
    """

    url: str
    address: Address
    number: int
    head: Hash32
    fault: str
    reason: str
    evidence: str
    found_at: int


ToEntry = Callable[[SignedReceipt], Awaitable[RecordEntry]]
"""A receipt as an entry, with the hash of this side's trace."""


class ReceiptSource(Protocol):
    """The side's own book: which receipts are to be recorded next."""

    def find_new(self, tx: Transaction) -> list[tuple[SignedReceipt, ...]]:
        """Receipts behind the cursors, a group for each sub-account, in sequence."""
        ...

    def list_passed(self, tx: Transaction) -> list[tuple[Address, Address, Address, int]]:
        """Sub-accounts whose cursor may move although no receipt is stored up to there."""
        ...


class SubmissionBook:
    """What one side submitted, over a `Database`. Open it with `open_submission_book`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def collect(self, source: ReceiptSource, to_entry: ToEntry, now_s: int) -> int:
        """Take the next receipts of the side's own book over; returns how many."""
        groups, passed = await self._database.read(
            lambda tx: (source.find_new(tx), source.list_passed(tx))
        )
        if not groups and not passed:
            return 0
        taken = [[await to_entry(signed) for signed in group] for group in groups]

        def write(tx: Transaction) -> int:
            count = 0
            for group in taken:
                for entry in group:
                    count += tx.execute(sql.INSERT_ENTRY, (*_to_columns(entry), now_s))
                tx.execute(sql.UPSERT_CURSOR, group[-1].key)
            for key in passed:
                tx.execute(sql.UPSERT_CURSOR, key)
            return count

        return await self._database.write(write)

    async def list_due(self, now_s: int, limit: int) -> list[SubmittedEntry]:
        """New and unmatched entries whose time to be submitted has come."""
        return await self._list(sql.LIST_DUE, (now_s, limit))

    async def list_matched(self, url: str, now_s: int, limit: int) -> list[SubmittedEntry]:
        """Entries that a recorder matched and that have no proof yet, the longest unasked first."""
        return await self._list(sql.LIST_MATCHED, (url, now_s, limit))

    async def list_late(self, url: str, block: int, limit: int = 500) -> list[SubmittedEntry]:
        """Matched entries whose promised block is below `block`."""
        return await self._list(sql.LIST_LATE, (url, block, limit))

    async def list_waiting(self, limit: int = 500) -> list[SubmittedEntry]:
        """Unmatched entries, with reasons."""
        return await self._list(sql.LIST_WAITING, (limit,))

    async def find_entry(self, key: tuple[str, str, str, int]) -> SubmittedEntry | None:
        """One entry by user, provider, signer and sequence."""
        row = await self._database.read(lambda tx: tx.find_one(sql.FIND_ENTRY, key))
        return _to_submitted(row) if row else None

    async def count_states(self) -> dict[str, int]:
        """How many entries are in each state."""
        rows = await self._database.read(lambda tx: tx.find_all(sql.COUNT_STATES))
        return {row[0]: int(row[1]) for row in rows}

    async def note_answer(
        self,
        url: str,
        before: Sequence[SubmittedEntry],
        answers: Sequence[EntryAnswer],
        promises: Sequence[tuple[SignedPromise, Sequence[RecordEntry]]],
        now_s: int,
    ) -> None:
        """Store what a recorder answered to a submission, and its promises with their entries."""

        def write(tx: Transaction) -> None:
            numbers: dict[RecordEntry, int] = {}
            for promise, entries in promises:
                number = _insert_promise(tx, url, promise, entries)
                numbers |= dict.fromkeys(entries, number)
            for known, answer in zip(before, answers, strict=True):
                is_same = known.recorder == url
                tries = known.tries + 1 if is_same and answer.state == "waiting" else 0
                pause_s = min(RETRY_S_MAX, RETRY_S_FIRST * 2 ** min(tries, 12))
                row = (
                    answer.state,
                    answer.reason,
                    url,
                    known.assigned_at if is_same else now_s,
                    now_s + (pause_s if answer.state == "waiting" else 0),
                    tries,
                    answer.commit_by,
                    numbers.get(answer.entry, known.promise if is_same else 0),
                )
                tx.execute(sql.UPDATE_TAKEN, (*row, *answer.entry.key))
            tx.execute(sql.DELETE_KEPT_PROMISES)

        await self._database.write(write)

    async def note_asked(self, entries: Sequence[RecordEntry], next_at: int) -> None:
        """Remember that proofs of these were asked for, so that the others have their turn."""
        await self._database.write(
            lambda tx: [tx.execute(sql.UPDATE_NEXT, (next_at, *entry.key)) for entry in entries]
        )

    async def note_recorded(
        self, url: str, proven: Sequence[tuple[RecordEntry, RecordProof]]
    ) -> None:
        """Keep proofs that were held against the chain; their entries are done."""

        def write(tx: Transaction) -> None:
            for entry, proof in proven:
                encoded = msgspec.json.encode(proof_to_json(proof)).decode()
                tx.execute(sql.UPDATE_RECORDED, (encoded, url, *entry.key))
            tx.execute(sql.DELETE_KEPT_PROMISES)

        await self._database.write(write)

    async def find_promise(self, number: int) -> tuple[Any, Any] | None:
        """A promise and its entries as JSON, for evidence."""
        row = await self._database.read(lambda tx: tx.find_one(sql.FIND_PROMISE, (number,)))
        return (msgspec.json.decode(row[0]), msgspec.json.decode(row[1])) if row else None

    async def list_recorders(self) -> list[KnownRecorder]:
        """Every recorder ever met, those found bad with their evidence."""
        rows = await self._database.read(lambda tx: tx.find_all(sql.LIST_RECORDERS))
        return [KnownRecorder(*row) for row in rows]

    async def find_recorder(self, url: str) -> KnownRecorder | None:
        """One recorder."""
        row = await self._database.read(lambda tx: tx.find_one(sql.FIND_RECORDER, (url,)))
        return KnownRecorder(*row) if row else None

    async def add_recorder(self, url: str, address: Address, number: int, head: Hash32) -> None:
        """Remember a recorder: its key, and where the chain shows its heads at the first look."""
        row = (url, address, number, head)
        await self._database.write(lambda tx: tx.execute(sql.INSERT_RECORDER, row))

    async def note_heads(self, url: str, heads: Sequence[tuple[int, Hash32]]) -> None:
        """Remember verified commits, in order; the last is the recorder's head from now on."""

        def write(tx: Transaction) -> None:
            for number, head in heads:
                tx.execute(sql.INSERT_HEAD, (url, number, head))
            number, head = heads[-1]
            tx.execute(sql.UPDATE_HEAD, (number, head, url, number))
            tx.execute(sql.DELETE_OLD_HEADS, (url, number - HEADS_KEPT))

        await self._database.write(write)

    async def find_head(self, url: str, number: int) -> Hash32 | None:
        """The verified head after a commit; None if it was never seen here."""
        row = await self._database.read(lambda tx: tx.find_one(sql.FIND_HEAD, (url, number)))
        return str(row[0]) if row else None

    async def note_fault(
        self, url: str, fault: str, reason: str, evidence: dict[str, Any], now_s: int
    ) -> None:
        """Mark a recorder as bad and free its entries for another; the first evidence stays."""

        def write(tx: Transaction) -> None:
            encoded = msgspec.json.encode(evidence).decode()
            tx.execute(sql.UPDATE_FAULT, (fault, reason, encoded, now_s, url))
            tx.execute(sql.RELEASE_ENTRIES, (url,))
            tx.execute(sql.DELETE_KEPT_PROMISES)

        await self._database.write(write)

    async def clear_fault(self, url: str) -> bool:
        """Use a recorder again, on a person's wish; its evidence stays. False if unknown."""
        return bool(await self._database.write(lambda tx: tx.execute(sql.CLEAR_FAULT, (url,))))

    async def _list(self, statement: str, parameters: tuple[Any, ...]) -> list[SubmittedEntry]:
        rows = await self._database.read(lambda tx: tx.find_all(statement, parameters))
        return [_to_submitted(row) for row in rows]


async def open_submission_book(database: Database) -> SubmissionBook:
    """Bring the tables up to date."""
    await database.migrate(sql.COMPONENT, sql.STEPS)
    return SubmissionBook(database)


def _insert_promise(
    tx: Transaction, url: str, promise: SignedPromise, entries: Sequence[RecordEntry]
) -> int:
    encoded = msgspec.json.encode(promise_to_json(promise)).decode()
    about = msgspec.json.encode([entry_to_json(entry) for entry in entries]).decode()
    tx.execute(sql.INSERT_PROMISE, (url, encoded, about))
    row = tx.find_one(sql.FIND_LAST_PROMISE)
    assert row is not None  # an aggregate has a row
    return int(row[0])


def _to_columns(entry: RecordEntry) -> Row:
    return (*entry.key, entry.receipt_digest, str(entry.fee), entry.trace_hash)


def _to_submitted(row: Row) -> SubmittedEntry:
    entry = RecordEntry(row[0], row[1], row[2], row[3], row[4], int(row[5]), row[6])
    proof = None if row[14] is None else proof_from_json(msgspec.json.decode(row[14]))
    return SubmittedEntry(entry, row[7], row[8], row[9], row[10], row[11], row[12], row[13], proof)
