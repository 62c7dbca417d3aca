"""What goes into the provider's book and what comes out of it.

All amounts are base units, all times unix seconds. What every request makes is a msgspec struct: a
frozen dataclass takes eight times as long.
"""

from dataclasses import dataclass

import msgspec

from hanse.protocol.books import ProviderBook
from hanse.protocol.messages import FinishReason, SignedReceipt, Usage
from hanse.protocol.signatures import ZERO_HASH, Address, Hash32, Signature


class SubAccountFunds(msgspec.Struct, frozen=True):
    """What the chain shows of one sub-account at the confirmed block, in base units.

    Attributes:
        balance: held for it, a pending refund included.
        claimed: taken by the provider so far.
        sequence: that the last claim named.
        pending_refund: asked back by the user, at most the balance.
        refund_unlock_s: unix seconds from which the refund can be completed; 0 if none.
    """

    balance: int
    claimed: int
    sequence: int = 0
    pending_refund: int = 0
    refund_unlock_s: int = 0

    @property
    def funded(self) -> int:
        """The most that the sub-account can have spent in all: claimed + balance - refund."""
        return self.claimed + self.balance - self.pending_refund


class Admission(msgspec.Struct, frozen=True):
    """One request at work: its reservation in the book."""

    sub_account: int
    user: Address
    signer: Address
    request_id: Hash32
    request_hash: Hash32
    maximum_fee: int


class Outcome(msgspec.Struct, frozen=True):
    """How a request ended.

    Attributes:
        usage: metered tokens.
        fee: base units, at most the request's maximum fee.
        response_hash: over the bytes sent.
        finish_reason: why it ended.
        finished_at: unix seconds.
        sealed_answer: the answer's last bytes under the caller's key; None to keep nothing.
        commitment_root: root over the proof of inference; zero if there is none.
    """

    usage: Usage
    fee: int
    response_hash: Hash32
    finish_reason: FinishReason
    finished_at: int
    sealed_answer: bytes | None = None
    commitment_root: Hash32 = ZERO_HASH


class FinishedRequest(msgspec.Struct, frozen=True):
    """A stored receipt, and its JSON as stored."""

    signed: SignedReceipt
    json: bytes


@dataclass(frozen=True, slots=True)
class SubAccountState:
    """One sub-account as the book has it.

    `settled_fee` is what the chain has shown as claimed.
    """

    user: Address
    signer: Address
    book: ProviderBook
    settled_fee: int = 0


@dataclass(frozen=True, slots=True)
class ReceiptPage:
    """Receipts after a sequence, in order, each as (request id, JSON), and what is at work."""

    state: SubAccountState
    receipts: tuple[tuple[Hash32, bytes], ...]
    in_flight: tuple[Hash32, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class DueClaim:
    """What one sub-account owes beyond what the chain has shown as claimed.

    `cumulative_max`, `sequence_max`, `request_hash` and `signature` are the best voucher's.
    """

    user: Address
    signer: Address
    cumulative_fee: int
    sequence: int
    settled_fee: int
    cumulative_max: int
    sequence_max: int
    request_hash: Hash32
    signature: Signature

    @property
    def due(self) -> int:
        """Base units not yet seen on the chain."""
        return self.cumulative_fee - self.settled_fee
