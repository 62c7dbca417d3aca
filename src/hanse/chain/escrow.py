"""Escrow with types: what it holds, at a stated block, and the calls that move it.

    escrow = Escrow(rpc, deployment.escrow)
    sub = await escrow.read_sub_account(user, provider, signer, block=confirmed)
    await outbox.submit("fund-1", escrow.fund(provider, signer, amount))

Reads are views at `block`; for decisions take head - confirmations. Writes return a `Call`; nothing
is sent here. Amounts are base units of the asset. What each call promises and reverts with stands
in `Escrow.vy`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hanse.chain.chain_types import BlockNumber, Call
from hanse.chain.contract import Contract
from hanse.chain.rpc import Rpc
from hanse.contracts import Claim, encode_settle, get_sub_account_key
from hanse.contracts.artifacts import load_artifact
from hanse.protocol.intents import Fund, OpenIntent
from hanse.protocol.messages import Receipt, SignedReceipt
from hanse.protocol.signatures import Signature, to_bytes, to_compact


@dataclass(frozen=True)
class SubAccount:
    """One (user, provider, signer) on chain.

    Attributes:
        balance: base units, a pending refund included.
        claimed: base units paid to the provider since the beginning; never falls.
        sequence: finished requests that `claimed` covers; never falls.
        refund: base units that wait for the lock time.
        unlock_time_s: when anyone may complete the refund, unix seconds; 0 if none waits.
    """

    balance: int
    claimed: int
    sequence: int
    refund: int
    unlock_time_s: int

    @property
    def available(self) -> int:
        """What a provider may count on: balance less pending refund."""
        return self.balance - self.refund


@dataclass(frozen=True)
class EscrowTerms:
    """What Escrow was deployed with."""

    asset: str
    registry: str
    lock_time_s: int


@dataclass(frozen=True)
class PermitSignature:
    """An EIP-2612 signature for Escrow as spender, and its deadline in unix seconds."""

    deadline_s: int
    signature: Signature

    def to_vrs(self) -> tuple[int, bytes, bytes]:
        """The three values in the order of the ABI."""
        raw = to_bytes(self.signature)
        return raw[64], raw[:32], raw[32:64]


class Escrow:
    """Escrow at an address, through one node."""

    def __init__(self, rpc: Rpc, address: str) -> None:
        self.contract = Contract(rpc, load_artifact("Escrow"), address)
        self.address = self.contract.address

    # reads

    async def read_account(self, user: str, *, block: BlockNumber) -> int:
        """The user's free balance."""
        (free,) = await self.contract.read("accounts", user, block=block)
        return int(free)

    async def read_sub_account(
        self, user: str, provider: str, signer: str, *, block: BlockNumber
    ) -> SubAccount:
        """One sub-account; all zero if it was never funded."""
        found = await self.contract.read("get_sub_account", user, provider, signer, block=block)
        return SubAccount(*found)

    async def read_compensation(
        self, user: str, provider: str, signer: str, *, block: BlockNumber
    ) -> int:
        """What the provider's stake has paid this sub-account's user back so far."""
        key = get_sub_account_key(user, provider, signer)
        (paid,) = await self.contract.read("compensations", key, block=block)
        return int(paid)

    async def read_nonce(self, user: str, *, block: BlockNumber) -> int:
        """The nonce that the user's next relayed intent must carry."""
        (nonce,) = await self.contract.read("nonces", user, block=block)
        return int(nonce)

    async def read_terms(self, *, block: BlockNumber) -> EscrowTerms:
        """What was fixed at deployment."""
        (asset,) = await self.contract.read("asset", block=block)
        (registry,) = await self.contract.read("registry", block=block)
        (lock_time_s,) = await self.contract.read("lock_time_s", block=block)
        return EscrowTerms(asset, registry, lock_time_s)

    # the user's calls

    def deposit(self, amount: int) -> Call:
        """Wallet -> account; the asset's allowance for Escrow must cover it."""
        return self.contract.build("deposit", amount, label=f"deposit {amount}")

    def deposit_with_permit(self, amount: int, permit: PermitSignature) -> Call:
        """Wallet -> account with the allowance signed instead of sent."""
        return self.contract.build(
            "deposit_with_permit",
            amount,
            permit.deadline_s,
            *permit.to_vrs(),
            label=f"deposit {amount} with permit",
        )

    def withdraw(self, amount: int) -> Call:
        """Account -> wallet."""
        return self.contract.build("withdraw", amount, label=f"withdraw {amount}")

    def fund(self, provider: str, signer: str, amount: int) -> Call:
        """Account -> sub-account; first takes as much of a pending refund back."""
        return self.contract.build("fund", provider, signer, amount, label=f"fund {amount}")

    def open(self, deposit: int, funds: Sequence[Fund]) -> Call:
        """Deposit and fund several sub-accounts at once, with an allowance that exists."""
        return self.contract.build("open", deposit, _rows(funds), label=f"open with {deposit}")

    def open_with_permit(
        self, deposit: int, funds: Sequence[Fund], permit: PermitSignature
    ) -> Call:
        """Deposit with permit, open and fund in one transaction of the user's."""
        return self.contract.build(
            "open_with_permit",
            deposit,
            _rows(funds),
            permit.deadline_s,
            *permit.to_vrs(),
            label=f"open with {deposit} and permit",
        )

    def open_relayed_with_permit(
        self, intent: OpenIntent, signature: Signature, permit: PermitSignature
    ) -> Call:
        """The same, sent by anyone: the user only signed."""
        r, vs = to_compact(signature)
        return self.contract.build(
            "open_relayed_with_permit",
            intent.user,
            intent.deposit,
            _rows(intent.funds),
            intent.nonce,
            intent.deadline,
            r,
            int.from_bytes(vs, "big"),
            permit.deadline_s,
            *permit.to_vrs(),
            label=f"open for {intent.user} with {intent.deposit}",
        )

    def open_relayed_with_authorization(self, intent: OpenIntent, signature: Signature) -> Call:
        """The same by one EIP-3009 signature, whose nonce is the intent's digest."""
        raw = to_bytes(signature)
        return self.contract.build(
            "open_relayed_with_authorization",
            intent.user,
            intent.deposit,
            _rows(intent.funds),
            intent.nonce,
            intent.deadline,
            raw[64],
            raw[:32],
            raw[32:64],
            label=f"open for {intent.user} with {intent.deposit}",
        )

    def invalidate_intents(self) -> Call:
        """Make every intent that was signed and not sent void."""
        return self.contract.build("invalidate_intents", label="invalidate signed intents")

    def request_refund(self, provider: str, signer: str, amount: int) -> Call:
        """Sub-account -> account after the lock time; adding to a pending one restarts its wait."""
        return self.contract.build(
            "request_refund", provider, signer, amount, label=f"request refund of {amount}"
        )

    def cancel_refund(self, provider: str, signer: str) -> Call:
        """Leave the money in the sub-account after all."""
        return self.contract.build("cancel_refund", provider, signer, label="cancel refund")

    # anyone's and the provider's calls

    def claim_refund(self, user: str, provider: str, signer: str) -> Call:
        """Complete a refund whose time has come, to the user's account; anyone may."""
        return self.contract.build(
            "claim_refund", user, provider, signer, label=f"complete refund of {user}"
        )

    def settle(
        self, provider: str, claims: Sequence[Claim], records_head: bytes = bytes(32)
    ) -> Call:
        """Claim from up to 200 sub-accounts; by the provider's own registered keys."""
        return Call(
            to=self.address,
            data=encode_settle(provider, claims, records_head),
            label=f"settle {len(claims)} claims",
        )

    def prove_overclaim(self, signed: SignedReceipt) -> Call:
        """Accuse the receipt's provider of having claimed more than it; the user is paid back."""
        receipt = signed.receipt
        return self.contract.build(
            "prove_overclaim",
            *get_receipt_arguments(signed),
            label=f"prove overclaim of {receipt.provider} at sequence {receipt.sequence}",
        )

    def prove_equivocation(self, first: SignedReceipt, second: SignedReceipt) -> Call:
        """Accuse the provider of two receipts for one sequence; its gain is paid back."""
        receipt = first.receipt
        return self.contract.build(
            "prove_equivocation",
            *get_receipt_arguments(first),
            *get_receipt_arguments(second),
            label=f"prove equivocation of {receipt.provider} at sequence {receipt.sequence}",
        )


def get_receipt_arguments(signed: SignedReceipt) -> tuple[Any, ...]:
    """A signed receipt as the contracts take it: the struct, then r and vs of its signature."""
    r, vs = to_compact(signed.signature)
    return _to_abi(signed.receipt), r, int.from_bytes(vs, "big")


def _to_abi(receipt: Receipt) -> tuple[Any, ...]:
    """The receipt as the contract's struct: the signed fields in their order."""
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


def _rows(funds: Sequence[Fund]) -> list[tuple[str, str, int]]:
    return [(fund.provider, fund.signer, fund.amount) for fund in funds]
