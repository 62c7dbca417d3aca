"""Receipts as JSON, in a header and in an SSE comment.

    Hanse-Receipt: <base64url of the JSON of a signed receipt, no padding>
    : hanse-receipt <the same>                     (SSE comment frame, before `data: [DONE]`)

Source: `docs/protocol.md`, section "On the wire".
"""

from typing import Annotated, Any, Literal

import msgspec

from hanse.protocol.errors import HanseError, RequestError, VerificationError
from hanse.protocol.limits import AMOUNT_MAX, HEADER_BYTES_MAX, SEQUENCE_MAX, TOKENS_MAX
from hanse.protocol.messages import FinishReason, Receipt, SignedReceipt, Usage
from hanse.protocol.signatures import parse_address, parse_hash32
from hanse.protocol.wire.fields import (
    TIME_MAX,
    WIRE_VERSION,
    PlainAddress,
    PlainCount,
    PlainHash,
    PlainTime,
    check_range,
    check_version,
    convert_json,
    decode_json,
    from_base64url,
    parse_count,
    to_base64url,
)

RECEIPT_HEADER = "hanse-receipt"
RECEIPT_COMMENT = b": hanse-receipt "

_FINISH_REASONS = {reason.name.lower(): reason for reason in FinishReason}
_FINISH_NAMES = {reason: name for name, reason in _FINISH_REASONS.items()}


_latest: tuple[SignedReceipt | None, bytes] = (None, b"")
"""The receipt that was encoded last: who stores one sends it next. It never changes."""


class _ReceiptWire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    v: int
    user: str
    provider: str
    signer: str
    sequence: str
    request_hash: str
    response_hash: str
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    fee: str
    cumulative_fee: str
    finish_reason: str
    finished_at: int
    commitment_root: str
    signature: str


_PlainTokens = Annotated[int, msgspec.Meta(ge=0, le=TOKENS_MAX)]


class _PlainReceiptWire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """As Hanse writes it: all of its form is checked by one call of C."""

    v: Literal[1]
    user: PlainAddress
    provider: PlainAddress
    signer: PlainAddress
    sequence: PlainCount
    request_hash: PlainHash
    response_hash: PlainHash
    input_tokens: _PlainTokens
    cached_tokens: _PlainTokens
    output_tokens: _PlainTokens
    fee: PlainCount
    cumulative_fee: PlainCount
    finish_reason: str
    finished_at: PlainTime
    commitment_root: PlainHash
    signature: str


_decode_plain = msgspec.json.Decoder(_PlainReceiptWire).decode


def receipt_to_json(signed: SignedReceipt) -> dict[str, Any]:
    """A signed receipt as a JSON-ready dict."""
    return msgspec.structs.asdict(_to_wire(signed))


def encode_receipt_json(signed: SignedReceipt) -> bytes:
    """A signed receipt as JSON: as books keep it and as it travels."""
    global _latest
    held, encoded = _latest
    if held is not signed:
        encoded = msgspec.json.encode(_to_wire(signed))
        _latest = signed, encoded
    return encoded


def receipt_from_json(data: object) -> SignedReceipt:
    """Read a signed receipt from decoded JSON; its signature is still unchecked.

    Raises:
        VerificationError: `receipt_invalid`, naming what is wrong.
    """
    try:
        return _check(convert_json(data, _ReceiptWire))
    except HanseError as error:
        raise VerificationError("receipt_invalid", f"receipt: {error}") from None


def encode_receipt(signed: SignedReceipt) -> str:
    """A signed receipt for the Hanse-Receipt header or the SSE comment."""
    return to_base64url(encode_receipt_json(signed))


def decode_receipt(value: str) -> SignedReceipt:
    """Read a receipt from its header or SSE comment; its signature is still unchecked.

    Raises:
        VerificationError: `receipt_invalid`, naming what is wrong.
    """
    if len(value) > HEADER_BYTES_MAX:
        raise VerificationError(
            "receipt_invalid", f"receipt of {len(value)} characters, at most {HEADER_BYTES_MAX}"
        )
    try:
        data = from_base64url(value.strip())
        return _read_plain(data) or _check(decode_json(data, _ReceiptWire))
    except HanseError as error:
        raise VerificationError("receipt_invalid", f"receipt: {error}") from None


def encode_receipt_frame(signed: SignedReceipt) -> bytes:
    """The SSE comment frame that carries a stream's receipt."""
    return RECEIPT_COMMENT + encode_receipt(signed).encode() + b"\n\n"


def _to_wire(signed: SignedReceipt) -> _ReceiptWire:
    r = signed.receipt
    return _ReceiptWire(
        WIRE_VERSION,
        r.user,
        r.provider,
        r.signer,
        str(r.sequence),
        r.request_hash,
        r.response_hash,
        r.usage.input_tokens,
        r.usage.cached_tokens,
        r.usage.output_tokens,
        str(r.fee),
        str(r.cumulative_fee),
        _FINISH_NAMES[r.finish_reason],
        r.finished_at,
        r.commitment_root,
        signed.signature,
    )


def _read_plain(data: bytes) -> SignedReceipt | None:
    """The receipt, unless something of it is unusual or wrong."""
    try:
        w = _decode_plain(data)
    except (ValueError, RecursionError):
        return None
    sequence, fee, cumulative_fee = int(w.sequence), int(w.fee), int(w.cumulative_fee)
    reason = _FINISH_REASONS.get(w.finish_reason)
    if reason is None or not 1 <= sequence <= SEQUENCE_MAX or max(fee, cumulative_fee) > AMOUNT_MAX:
        return None
    receipt = Receipt(
        w.user,
        w.provider,
        w.signer,
        sequence,
        w.request_hash,
        w.response_hash,
        Usage(w.input_tokens, w.cached_tokens, w.output_tokens),
        fee,
        cumulative_fee,
        reason,
        w.finished_at,
        w.commitment_root,
    )
    return SignedReceipt(receipt, w.signature)


def _check(w: _ReceiptWire) -> SignedReceipt:
    check_version(w.v)
    if w.finish_reason not in _FINISH_REASONS:
        raise RequestError(
            "invalid_request",
            f"finish_reason {w.finish_reason!r:.40} is none of {', '.join(_FINISH_REASONS)}",
        )
    receipt = Receipt(
        parse_address(w.user, "user"),
        parse_address(w.provider, "provider"),
        parse_address(w.signer, "signer"),
        check_range(parse_count(w.sequence, SEQUENCE_MAX, "sequence"), SEQUENCE_MAX, "sequence", 1),
        parse_hash32(w.request_hash, "request_hash"),
        parse_hash32(w.response_hash, "response_hash"),
        Usage(
            check_range(w.input_tokens, TOKENS_MAX, "input_tokens"),
            check_range(w.cached_tokens, TOKENS_MAX, "cached_tokens"),
            check_range(w.output_tokens, TOKENS_MAX, "output_tokens"),
        ),
        parse_count(w.fee, AMOUNT_MAX, "fee"),
        parse_count(w.cumulative_fee, AMOUNT_MAX, "cumulative_fee"),
        _FINISH_REASONS[w.finish_reason],
        check_range(w.finished_at, TIME_MAX, "finished_at"),
        parse_hash32(w.commitment_root, "commitment_root"),
    )
    return SignedReceipt(receipt, w.signature)
