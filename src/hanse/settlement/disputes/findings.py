"""Which receipts prove that a provider cheated. Pure: claims and receipts in, evidence out.

| kind | proven by | loss of the user |
| --- | --- | --- |
| overclaim | the chain shows more claimed than a receipt of that sequence, or a later one, says | claimed - cumulative fee |
| equivocation | two receipts for one sequence of one sub-account that differ in any field | min(claimed, higher) - min(claimed, lower) of the two cumulative fees |

Every receipt given here must be signed by a receipt key that is or was the provider's: whoever
stored it has checked that. An honest provider is never found: its sequences and sums only rise, it
signs each sequence once, and it claims what its receipts say.

Source: `Escrow.prove_overclaim`, `Escrow.prove_equivocation`, which judge by the same rules.
"""  # noqa: E501 - a table's row cannot be broken

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from hanse.protocol.messages import Receipt, SignedReceipt
from hanse.protocol.signatures import Address


class Kind(StrEnum):
    """What a provider did."""

    OVERCLAIM = "overclaim"
    EQUIVOCATION = "equivocation"


@dataclass(frozen=True, slots=True)
class Claimed:
    """What the chain shows as taken out of a sub-account: base units, and over which sequence."""

    amount: int = 0
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class Finding:
    """A cheat with the receipts that prove it: one for an overclaim, two for an equivocation.

    The two are in the order of their cumulative fees. `claimed` is what the chain showed when it
    was found; of an equivocation it only decides how large the loss is.
    """

    kind: Kind
    receipts: tuple[SignedReceipt, ...]
    claimed: Claimed

    @property
    def provider(self) -> Address:
        """Who cheated."""
        return self.receipts[0].receipt.provider

    @property
    def sequence(self) -> int:
        """Of the receipts."""
        return self.receipts[0].receipt.sequence

    @property
    def loss(self) -> int:
        """Base units that the user lost by it, before any compensation."""
        fees = [signed.receipt.cumulative_fee for signed in self.receipts]
        if self.kind is Kind.OVERCLAIM:
            return max(0, self.claimed.amount - fees[0])
        return min(self.claimed.amount, fees[1]) - min(self.claimed.amount, fees[0])


def find_overclaim(claimed: Claimed, receipts: Iterable[SignedReceipt]) -> Finding | None:
    """The receipt of one sub-account that contradicts its claims most, or None.

    Args:
        claimed: of that sub-account, at the confirmed block.
        receipts: any of that sub-account's.
    """
    against = [
        signed
        for signed in receipts
        if signed.receipt.sequence >= claimed.sequence
        and signed.receipt.cumulative_fee < claimed.amount
    ]
    if not against:
        return None
    best = min(against, key=lambda signed: _get_rank(signed.receipt))
    return Finding(Kind.OVERCLAIM, (best,), claimed)


def find_equivocation(claimed: Claimed, receipts: Iterable[SignedReceipt]) -> Finding | None:
    """The two receipts of one sub-account that contradict one another at most cost, or None.

    Args:
        claimed: of that sub-account, at the confirmed block.
        receipts: any of that sub-account's.
    """
    by_sequence: dict[int, dict[bytes, SignedReceipt]] = {}
    for signed in receipts:
        found = by_sequence.setdefault(signed.receipt.sequence, {})
        found.setdefault(signed.receipt.struct_hash(), signed)
    findings = []
    for different in by_sequence.values():
        if len(different) < 2:
            continue
        ordered = sorted(different.values(), key=lambda signed: _get_rank(signed.receipt))
        findings.append(Finding(Kind.EQUIVOCATION, (ordered[0], ordered[-1]), claimed))
    return max(findings, key=lambda finding: (finding.loss, -finding.sequence), default=None)


def _get_rank(receipt: Receipt) -> tuple[int, int, bytes]:
    """Lowest cumulative fee first; then always the same order, so that a finding is found again."""
    return receipt.cumulative_fee, receipt.sequence, receipt.struct_hash()
