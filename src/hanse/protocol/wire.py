"""Messages as JSON: the voucher header, receipts, offers, queries.

Amounts and sequence numbers of money are decimal strings in JSON, since JavaScript's numbers end at
2**53. Everything that comes from outside passes through a `decode_` function here, which checks
form and range and raises; signatures are checked by the `verify_` functions of
`hanse.protocol.verify`.

    Authorization: Hanse <base64url of the JSON of a VoucherHeader, no padding>
    Authorization: Hanse-Query <base64url of the JSON of a QueryHeader, no padding>
    Hanse-Receipt: <base64url of the JSON of a signed receipt, no padding>
    : hanse-receipt <the same>                     (SSE comment frame, before `data: [DONE]`)

Source: `docs/protocol.md`, section "On the wire".
"""

import base64
import binascii
from typing import Any, TypeVar

import msgspec

from hanse.protocol.errors import HanseError, RequestError, VerificationError
from hanse.protocol.limits import (
    AMOUNT_MAX,
    ENDPOINT_CHARS_MAX,
    ENDPOINTS_PER_OFFER_MAX,
    HEADER_BYTES_MAX,
    NAME_CHARS_MAX,
    PRICE_PER_MTOK_MAX,
    SEQUENCE_MAX,
    TOKENS_MAX,
)
from hanse.protocol.messages import (
    FinishReason,
    Offer,
    Prices,
    Query,
    Receipt,
    Request,
    SignedOffer,
    SignedReceipt,
    SignedVoucher,
    Usage,
    Voucher,
)
from hanse.protocol.signatures import Signature, parse_address, parse_hash32

VOUCHER_SCHEME = "Hanse "
QUERY_SCHEME = "Hanse-Query "
RECEIPT_HEADER = "hanse-receipt"
RECEIPT_COMMENT = b": hanse-receipt "
WIRE_VERSION = 1
ANSWER_KEY_BYTES = 32
SERVICE_TYPES = ("chat", "embeddings")
VERIFIABILITIES = ("tee", "embedded", "sampled", "reputation")

_TIME_MAX = 2**40
_HeaderT = TypeVar("_HeaderT", "VoucherHeader", "QueryHeader")


class VoucherHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the voucher header carries.

    The body hash is not in it: the broker computes it from the body it received.

    Attributes:
        v: wire version, 1.
        offer_hash, maximum_fee, request_id, deadline: of the Request.
        user, provider, signer, cumulative_max, sequence_max, signature: of the Voucher.
        acknowledged: the highest sequence up to which the sender holds every receipt.
        answer_key: base64url of 32 random bytes; the answer is kept sealed under it until
            acknowledged.
    """

    v: int
    user: str
    provider: str
    signer: str
    cumulative_max: int
    sequence_max: int
    offer_hash: str
    maximum_fee: int
    request_id: str
    deadline: int
    acknowledged: int
    answer_key: str
    signature: str


class ParsedVoucherHeader(msgspec.Struct, frozen=True):
    """A decoded voucher header whose request still lacks its body hash."""

    header: VoucherHeader
    answer_key: bytes

    def to_signed_voucher(self, body_hash: str) -> SignedVoucher:
        """Complete the request with the hash of the body that came with it."""
        h = self.header
        request = Request(h.offer_hash, body_hash, h.maximum_fee, h.request_id, h.deadline)
        voucher = Voucher(
            h.user,
            h.provider,
            h.cumulative_max,
            h.sequence_max,
            "0x" + request.struct_hash().hex(),
        )
        return SignedVoucher(voucher, request, h.signer, h.signature)


class QueryHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a query header carries."""

    v: int
    user: str
    provider: str
    signer: str
    after_sequence: int
    deadline: int
    signature: str


def encode_voucher_header(signed: SignedVoucher, acknowledged: int, answer_key: bytes) -> str:
    """The value of the Authorization header for a voucher."""
    voucher, request = signed.voucher, signed.request
    return VOUCHER_SCHEME + _encode(
        {
            "v": WIRE_VERSION,
            "user": voucher.user,
            "provider": voucher.provider,
            "signer": signed.signer,
            "cumulative_max": str(voucher.cumulative_max),
            "sequence_max": str(voucher.sequence_max),
            "offer_hash": request.offer_hash,
            "maximum_fee": str(request.maximum_fee),
            "request_id": request.request_id,
            "deadline": request.deadline,
            "acknowledged": str(acknowledged),
            "answer_key": to_base64url(answer_key),
            "signature": signed.signature,
        }
    )


def decode_voucher_header(value: str) -> ParsedVoucherHeader:
    """Read and check a voucher header's form and ranges; its signature is still unchecked.

    Raises:
        RequestError: `header_malformed`, naming what is wrong.
    """
    header = _decode_header(value, VOUCHER_SCHEME, VoucherHeader)
    try:
        checked = VoucherHeader(
            v=header.v,
            user=parse_address(header.user, "user"),
            provider=parse_address(header.provider, "provider"),
            signer=parse_address(header.signer, "signer"),
            cumulative_max=_check_range(header.cumulative_max, AMOUNT_MAX, "cumulative_max"),
            sequence_max=_check_range(header.sequence_max, SEQUENCE_MAX, "sequence_max"),
            offer_hash=parse_hash32(header.offer_hash, "offer_hash"),
            maximum_fee=_check_range(header.maximum_fee, AMOUNT_MAX, "maximum_fee"),
            request_id=parse_hash32(header.request_id, "request_id"),
            deadline=_check_range(header.deadline, _TIME_MAX, "deadline"),
            acknowledged=_check_range(header.acknowledged, SEQUENCE_MAX, "acknowledged"),
            answer_key=header.answer_key,
            signature=header.signature,
        )
        answer_key = from_base64url(header.answer_key)
    except HanseError as error:
        raise RequestError("header_malformed", error.message, param=error.param) from None
    if len(answer_key) != ANSWER_KEY_BYTES:
        raise RequestError(
            "header_malformed",
            f"answer_key has {len(answer_key)} bytes, expected {ANSWER_KEY_BYTES}",
        )
    return ParsedVoucherHeader(checked, answer_key)


def encode_query_header(query: Query, signature: Signature) -> str:
    """The value of the Authorization header for a query."""
    return QUERY_SCHEME + _encode(
        {
            "v": WIRE_VERSION,
            "user": query.user,
            "provider": query.provider,
            "signer": query.signer,
            "after_sequence": str(query.after_sequence),
            "deadline": query.deadline,
            "signature": signature,
        }
    )


def decode_query_header(value: str) -> tuple[Query, Signature]:
    """Read and check a query header's form; its signature is still unchecked.

    Raises:
        RequestError: `header_malformed`, naming what is wrong.
    """
    header = _decode_header(value, QUERY_SCHEME, QueryHeader)
    try:
        query = Query(
            parse_address(header.user, "user"),
            parse_address(header.provider, "provider"),
            parse_address(header.signer, "signer"),
            _check_range(header.after_sequence, SEQUENCE_MAX, "after_sequence"),
            _check_range(header.deadline, _TIME_MAX, "deadline"),
        )
    except HanseError as error:
        raise RequestError("header_malformed", error.message, param=error.param) from None
    return query, header.signature


def receipt_to_json(signed: SignedReceipt) -> dict[str, Any]:
    """A signed receipt as a JSON-ready dict."""
    r = signed.receipt
    return {
        "v": WIRE_VERSION,
        "user": r.user,
        "provider": r.provider,
        "signer": r.signer,
        "sequence": str(r.sequence),
        "request_hash": r.request_hash,
        "response_hash": r.response_hash,
        "input_tokens": r.usage.input_tokens,
        "cached_tokens": r.usage.cached_tokens,
        "output_tokens": r.usage.output_tokens,
        "fee": str(r.fee),
        "cumulative_fee": str(r.cumulative_fee),
        "finish_reason": r.finish_reason.name.lower(),
        "finished_at": r.finished_at,
        "commitment_root": r.commitment_root,
        "signature": signed.signature,
    }


class _ReceiptWire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    v: int
    user: str
    provider: str
    signer: str
    sequence: int
    request_hash: str
    response_hash: str
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    fee: int
    cumulative_fee: int
    finish_reason: str
    finished_at: int
    commitment_root: str
    signature: str


def receipt_from_json(data: object) -> SignedReceipt:
    """Read a signed receipt from decoded JSON; its signature is still unchecked.

    Raises:
        VerificationError: `receipt_invalid`, naming what is wrong.
    """
    try:
        w = msgspec.convert(data, _ReceiptWire, strict=False)
        _check_version(w.v)
        receipt = Receipt(
            parse_address(w.user, "user"),
            parse_address(w.provider, "provider"),
            parse_address(w.signer, "signer"),
            _check_range(w.sequence, SEQUENCE_MAX, "sequence"),
            parse_hash32(w.request_hash, "request_hash"),
            parse_hash32(w.response_hash, "response_hash"),
            Usage(
                _check_range(w.input_tokens, TOKENS_MAX, "input_tokens"),
                _check_range(w.cached_tokens, TOKENS_MAX, "cached_tokens"),
                _check_range(w.output_tokens, TOKENS_MAX, "output_tokens"),
            ),
            _check_range(w.fee, AMOUNT_MAX, "fee"),
            _check_range(w.cumulative_fee, AMOUNT_MAX, "cumulative_fee"),
            FinishReason[w.finish_reason.upper()],
            _check_range(w.finished_at, _TIME_MAX, "finished_at"),
            parse_hash32(w.commitment_root, "commitment_root"),
        )
    except KeyError:
        raise VerificationError(
            "receipt_invalid", "finish_reason is none of the protocol's"
        ) from None
    except (msgspec.ValidationError, HanseError) as error:
        raise VerificationError("receipt_invalid", f"receipt: {error}") from None
    return SignedReceipt(receipt, w.signature)


def encode_receipt(signed: SignedReceipt) -> str:
    """A signed receipt for the Hanse-Receipt header or the SSE comment."""
    return _encode(receipt_to_json(signed))


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
        data = msgspec.json.decode(from_base64url(value.strip()))
    except (msgspec.DecodeError, HanseError) as error:
        raise VerificationError("receipt_invalid", f"receipt: {error}") from None
    return receipt_from_json(data)


def encode_receipt_frame(signed: SignedReceipt) -> bytes:
    """The SSE comment frame that carries a stream's receipt."""
    return RECEIPT_COMMENT + encode_receipt(signed).encode() + b"\n\n"


def offer_to_json(signed: SignedOffer) -> dict[str, Any]:
    """A signed offer as a JSON-ready dict."""
    o = signed.offer
    data: dict[str, Any] = msgspec.to_builtins(o)
    data["prices"] = {name: str(price) for name, price in data["prices"].items()}
    data["endpoints"] = list(o.endpoints)
    return {"v": WIRE_VERSION, **data, "signature": signed.signature}


class _OfferWire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    v: int
    provider: str
    service_id: int
    service_type: str
    model: str
    manifest_root: str
    quantisation: str
    engine: str
    context_tokens: int
    output_tokens_max: int
    prices: Prices
    verifiability: str
    endpoints: tuple[str, ...]
    encryption_key: str
    valid_until: int
    revision: int
    signature: str


def offer_from_json(data: object) -> SignedOffer:
    """Read a signed offer from decoded JSON; its signature is still unchecked.

    Raises:
        VerificationError: `offer_invalid`, naming what is wrong.
    """
    try:
        w = msgspec.convert(data, _OfferWire, strict=False)
        _check_version(w.v)
        _check_offer_names(w)
        offer = Offer(
            provider=parse_address(w.provider, "provider"),
            service_id=_check_range(w.service_id, SEQUENCE_MAX, "service_id"),
            service_type=w.service_type,
            model=w.model,
            manifest_root=parse_hash32(w.manifest_root, "manifest_root"),
            quantisation=w.quantisation,
            engine=w.engine,
            context_tokens=_check_range(w.context_tokens, TOKENS_MAX, "context_tokens"),
            output_tokens_max=_check_range(w.output_tokens_max, TOKENS_MAX, "output_tokens_max"),
            prices=Prices(
                _check_range(w.prices.input_per_mtok, PRICE_PER_MTOK_MAX, "input_per_mtok"),
                _check_range(w.prices.cached_per_mtok, PRICE_PER_MTOK_MAX, "cached_per_mtok"),
                _check_range(w.prices.output_per_mtok, PRICE_PER_MTOK_MAX, "output_per_mtok"),
            ),
            verifiability=w.verifiability,
            endpoints=w.endpoints,
            encryption_key=parse_hash32(w.encryption_key, "encryption_key"),
            valid_until=_check_range(w.valid_until, _TIME_MAX, "valid_until"),
            revision=_check_range(w.revision, SEQUENCE_MAX, "revision"),
        )
    except (msgspec.ValidationError, HanseError) as error:
        raise VerificationError("offer_invalid", f"offer: {error}") from None
    return SignedOffer(offer, w.signature)


def to_base64url(data: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def from_base64url(text: str) -> bytes:
    """The bytes of unpadded base64url; raises RequestError `header_malformed`."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise RequestError("header_malformed", "not base64url") from None


def _encode(data: dict[str, Any]) -> str:
    return to_base64url(msgspec.json.encode(data))


def _decode_header(value: str, scheme: str, kind: type[_HeaderT]) -> _HeaderT:
    if len(value) > HEADER_BYTES_MAX:
        raise RequestError(
            "header_malformed", f"header of {len(value)} characters, at most {HEADER_BYTES_MAX}"
        )
    if not value.startswith(scheme):
        raise RequestError("header_malformed", f"Authorization must begin with {scheme.strip()!r}")
    try:
        header = msgspec.json.decode(
            from_base64url(value[len(scheme) :].strip()), type=kind, strict=False
        )
    except msgspec.DecodeError as error:
        raise RequestError("header_malformed", f"{scheme.strip()} header: {error}") from None
    if header.v != WIRE_VERSION:
        raise RequestError("header_malformed", f"wire version {header.v}, expected {WIRE_VERSION}")
    return header


def _check_range(value: int, most: int, field: str) -> int:
    if not 0 <= value <= most:
        raise RequestError(
            "invalid_request", f"{field} is {value}, outside 0 .. {most}", param=field
        )
    return value


def _check_version(version: int) -> None:
    if version != WIRE_VERSION:
        raise RequestError("invalid_request", f"wire version {version}, expected {WIRE_VERSION}")


def _check_offer_names(w: _OfferWire) -> None:
    for field in ("model", "quantisation", "engine"):
        name = getattr(w, field)
        if not 0 < len(name) <= NAME_CHARS_MAX or not name.isprintable():
            raise RequestError(
                "invalid_request", f"{field} must have 1 .. {NAME_CHARS_MAX} printable characters"
            )
    if w.service_type not in SERVICE_TYPES:
        raise RequestError(
            "invalid_request", f"service_type {w.service_type!r:.40} is none of {SERVICE_TYPES}"
        )
    if w.verifiability not in VERIFIABILITIES:
        raise RequestError(
            "invalid_request", f"verifiability {w.verifiability!r:.40} is none of {VERIFIABILITIES}"
        )
    if not 0 < len(w.endpoints) <= ENDPOINTS_PER_OFFER_MAX:
        raise RequestError(
            "invalid_request",
            f"{len(w.endpoints)} endpoints, expected 1 .. {ENDPOINTS_PER_OFFER_MAX}",
        )
    for endpoint in w.endpoints:
        if len(endpoint) > ENDPOINT_CHARS_MAX or not endpoint.startswith(("http://", "https://")):
            raise RequestError(
                "invalid_request", "an endpoint must be an http(s) URL of at most 256 characters"
            )
