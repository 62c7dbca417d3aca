"""What became of each dispute, durable from the moment it was found.

| from | event | to |
| --- | --- | --- |
| - | the receipts prove a cheat | found |
| found, refused | Escrow would accept the proof; this process took it on | sent |
| found | Escrow would refuse it now | refused, tried again later |
| found, refused | the provider is condemned, and a proof would pay nothing more | futile |
| found, refused | the chain shows another claim now: nothing is contradicted | futile |
| futile | neither is so any more | sent |
| sent | its transaction failed | refused, tried again later |
| any | Escrow's event says that the cheat is proven, whoever proved it | confirmed |
| sent, confirmed | the block of its proof left the chain | found |

Every change is one conditional write: of two processes on one database only one takes a dispute on.
`attempt` counts the proofs that came to nothing; the outbox's key holds it, so that a proof that
may still be mined is never sent a second time.

Source: `docs/decisions/0016-disputes.md`.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

import msgspec

from hanse.protocol.eip712 import Domain
from hanse.protocol.messages import SignedReceipt
from hanse.protocol.signatures import Hash32
from hanse.settlement.disputes import tables as sql
from hanse.settlement.disputes.evidence import (
    Evidence,
    evidence_to_document,
    get_dispute_id,
    verify_evidence_document,
)
from hanse.settlement.disputes.findings import Finding
from hanse.settlement.disputes.rejected import keep_rejected
from hanse.store.database import Database, Row, Transaction

DISPUTES_PER_SUB_ACCOUNT_MAX = 100
"""Each needs another claim of the provider's or another receipt against itself; the first of them
takes the stake and ends the vouchers. The oldest that has ended makes room for a new one."""

DISPUTES_LISTED_MAX = 10_000
"""In one listing; a wallet that has met more cheats needs another tool."""


class DisputeState(StrEnum):
    """See the module's table."""

    FOUND = "found"
    SENT = "sent"
    CONFIRMED = "confirmed"
    REFUSED = "refused"
    FUTILE = "futile"


@dataclass(frozen=True, slots=True)
class StoredDispute:
    """One dispute as the book has it.

    Attributes:
        dispute_id: see `Evidence.dispute_id`.
        evidence: the receipts and what was claimed.
        state: see `DisputeState`.
        reason: why it waits or was refused, for people; "" if neither.
        attempt: how many proofs of it came to nothing.
        found_at, next_try_at: unix seconds.
        compensation: base units that were paid to the user's account for it.
        transaction_hash: of the accepted proof, or of the one that was sent last.
    """

    dispute_id: Hash32
    evidence: Evidence
    state: DisputeState
    reason: str
    attempt: int
    found_at: int
    next_try_at: int
    compensation: int
    transaction_hash: Hash32

    @property
    def outbox_key(self) -> str:
        """Under which its proof is sent once."""
        return get_outbox_key(self.dispute_id, self.attempt)


def get_outbox_key(dispute_id: Hash32, attempt: int) -> str:
    """Under which the proof of one dispute is sent once, whoever of its process sends it."""
    return f"dispute-{dispute_id}-{attempt}"


class DisputeBook:
    """The disputes of one user. Open it with `open_dispute_book`."""

    def __init__(self, database: Database, domain: Domain) -> None:
        self.database = database
        self.domain = domain

    async def keep_rejected(self, signed: SignedReceipt, reason: str, now_s: int) -> bool:
        """See `hanse.settlement.disputes.rejected`."""
        return await keep_rejected(self.database, signed, reason, now_s)

    async def add(self, finding: Finding, now_s: int) -> bool:
        """Store a finding; returns whether it is new."""
        receipt = finding.receipts[0].receipt
        names = (receipt.user, receipt.provider, receipt.signer)
        dispute_id = get_dispute_id(self.domain, finding)
        encoded = msgspec.json.encode(evidence_to_document(self.domain, finding)).decode()

        def write(tx: Transaction) -> bool:
            if tx.find_one(sql.FIND_DISPUTE, (dispute_id,)) is not None:
                return False
            count = tx.find_one(sql.COUNT_DISPUTES, names)
            # Else a hundred claims of one unit more would hide the large one behind them.
            is_full = count is not None and count[0] >= DISPUTES_PER_SUB_ACCOUNT_MAX
            if is_full and tx.execute(sql.DELETE_OLDEST_ENDED, names) == 0:
                return False
            row = (dispute_id, *names, encoded, now_s, now_s)
            return tx.execute(sql.INSERT_DISPUTE, row) == 1

        return await self.database.write(write)

    async def move(self, dispute: StoredDispute, **changes: object) -> StoredDispute | None:
        """Change a dispute; None if another process changed it since it was read."""
        after = replace(dispute, **changes)  # type: ignore[arg-type]
        row = (
            after.state,
            after.reason,
            after.attempt,
            after.next_try_at,
            str(after.compensation),
            after.transaction_hash,
            dispute.dispute_id,
            dispute.state,
            dispute.attempt,
        )
        changed = await self.database.write(lambda tx: tx.execute(sql.UPDATE_DISPUTE, row))
        return after if changed else None

    async def list_all(self, limit: int = DISPUTES_LISTED_MAX) -> list[StoredDispute]:
        """Newest first."""
        rows = await self.database.read(lambda tx: tx.find_all(sql.LIST_DISPUTES, (limit,)))
        return [_to_dispute(row) for row in rows]

    async def find(self, dispute_id: Hash32) -> StoredDispute | None:
        """One dispute, or None."""
        row = await self.database.read(lambda tx: tx.find_one(sql.FIND_DISPUTE, (dispute_id,)))
        return _to_dispute(row) if row else None


async def open_dispute_book(database: Database, domain: Domain) -> DisputeBook:
    """Bring the tables up to date. Whose they are, the user's book in the same database checks."""
    await database.migrate(sql.COMPONENT, sql.STEPS)
    return DisputeBook(database, domain)


def _to_dispute(row: Row) -> StoredDispute:
    dispute_id, evidence, state, reason, attempt, found_at, next_try_at, compensation, tx_hash = row
    return StoredDispute(
        dispute_id,
        verify_evidence_document(evidence.encode()),
        DisputeState(state),
        reason,
        attempt,
        found_at,
        next_try_at,
        int(compensation),
        tx_hash,
    )
