"""Checks of signed messages against what is expected. Every function raises; none returns a bool.

What each check leaves to its caller is said at its end ("The caller still owes").

Source: `docs/protocol.md`, section "Signed messages".
"""

from hanse.protocol.eip712 import Domain
from hanse.protocol.errors import RequestError, VerificationError
from hanse.protocol.limits import (
    CLOCK_SKEW_S_MAX,
    DEADLINE_S_MAX,
    OFFER_VALID_S_MAX,
    QUERY_VALID_S_MAX,
)
from hanse.protocol.messages import (
    Offer,
    Query,
    SignedHeartbeat,
    SignedOffer,
    SignedReceipt,
    SignedVoucher,
)
from hanse.protocol.signatures import Address, Hash32, Signature, recover_signer, verify_signature


def verify_voucher(signed: SignedVoucher, domain: Domain, provider: Address, now_s: int) -> None:
    """Check that the voucher is for this provider, still good, and signed by its signer.

    The caller still owes: the offer is one of its own and valid; the sub-account exists and covers
    it (`books.apply_admission`); the request id is new.

    Raises:
        RequestError: `wrong_provider`, `voucher_expired`, `unprocessable`, `signature_invalid`.
    """
    voucher, request = signed.voucher, signed.request
    if voucher.provider != provider:
        raise RequestError(
            "wrong_provider", f"the voucher pays {voucher.provider}, this is {provider}"
        )
    _verify_deadline(request.deadline, now_s, DEADLINE_S_MAX)
    if request.maximum_fee > voucher.cumulative_max:
        raise RequestError(
            "unprocessable",
            f"the maximum fee {request.maximum_fee} is above the voucher's "
            f"{voucher.cumulative_max}",
        )
    digest = domain.digest(voucher.struct_hash())
    verify_signature(digest, signed.signature, signed.signer, "the voucher")


def verify_query(
    query: Query, signature: Signature, domain: Domain, provider: Address, now_s: int
) -> None:
    """Check that a query is for this provider, fresh, and signed by the signer that it names.

    Raises:
        RequestError: `wrong_provider`, `voucher_expired`, `signature_invalid`.
    """
    if query.provider != provider:
        raise RequestError(
            "wrong_provider", f"the query is for {query.provider}, this is {provider}"
        )
    _verify_deadline(query.deadline, now_s, QUERY_VALID_S_MAX)
    verify_signature(domain.digest(query.struct_hash()), signature, query.signer, "the query")


def verify_receipt_signature(signed: SignedReceipt, domain: Domain, receipt_key: Address) -> None:
    """Check that the provider's receipt key signed the receipt.

    The caller still owes: that `receipt_key` is what the Registry shows for the provider at a
    confirmed block, and that the receipt answers its request (`verify_receipt`).

    Raises:
        VerificationError: `receipt_invalid`.
    """
    _verify_by_provider(
        domain.digest(signed.receipt.struct_hash()),
        signed.signature,
        receipt_key,
        "receipt_invalid",
    )


def verify_receipt(
    signed: SignedReceipt, voucher: SignedVoucher, offer: Offer, response_hash: Hash32 | None
) -> None:
    """Check that a receipt answers this request, at this offer's price, for these bytes.

    The caller still owes: the signature (`verify_receipt_signature`); the sequence and running sum
    against its book; a recount of the tokens where it can.

    Args:
        signed: the receipt.
        voucher: what was signed for the request.
        offer: the offer that the request names.
        response_hash: over what was received, or None if the answer was cut and its end never came.

    Raises:
        VerificationError: `receipt_invalid`, `response_mismatch`.
    """
    receipt = signed.receipt
    expected = (voucher.voucher.user, voucher.voucher.provider, voucher.signer)
    if (receipt.user, receipt.provider, receipt.signer) != expected:
        raise VerificationError("receipt_invalid", "the receipt is for another sub-account")
    if receipt.request_hash != voucher.voucher.request_hash:
        raise VerificationError(
            "receipt_invalid",
            f"the receipt is for request {receipt.request_hash}, "
            f"asked was {voucher.voucher.request_hash}",
        )
    verify_receipt_fee(signed, voucher.request.maximum_fee, offer)
    if response_hash is not None and receipt.response_hash != response_hash:
        raise VerificationError(
            "response_mismatch",
            f"received bytes hash to {response_hash}, the receipt says {receipt.response_hash}",
        )


def verify_receipt_fee(signed: SignedReceipt, maximum_fee: int, offer: Offer) -> None:
    """Check that the fee is price times usage rounded up, or less, and within its maximum.

    Less is fine: errors cost 0, and a fee is held to the request's maximum.

    Raises:
        VerificationError: `receipt_invalid`, naming both fees.
    """
    receipt = signed.receipt
    priced = offer.prices.get_fee(receipt.usage)
    if receipt.fee > min(priced, maximum_fee):
        raise VerificationError(
            "receipt_invalid",
            f"fee {receipt.fee} is above the usage's price {priced} or the maximum {maximum_fee}",
        )


def verify_offer(signed: SignedOffer, domain: Domain, receipt_key: Address, now_s: int) -> None:
    """Check that the provider's receipt key signed the offer and that it is in force.

    Nor may its cached input be dearer than its input.

    The caller still owes: that `receipt_key` and the offer's hash are what the Registry shows for
    this provider and service at a confirmed block.

    Raises:
        VerificationError: `offer_invalid`.
    """
    offer = signed.offer
    if offer.valid_until <= now_s:
        raise VerificationError(
            "offer_invalid", f"the offer ended at {offer.valid_until}, now is {now_s}"
        )
    if offer.valid_until > now_s + OFFER_VALID_S_MAX + CLOCK_SKEW_S_MAX:
        raise VerificationError(
            "offer_invalid",
            f"the offer is valid until {offer.valid_until}, "
            f"more than {OFFER_VALID_S_MAX} s ahead of {now_s}",
        )
    prices = offer.prices
    # Only the provider knows what was cached: it could call all of a prompt so.
    if prices.cached_per_mtok > prices.input_per_mtok:
        raise VerificationError(
            "offer_invalid",
            f"cached input costs {prices.cached_per_mtok}, input {prices.input_per_mtok}: what is "
            "cached may cost no more",
        )
    _verify_by_provider(
        domain.digest(offer.struct_hash()), signed.signature, receipt_key, "offer_invalid"
    )


def verify_heartbeat(
    signed: SignedHeartbeat, domain: Domain, receipt_key: Address, now_s: float
) -> None:
    """Check that the provider's receipt key signed the heartbeat, and lately.

    The caller still owes: that `receipt_key` is the one that the Registry shows for the provider,
    and that `sent_at_ms` is above that of the last heartbeat of this service (replays).

    Raises:
        VerificationError: `heartbeat_invalid`.
    """
    sent_at_s = signed.heartbeat.sent_at_ms / 1_000
    if abs(sent_at_s - now_s) > CLOCK_SKEW_S_MAX:
        raise VerificationError(
            "heartbeat_invalid",
            f"the heartbeat was made at {sent_at_s:.0f}, now is {now_s:.0f}: clocks may differ by "
            f"{CLOCK_SKEW_S_MAX} s",
        )
    _verify_by_provider(
        domain.digest(signed.heartbeat.struct_hash()),
        signed.signature,
        receipt_key,
        "heartbeat_invalid",
    )


def _verify_by_provider(
    digest: bytes, signature: Signature, receipt_key: Address, code: str
) -> None:
    try:
        actual = recover_signer(digest, signature)
    except RequestError as error:
        raise VerificationError(code, error.message) from None
    if actual != receipt_key:
        raise VerificationError(
            code, f"signed by {actual}, the provider's receipt key is {receipt_key}"
        )


def _verify_deadline(deadline: int, now_s: int, most_s: int) -> None:
    if deadline < now_s - CLOCK_SKEW_S_MAX:
        raise RequestError("voucher_expired", f"the deadline {deadline} has passed, now is {now_s}")
    if deadline > now_s + most_s + CLOCK_SKEW_S_MAX:
        raise RequestError(
            "voucher_expired", f"the deadline {deadline} is more than {most_s} s ahead of {now_s}"
        )
