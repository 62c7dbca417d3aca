"""Records on the chain: heads at a confirmed block, and what one transaction committed.

    view = ChainRecords(rpc, records, confirmations)       # what `watch` asks
    await verify_on_chain(view, proof)                     # one proof, for whoever holds it

Source: `Records.vy`; `docs/records.md`, section "Checking a proof".
"""

from hanse.chain.records import Records, parse_committed
from hanse.chain.rpc import Rpc
from hanse.protocol.errors import TransientError, VerificationError
from hanse.protocol.records import Commit, RecordProof
from hanse.protocol.signatures import ZERO_HASH, Address, Hash32, to_hex
from hanse.settlement.records.watch import ChainHead


class ChainRecords:
    """`RecordsView` over a node."""

    def __init__(self, rpc: Rpc, records: Records, confirmations: int) -> None:
        self._rpc, self._records, self._confirmations = rpc, records, confirmations

    async def fetch_block(self) -> int:
        """See `RecordsView`."""
        return max(0, (await self._rpc.fetch_head()).number - self._confirmations)

    async def read_head(self, recorder: Address, block: int) -> ChainHead:
        """See `RecordsView`."""
        found = await self._records.read_head(recorder, block=block)
        return ChainHead(block, found.number, to_hex(found.head))

    async def fetch_committed(
        self, transaction_hash: Hash32, recorder: Address, number: int
    ) -> Commit | None:
        """See `RecordsView`."""
        found = await self.find_commit(transaction_hash, recorder, number)
        return found[0] if found else None

    async def find_commit(
        self, transaction_hash: Hash32, recorder: Address, number: int
    ) -> tuple[Commit, int] | None:
        """What a confirmed transaction committed for a recorder, and in which block.

        Of several commits it is the one of this number; without one, the first.
        """
        receipt = await self._rpc.fetch_receipt(transaction_hash)
        if receipt is None or receipt.block_number > await self.fetch_block():
            return None
        header = await self._rpc.fetch_header(receipt.block_number)
        if header is None or header.hash != receipt.block_hash:
            raise TransientError(
                "chain_unavailable",
                f"block {receipt.block_number} of transaction {transaction_hash} is not on the "
                "node's chain; try again",
            )
        first: Commit | None = None
        for log in receipt.logs:
            event = self._records.contract.find_event(log, header.timestamp_s)
            if event is None or event.name != "Committed":
                continue
            found = parse_committed(event)
            if found.recorder != recorder:
                continue
            commit = Commit(
                found.number,
                to_hex(found.root),
                found.count,
                found.fee_total,
                ZERO_HASH,
                to_hex(found.head),
            )
            if commit.number == number:
                return commit, receipt.block_number
            first = first or commit
        return (first, receipt.block_number) if first else None


async def verify_on_chain(view: ChainRecords, proof: RecordProof) -> None:
    """Check that the chain has a proof's commit, at least `confirmations` deep, in its block.

    The block counts: the lottery of audits begins at it.

    The caller still owes: that the proof leads to its commit's root (`verify_record`).

    Raises:
        VerificationError: `proof_invalid`, naming what the chain has instead.
        TransientError: `chain_unavailable`.
    """
    commit = proof.commit
    on_chain = await view.find_commit(proof.transaction_hash, proof.recorder, commit.number)
    if on_chain is None:
        raise VerificationError(
            "proof_invalid",
            f"transaction {proof.transaction_hash} is not confirmed, or commits nothing for "
            f"recorder {proof.recorder}; the proof says that it commits root {commit.root}",
        )
    found, block = on_chain
    if block != proof.block_number:
        raise VerificationError(
            "proof_invalid",
            f"transaction {proof.transaction_hash} is in block {block}, the proof says "
            f"{proof.block_number}",
        )
    same = ("number", "root", "count", "fee_total", "head")
    for name in same:
        shown, said = getattr(found, name), getattr(commit, name)
        if shown != said:
            raise VerificationError(
                "proof_invalid",
                f"the chain has {name} {shown} in transaction {proof.transaction_hash}, the proof "
                f"says {said}",
            )
