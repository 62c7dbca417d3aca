"""What a caller sends in `Authorization`: a voucher, or a query.

    Authorization: Hanse <base64url of the JSON of a voucher header, no padding>
    Authorization: Hanse-Query <base64url of the JSON of a query header, no padding>

`decode_` functions check form and range and raise; signatures are checked by the `verify_`
functions of `hanse.protocol.verify`.

Source: `docs/protocol.md`, section "On the wire".
"""

from typing import Literal

import msgspec

from hanse.protocol.errors import HanseError, RequestError
from hanse.protocol.limits import AMOUNT_MAX, HEADER_BYTES_MAX, SEQUENCE_MAX
from hanse.protocol.messages import Query, Request, SignedVoucher, Voucher
from hanse.protocol.signatures import Signature, parse_address, parse_hash32
from hanse.protocol.wire.fields import (
    TIME_MAX,
    WIRE_VERSION,
    PlainAddress,
    PlainCount,
    PlainHash,
    PlainTime,
    check_range,
    check_version,
    decode_json,
    from_base64url,
    parse_count,
    to_base64url,
)

VOUCHER_SCHEME = "Hanse "
QUERY_SCHEME = "Hanse-Query "
ANSWER_KEY_BYTES = 32


class VoucherHeader(msgspec.Struct, frozen=True):
    """What the voucher header carries, checked.

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


class _VoucherWire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    v: int
    user: str
    provider: str
    signer: str
    cumulative_max: str
    sequence_max: str
    offer_hash: str
    maximum_fee: str
    request_id: str
    deadline: int
    acknowledged: str
    answer_key: str
    signature: str


class _PlainVoucherWire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """As Hanse writes it: all of its form is checked by one call of C."""

    v: Literal[1]
    user: PlainAddress
    provider: PlainAddress
    signer: PlainAddress
    cumulative_max: PlainCount
    sequence_max: PlainCount
    offer_hash: PlainHash
    maximum_fee: PlainCount
    request_id: PlainHash
    deadline: PlainTime
    acknowledged: PlainCount
    answer_key: str
    signature: str


_decode_plain = msgspec.json.Decoder(_PlainVoucherWire).decode


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


class _QueryWire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    v: int
    user: str
    provider: str
    signer: str
    after_sequence: str
    deadline: int
    signature: str


def encode_voucher_header(signed: SignedVoucher, acknowledged: int, answer_key: bytes) -> str:
    """The value of the Authorization header for a voucher."""
    voucher, request = signed.voucher, signed.request
    wire = _VoucherWire(
        WIRE_VERSION,
        voucher.user,
        voucher.provider,
        signed.signer,
        str(voucher.cumulative_max),
        str(voucher.sequence_max),
        request.offer_hash,
        str(request.maximum_fee),
        request.request_id,
        request.deadline,
        str(acknowledged),
        to_base64url(answer_key),
        signed.signature,
    )
    return VOUCHER_SCHEME + to_base64url(msgspec.json.encode(wire))


def decode_voucher_header(value: str) -> ParsedVoucherHeader:
    """Read and check a voucher header's form and ranges; its signature is still unchecked.

    Raises:
        RequestError: `header_malformed`, naming what is wrong.
    """
    data = _decode_base(value, VOUCHER_SCHEME)
    try:
        header = _read_plain(data) or _check_wire(decode_json(data, _VoucherWire))
        answer_key = from_base64url(header.answer_key)
    except HanseError as error:
        raise RequestError("header_malformed", error.message, param=error.param) from None
    if len(answer_key) != ANSWER_KEY_BYTES:
        raise RequestError(
            "header_malformed",
            f"answer_key has {len(answer_key)} bytes, expected {ANSWER_KEY_BYTES}",
            param="answer_key",
        )
    return ParsedVoucherHeader(header, answer_key)


def _read_plain(data: bytes) -> VoucherHeader | None:
    """The header, unless something of it is unusual or wrong."""
    try:
        w = _decode_plain(data)
    except (ValueError, RecursionError):
        return None
    cumulative_max, sequence_max = int(w.cumulative_max), int(w.sequence_max)
    maximum_fee, acknowledged = int(w.maximum_fee), int(w.acknowledged)
    if (
        max(cumulative_max, maximum_fee) > AMOUNT_MAX
        or max(sequence_max, acknowledged) > SEQUENCE_MAX
    ):
        return None
    return VoucherHeader(
        w.v,
        w.user,
        w.provider,
        w.signer,
        cumulative_max,
        sequence_max,
        w.offer_hash,
        maximum_fee,
        w.request_id,
        w.deadline,
        acknowledged,
        w.answer_key,
        w.signature,
    )


def _check_wire(w: _VoucherWire) -> VoucherHeader:
    check_version(w.v)
    return VoucherHeader(
        v=w.v,
        user=parse_address(w.user, "user"),
        provider=parse_address(w.provider, "provider"),
        signer=parse_address(w.signer, "signer"),
        cumulative_max=parse_count(w.cumulative_max, AMOUNT_MAX, "cumulative_max"),
        sequence_max=parse_count(w.sequence_max, SEQUENCE_MAX, "sequence_max"),
        offer_hash=parse_hash32(w.offer_hash, "offer_hash"),
        maximum_fee=parse_count(w.maximum_fee, AMOUNT_MAX, "maximum_fee"),
        request_id=parse_hash32(w.request_id, "request_id"),
        deadline=check_range(w.deadline, TIME_MAX, "deadline"),
        acknowledged=parse_count(w.acknowledged, SEQUENCE_MAX, "acknowledged"),
        answer_key=w.answer_key,
        signature=w.signature,
    )


def encode_query_header(query: Query, signature: Signature) -> str:
    """The value of the Authorization header for a query."""
    wire = _QueryWire(
        WIRE_VERSION,
        query.user,
        query.provider,
        query.signer,
        str(query.after_sequence),
        query.deadline,
        signature,
    )
    return QUERY_SCHEME + to_base64url(msgspec.json.encode(wire))


def decode_query_header(value: str) -> tuple[Query, Signature]:
    """Read and check a query header's form; its signature is still unchecked.

    Raises:
        RequestError: `header_malformed`, naming what is wrong.
    """
    w = decode_json(_decode_base(value, QUERY_SCHEME), _QueryWire)
    try:
        check_version(w.v)
        query = Query(
            parse_address(w.user, "user"),
            parse_address(w.provider, "provider"),
            parse_address(w.signer, "signer"),
            parse_count(w.after_sequence, SEQUENCE_MAX, "after_sequence"),
            check_range(w.deadline, TIME_MAX, "deadline"),
        )
    except HanseError as error:
        raise RequestError("header_malformed", error.message, param=error.param) from None
    return query, w.signature


def _decode_base(value: str, scheme: str) -> bytes:
    if len(value) > HEADER_BYTES_MAX:
        raise RequestError(
            "header_malformed", f"header of {len(value)} characters, at most {HEADER_BYTES_MAX}"
        )
    if not value.startswith(scheme):
        raise RequestError("header_malformed", f"Authorization must begin with {scheme.strip()!r}")
    return from_base64url(value[len(scheme) :].strip())
