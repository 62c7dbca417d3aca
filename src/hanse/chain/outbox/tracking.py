"""What became of a signed transaction: mined where, how deep, its nonce taken, why it failed.

Reads only; the outbox stores what comes back. A node is believed as far as its answers agree: a
receipt counts if its block is on the node's chain and lists the transaction, and it is final once k
blocks lie on that one, each the next one's parent.
"""

import logging
from dataclasses import replace
from itertools import pairwise

from hanse.chain.chain_types import BlockNumber, ChainError, Header, TransactionReceipt
from hanse.chain.rpc import Rpc
from hanse.chain.storage import OutboxEntry, TransactionState
from hanse.protocol.errors import TransientError

SCAN_BLOCKS_MAX = 1_000
"""Blocks searched in one step for who used a nonce; the search goes on in the next."""

FILLER_PREFIX = "fill-nonce-"
"""Keys of transactions that only fill a nonce."""

_log = logging.getLogger(__name__)
_State = TransactionState


class Tracker:
    """Follows the transactions of one sender."""

    def __init__(self, rpc: Rpc, address: str, confirmations: int) -> None:
        self._rpc = rpc
        self._address = address
        self._confirmations = confirmations
        self._searched: dict[str, BlockNumber] = {}  # how far a search came; lost in a crash

    async def track(self, entry: OutboxEntry, head: Header) -> OutboxEntry:
        """The entry as it is now; equal to `entry` if nothing changed."""
        receipt = await self._find_canonical_receipt(entry)
        if receipt is None:
            if entry.state is _State.MINED:
                return replace(entry, state=_State.SIGNED, block_number=None, block_hash="")
            return await self._requeue_if_nonce_taken(entry, head)
        mined = replace(
            entry,
            state=_State.MINED,
            block_number=receipt.block_number,
            block_hash=receipt.block_hash,
            transaction_hash=receipt.transaction_hash,
            gas_used=receipt.gas_used,
            effective_gas_price_wei=receipt.effective_gas_price_wei,
            reason="",
        )
        if receipt.block_number + self._confirmations > head.number:
            return mined
        if not await self._is_buried(receipt):
            return mined  # the head is another branch's; proven in a later step
        if receipt.succeeded:
            return replace(mined, state=_State.CONFIRMED)
        return replace(mined, state=_State.FAILED, reason=await self._explain(entry, receipt))

    async def _find_canonical_receipt(self, entry: OutboxEntry) -> TransactionReceipt | None:
        """A receipt of any attempt whose block is on the node's chain and lists the transaction."""
        for attempt in reversed(entry.attempts):
            receipt = await self._rpc.fetch_receipt(attempt.hash)
            if receipt is None:
                continue
            header = await self._rpc.fetch_header(receipt.block_number)
            if (
                header is not None
                and header.hash == receipt.block_hash
                and attempt.hash in header.transaction_hashes
            ):
                return receipt
            _log.warning(
                "a receipt of %s in block %s, which is not on the node's chain; not believed",
                attempt.hash,
                receipt.block_hash,
            )
        return None

    async def _is_buried(self, receipt: TransactionReceipt) -> bool:
        try:
            found = await self._rpc.fetch_buried(receipt.block_number, self._confirmations)
        except TransientError:
            return False
        return found.hash == receipt.block_hash

    async def _explain(self, entry: OutboxEntry, receipt: TransactionReceipt) -> str:
        """Why it reverted: run it again on the state before its block, then on the state after."""
        if receipt.gas_used >= entry.gas_limit:
            return f"out of gas: all of {entry.gas_limit} was used"
        for block in (receipt.block_number - 1, receipt.block_number):
            try:
                await self._rpc.call(entry.call, block=block, sender=self._address)
            except ChainError as error:
                if error.is_revert:
                    return error.reason
            except TransientError:
                break
        return f"reverted in block {receipt.block_number}; the reason does not show when run again"

    async def _requeue_if_nonce_taken(self, entry: OutboxEntry, head: Header) -> OutboxEntry:
        """Give up a nonce only on proof: used k blocks deep, and by none of our attempts."""
        assert entry.nonce is not None
        confirmed = head.number - self._confirmations
        if confirmed < 0 or await self._count_at(confirmed) <= entry.nonce:
            return entry
        hashes = {attempt.hash for attempt in entry.attempts}
        # A reorganisation may have mined it up to k blocks below the height at which it was signed.
        first = self._searched.get(entry.key, max(0, entry.signed_at_block - self._confirmations))
        last = min(confirmed, first + SCAN_BLOCKS_MAX - 1)
        if last < first:
            return entry  # the chain is shorter than when it was signed: prove nothing
        # With the block after the last, so that the last too must hang together with the rest.
        headers = await self._rpc.fetch_headers(first, min(last + 1, head.number))
        if any(child.parent_hash != parent.hash for parent, child in pairwise(headers)):
            return entry  # blocks of two chains: prove nothing
        if any(hashes.intersection(header.transaction_hashes) for header in headers):
            return entry  # mined after all; the node's receipts lag behind its blocks
        if last < confirmed:
            self._searched[entry.key] = last + 1
            return entry
        self._searched.pop(entry.key, None)
        reason = f"nonce {entry.nonce} was used by another transaction of {self._address}"
        _log.warning("%s; %s is signed again", reason, entry.key)
        is_filler = entry.key.startswith(FILLER_PREFIX)
        return replace(
            entry,
            state=_State.FAILED if is_filler else _State.QUEUED,
            nonce=None,
            attempts=(),
            reason=reason,
        )

    async def _count_at(self, block: BlockNumber) -> int:
        try:
            return await self._rpc.fetch_transaction_count(self._address, block=block)
        except ChainError:
            return 0  # no state for this height (a node that just restarted): prove nothing
