"""One commit an interval, each exactly once, whatever crashes.

    committer = Committer(book, records, outbox, rpc, interval_blocks=10, confirmations=2)
    await committer.verify_book()         # at the start
    await committer.run(poll_interval_s)  # as a task

| step | durable | after a crash there |
| --- | --- | --- |
| prepare | the commit, and its number in its leaves | it is prepared already, and sent |
| enqueue | the transaction, under a key of the commit's number | the same key, the same entry |
| confirmed | nothing yet | the outbox says so again |
| confirm | the commit's transaction and block | done |

The next commit is prepared only after the one before is confirmed, so numbers in the book and on
the chain are the same. If the chain has a commit of this recorder that the book does not know (an
old copy of the database, a second process with the same key), the recorder stops: its promises
would be lies.

Source: `docs/records.md`, section "The root"; `Records.vy`.
"""

import asyncio
import logging
from collections.abc import Callable

from hanse.chain import ChainError, OutboxEntry, TransactionState
from hanse.chain.outbox import Outbox
from hanse.chain.records import Records
from hanse.chain.rpc import Rpc
from hanse.protocol.errors import HanseError, InvariantError, TransientError
from hanse.protocol.records import Commit
from hanse.protocol.signatures import ZERO_HASH, to_bytes, to_hex
from hanse.recorder.book import RecorderBook
from hanse.recorder.metrics import RecorderMetrics

ATTEMPTS_MAX = 100
"""Transactions for one commit: each failed for good before the next; more is nothing to go on."""

_log = logging.getLogger(__name__)


def no_failpoint(name: str) -> None:
    """The failpoint of production."""


class Committer:
    """Commits one recorder's book.

    Attributes:
        block: the chain's head as last seen; 0 before the first look.
        seen_at: when that was, by `monotonic`.
    """

    def __init__(
        self,
        book: RecorderBook,
        records: Records,
        outbox: Outbox,
        rpc: Rpc,
        *,
        interval_blocks: int,
        confirmations: int,
        metrics: RecorderMetrics,
        monotonic: Callable[[], float],
        failpoint: Callable[[str], None] = no_failpoint,
    ) -> None:
        self._book, self._records, self._outbox, self._rpc = book, records, outbox, rpc
        self._interval_blocks, self._confirmations = interval_blocks, confirmations
        self._metrics, self._monotonic, self._failpoint = metrics, monotonic, failpoint
        self.block = 0
        self.seen_at = 0.0

    async def verify_book(self) -> None:
        """Hold the book's last commit against the chain.

        Raises:
            InvariantError: `invariant_broken`: the chain has a commit that the book has not.
        """
        await self._see_head()
        last = await self._book.find_last_commit()
        number, head = (last.commit.number, last.commit.head) if last else (0, ZERO_HASH)
        block = max(0, self.block - self._confirmations)
        found = await self._records.read_head(self._outbox.address, block=block)
        shown = to_hex(found.head)
        if found.number > number or (found.number == number and shown != head):
            raise InvariantError(
                "invariant_broken",
                f"the chain shows commit {found.number} with head {shown} of recorder "
                f"{self._outbox.address}, the book ends at {number} with {head}: another process "
                "uses this key, or the database is an old copy. Stop the other, restore the newest "
                "database, or take a new key",
            )

    async def run(self, poll_interval_s: float) -> None:
        """Commit for ever; ends by cancellation or `InvariantError`."""
        while True:
            try:
                await self.step()
            except InvariantError:
                raise
            except HanseError as error:
                _log.warning("the committer waits: %s", error.message)
            await asyncio.sleep(poll_interval_s)

    async def step(self) -> Commit | None:
        """Take the open commit further, or prepare the next if its time has come.

        Returns:
            The commit that was confirmed in this step.
        """
        await self._see_head()
        last = await self._book.find_last_commit()
        if last is None or last.is_confirmed:
            due_at = last.block_number + self._interval_blocks if last else 0
            if self.block < due_at:
                return None
        commit = await self._book.prepare_commit()
        if commit is None:
            return None
        self._failpoint("commit_prepared")
        entry = await self._enqueue(commit)
        self._failpoint("commit_enqueued")
        if entry.state is not TransactionState.CONFIRMED:
            return None
        self._failpoint("commit_mined")
        await self._confirm(commit, entry)
        self._failpoint("commit_confirmed")
        return commit

    async def _enqueue(self, commit: Commit) -> OutboxEntry:
        """The commit's transaction; after one that failed for good, the next."""
        call = self._records.commit(to_bytes(commit.root), commit.count, commit.fee_total)
        for attempt in range(ATTEMPTS_MAX):
            entry = await self._outbox.enqueue(f"commit:{commit.number}:{attempt}", call)
            if entry.state is not TransactionState.FAILED:
                return entry
            _log.error("a commit failed and is sent again: %s", entry.reason)
        raise InvariantError(
            "invariant_broken",
            f"commit {commit.number} failed {ATTEMPTS_MAX} times, the last: {entry.reason}",
        )

    async def _confirm(self, commit: Commit, entry: OutboxEntry) -> None:
        mined_in = entry.block_number or 0
        # The head as it stands, not as it stood then: a node forgets old states, and this process
        # may have been away. Nothing else is committed before this one is confirmed here.
        block = max(mined_in, self.block - self._confirmations)
        found = await self._records.read_head(self._outbox.address, block=block)
        if (found.number, to_hex(found.head)) != (commit.number, commit.head):
            raise InvariantError(
                "invariant_broken",
                f"after block {block} the chain shows commit {found.number} with head "
                f"{to_hex(found.head)}, the book made {commit.number} with {commit.head}: another "
                "process uses this key; stop it, and take a new key",
            )
        await self._book.confirm_commit(commit.number, entry.transaction_hash, mined_in)
        self._metrics.count_commit(commit.count, entry.gas_used)
        _log.info("commit %s over %s receipts in block %s", commit.number, commit.count, mined_in)

    async def _see_head(self) -> None:
        try:
            self.block = (await self._rpc.fetch_head()).number
        except ChainError as error:
            raise TransientError("chain_unavailable", error.message) from None
        self.seen_at = self._monotonic()
        self._metrics.chain_block.set(self.block)
