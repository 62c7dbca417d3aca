"""Claims what is owed on the chain, and completes refunds whose time has come.

    settler = Settler(book, escrow, outbox, outbox_storage, provider, view, fetch_time_s)
    batches = await settler.settle_now()          # until nothing payable is left
    await settler.complete_due_refunds()

A batch takes the claims that bring most, at most 200, each under the best voucher of its
sub-account. Its transaction is durable in the outbox before it is sent; after a crash an open one
is waited for before another is made. The truth of what was paid is what the chain shows at the
confirmed block: `sync_settled` copies it into the book, and nothing else does.

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
from dataclasses import dataclass
from typing import Protocol

from hanse.chain import Call, ChainError, OutboxEntry, OutboxStorage
from hanse.chain.escrow import Escrow
from hanse.chain.outbox import Outbox
from hanse.contracts import Claim, ClaimResult, decode_results
from hanse.protocol.limits import CLAIMS_PER_SETTLEMENT_MAX
from hanse.protocol.signatures import Address, to_bytes, to_compact
from hanse.settlement.books.receipt_book import ReceiptBook
from hanse.settlement.books.receipt_records import DueClaim, SubAccountFunds

VIEW_POLL_S = 0.05
"""Pause between looks at the chain view while it catches up with a settled block."""

VIEW_WAIT_S = 60.0
"""How long to wait for the chain view to show a confirmed settlement; it shows it later anyway."""

STATUS_NAMES = {
    1: "unknown sub-account",
    2: "bad signature",
    3: "over the voucher",
    4: "nothing new",
    5: "partial",
    6: "paid",
}

REFUNDS_PER_ROUND_MAX = 10
"""Refunds completed in one go: each takes a confirmation's time, and meanwhile nobody looks for
refunds that draw near. Anyone can make many of them."""

_SETTLE_PREFIX = "settle:"
_log = logging.getLogger(__name__)


class SubAccountView(Protocol):
    """What the settler asks of the chain view."""

    @property
    def block(self) -> int:
        """The confirmed block that it stands at."""

    def find_funds(self, user: Address, signer: Address) -> SubAccountFunds | None:
        """One sub-account, or None."""

    def list_funds(self) -> list[tuple[Address, Address, SubAccountFunds]]:
        """All, as (user, signer, funds)."""


@dataclass(frozen=True)
class SettledClaim:
    """What became of one claim; `paid` in base units."""

    user: Address
    signer: Address
    status: int
    paid: int

    @property
    def status_name(self) -> str:
        """For people."""
        return STATUS_NAMES.get(self.status, f"status {self.status}")


@dataclass(frozen=True)
class SettlementBatch:
    """One settlement transaction, confirmed."""

    transaction_hash: str
    block_number: int
    gas_used: int
    paid: int
    claims: tuple[SettledClaim, ...]


class Settler:
    """Settles one provider's book. One at a time for a receipt key."""

    def __init__(
        self,
        book: ReceiptBook,
        escrow: Escrow,
        outbox: Outbox,
        storage: OutboxStorage,
        provider: Address,
        view: SubAccountView,
        fetch_time_s: Callable[[], Awaitable[int]],
        failpoint: Callable[[str], None] = lambda name: None,
    ) -> None:
        self._book = book
        self._escrow = escrow
        self._outbox = outbox
        self._storage = storage
        self._provider = provider
        self._view = view
        self._fetch_time_s = fetch_time_s
        self._failpoint = failpoint
        self._lock = asyncio.Lock()
        self._refused: set[tuple[Address, Address, int]] = set()

    async def settle_now(self, minimum: int = 1) -> list[SettlementBatch]:
        """Claim all that is payable; returns the confirmed batches, none if nothing was.

        Args:
            minimum: base units below which nothing is sent; the gas would cost more.

        Raises:
            ChainError: a settlement reverted or was refused; nothing of it was paid.
            TransientError: the node or the store does not answer; what was enqueued goes on.
        """
        async with self._lock:
            batches = []
            await self._finish_open()
            await self.sync_settled()
            while claims := await self._choose_claims(minimum):
                batches.append(await self._settle(claims))
                await self.sync_settled()
            return batches

    async def sync_settled(self) -> int:
        """Copy what the chain shows as claimed into the book; returns base units newly settled."""
        settled = 0
        for claim in await self._book.read_due_claims():
            funds = self._view.find_funds(claim.user, claim.signer)
            if funds is not None and funds.claimed > claim.settled_fee:
                settled += await self._book.apply_settled(claim.user, claim.signer, funds.claimed)
        return settled

    async def is_refund_near(self, margin_s: float) -> bool:
        """Whether something is owed by a sub-account whose refund unlocks within `margin_s`."""
        near = [
            (user, signer)
            for user, signer, funds in self._view.list_funds()
            if funds.pending_refund > 0
        ]
        if not near:
            return False
        now_s = await self._fetch_time_s()
        for claim in await self._book.read_due_claims():
            funds = self._view.find_funds(claim.user, claim.signer)
            if funds is None or not funds.pending_refund or not _get_payable(claim, funds):
                continue
            if funds.refund_unlock_s <= now_s + margin_s:
                return True
        return False

    async def complete_due_refunds(self) -> int:
        """Complete refunds that have unlocked, after settling what their sub-accounts owe.

        Anyone may, and the money goes to the user's account; a broker does it so that a user who
        went away finds everything in one place.

        Returns:
            How many refunds were completed, the largest first; the rest is left to the next round.

        Raises:
            TransientError: the node or the store does not answer.
        """
        if not any(funds.pending_refund for _, _, funds in self._view.list_funds()):
            return 0
        now_s = await self._fetch_time_s()
        due = [
            (user, signer, funds)
            for user, signer, funds in self._view.list_funds()
            if funds.pending_refund and funds.refund_unlock_s <= now_s
        ]
        if not due:
            return 0
        await self.settle_now()
        completed = 0
        due.sort(key=lambda entry: -entry[2].pending_refund)
        for user, signer, funds in due[:REFUNDS_PER_ROUND_MAX]:
            call = self._escrow.claim_refund(user, self._provider, signer)
            key = f"refund:{user}:{signer}:{funds.refund_unlock_s}:{self._view.block}"
            try:
                entry = await self._outbox.submit(key, call)
            except ChainError as error:
                # Someone else was first, or the user cancelled it.
                _log.info("a refund was not completed: %s", error.reason)
                continue
            await self._wait_for_view(entry)
            completed += 1
        return completed

    async def _choose_claims(self, minimum: int) -> list[DueClaim]:
        payable = []
        for claim in await self._book.read_due_claims():
            funds = self._view.find_funds(claim.user, claim.signer)
            refused = (claim.user, claim.signer, claim.cumulative_fee) in self._refused
            amount = _get_payable(claim, funds)
            if amount > 0 and not refused:
                payable.append((amount, claim))
        payable.sort(key=lambda item: -item[0])
        chosen = payable[:CLAIMS_PER_SETTLEMENT_MAX]
        if sum(amount for amount, _ in chosen) < max(1, minimum):
            return []
        return [claim for _, claim in chosen]

    async def _settle(self, claims: list[DueClaim]) -> SettlementBatch:
        call = self._escrow.settle(self._provider, [_to_claim(claim) for claim in claims])
        self._failpoint("settling")
        entry = await self._enqueue_new(call)
        self._failpoint("settle_enqueued")
        entry = await self._outbox.wait_final(entry.key)
        self._failpoint("settle_confirmed")
        batch = await self._read_batch(entry, claims)
        await self._wait_for_view(entry)
        for claim, settled in zip(claims, batch.claims, strict=True):
            if settled.status <= 4:  # "nothing new" stays so: another broker may be ahead of us
                self._refused.add((claim.user, claim.signer, claim.cumulative_fee))
                _log.error(
                    "claim on %s / %s refused: %s", claim.user, claim.signer, settled.status_name
                )
        return batch

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

    async def _finish_open(self) -> None:
        for entry in await self._storage.read_entries(self._outbox.scope, open_only=True):
            if not entry.key.startswith(_SETTLE_PREFIX):
                continue
            try:
                final = await self._outbox.wait_final(entry.key)
            except ChainError as error:
                _log.error("an earlier settlement failed: %s", error.reason)
                continue
            await self._wait_for_view(final)

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

    async def _wait_for_view(self, entry: OutboxEntry) -> None:
        deadline = asyncio.get_running_loop().time() + VIEW_WAIT_S
        while self._view.block < (entry.block_number or 0):
            if asyncio.get_running_loop().time() > deadline:
                _log.warning("the chain view lags behind block %s", entry.block_number)
                return
            await asyncio.sleep(VIEW_POLL_S)


def _get_payable(claim: DueClaim, funds: SubAccountFunds | None) -> int:
    """What a claim would bring now: what is due, at most what is held."""
    if funds is None:
        return 0
    return max(0, min(claim.cumulative_fee - funds.claimed, funds.balance))


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
