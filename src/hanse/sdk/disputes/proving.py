"""Bringing one proof to the chain: what it says, the transaction, and sending it once.

Source: `Escrow.prove_overclaim`, `Escrow.prove_equivocation`.
"""

from hanse.chain import Call, Escrow, Outbox, OutboxEntry, TransactionState
from hanse.protocol.errors import RequestError
from hanse.settlement.disputes.dispute_book import get_outbox_key
from hanse.settlement.disputes.evidence import Evidence
from hanse.settlement.disputes.findings import Finding, Kind

ATTEMPTS_MAX = 5
"""Proofs of one dispute that may come to nothing before a person must look at it."""

FAILED_PROOFS_MAX = 10
"""The same of all disputes with one provider: a node that lies shows a new claim with every block,
and each failed proof is our gas, perhaps in the pocket of whoever makes its blocks."""


def describe(finding: Finding) -> str:
    """A finding in one sentence, without anything secret."""
    fees = [signed.receipt.cumulative_fee for signed in finding.receipts]
    if finding.kind is Kind.OVERCLAIM:
        return (
            f"it claimed {finding.claimed.amount} over {finding.claimed.sequence} requests, its "
            f"receipt {finding.sequence} says {fees[0]}"
        )
    return f"it signed two receipts for sequence {finding.sequence}, over {fees[0]} and {fees[1]}"


def build_proof(escrow: Escrow, evidence: Evidence) -> Call:
    """The transaction that proves it."""
    receipts = evidence.finding.receipts
    if evidence.finding.kind is Kind.OVERCLAIM:
        return escrow.prove_overclaim(receipts[0])
    return escrow.prove_equivocation(receipts[0], receipts[1])


async def prove(outbox: Outbox, escrow: Escrow, evidence: Evidence) -> OutboxEntry:
    """Send a proof and wait until it is final; the same evidence again is the same transaction.

    Raises:
        RequestError: `configuration_invalid` if another Escrow must judge it.
        ChainError: Escrow refuses it, or the sender has no native coin; nothing was sent then.
    """
    if evidence.domain.escrow != escrow.address:
        raise RequestError(
            "configuration_invalid",
            f"the dispute is for Escrow {evidence.domain.escrow}, this market's is "
            f"{escrow.address}",
        )
    call = build_proof(escrow, evidence)
    for attempt in range(ATTEMPTS_MAX):
        key = get_outbox_key(evidence.dispute_id, attempt)
        earlier = await outbox.find(key)
        if earlier is not None and earlier.state is TransactionState.FAILED:
            continue
        if earlier is None:
            await outbox.verify_sendable(call)
        return await outbox.submit(key, call)
    raise RequestError("unprocessable", f"{ATTEMPTS_MAX} proofs of it came to nothing already")
