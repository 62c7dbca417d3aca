"""What became of a settlement: each claim's status, and the transaction.

Source: `Escrow.settle`.
"""

from dataclasses import dataclass

from hanse.protocol.signatures import Address

STATUS_NAMES = {
    1: "unknown sub-account",
    2: "bad signature",
    3: "over the voucher",
    4: "nothing new",
    5: "partial",
    6: "paid",
}


@dataclass(frozen=True)
class SettledClaim:
    """What became of one claim; `paid` in base units."""

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
