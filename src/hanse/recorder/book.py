"""A recorder's durable book: what waits, what matches, what was committed.

    taken = await book.take(side, entries, commit_by=120, now_s=now)   # durable, so it may promise
    commit = await book.prepare_commit()                               # None: nothing is matched
    ...the outbox sends it under a key of its number...
    await book.confirm_commit(commit.number, transaction_hash, block_number)

The rules are `hanse.protocol.records`; this shell gives them rows. Each call is one transaction, so
a crash leaves an entry taken or not, a commit made or not. A leaf belongs to one commit for ever:
the commit's root is stored with the leaves' number in it before anything is sent, and the next is
only made after this one is confirmed, so the chain's number of a commit is the book's.

Source: `docs/records.md`; `docs/decisions/0014-records.md`.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from hanse.protocol.eip712 import Domain
from hanse.protocol.errors import InvariantError, RequestError
from hanse.protocol.limits import LEAVES_PER_COMMIT_MAX, RECORD_ENTRIES_PER_SUBMISSION_MAX
from hanse.protocol.records import (
    Commit,
    Leaf,
    RecordEntry,
    RecordProof,
    Side,
    apply_commit,
)
from hanse.protocol.signatures import ZERO_HASH, Address, Hash32, to_hex
from hanse.recorder import tables as sql
from hanse.recorder.entries import (
    TakenEntry,
    WaitingEntry,
    cut_page,
    parse_place,
    take_entries,
)
from hanse.recorder.nodes import PartReader, pack_leaves, read_siblings, store_tree
from hanse.recorder.settings import RecorderLimits
from hanse.recorder.shares import DAY_S
from hanse.store.database import Database, Row, Transaction, get_or_insert

WAITING_S_MAX = 7 * 86_400
"""An unmatched entry is forgotten after a week; its side may submit it again."""
PROOFS_PER_READ = 50
"""Proofs made in one read of the database, 150 rows: then it is another caller's turn."""


@dataclass(frozen=True, slots=True)
class StoredCommit:
    """A commit and where it was mined, once it is confirmed."""

    commit: Commit
    transaction_hash: Hash32
    block_number: int
    is_confirmed: bool


class RecorderBook:
    """The book of one recorder over a `Database`. Open it with `open_recorder_book`."""

    def __init__(
        self, database: Database, recorder: Address, limits: RecorderLimits | None = None
    ) -> None:
        self._database = database
        self._recorder = recorder
        self._limits = limits or RecorderLimits()

    async def take(
        self, side: Side, entries: Sequence[RecordEntry], *, commit_by: int, now_s: int
    ) -> list[TakenEntry]:
        """Store one side's entries and match what can be matched; durable on return.

        Taking an entry again changes nothing, except that a waiting one is replaced by what its
        side says now (after a resume it may know better).

        Args:
            side: whose entries; the caller has verified that they are.
            entries: at most a submission's, with one key each.
            commit_by: the block that is promised for what is matched now.
            now_s: unix seconds.

        Raises:
            TransientError: `store_unavailable`; nothing was taken.
        """
        return await self._database.write(
            lambda tx: take_entries(tx, side, entries, commit_by, now_s, self._limits)
        )

    async def list_waiting(
        self, side: Side, party: Address, after: str = ""
    ) -> tuple[list[WaitingEntry], str]:
        """A page of the unmatched entries that concern a party, both sides' of them.

        Args:
            side: user: `party` is a signer; provider: `party` is a provider.
            party: whose.
            after: the place that the page before ended with; empty for the first. The address of
                the other party alone passes over all that is left of it.

        Returns:
            The page, and the place to go on after; empty when this is the end.

        Raises:
            RequestError: `invalid_request` if `after` is no place.
        """
        most = RECORD_ENTRIES_PER_SUBMISSION_MAX
        is_user = side is Side.USER
        statement = sql.LIST_WAITING_OF_SIGNER if is_user else sql.LIST_WAITING_OF_PROVIDER
        place = parse_place(after)
        rows = await self._database.read(
            lambda tx: tx.find_all(statement, (party, *place, most + 1))
        )
        return cut_page(rows, is_user, most)

    async def prepare_commit(self) -> Commit | None:
        """The commit that is to be on the chain next, durable on return; None if nothing matched.

        One that is not confirmed yet is returned again, however often it is asked for.
        """
        last = await self.find_last_commit()
        if last is not None and not last.is_confirmed:
            return last.commit
        rows = await self._database.read(
            lambda tx: tx.find_all(sql.LIST_OPEN_LEAVES, (LEAVES_PER_COMMIT_MAX,))
        )
        if not rows:
            return None
        before = (last.commit.number, last.commit.head) if last else (0, ZERO_HASH)
        leaves = [_to_leaf(row[1:]) for row in rows]
        commit = await asyncio.to_thread(apply_commit, before, leaves)
        parts = await asyncio.to_thread(pack_leaves, leaves)

        def store(tx: Transaction) -> None:
            _store_commit(tx, commit, rows[-1][0])
            store_tree(tx, commit.number, parts)

        await self._database.write(store)
        return commit

    async def confirm_commit(
        self, number: int, transaction_hash: Hash32, block_number: int
    ) -> None:
        """Note that a commit is confirmed; its leaves have proofs from now on."""
        row = (transaction_hash, block_number, number)
        await self._database.write(lambda tx: tx.execute(sql.UPDATE_CONFIRMED, row))

    async def find_last_commit(self) -> StoredCommit | None:
        """The newest commit, confirmed or not; None before the first."""
        row = await self._database.read(lambda tx: tx.find_one(sql.FIND_LAST_COMMIT))
        return _to_commit(row) if row else None

    async def list_commits(self, after: int, limit: int) -> list[StoredCommit]:
        """Commits after a number, in order."""
        rows = await self._database.read(lambda tx: tx.find_all(sql.LIST_COMMITS, (after, limit)))
        return [_to_commit(row) for row in rows]

    async def find_proofs(self, entries: Sequence[RecordEntry]) -> list[RecordProof | None]:
        """The inclusion proof of each entry's receipt, None for what is not committed.

        A proof reads three rows, however many commits and leaves there are.
        """
        proofs: list[RecordProof | None] = []
        for first in range(0, len(entries), PROOFS_PER_READ):
            some = entries[first : first + PROOFS_PER_READ]
            proofs += await self._database.read(partial(self._prove, some))
        return proofs

    async def count_open(self) -> int:
        """Leaves that are in no commit yet."""
        return await self._count(sql.COUNT_OPEN)

    async def count_open_of(self, provider: Address) -> int:
        """Leaves of one provider that are in no commit yet."""
        return await self._count(sql.COUNT_OPEN_OF_PROVIDER, provider)

    async def count_waiting(self) -> int:
        """Entries that are not matched."""
        return await self._count(sql.COUNT_ALL_WAITING)

    async def sweep_waiting(self, now_s: int) -> int:
        """Forget entries that waited too long, and past days' counts; returns how many entries."""

        def sweep(tx: Transaction) -> int:
            tx.execute(sql.DELETE_DAYS, (now_s // DAY_S,))
            return tx.execute(sql.DELETE_OLD, (now_s - WAITING_S_MAX,))

        return await self._database.write(sweep)

    async def complete_trees(self) -> None:
        """Store the trees of commits that an older version made; none are left after that."""
        while True:
            row = await self._database.read(lambda tx: tx.find_one(sql.FIND_UNPLACED))
            if row is None or row[0] is None:
                return
            number = int(row[0])
            await self._complete_tree(number)

    async def _count(self, statement: str, *values: str) -> int:
        row = await self._database.read(lambda tx: tx.find_one(statement, values))
        return int(row[0]) if row else 0

    async def _complete_tree(self, number: int) -> None:
        rows = await self._database.read(lambda tx: tx.find_all(sql.LIST_LEAVES, (number,)))
        parts = await asyncio.to_thread(pack_leaves, [_to_leaf(row) for row in rows])

        def store(tx: Transaction) -> None:
            tx.execute(sql.UPDATE_PLACES, (number,))
            store_tree(tx, number, parts)

        await self._database.write(store)

    def _prove(self, entries: Sequence[RecordEntry], tx: Transaction) -> list[RecordProof | None]:
        parts = PartReader(tx)
        return [self._prove_one(tx, parts, entry) for entry in entries]

    def _prove_one(
        self, tx: Transaction, parts: PartReader, entry: RecordEntry
    ) -> RecordProof | None:
        row = tx.find_one(sql.FIND_PROVEN, entry.key)
        if row is None or row[0] != entry.receipt_digest:
            return None
        _, user_trace_hash, provider_trace_hash, place = row[:4]
        stored = _to_commit(row[4:])
        siblings = read_siblings(parts.of(stored.commit.number), stored.commit.count, place)
        return RecordProof(
            self._recorder,
            stored.commit,
            user_trace_hash,
            provider_trace_hash,
            place,
            tuple(to_hex(sibling) for sibling in siblings),
            stored.transaction_hash,
            stored.block_number,
        )


async def open_recorder_book(
    database: Database,
    recorder: Address,
    domain: Domain,
    records: Address,
    limits: RecorderLimits | None = None,
) -> RecorderBook:
    """Bring the tables up to date and check whose book it is.

    Raises:
        RequestError: `configuration_invalid` if the database is another recorder's, or another
            chain's.
    """
    await database.migrate(sql.COMPONENT, sql.STEPS)
    owner = (recorder, str(domain.chain_id), domain.escrow, records)
    found = await database.write(
        lambda tx: get_or_insert(tx, sql.FIND_OWNER, sql.INSERT_OWNER, owner)
    )
    if found != owner:
        raise RequestError(
            "configuration_invalid",
            f"this database is the book of recorder {found[0]} on chain {found[1]}, Records "
            f"{found[3]}, not of {recorder} on chain {domain.chain_id}, Records {records}: "
            "give each its own",
        )
    book = RecorderBook(database, recorder, limits)
    await book.complete_trees()
    return book


def _store_commit(tx: Transaction, commit: Commit, last_ordinal: int) -> None:
    tx.execute(
        sql.INSERT_COMMIT,
        (
            commit.number,
            commit.root,
            commit.count,
            str(commit.fee_total),
            commit.previous_head,
            commit.head,
        ),
    )
    changed = tx.execute(sql.UPDATE_LEAVES, (commit.number, last_ordinal))
    if changed != commit.count:
        raise InvariantError(
            "invariant_broken",
            f"commit {commit.number} is over {commit.count} leaves, {changed} were open",
        )


def _to_leaf(row: Row) -> Leaf:
    user, provider, signer, sequence, digest, fee, user_trace, provider_trace = row
    return Leaf((user, provider, signer, sequence), digest, int(fee), user_trace, provider_trace)


def _to_commit(row: Row) -> StoredCommit:
    number, root, count, fee_total, previous_head, head = row[:6]
    commit = Commit(number, root, count, int(fee_total), previous_head, head)
    return StoredCommit(commit, row[6], row[7], bool(row[8]))
