"""Messages as JSON: the voucher and query headers, receipts, offers.

Everything that comes from outside passes through a `decode_` or `_from_json` function here, which
checks form and range and raises; signatures are checked by the `verify_` functions of
`hanse.protocol.verify`.

fields     base64url, exact amounts, ranges
headers    what a caller sends in `Authorization`
receipts   what a broker sends back
frames     where a stream's frames end, for every reader alike
offers     what a provider offers
heartbeats how busy its services are
operations what can be bought, at which path
forms      a multipart form, as an upload of audio comes
files      documents that strangers hand over, read and refused in one way
server_errors   what other servers of OpenAI's API say went wrong

Source: `docs/protocol.md`, section "On the wire".
"""

from hanse.protocol.wire.fields import WIRE_VERSION, from_base64url, to_base64url
from hanse.protocol.wire.frames import is_done, is_stream, split_payloads
from hanse.protocol.wire.headers import (
    ANSWER_KEY_BYTES,
    QUERY_SCHEME,
    VOUCHER_SCHEME,
    ParsedVoucherHeader,
    VoucherHeader,
    decode_query_header,
    decode_voucher_header,
    encode_query_header,
    encode_voucher_header,
)
from hanse.protocol.wire.heartbeats import (
    HEARTBEATS_PATH,
    heartbeat_from_json,
    heartbeat_to_json,
)
from hanse.protocol.wire.offers import (
    VERIFIABILITIES,
    offer_from_json,
    offer_to_json,
    parse_region,
)
from hanse.protocol.wire.operations import OPERATIONS_BY_PATH, SERVICE_TYPES, Operation
from hanse.protocol.wire.receipts import (
    RECEIPT_COMMENT,
    RECEIPT_HEADER,
    decode_receipt,
    encode_receipt,
    encode_receipt_frame,
    encode_receipt_json,
    receipt_from_json,
    receipt_to_json,
)

__all__ = [
    "ANSWER_KEY_BYTES",
    "HEARTBEATS_PATH",
    "OPERATIONS_BY_PATH",
    "QUERY_SCHEME",
    "RECEIPT_COMMENT",
    "RECEIPT_HEADER",
    "SERVICE_TYPES",
    "VERIFIABILITIES",
    "VOUCHER_SCHEME",
    "WIRE_VERSION",
    "Operation",
    "ParsedVoucherHeader",
    "VoucherHeader",
    "decode_query_header",
    "decode_receipt",
    "decode_voucher_header",
    "encode_query_header",
    "encode_receipt",
    "encode_receipt_frame",
    "encode_receipt_json",
    "encode_voucher_header",
    "from_base64url",
    "heartbeat_from_json",
    "heartbeat_to_json",
    "is_done",
    "is_stream",
    "offer_from_json",
    "offer_to_json",
    "parse_region",
    "receipt_from_json",
    "receipt_to_json",
    "split_payloads",
    "to_base64url",
]
