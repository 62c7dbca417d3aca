r"""What a trace holds, and how it is encrypted. Pure but for the random key and nonce.

    plaintext = header length (4 bytes) || header (JSON) || body || response || zeros
    object    = "hanse-trace-1\n" || key commitment (32) || nonce (12) || AES-256-GCM
    trace hash = SHA-256(object)

- The zeros hide the length: padded by PADME, a stranger learns its order of magnitude, and at most
  12 % are added.
- The associated data is everything before the ciphertext, so nothing of it can be exchanged.
- AES-GCM alone lets a hostile writer make one ciphertext that opens differently under two keys: one
  for the user, one for the judge. The commitment, SHA-256 over a label and the data key, binds an
  object to one key, hence to one plaintext.
- Nothing is compressed: sizes would tell more of the contents, and reading would need a guard
  against bombs.

Source: NIST SP 800-38D; Nikitin et al., "Reducing Metadata Leakage from Encrypted Files and
    Communication with PURBs" (2019), section 4 for PADME; Albertini et al., "How to Abuse and Fix
    Authenticated Encryption Without Key Commitment" (2022).
"""

import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from hanse.protocol.errors import HanseError, VerificationError
from hanse.protocol.limits import REQUEST_BODY_BYTES_MAX
from hanse.protocol.messages import Request, SignedReceipt
from hanse.protocol.nesting import is_nested_too_deep
from hanse.protocol.signatures import Hash32, parse_hash32, to_hex
from hanse.protocol.wire import receipt_from_json, receipt_to_json
from hanse.settlement.traces.sealing import DATA_KEY_BYTES

MAGIC = b"hanse-trace-1\n"
COMMITMENT_LABEL = b"hanse trace key commitment 1\x00"

RESPONSE_BYTES_TRACED_MAX = 12 * 1024 * 1024
"""A longer answer leaves no trace: some 60,000 streamed tokens; each side holds it in memory."""

HEADER_JSON_BYTES_MAX = 16_384
"""Request, receipt and path take about 1.5 kB."""

OBJECT_BYTES_MAX = (REQUEST_BODY_BYTES_MAX + RESPONSE_BYTES_TRACED_MAX) * 9 // 8 + 65_536
"""The largest object that is read: a whole trace with an eighth for padding, and its header."""

_NONCE_BYTES = 12
_AHEAD_BYTES = len(MAGIC) + 32 + _NONCE_BYTES


class Side(StrEnum):
    """Whose trace it is: bytes as the user's side or as the provider saw them."""

    USER = "user"
    PROVIDER = "provider"


@dataclass(frozen=True)
class Trace:
    """One request as one side saw it.

    Attributes:
        side: which.
        request: what the voucher bought; its hash is in the receipt.
        receipt: what was signed for it.
        path: of the operation.
        body: the request's bytes.
        response: the answer's bytes, of a stream its data frames in order.
    """

    side: Side
    request: Request
    receipt: SignedReceipt
    path: str
    body: bytes
    response: bytes


@dataclass(frozen=True)
class EncryptedTrace:
    """A trace as it is stored, the key that opens it, and its content hash."""

    content: bytes
    data_key: bytes
    trace_hash: Hash32


class _Request(msgspec.Struct, forbid_unknown_fields=True):
    offer_hash: str
    body_hash: str
    maximum_fee: str
    request_id: str
    deadline: int


class _Header(msgspec.Struct, forbid_unknown_fields=True):
    side: Side
    path: str
    request: _Request
    receipt: dict[str, Any]
    body_bytes: int
    response_bytes: int


def encrypt_trace(
    trace: Trace,
    random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    data_key: bytes = b"",
) -> EncryptedTrace:
    """Encrypt a trace under a new random key, or under one that a folder has (`KeptAnswers`)."""
    data_key = data_key or random_bytes(DATA_KEY_BYTES)
    nonce = random_bytes(_NONCE_BYTES)
    ahead = MAGIC + get_commitment(data_key) + nonce
    content = ahead + AESGCM(data_key).encrypt(nonce, _encode(trace), ahead)
    return EncryptedTrace(content, data_key, hash_object(content))


def decrypt_trace(content: bytes, data_key: bytes) -> Trace:
    """The trace in an object.

    The caller still owes: that the object is the one that was noted (`hash_object`), and that the
    trace is what was signed for (`checking.check_trace`).

    Raises:
        VerificationError: `trace_invalid` if object and key do not belong together.
    """
    ahead = content[:_AHEAD_BYTES]
    if len(content) > OBJECT_BYTES_MAX or not ahead.startswith(MAGIC):
        raise VerificationError("trace_invalid", "the object is too large or no trace")
    if not hmac.compare_digest(ahead[len(MAGIC) : -_NONCE_BYTES], get_commitment(data_key)):
        raise VerificationError("trace_invalid", "the object was encrypted under another key")
    try:
        plain = AESGCM(data_key).decrypt(ahead[-_NONCE_BYTES:], content[_AHEAD_BYTES:], ahead)
        return _decode(plain)
    except VerificationError:
        raise
    except (InvalidTag, ValueError, HanseError, RecursionError):
        # msgspec's errors are ValueErrors; none of their texts is shown, it may quote the contents
        raise VerificationError("trace_invalid", "the object is damaged") from None


def hash_object(content: bytes) -> Hash32:
    """The trace hash: what the object is called, and what a record's leaf binds."""
    return to_hex(hashlib.sha256(content).digest())


def get_commitment(data_key: bytes) -> bytes:
    """What binds an object to one data key."""
    return hashlib.sha256(COMMITMENT_LABEL + data_key).digest()


def get_padded_bytes(length_bytes: int) -> int:
    """PADME: the next length whose lower bits are zero; at most 12 % more, 256 bytes at least."""
    length_bytes = max(length_bytes, 256)
    exponent = length_bytes.bit_length() - 1
    low_bits = exponent - exponent.bit_length()
    mask = (1 << low_bits) - 1
    return (length_bytes + mask) & ~mask


def _encode(trace: Trace) -> bytes:
    request = trace.request
    header = msgspec.json.encode(
        _Header(
            trace.side,
            trace.path,
            _Request(
                request.offer_hash,
                request.body_hash,
                str(request.maximum_fee),
                request.request_id,
                request.deadline,
            ),
            receipt_to_json(trace.receipt),
            len(trace.body),
            len(trace.response),
        )
    )
    plain = len(header).to_bytes(4, "big") + header + trace.body + trace.response
    return plain.ljust(get_padded_bytes(len(plain)), b"\x00")


def _decode(plain: bytes) -> Trace:
    end = 4 + int.from_bytes(plain[:4], "big")
    text = plain[4:end]
    if len(text) != end - 4 or end > HEADER_JSON_BYTES_MAX or is_nested_too_deep(text):
        raise VerificationError("trace_invalid", "the trace's header is malformed")
    header = msgspec.json.decode(text, type=_Header)
    body_end = end + header.body_bytes
    response_end = body_end + header.response_bytes
    if min(header.body_bytes, header.response_bytes) < 0 or response_end > len(plain):
        raise VerificationError("trace_invalid", "the trace is shorter than its header says")
    found = header.request
    request = Request(
        parse_hash32(found.offer_hash, "offer_hash"),
        parse_hash32(found.body_hash, "body_hash"),
        int(found.maximum_fee),
        parse_hash32(found.request_id, "request_id"),
        found.deadline,
    )
    receipt = receipt_from_json(header.receipt)
    body, response = plain[end:body_end], plain[body_end:response_end]
    return Trace(header.side, request, receipt, header.path, body, response)
