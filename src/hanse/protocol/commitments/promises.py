"""What an offer of class `embedded` promises with each bill, and when a receipt breaks it.

    breach = find_breach(offer, receipt)                 from what is signed alone
    breach = find_breach(offer, receipt, positions)      with the length of what was committed to

Whoever bills for an answer of an `embedded` offer commits to it, whatever the request was: to at
least one position for each output token of the bill. There is no kind of request that is excepted,
so that offer and receipt are enough to see a breach, years later and without the prompt. A receipt
of fee 0 promises nothing: what cannot be committed to is given away.

An honest broker never signs a breach (`hanse.provider.finishing`). So one needs no model and no
threshold to be judged, and no noise can make one.

Source: `docs/protocol.md`, section "Commitments"; `docs/verification/cheats.md`.
"""

from enum import StrEnum

from hanse.protocol.messages import Offer, Receipt
from hanse.protocol.signatures import ZERO_HASH

EMBEDDED = "embedded"
"""The class of an offer (`Offer.verifiability`) whose answers are committed to."""


class Breach(StrEnum):
    """How a receipt breaks the promise of its offer."""

    UNCOMMITTED = "uncommitted"
    """It bills for an answer and commits to nothing."""

    OVERBILLED = "overbilled"
    """It bills more output tokens than it commits to."""


def find_breach(offer: Offer, receipt: Receipt, positions: int | None = None) -> Breach | None:
    """The breach of a receipt, None if there is none.

    The caller still owes: that the receipt key signed both, and that the receipt is of a request
    that names this offer; that `positions` is the length of what the root binds.

    Args:
        offer: whose class is promised.
        receipt: the bill.
        positions: that its commitment has; None if nobody has seen the opening.
    """
    if offer.verifiability != EMBEDDED or receipt.fee == 0:
        return None
    if receipt.commitment_root == ZERO_HASH:
        return Breach.UNCOMMITTED
    if positions is not None and positions < receipt.usage.output_tokens:
        return Breach.OVERBILLED
    return None


def describe_breach(breach: Breach, receipt: Receipt, positions: int | None = None) -> str:
    """A breach for people: the two values that disagree."""
    if breach is Breach.UNCOMMITTED:
        return (
            f"the offer says {EMBEDDED}, and the receipt bills {receipt.fee} base units without a "
            "commitment"
        )
    return (
        f"the receipt bills {receipt.usage.output_tokens} output tokens, its commitment has "
        f"{positions} positions"
    )
