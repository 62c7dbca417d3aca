"""The two off-chain books of a sub-account, as pure transitions.

The broker keeps a `ProviderBook`, the user's side a `UserBook`. Both count the same thing: finished
requests 1, 2, 3 ... and the running sum of their fees. A fact goes in, a new book comes out, or an
error that says what is missing; shells persist the book before they act on it.

Provider's side, for one request:

    admitted --apply_admission--> reserved --apply_finish--> receipted
       |
       '- RequestError 402: the voucher, or the chain, does not cover it; nothing changes

User's side:

    issued --apply_issue--> in flight --apply_acknowledgement--> receipted, with all before it
                               |
                               '- apply_release --> forgotten: refused, or its deadline passed
                                                    before it was admitted

Why the best voucher covers everything: a voucher's `cumulative_max` is what its signer had
acknowledged plus the maxima of all that it had in flight, this request included, and a signer's
`sequence_max` never falls. So the voucher with the highest `(sequence_max, cumulative_max)` covers
every request signed before it, in whatever order they arrive. (It would not if sequences fell: two
lost requests leave a broker with a voucher over three, which a later one over two cannot replace.)

Source: `docs/protocol.md`, sections "Cumulative vouchers" and "Resume".
"""

import msgspec

from hanse.protocol.errors import (
    InvariantError,
    RequestError,
    Shortfall,
    TransientError,
    VerificationError,
)
from hanse.protocol.limits import AMOUNT_MAX, IN_FLIGHT_PER_SUB_ACCOUNT_MAX, SEQUENCE_MAX


class ProviderBook(msgspec.Struct, frozen=True):
    """What a broker knows of one sub-account.

    Attributes:
        sequence: receipts signed so far.
        cumulative_fee: sum of their fees, base units.
        reserved: sum of the maximum fees of requests now at work.
        in_flight: number of requests now at work.
        cumulative_max: of the best voucher.
        sequence_max: of the best voucher.
    """

    sequence: int = 0
    cumulative_fee: int = 0
    reserved: int = 0
    in_flight: int = 0
    cumulative_max: int = 0
    sequence_max: int = 0

    @property
    def owed_max(self) -> int:
        """The most that can be owed once everything at work has finished."""
        return self.cumulative_fee + self.reserved


def apply_admission(
    book: ProviderBook, *, cumulative_max: int, sequence_max: int, maximum_fee: int, funded: int
) -> ProviderBook:
    """Reserve one request's maximum fee, if voucher and chain cover it.

    Args:
        book: the sub-account's book.
        cumulative_max: of the voucher that came with the request.
        sequence_max: of the same voucher.
        maximum_fee: of the request.
        funded: what the chain shows for the sub-account at the confirmed block: claimed plus
            balance, less pending refunds.

    Raises:
        RequestError: `voucher_too_low` if neither this voucher nor a better one held before covers
            what is finished, at work and asked (the sender is behind: it needs the receipts after
            its last); `insufficient_balance` if the chain does not.
        TransientError: `rate_limited` if as many requests are at work as the books allow.
    """
    owed = book.owed_max + maximum_fee
    ordinal = book.sequence + book.in_flight + 1
    held, sent = (book.sequence_max, book.cumulative_max), (sequence_max, cumulative_max)
    # the lower one counts too where only it covers: a signer that lost its books starts lower
    best_sequence_max, best_cumulative_max = max(
        held, sent, key=lambda v: (v[0] >= ordinal and v[1] >= owed, v)
    )
    if owed > best_cumulative_max or ordinal > best_sequence_max:
        raise RequestError(
            "voucher_too_low",
            f"the voucher covers {best_cumulative_max} over {best_sequence_max} requests, "
            f"needed are {owed} over {ordinal}: "
            "fetch the receipts you miss and sign again",
            details=Shortfall(
                owed,
                best_cumulative_max,
                {
                    "cumulative_fee": book.cumulative_fee,
                    "reserved": book.reserved,
                    "maximum_fee": maximum_fee,
                    "sequence": book.sequence,
                    "sequence_needed": ordinal,
                    "sequence_max": best_sequence_max,
                },
            ).to_details(),
        )
    if owed > funded:
        raise RequestError(
            "insufficient_balance",
            f"the sub-account is funded with {funded} base units in all, needed are {owed} base "
            f"units: fund it with {owed - funded} base units more",
            details=Shortfall(
                owed,
                funded,
                {
                    "cumulative_fee": book.cumulative_fee,
                    "reserved": book.reserved,
                    "maximum_fee": maximum_fee,
                },
            ).to_details(),
        )
    if book.in_flight >= IN_FLIGHT_PER_SUB_ACCOUNT_MAX:
        raise TransientError(
            "rate_limited",
            f"{book.in_flight} requests of this sub-account are at work, "
            f"at most {IN_FLIGHT_PER_SUB_ACCOUNT_MAX}: wait until one has finished",
        )
    return ProviderBook(
        book.sequence,
        book.cumulative_fee,
        book.reserved + maximum_fee,
        book.in_flight + 1,
        best_cumulative_max,
        best_sequence_max,
    )


def apply_finish(book: ProviderBook, *, maximum_fee: int, fee: int) -> ProviderBook:
    """Release one reservation and count its fee; the book's sequence and sum become the receipt's.

    Raises:
        InvariantError: `invariant_broken` if the fee is above its maximum, nothing is reserved, or
            the sums would pass what the best voucher covers.
    """
    if not 0 <= fee <= maximum_fee or maximum_fee > book.reserved or book.in_flight < 1:
        raise InvariantError(
            "invariant_broken", f"fee {fee} of at most {maximum_fee} with {book.reserved} reserved"
        )
    after = ProviderBook(
        book.sequence + 1,
        book.cumulative_fee + fee,
        book.reserved - maximum_fee,
        book.in_flight - 1,
        book.cumulative_max,
        book.sequence_max,
    )
    if after.owed_max > after.cumulative_max or after.sequence > after.sequence_max:
        raise InvariantError(
            "invariant_broken",
            f"owed {after.owed_max} is above the best voucher's {after.cumulative_max}",
        )
    return after


class UserBook(msgspec.Struct, frozen=True):
    """What the user's side knows of one sub-account.

    Attributes:
        acknowledged: the highest sequence up to which every receipt is held and checked.
        acknowledged_fee: cumulative fee at that sequence, base units.
        in_flight: number of requests signed and neither receipted below `acknowledged` nor
            released.
        in_flight_fee: sum of their maximum fees, base units.
        highest_cumulative_max: the most that was ever signed; what a dishonest provider could
            claim.
        highest_sequence_max: the highest sequence ever signed for; the next voucher names no less.
    """

    acknowledged: int = 0
    acknowledged_fee: int = 0
    in_flight: int = 0
    in_flight_fee: int = 0
    highest_cumulative_max: int = 0
    highest_sequence_max: int = 0

    @property
    def committed(self) -> int:
        """Base units that are spent or reserved."""
        return self.acknowledged_fee + self.in_flight_fee


def apply_issue(book: UserBook, *, maximum_fee: int, funded: int) -> UserBook:
    """Commit one more request; `get_voucher_maxima` of the new book is what its voucher names.

    Args:
        book: the sub-account's book.
        maximum_fee: of the new request, base units.
        funded: claimed plus balance less pending refunds, as the chain shows it.

    Raises:
        RequestError: `insufficient_balance`, with what is needed and what is there.
    """
    committed = book.acknowledged_fee + book.in_flight_fee + maximum_fee
    if committed > funded or committed > AMOUNT_MAX:
        raise RequestError(
            "insufficient_balance",
            f"the sub-account is funded with {funded} base units in all, needed are {committed} "
            f"base units: fund it with {committed - funded} base units more",
            details=Shortfall(
                committed,
                funded,
                {
                    "spent": book.acknowledged_fee,
                    "reserved": book.in_flight_fee,
                    "maximum_fee": maximum_fee,
                },
            ).to_details(),
        )
    if book.acknowledged + book.in_flight + 1 > SEQUENCE_MAX:
        raise InvariantError("invariant_broken", "the sub-account's sequence numbers are used up")
    return UserBook(
        book.acknowledged,
        book.acknowledged_fee,
        book.in_flight + 1,
        book.in_flight_fee + maximum_fee,
        max(book.highest_cumulative_max, committed),
        max(book.highest_sequence_max, book.acknowledged + book.in_flight + 1),
    )


def get_voucher_maxima(book: UserBook) -> tuple[int, int]:
    """`(cumulative_max, sequence_max)` of the voucher for the request that was just issued."""
    return book.committed, book.highest_sequence_max


def apply_release(book: UserBook, *, maximum_fee: int) -> UserBook:
    """Forget a request that the broker refused, or that it can no longer admit."""
    if book.in_flight < 1 or maximum_fee > book.in_flight_fee:
        raise InvariantError(
            "invariant_broken", f"releasing {maximum_fee} of {book.in_flight_fee} in flight"
        )
    return UserBook(
        book.acknowledged,
        book.acknowledged_fee,
        book.in_flight - 1,
        book.in_flight_fee - maximum_fee,
        book.highest_cumulative_max,
        book.highest_sequence_max,
    )


def apply_acknowledgement(book: UserBook, *, maximum_fee: int | None, fee: int) -> UserBook:
    """Count the receipt of the next sequence: its maximum leaves flight, its fee is spent.

    Args:
        book: the sub-account's book.
        maximum_fee: of the receipt's request, 0 for a free one; None if that request was already
            released here (its voucher was still good when the broker admitted it).
        fee: of the receipt.

    Raises:
        VerificationError: `receipt_invalid` if the fee is above that maximum.
        InvariantError: `invariant_broken` if that maximum is not in flight.
    """
    if maximum_fee is not None:
        if not 0 <= fee <= maximum_fee:
            raise VerificationError(
                "receipt_invalid", f"fee {fee} of a request with a maximum of {maximum_fee}"
            )
        book = apply_release(book, maximum_fee=maximum_fee)
    return UserBook(
        book.acknowledged + 1,
        book.acknowledged_fee + fee,
        book.in_flight,
        book.in_flight_fee,
        book.highest_cumulative_max,
        book.highest_sequence_max,
    )
