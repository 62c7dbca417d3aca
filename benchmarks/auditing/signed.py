"""Rung V0: the four cheats that signatures show, by the product's own cheats and checks.

    overbill, forward    the bill against its commitment (`protocol.commitments.promises`)
    equivocate           two receipts for one sequence (`settlement.disputes.findings`)
    overclaim            what is taken out against the receipt (the same)

No model and no threshold is in them, so an answer's first token is enough. What the user's side
does besides (it reads the bill against the answer's own usage) is left out, and so are signatures,
which were checked before these checks are asked. Answers are real; the receipts are made here.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from hanse.protocol.commitments.promises import EMBEDDED, find_breach
from hanse.protocol.commitments.tree import Entry, get_commitment_root
from hanse.protocol.messages import Offer, Prices, Receipt, SignedReceipt, Usage
from hanse.protocol.messages.requests import FinishReason
from hanse.protocol.signatures import ZERO_HASH
from hanse.provider.cheating.overbilling import overbill
from hanse.provider.cheating.overclaiming import overclaim
from hanse.settlement.books.receipt_records import DueClaim
from hanse.settlement.disputes.findings import Claimed, find_equivocation, find_overclaim
from hanse.verification.audits.bounds import get_rate_bound

CONFIDENCE = 0.95
USER, PROVIDER, SIGNER = ("0x" + digit * 40 for digit in "123")
PRICES = Prices(100_000, 10_000, 1_000_000)
CUMULATIVE_MAX = 1_000_000
"""What the voucher allows at most; no answer here costs so much."""

OFFER = Offer(
    PROVIDER, 1, "chat", "audited", "0x" + "5a" * 32, "Q8_0", "llama", 2_048, 1_000, PRICES,
    EMBEDDED, ("http://provider.invalid",), ZERO_HASH, 2**32, 1,
)  # fmt: skip

Bill = tuple[Receipt, int]
"""A receipt, and how many positions its commitment has."""


def show_signed(answers: Sequence[Sequence[Entry]]) -> Iterator[dict[str, Any]]:
    """A line a cheat: found in so many of the answers, each cut to its first token."""
    bills = [make_bill(answer[:1]) for answer in answers if answer]
    for name, is_found in CHECKS.items():
        hits = sum(is_found(bill, True) for bill in bills)
        false = sum(is_found(bill, False) for bill in bills)
        missed = get_rate_bound(len(bills) - hits, len(bills), CONFIDENCE)
        yield {
            "cheat": name,
            "rung": "V0",
            "tokens": 1,
            "detected": round(hits / len(bills), 4),
            "honest_answers": len(bills),
            "false_positives": false,
            "groups": len(bills),
            "power_at_least": round(1 - missed, 4),
        }


def make_bill(answer: Sequence[Entry]) -> Bill:
    """An honest receipt for these tokens."""
    usage = Usage(50, 0, len(answer))
    fee = PRICES.get_fee(usage)
    receipt = Receipt(
        USER, PROVIDER, SIGNER, 1, "0x" + "1a" * 32, "0x" + "1b" * 32, usage, fee, fee,
        FinishReason.STOP, 1_900_000_000, get_commitment_root(answer),
    )  # fmt: skip
    return receipt, len(answer)


def is_overbilled(bill: Bill, is_cheating: bool) -> bool:
    """Whether the bill breaks its promise; of the cheat, with the usage that it would state."""
    receipt, positions = bill
    if is_cheating:
        usage = overbill(receipt.usage)
        receipt = msgspec.structs.replace(receipt, usage=usage, fee=PRICES.get_fee(usage))
    return find_breach(OFFER, receipt, positions) is not None


def is_forwarded(bill: Bill, is_cheating: bool) -> bool:
    """The same; whoever has not run the copy has nothing to commit to."""
    receipt, positions = bill
    if is_cheating:
        receipt, positions = msgspec.structs.replace(receipt, commitment_root=ZERO_HASH), 0
    return find_breach(OFFER, receipt, positions or None) is not None


def is_equivocated(bill: Bill, is_cheating: bool) -> bool:
    """Whether the receipts of one sub-account contradict one another; a base unit is enough."""
    receipt, _ = bill
    told = [receipt, receipt]  # asked for again, an honest broker tells the same one
    if is_cheating:
        dearer = {"fee": receipt.fee + 1, "cumulative_fee": receipt.cumulative_fee + 1}
        told = [receipt, msgspec.structs.replace(receipt, **dearer)]
    return find_equivocation(Claimed(), [SignedReceipt(one, "") for one in told]) is not None


def is_overclaimed(bill: Bill, is_cheating: bool) -> bool:
    """Whether the chain shows more taken out than the receipt says."""
    receipt, _ = bill
    fee = receipt.cumulative_fee
    due = DueClaim(USER, SIGNER, fee, 1, 0, CUMULATIVE_MAX, 1, receipt.request_hash, "")
    claim = overclaim(due) if is_cheating else due
    claimed = Claimed(claim.cumulative_fee, claim.sequence)
    return find_overclaim(claimed, [SignedReceipt(receipt, "")]) is not None


CHECKS: dict[str, Callable[[Bill, bool], bool]] = {
    "overbill": is_overbilled,
    "forward": is_forwarded,
    "equivocate": is_equivocated,
    "overclaim": is_overclaimed,
}
