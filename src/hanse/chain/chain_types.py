"""The values that chain hands around: blocks, logs, receipts, calls, and its one error.

Addresses are `0x` and 40 lower-case hex digits, hashes `0x` and 64, as in
`hanse.protocol.signatures`; amounts of the native coin are in wei.
"""

from dataclasses import dataclass, field
from typing import Any

from hanse.protocol.errors import HanseError

BlockNumber = int


@dataclass(frozen=True)
class Header:
    """One block's header, as far as we use it."""

    number: BlockNumber
    hash: str
    parent_hash: str
    timestamp_s: int
    base_fee_wei: int
    transaction_hashes: tuple[str, ...] = field(default=(), repr=False)
    logs_bloom: bytes = field(default=b"", repr=False)
    gas_limit: int = 0


@dataclass(frozen=True)
class Log:
    """One event as the chain stores it, in the block that `block_hash` names."""

    address: str
    topics: tuple[bytes, ...]
    data: bytes
    block_number: BlockNumber
    block_hash: str
    transaction_hash: str
    log_index: int


@dataclass(frozen=True)
class Event:
    """A log decoded by its contract's ABI.

    Attributes:
        contract: the artefact's name (`Escrow`, `Registry`, ...).
        name: the event's name.
        fields: by the names of the ABI; addresses lower case, `bytesN` as bytes.
        timestamp_s: of its block.
    """

    contract: str
    name: str
    fields: dict[str, Any]
    address: str
    block_number: BlockNumber
    block_hash: str
    timestamp_s: int
    transaction_hash: str
    log_index: int


@dataclass(frozen=True)
class TransactionReceipt:
    """What a mined transaction did. Not the protocol's receipt, which a provider signs."""

    transaction_hash: str
    block_number: BlockNumber
    block_hash: str
    succeeded: bool
    gas_used: int
    effective_gas_price_wei: int
    logs: tuple[Log, ...] = ()


@dataclass(frozen=True)
class Call:
    """What to do on chain, apart from who signs and what it costs.

    Attributes:
        to: the contract; None deploys.
        data: calldata, or creation code.
        value: wei sent along.
        label: for people, in logs and in `money`: "deposit 12 to Escrow". No secrets.
        gas_limit: 0 lets the outbox estimate.
        fee_cap_wei: it is not worth more for one gas; 0 leaves that to the outbox's policy. Above
            it the call fails before it is signed; see the outbox for one that is signed already.
    """

    to: str | None
    data: bytes
    value: int = 0
    label: str = ""
    gas_limit: int = 0
    fee_cap_wei: int = 0


class ChainError(HanseError):
    """The chain, or its node, refused for a reason that trying again will not change.

    Attributes:
        reason: decoded revert reason, or the node's own words.
        is_revert: the contract's code refused (true) or the node did (false).
    """

    def __init__(self, message: str, *, reason: str, is_revert: bool = False) -> None:
        super().__init__("transaction_failed", message, details={"reason": reason})
        self.reason = reason
        self.is_revert = is_revert
