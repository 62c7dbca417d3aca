"""Is a receipt true? What the user's side can find out about one, without I/O.

Three questions with different answers:

1. May it be counted? Signed by the provider's receipt key, for this request and sub-account, the
   fee within price and maximum. If not, `VerificationError`: it is no receipt, the request stays in
   flight.
2. Is what it says true of what was received? The bytes hash to the signed hash; the token counts
   are what the answer states and what can be. If not, the receipt is still counted, since its
   voucher lets the provider claim it, but as `MISMATCHED`, and the provider is not asked again.

3. Does it keep what the offer promised? Who bills for an answer of an `embedded` offer commits to
   it (`hanse.protocol.commitments.promises`). Else it is counted as `UNCOMMITTED`: the caller gets
   its answer, and the provider is left after a few of these (`hanse.market.health`).

Recounting without the model's tokenizer: usage in the answer must equal the receipt's, and a stream
is always asked for it; a token of text is at least one byte of the answer (tokens that the answer
declares as hidden reasoning are taken out, and shown); input is at most the body's bytes plus a
chat template. Bytes bound little, as a frame has a hundred around each token: who states as much as
it bills is caught by what it committed to (`hanse.protocol.commitments.promises`) or not at all.

Source: `docs/protocol.md`; `docs/decisions/0009-user-side.md`.
"""

import msgspec

from hanse.market import HealthBook
from hanse.protocol.commitments.promises import describe_breach, find_breach
from hanse.protocol.eip712 import Domain
from hanse.protocol.errors import VerificationError
from hanse.protocol.hashing import EMPTY_RESPONSE_HASH
from hanse.protocol.limits import CLOCK_SKEW_S_MAX
from hanse.protocol.messages import (
    FinishReason,
    Offer,
    SignedReceipt,
    SignedVoucher,
    Usage,
)
from hanse.protocol.nesting import is_nested_too_deep
from hanse.protocol.pricing import get_maximum_usage
from hanse.protocol.signatures import Address, Hash32
from hanse.protocol.verify import verify_receipt, verify_receipt_signature
from hanse.protocol.wire import is_stream, split_payloads
from hanse.settlement.books.voucher_records import Verification

SPECIAL_TOKENS_MAX = 64
"""Tokens without text of their own (ends of turn, markers of tool calls) in one choice."""

USAGE_MARK = b'"usage":'


_WHOLE = (
    FinishReason.STOP,
    FinishReason.LENGTH,
    FinishReason.TOOL_CALLS,
    FinishReason.CONTENT_FILTER,
)
"""Of a stream that came to its end; one that broke off may have had no time to state its usage."""


def find_usage_source(body: bytes) -> bytes | None:
    """What of a kept answer states its usage: of a stream the last frame that does, or None."""
    if not is_stream(body):
        return body
    told = [payload for payload in split_payloads(body) if USAGE_MARK in payload]
    return told[-1] if told else None


def is_usage_frame(frame: bytes) -> bool:
    """Whether it states the usage and nothing else, as OpenAI's last frame does where asked for.

    Inside a JSON string a quote is escaped, so neither mark is ever text.
    """
    is_bare = b'"choices":[]' in frame or b'"choices": []' in frame
    return is_bare and USAGE_MARK in frame


class _OutputDetails(msgspec.Struct):
    reasoning_tokens: int | None = None


class _InputDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    """Also a transcription's: `{"type": "duration", "seconds": ...}`, whose unit is the second."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: int | None = None
    prompt_tokens_details: _InputDetails | None = None
    completion_tokens_details: _OutputDetails | None = None


class _Stated(msgspec.Struct):
    usage: _Usage | None = None


_STATED = msgspec.json.Decoder(_Stated)


class Received(msgspec.Struct, frozen=True):
    """What came for one request.

    Attributes:
        response_hash: over it; None if nothing is known of it.
        length_bytes: how much it was.
        is_complete: whether it came to its end.
        usage_source: the body, or the stream's last frame with a usage; None if there was none.
        owes_usage: whether it was asked to state its usage and all of it was seen.
    """

    response_hash: Hash32 | None
    length_bytes: int
    is_complete: bool
    usage_source: bytes | None = None
    owes_usage: bool = False


class Terms(msgspec.Struct, frozen=True):
    """What was agreed for one request; `issued_at` is our clock's, in unix seconds."""

    voucher: SignedVoucher
    offer: Offer
    receipt_key: Address
    body_bytes: int
    output_tokens_max: int
    issued_at: int


class CheckedReceipt(msgspec.Struct, frozen=True):
    """A receipt that may be counted, with how far it was checked and why no further.

    `is_compared` is False while the answer's end never came, so that its hash says nothing.
    """

    signed: SignedReceipt
    verification: Verification
    reason: str = ""
    is_compared: bool = True

    @property
    def fee(self) -> int:
        """Base units that this request cost."""
        return self.signed.receipt.fee

    @property
    def usage(self) -> Usage:
        """Metered tokens."""
        return self.signed.receipt.usage

    def verify_true(self) -> None:
        """Raise unless nothing speaks against what was received.

        `UNVERIFIED` is no objection, and `UNCOMMITTED` none to this answer.

        Raises:
            VerificationError: `response_mismatch`.
        """
        if self.verification is Verification.MISMATCHED:
            raise VerificationError("response_mismatch", self.reason)


def check_receipt(
    signed: SignedReceipt, terms: Terms, domain: Domain, received: Received
) -> CheckedReceipt:
    """Judge a receipt by what was agreed and what was received.

    The caller still owes: sequence and running sum, which `VoucherBook.acknowledge` checks;
    `verify_true`, once it is counted.

    Raises:
        VerificationError: `receipt_invalid` if it may not be counted.
    """
    verify_receipt_signature(signed, domain, terms.receipt_key)
    verify_receipt(signed, terms.voucher, terms.offer, None)
    objection = _find_objection(signed, terms, received)
    if objection:
        return CheckedReceipt(signed, Verification.MISMATCHED, objection)
    if is_free_failure(signed) and received.response_hash != signed.receipt.response_hash:
        return CheckedReceipt(signed, Verification.VERIFIED, "it failed and costs nothing")
    is_compared = received.response_hash == signed.receipt.response_hash
    reason = (
        ""
        if is_compared
        else f"the answer was cut after {received.length_bytes} bytes, its hash cannot be compared"
    )
    breach = find_breach(terms.offer, signed.receipt)
    if breach is not None:
        said = describe_breach(breach, signed.receipt)
        reason = f"{said}; {reason}" if reason else said
        return CheckedReceipt(signed, Verification.UNCOMMITTED, reason, is_compared)
    verification = Verification.VERIFIED if is_compared else Verification.UNVERIFIED
    return CheckedReceipt(signed, verification, reason, is_compared)


def hold_against(health: HealthBook, provider: Address, checked: CheckedReceipt) -> bool:
    """Tell matching what a counted receipt says of its provider; whether it speaks against it."""
    if checked.verification is Verification.MISMATCHED:
        health.report_dishonest(provider, checked.reason)
        return True
    if checked.verification is Verification.UNCOMMITTED:
        health.report_breach(provider, checked.reason)
        return True
    return False


def is_free_failure(signed: SignedReceipt) -> bool:
    """Whether it says that the request failed and costs nothing: nothing is left to dispute."""
    receipt = signed.receipt
    if receipt.fee:
        return False
    return (
        receipt.finish_reason in (FinishReason.ERROR, FinishReason.CANCELLED)
        or receipt.response_hash == EMPTY_RESPONSE_HASH
    )


def _find_objection(signed: SignedReceipt, terms: Terms, received: Received) -> str:
    receipt, usage = signed.receipt, signed.receipt.usage
    is_whole = received.is_complete and received.response_hash is not None
    if is_whole and received.response_hash != receipt.response_hash:
        if is_free_failure(signed):
            return ""
        return (
            f"received bytes hash to {received.response_hash}, "
            f"the receipt says {receipt.response_hash}"
        )
    if receipt.fee and receipt.finished_at < terms.issued_at - CLOCK_SKEW_S_MAX:
        # dated back, it would be too old for an audit's consequences before anyone looks
        return (
            f"the receipt says that the answer ended at {receipt.finished_at}, "
            f"its request was signed at {terms.issued_at}"
        )
    most = get_maximum_usage(terms.offer, terms.body_bytes, terms.output_tokens_max)
    input_tokens = usage.input_tokens + usage.cached_tokens
    if input_tokens > most.input_tokens:
        return f"the receipt counts {input_tokens} input tokens, at most {most.input_tokens} can be"
    if usage.output_tokens > most.output_tokens:
        return (
            f"the receipt counts {usage.output_tokens} output tokens, "
            f"asked for were at most {most.output_tokens}"
        )
    if not received.is_complete:
        return ""
    stated = _find_stated_usage(received.usage_source)
    is_whole_bill = receipt.fee > 0 and receipt.finish_reason in _WHOLE
    if stated is None and received.owes_usage and is_whole_bill:
        return "the stream was asked to state its usage and does not: nothing bears the bill out"
    return _find_usage_objection(usage, stated, received.length_bytes)


def _find_usage_objection(usage: Usage, stated: _Usage | None, length_bytes: int) -> str:
    hidden = 0
    if stated is not None:
        input_tokens = usage.input_tokens + usage.cached_tokens
        said = stated.prompt_tokens if stated.seconds is None else stated.seconds
        if (said, stated.completion_tokens) != (input_tokens, usage.output_tokens):
            return (
                f"the answer states {said} input and {stated.completion_tokens} "
                f"output tokens, the receipt {input_tokens} and {usage.output_tokens}"
            )
        before = stated.prompt_tokens_details
        cached = before.cached_tokens if before else None
        if cached is not None and min(cached, stated.prompt_tokens) != usage.cached_tokens:
            return (
                f"the answer states {cached} cached input tokens, the receipt {usage.cached_tokens}"
            )
        details = stated.completion_tokens_details
        hidden = (details.reasoning_tokens or 0) if details else 0
    if usage.output_tokens - hidden > length_bytes + SPECIAL_TOKENS_MAX:
        return (
            f"the receipt counts {usage.output_tokens} output tokens "
            f"for an answer of {length_bytes} bytes"
        )
    return ""


def _find_stated_usage(source: bytes | None) -> _Usage | None:
    if source is None or is_nested_too_deep(source):
        return None
    if source.startswith(b"data:"):
        source = source[5:].strip()
    try:
        return _STATED.decode(source).usage
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
