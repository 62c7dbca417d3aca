"""What the contracts store, as frozen values, and what a step of them brings about.

Source: docs/decisions/0004, 0012, 0013 and 0032; `Escrow.vy`, `Registry.vy`, `Records.vy` and
    `Disputes.vy`, whose part is `panels.state`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from types import MappingProxyType
from typing import Any, NamedTuple

from hanse.protocol.eip712 import Domain
from hanse.protocol.ledger.panels.state import PanelRules, Panels
from hanse.protocol.signatures import ZERO_ADDRESS, ZERO_HASH, Address, Hash32


class SubAccountId(NamedTuple):
    """Names a sub-account; on chain the hash of the three is its key."""

    user: Address
    provider: Address
    signer: Address


@dataclass(frozen=True)
class Rules:
    """What a deployment fixes for good.

    Attributes:
        domain: where vouchers and intents count.
        lock_time_s: how long a refund waits.
        minimum_stake: base units below which a provider is not active.
        dispute_window_s: how long a claim can be disputed.
        unbonding_time_s: how long a stake waits; at least lock time + dispute window.
        key_delay_s: how long a new receipt key or payee waits.
        panels: what Disputes was deployed with; None where it plays no part.
    """

    domain: Domain
    lock_time_s: int
    minimum_stake: int
    dispute_window_s: int
    unbonding_time_s: int
    key_delay_s: int
    panels: PanelRules | None = None


@dataclass(frozen=True)
class SubAccount:
    """Base units held (a pending refund included), base units ever claimed, claimed sequence."""

    balance: int = 0
    claimed: int = 0
    sequence: int = 0


@dataclass(frozen=True)
class PendingRefund:
    """Base units asked back, and the unix second from which anyone may complete it."""

    amount: int = 0
    unlock_time_s: int = 0


@dataclass(frozen=True)
class Provider:
    """A provider's stake in base units and its keys; a `_s` of 0 means that nothing is pending.

    A condemned one has a `condemned_until_s`: until then its victims are paid from `pool`. Its
    stake is 0 for ever.
    """

    stake: int = 0
    unbonding_until_s: int = 0
    receipt_key: Address = ZERO_ADDRESS
    payee: Address = ZERO_ADDRESS
    next_receipt_key: Address = ZERO_ADDRESS
    next_receipt_key_from_s: int = 0
    next_payee: Address = ZERO_ADDRESS
    next_payee_from_s: int = 0
    pool: int = 0
    condemned_until_s: int = 0


@dataclass(frozen=True)
class Service:
    """A published offer's hash, its revision (0: never published), and whether it is on sale."""

    offer_hash: Hash32 = ZERO_HASH
    revision: int = 0
    active: bool = False


@dataclass(frozen=True)
class RecordsHead:
    """How often a recorder committed, and the hash chain over its commits."""

    number: int = 0
    head: Hash32 = ZERO_HASH


NO_SUB_ACCOUNT = SubAccount()
NO_REFUND = PendingRefund()
NO_PROVIDER = Provider()
NO_SERVICE = Service()
NO_RECORDS = RecordsHead()


def _empty() -> Mapping[Any, Any]:
    return MappingProxyType({})


@dataclass(frozen=True)
class Ledger:
    """The contracts' whole state. Missing keys mean zeros, as in the contracts' storage.

    Attributes:
        rules: fixed for good.
        accounts: user -> free base units.
        sub_accounts: what is set aside.
        refunds: what is asked back and not completed.
        nonces: user -> nonce of its next intent.
        providers: owner's address -> provider.
        receipt_keys: receipt key, now or ever -> its provider.
        services: (provider, service id) -> service.
        compensations: sub-account -> base units that the stake has paid its user back.
        burned: base units of stakes that nobody can have any more.
        records: recorder -> number and head of its chain.
        escrow_held: base units of the asset that Escrow holds.
        registry_held: base units of the asset that Registry holds, burned ones included.
        panels: auditors and challenges.
    """

    rules: Rules
    accounts: Mapping[Address, int] = field(default_factory=_empty)
    sub_accounts: Mapping[SubAccountId, SubAccount] = field(default_factory=_empty)
    refunds: Mapping[SubAccountId, PendingRefund] = field(default_factory=_empty)
    nonces: Mapping[Address, int] = field(default_factory=_empty)
    providers: Mapping[Address, Provider] = field(default_factory=_empty)
    receipt_keys: Mapping[Address, Address] = field(default_factory=_empty)
    services: Mapping[tuple[Address, int], Service] = field(default_factory=_empty)
    compensations: Mapping[SubAccountId, int] = field(default_factory=_empty)
    burned: int = 0
    records: Mapping[Address, RecordsHead] = field(default_factory=_empty)
    escrow_held: int = 0
    registry_held: int = 0
    panels: Panels = field(default_factory=Panels)


@dataclass(frozen=True)
class Emitted:
    """An event of a contract, with the same name and fields as in its ABI."""

    name: str
    fields: Mapping[str, Any]


@dataclass(frozen=True)
class Moved:
    """Base units of the asset that left a wallet for a contract, or a contract for a wallet.

    Attributes:
        wallet: the other side.
        amount: base units; positive into the contract, negative out of it.
    """

    wallet: Address
    amount: int


@dataclass(frozen=True)
class PaidOver:
    """Base units of the asset that went from Registry to the contract that slashed."""

    amount: int
    receiver: str = "Escrow"


Effect = Emitted | Moved | PaidOver


@dataclass(frozen=True)
class Step:
    """The state after a transition, and what an observer sees of it."""

    ledger: Ledger
    effects: tuple[Effect, ...]


class ClaimStatus(IntEnum):
    """What became of a claim, in order of precedence; the numbers are the contract's."""

    UNKNOWN_SUB_ACCOUNT = 1
    BAD_SIGNATURE = 2
    OVER_VOUCHER = 3
    NOTHING_NEW = 4
    PARTIAL = 5
    PAID = 6


@dataclass(frozen=True)
class VoucherClaim:
    """What a provider claims from one sub-account, with the voucher that allows it.

    Attributes:
        user: whose sub-account it is.
        signer: who should have signed the voucher.
        cumulative_max: the voucher's, base units.
        claimed: cumulative base units claimed.
        sequence: finished requests that `claimed` covers.
        sequence_max: the voucher's.
        request_hash: the voucher's.
        r: first half of the EIP-2098 signature.
        vs: its second half.
    """

    user: Address
    signer: Address
    cumulative_max: int
    claimed: int
    sequence: int
    sequence_max: int
    request_hash: Hash32
    r: bytes
    vs: bytes


@dataclass(frozen=True)
class Judgement:
    """One claim's result: its sub-account, status, sequence afterwards, and base units paid."""

    sub_account: SubAccountId
    status: ClaimStatus
    sequence: int
    paid: int
