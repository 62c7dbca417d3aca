"""What one look knows of all disputes together, so that no proof is sent for nothing.

Proofs about one sub-account overlap: the first that is mined takes all that is lost. And proofs
that come to nothing add up, whichever disputes they belong to.

Source: `docs/decisions/0016-disputes.md`.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from hanse.protocol.signatures import Address
from hanse.settlement.books.voucher_records import SubAccountKey
from hanse.settlement.disputes.dispute_book import DisputeState, StoredDispute


@dataclass
class Round:
    """What one look knows of all disputes together.

    Attributes:
        under_way: sub-accounts about which a proof may still be mined.
        failed: proofs that came to nothing, by provider.
    """

    under_way: set[SubAccountKey]
    failed: Counter[Address]

    @classmethod
    def begin(cls, disputes: Iterable[StoredDispute]) -> "Round":
        """As the disputes stand before the look moves any."""
        under_way, failed = set(), Counter[Address]()
        for dispute in disputes:
            failed[get_provider(dispute)] += dispute.attempt
            if dispute.state is DisputeState.SENT:
                under_way.add(get_names(dispute))
        return cls(under_way, failed)


def get_names(dispute: StoredDispute) -> SubAccountKey:
    """The sub-account that it is about."""
    receipt = dispute.evidence.finding.receipts[0].receipt
    return SubAccountKey(receipt.user, receipt.provider, receipt.signer)


def get_provider(dispute: StoredDispute) -> Address:
    """Who cheated."""
    return dispute.evidence.finding.provider
