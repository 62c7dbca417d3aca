"""What goes into the user's book and what comes out of it.

All amounts are base units, all times unix seconds. What every request makes is a msgspec struct: a
frozen dataclass takes eight times as long.
"""

from dataclasses import dataclass
from enum import StrEnum

import msgspec

from hanse.protocol.books import UserBook
from hanse.protocol.messages import SignedOffer, SignedReceipt, SignedVoucher
from hanse.protocol.signatures import Address, Hash32


class SubAccountKey(msgspec.Struct, frozen=True):
    """What names a sub-account."""

    user: Address
    provider: Address
    signer: Address


class VoucherState(StrEnum):
    """Life of one voucher.

    | from | event | to |
    | --- | --- | --- |
    | - | issue | issued |
    | issued | its receipt is stored | receipted |
    | issued | refused, or no longer admissible | released |
    | released | its receipt comes all the same | receipted |
    """

    ISSUED = "issued"
    RECEIPTED = "receipted"
    RELEASED = "released"


class Verification(StrEnum):
    """How far a receipt was checked.

    Its signature, request, fee, sequence and sum are checked in every case: only receipts that pass
    these are counted at all.
    """

    VERIFIED = "verified"
    """The received bytes are the signed ones."""

    UNVERIFIED = "unverified"
    """The end of the answer never came, so its hash could not be compared; counted, since the
    voucher allows the provider to claim it."""

    MISMATCHED = "mismatched"
    """The received bytes, or the usage that they state, are not what was signed; counted for the
    same reason, and evidence against the provider."""

    UNCOMMITTED = "uncommitted"
    """The bytes are the signed ones as far as they came, but the offer promised a commitment with
    each bill, and this bill has none; counted for the same reason, and evidence by itself."""

    ADOPTED = "adopted"
    """For a request that this book never saw (a lost database, another machine with the same
    signer); taken on the provider's signature alone, on the user's explicit wish."""


class IssuedVoucher(msgspec.Struct, frozen=True):
    """A voucher that is durable and may be sent.

    `book` is the sub-account's, this request in flight; its `acknowledged` goes into the header.
    """

    signed: SignedVoucher
    book: UserBook


@dataclass(frozen=True, slots=True)
class StoredVoucher:
    """A voucher as the book has it, with all that is needed to judge a receipt for it.

    Attributes:
        signed: voucher and request.
        path: of the operation it buys.
        offer: whose prices apply.
        receipt_key: of the provider, as Registry showed it when the voucher was signed.
        answer_key: 32 bytes that the answer is sealed under at the broker.
        body_bytes: length of the request's body.
        output_tokens_max: most output tokens it asked for.
        state: see `VoucherState`.
        response_hash: over what was received; None if nothing is known.
        response_bytes: how many bytes that were.
        is_complete: whether the answer came to its end.
        issued_at: when it was signed.
    """

    signed: SignedVoucher
    path: str
    offer: SignedOffer
    receipt_key: Address
    answer_key: bytes
    body_bytes: int
    output_tokens_max: int
    state: VoucherState
    response_hash: Hash32 | None
    response_bytes: int
    is_complete: bool
    issued_at: int

    @property
    def sub_account(self) -> SubAccountKey:
        """Whose money it pays with."""
        voucher = self.signed.voucher
        return SubAccountKey(voucher.user, voucher.provider, self.signed.signer)


@dataclass(frozen=True, slots=True)
class StoredReceipt:
    """A receipt as the book has it.

    `request_id` is None for adopted ones whose request is unknown. `is_acknowledged` is false while
    one before it is missing.
    """

    request_id: Hash32 | None
    signed: SignedReceipt
    verification: Verification
    reason: str
    is_acknowledged: bool
    received_at: int


@dataclass(frozen=True, slots=True)
class SubAccountBook:
    """One sub-account as the user's side knows it.

    `disputed` says why no more vouchers are signed for it, "" if they are.
    """

    key: SubAccountKey
    book: UserBook
    disputed: str

    @property
    def exposure(self) -> int:
        """Base units that the provider could claim beyond what it has receipted."""
        return max(0, self.book.highest_cumulative_max - self.book.acknowledged_fee)
