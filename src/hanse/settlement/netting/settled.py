"""What became of a settlement: each claim's status, and the transaction.

Source: `Escrow.settle`.
"""

from dataclasses import dataclass

from hanse.protocol.ledger import ClaimStatus
from hanse.protocol.signatures import Address

STATUS_NAMES: dict[int, str] = {
    ClaimStatus.UNKNOWN_SUB_ACCOUNT: "unknown sub-account",
    ClaimStatus.BAD_SIGNATURE: "bad signature",
    ClaimStatus.OVER_VOUCHER: "over the voucher",
    ClaimStatus.NOTHING_NEW: "nothing new",
    ClaimStatus.PARTIAL: "partial",
    ClaimStatus.PAID: "paid",
}


@dataclass(frozen=True)
class SettledClaim:
    """What became of one claim: a `ClaimStatus`, and `paid` in base units."""

    user: Address
    signer: Address
    status: int
    paid: int

    @property
    def status_name(self) -> str:
        """For people."""
        return STATUS_NAMES.get(self.status, f"status {self.status}")


@dataclass(frozen=True)
class SettlementBatch:
    """One settlement transaction, confirmed."""

    transaction_hash: str
    block_number: int
    gas_used: int
    paid: int
    claims: tuple[SettledClaim, ...]
