"""Claims what is owed on the chain, one planned transaction at a time, and completes refunds.

    settler = Settler(book, escrow, outbox, outbox_storage, provider, view)
    await settler.finish_open()                        # what a crash left under way
    claims = await settler.read_payable()              # for plan_settlement
    settled = await settler.settle(plan.batches[0])    # confirmed, and seen by the view

It decides nothing: when and what is `plan.py`'s, the order of it `scheduler.py`'s. The transaction
is durable in the outbox before it is sent; after a crash an open one is waited for before another
is made. The truth of what was paid is what the chain shows at the confirmed block: `sync_settled`
copies it into the book, and nothing else does.

| status of a claim | means | then |
| --- | --- | --- |
| paid | all that was due | done, once the view shows it |
| partial | what was left after a refund | claimed again once there are funds |
| nothing new | claimed before, or the chain's sequence is ahead of ours | as any other |
| any other | our book is wrong about it | reported, not tried again by this process |

Source: `Escrow.settle`; `docs/protocol.md`.
"""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Protocol

from hanse.chain import Call, ChainError, OutboxEntry, OutboxStorage
from hanse.chain.escrow import Escrow
from hanse.chain.outbox import Outbox
from hanse.chain.outbox.outbox import NONCES_AHEAD_MAX
from hanse.contracts import Claim, ClaimResult, decode_results
from hanse.protocol.errors import TransientError
from hanse.protocol.ledger import ClaimStatus
from hanse.protocol.signatures import Address, to_bytes, to_compact
from hanse.settlement.books.receipt_book import ReceiptBook
from hanse.settlement.books.receipt_records import DueClaim, SubAccountFunds
from hanse.settlement.netting.payable import PayableClaim, to_payable
from hanse.settlement.netting.plan import PlannedBatch
from hanse.settlement.netting.settled import SettledClaim, SettlementBatch

VIEW_POLL_S = 0.05
"""Pause between looks at the chain view while it catches up with a settled block."""

VIEW_WAIT_S = 60.0
"""How long to wait for the chain view to show a confirmed settlement; it shows it later anyway."""

_SETTLE_PREFIX = "settle:"
_log = logging.getLogger(__name__)

RecordsHead = Callable[[], Awaitable[bytes]]
"""Gives the head of the records that a settlement was computed from, 32 bytes."""


async def no_records_head() -> bytes:
    """For a provider whose receipts no recorder records."""
    return bytes(32)


class SubAccountView(Protocol):
    """What the settler asks of the chain view."""

    @property
    def block(self) -> int:
        """The confirmed block that it stands at."""

    def find_funds(self, user: Address, signer: Address) -> SubAccountFunds | None:
        """One sub-account, or None."""

    def list_funds(self) -> list[tuple[Address, Address, SubAccountFunds]]:
        """All, as (user, signer, funds)."""


class Settler:
    """Settles one provider's book. One at a time for a receipt key.

    Attributes:
        records_head: asked once a transaction for the head that the transaction names.
        view: the chain's sub-accounts.
    """

    def __init__(
        self,
        book: ReceiptBook,
        escrow: Escrow,
        outbox: Outbox,
        storage: OutboxStorage,
        provider: Address,
        view: SubAccountView,
        failpoint: Callable[[str], None] = lambda name: None,
        records_head: RecordsHead = no_records_head,
        view_wait_s: float = VIEW_WAIT_S,
        change_claim: Callable[[DueClaim], DueClaim] | None = None,
    ) -> None:
        self._book = book
        self._escrow = escrow
        self._outbox = outbox
        self._storage = storage
        self._provider = provider
        self.view = view
        self._failpoint = failpoint
        self.records_head = records_head
        self._view_wait_s = view_wait_s
        self._change_claim = change_claim
        self._settled_block = 0
        self._refused: set[tuple[Address, Address, int]] = set()

    async def read_payable(self) -> list[PayableClaim]:
        """What could be claimed now, by what the chain view shows.

        Raises:
            TransientError: the view has not come to our own last settlement; what it shows was
                claimed already.
        """
        if self.view.block < self._settled_block:
            raise TransientError(
                "chain_unavailable",
                f"the chain view stands at block {self.view.block}, our last settlement is in "
                f"{self._settled_block}; the node lags, it is tried again later",
            )
        found = []
        for claim in await self._sync(await self._book.read_due_claims()):
            funds = self.view.find_funds(claim.user, claim.signer)
            refused = (claim.user, claim.signer, claim.cumulative_fee) in self._refused
            payable = None if funds is None or refused else to_payable(claim, funds)
            if payable is not None:
                found.append(payable)
        return found

    async def settle(self, planned: PlannedBatch) -> SettlementBatch:
        """Send one planned transaction and wait until it is confirmed and the view shows it.

        Raises:
            ChainError: it reverted, or was refused; nothing of it was paid.
            TransientError: the node or the store does not answer; what was enqueued goes on.
        """
        claims = [item.claim for item in planned.claims]
        head = await self.records_head()
        asked = claims
        if self._change_claim is not None:  # a provider that cheats, see hanse.provider.cheating
            asked = [self._change_claim(claim) for claim in claims]
        call = self._escrow.settle(self._provider, [_to_claim(claim) for claim in asked], head)
        call = replace(call, fee_cap_wei=planned.fee_cap_wei)
        self._failpoint("settling")
        entry = await self._enqueue_new(call)
        self._failpoint("settle_enqueued")
        entry = await self._outbox.wait_final(entry.key)
        self._settled_block = max(self._settled_block, entry.block_number or 0)
        self._failpoint("settle_confirmed")
        batch = await self._read_batch(entry, claims)
        for claim, settled in zip(claims, batch.claims, strict=True):
            if settled.status < ClaimStatus.PARTIAL:  # "nothing new" stays so: another may be ahead
                self._refused.add((claim.user, claim.signer, claim.cumulative_fee))
                _log.error(
                    "claim on %s / %s refused: %s", claim.user, claim.signer, settled.status_name
                )
        await self._wait_for_view(entry.block_number)
        return batch

    async def sync_settled(self) -> int:
        """Copy what the chain shows as claimed into the book; returns base units newly settled."""
        due = await self._book.read_due_claims()
        left = await self._sync(due)
        return sum(claim.due for claim in due) - sum(claim.due for claim in left)

    async def _sync(self, due: list[DueClaim]) -> list[DueClaim]:
        """The claims that are left after it."""
        left = []
        for claim in due:
            funds = self.view.find_funds(claim.user, claim.signer)
            if funds is not None and funds.claimed > claim.settled_fee:
                await self._book.apply_settled(claim.user, claim.signer, funds.claimed)
                claim = replace(claim, settled_fee=min(funds.claimed, claim.cumulative_fee))
            if claim.due:
                left.append(claim)
        return left

    async def finish_open(self) -> None:
        """Wait for settlements that an earlier process, or a call that was cancelled, began.

        And for the view to show them: one that was confirmed just before a process ended is in its
        store, while the view of the next process may not have come so far.
        """
        for entry in await self._storage.read_entries(self._outbox.scope, open_only=True):
            if not entry.key.startswith(_SETTLE_PREFIX):
                continue
            try:
                final = await self._outbox.wait_final(entry.key)
            except ChainError as error:
                _log.error("an earlier settlement failed: %s", error.reason)
                continue
            await self._wait_for_view(final.block_number)
        await self._wait_for_view(await self._find_last_block())

    async def complete_refund(
        self, user: Address, signer: Address, funds: SubAccountFunds, fee_cap_wei: int = 0
    ) -> bool:
        """Complete a refund that has unlocked; False if somebody else was first.

        Above `fee_cap_wei` for one gas it is not signed, unless that is 0.
        """
        call = self._escrow.claim_refund(user, self._provider, signer)
        call = replace(call, fee_cap_wei=fee_cap_wei)
        key = f"refund:{user}:{signer}:{funds.refund_unlock_s}:{self.view.block}"
        try:
            entry = await self._outbox.submit(key, call)
        except ChainError as error:
            # Someone else was first, the user cancelled it, or gas costs more than the plan knew.
            _log.info("a refund was not completed: %s", error.reason)
            return False
        await self._wait_for_view(entry.block_number)
        return True

    async def _find_last_block(self) -> int:
        """Where our newest mined transaction is: perhaps a settlement of an earlier process."""
        _, last = await self._storage.read_last(self._outbox.scope)
        for nonce in range(last, max(-1, last - NONCES_AHEAD_MAX), -1):
            entry = await self._storage.find_by_nonce(self._outbox.scope, nonce)
            if entry is not None and entry.block_number is not None:
                return entry.block_number
        return 0

    async def _enqueue_new(self, call: Call) -> OutboxEntry:
        """Enqueue under a key of its content; one that ended already gets a new number."""
        digest = hashlib.sha256(call.data).hexdigest()[:32]
        number = 0
        while True:
            key = f"{_SETTLE_PREFIX}{digest}:{number}"
            found = await self._outbox.find(key)
            if found is None or not found.is_final:
                return await self._outbox.enqueue(key, call)
            number += 1

    async def _read_batch(self, entry: OutboxEntry, claims: list[DueClaim]) -> SettlementBatch:
        results = await self._fetch_results(entry)
        return SettlementBatch(
            entry.transaction_hash,
            entry.block_number or 0,
            entry.gas_used,
            sum(result.paid for result in results),
            tuple(
                SettledClaim(claim.user, claim.signer, result.status, result.paid)
                for claim, result in zip(claims, results, strict=True)
            ),
        )

    async def _fetch_results(self, entry: OutboxEntry) -> tuple[ClaimResult, ...]:
        receipt = await self._escrow.contract.rpc.fetch_receipt(entry.transaction_hash)
        for log in receipt.logs if receipt else ():
            event = self._escrow.contract.find_event(log, 0)
            if event is not None and event.name == "Settled":
                return decode_results(event.fields["results"])
        raise ChainError(
            f"transaction {entry.transaction_hash} holds no Settled event; the node lags, or the "
            "Escrow is another one",
            reason="no Settled event",
        )

    async def _wait_for_view(self, block_number: int | None) -> None:
        self._settled_block = max(self._settled_block, block_number or 0)
        deadline = asyncio.get_running_loop().time() + self._view_wait_s
        while self.view.block < self._settled_block:
            if asyncio.get_running_loop().time() > deadline:
                _log.warning("the chain view lags behind block %s", self._settled_block)
                return
            await asyncio.sleep(VIEW_POLL_S)


def _to_claim(claim: DueClaim) -> Claim:
    r, vs = to_compact(claim.signature)
    return Claim(
        user=claim.user,
        signer=claim.signer,
        cumulative_max=claim.cumulative_max,
        claimed=claim.cumulative_fee,
        sequence=claim.sequence,
        sequence_max=claim.sequence_max,
        request_hash=to_bytes(claim.request_hash),
        r=r,
        vs=vs,
    )
