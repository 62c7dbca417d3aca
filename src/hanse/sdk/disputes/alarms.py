"""Disputes that a person should look at, as alarms beside those of the money."""

from collections.abc import Iterable

from hanse.sdk.disputes.proving import describe
from hanse.settlement.disputes.dispute_book import DisputeState, StoredDispute
from hanse.settlement.money.places import Alarm


def find_dispute_alarms(disputes: Iterable[StoredDispute]) -> tuple[Alarm, ...]:
    """One alarm for each dispute that goes on by no means of its own."""
    waiting = (DisputeState.FOUND, DisputeState.REFUSED)
    return tuple(
        Alarm(
            "dispute_waits",
            dispute.evidence.finding.loss,
            dispute.found_at,
            f"provider {dispute.evidence.finding.provider} cheated: "
            f"{describe(dispute.evidence.finding)}; not proven on the chain yet"
            + (f": {dispute.reason}" if dispute.reason else ""),
            f"hanse disputes show {dispute.dispute_id[:12]}",
        )
        for dispute in disputes
        if dispute.state in waiting
    )
