"""What one sub-account could be claimed for now, and how much of that a refund would take.

    claim = to_payable(due, funds)       # None if it would bring nothing
    claim.payable, claim.at_risk

A pending refund endangers only what the rest of the sub-account does not hold. Requests that
come after it was asked for are admitted against that rest alone, so a user who asks for refunds and
goes on buying makes no claim urgent.

Source: docs/decisions/0015-netting.md.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from hanse.settlement.books.receipt_records import DueClaim, SubAccountFunds


@dataclass(frozen=True, slots=True)
class PayableClaim:
    """A claim and what it would bring now.

    Attributes:
        claim: from the book.
        payable: base units: what is due, at most what the sub-account holds.
        unlock_s: from when its pending refund can be completed, unix seconds; 0 if none waits.
        kept: base units that the refund leaves in the sub-account.
    """

    claim: DueClaim
    payable: int
    unlock_s: int = 0
    kept: int = 0

    @property
    def at_risk(self) -> int:
        """What its refund would take of it; all of it counts where no refund waits."""
        return max(0, self.payable - self.kept)


def to_payable(claim: DueClaim, funds: SubAccountFunds) -> PayableClaim | None:
    """What a claim would bring, by what the chain shows; None for nothing."""
    payable = min(claim.cumulative_fee - funds.claimed, funds.balance)
    if payable <= 0:
        return None
    if not funds.pending_refund:
        return PayableClaim(claim, payable)
    kept = funds.balance - funds.pending_refund
    return PayableClaim(claim, payable, funds.refund_unlock_s, kept)


def order_by_unlock(claims: Iterable[PayableClaim]) -> list[PayableClaim]:
    """For people: what waits for a refund comes first, then the largest."""
    return sorted(
        claims, key=lambda c: (not c.unlock_s, c.unlock_s, -c.payable, c.claim.user, c.claim.signer)
    )
