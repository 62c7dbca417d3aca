"""Receipts as the contract takes them, and a market with something claimed in it."""

from dataclasses import dataclass
from typing import Any

import msgspec

from hanse.contracts.claims import get_sub_account_key
from hanse.protocol.eip712 import Domain
from hanse.protocol.messages import FinishReason, Receipt, Usage
from hanse.protocol.signatures import to_bytes, to_compact
from tests.contracts.local_evm import Hanse, Key, Outcome

Signed = tuple[tuple[Any, ...], bytes, int]
"""A receipt's row, and r and vs of its signature."""

HASH = "0x" + "ab" * 32


def make_receipt(
    user: Key, provider: Key, signer: Key, sequence: int, cumulative_fee: int
) -> Receipt:
    return Receipt(
        user=user.address,
        provider=provider.address,
        signer=signer.address,
        sequence=sequence,
        request_hash=HASH,
        response_hash=HASH,
        usage=Usage(100, 20, 30),
        fee=7,
        cumulative_fee=cumulative_fee,
        finish_reason=FinishReason.STOP,
        finished_at=1_800_000_000,
        commitment_root="0x" + "00" * 32,
    )


def to_row(receipt: Receipt) -> tuple[Any, ...]:
    return (
        receipt.user,
        receipt.provider,
        receipt.signer,
        receipt.sequence,
        to_bytes(receipt.request_hash),
        to_bytes(receipt.response_hash),
        receipt.usage.input_tokens,
        receipt.usage.cached_tokens,
        receipt.usage.output_tokens,
        receipt.fee,
        receipt.cumulative_fee,
        int(receipt.finish_reason),
        receipt.finished_at,
        to_bytes(receipt.commitment_root),
    )


def sign_receipt(receipt: Receipt, key: Key, domain: Domain) -> Signed:
    r, vs = to_compact(key.sign(domain.digest(receipt.struct_hash())))
    return to_row(receipt), r, int.from_bytes(vs, "big")


@dataclass
class Case:
    """One sub-account of a staked provider, and who reports on it."""

    hanse: Hanse
    user: Key
    provider: Key
    signer: Key
    receipt_key: Key
    reporter: Key

    def receipt(self, sequence: int, cumulative_fee: int, **changes: Any) -> Signed:
        made = make_receipt(self.user, self.provider, self.signer, sequence, cumulative_fee)
        made = msgspec.structs.replace(made, **changes)
        return sign_receipt(made, self.receipt_key, self.hanse.domain)

    def settle(self, claimed: int, sequence: int) -> None:
        """As the provider does it; a dishonest one as well."""
        claim = self.hanse.claim(self.user, self.provider, self.signer, claimed, sequence=sequence)
        self.hanse.settle(self.provider, self.provider, claim)
        assert self.hanse.sub_account(self.user, self.provider, self.signer)[2] == sequence

    def overclaim(self, receipt: Signed, reporter: Key | None = None) -> Outcome:
        return self.hanse.escrow_call(reporter or self.reporter, "prove_overclaim", *receipt)

    def equivocation(self, first: Signed, second: Signed) -> Outcome:
        return self.hanse.escrow_call(self.reporter, "prove_equivocation", *first, *second)

    def info(self) -> dict[str, Any]:
        """`get_provider`, the parts that slashing touches."""
        found = self.hanse.chain.view(self.hanse.registry, "get_provider", self.provider.address)
        return {
            "stake": found[0],
            "unbonding_until_s": found[1],
            "pool": found[8],
            "condemned_until_s": found[9],
        }

    def compensated(self) -> int:
        key = get_sub_account_key(self.user.address, self.provider.address, self.signer.address)
        amount: int = self.hanse.chain.view(self.hanse.escrow, "compensations", key)
        return amount

    def burned(self) -> int:
        amount: int = self.hanse.chain.view(self.hanse.registry, "burned")
        return amount
