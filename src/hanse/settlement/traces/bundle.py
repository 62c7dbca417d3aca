"""A trace as one file, to hand to the other side or keep elsewhere: still encrypted.

    {"format": "hanse-trace-1", "trace_hash": "0x...", "request_id": "0x...",
     "sealed_keys": [{"recipient": "user", "public_key": "0x...", "sealed": "<base64>"}],
     "object": "<base64>"}

It holds the sealed keys, so forgetting a trace afterwards does not reach the copies that were
exported.
"""

from base64 import b64decode, b64encode
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from hanse.protocol.errors import VerificationError
from hanse.protocol.signatures import Hash32, parse_hash32
from hanse.protocol.wire.files import FileForm
from hanse.settlement.traces.document import (
    OBJECT_BYTES_MAX,
    Side,
    Trace,
    decrypt_trace,
    hash_object,
)
from hanse.settlement.traces.notes import SealedKey
from hanse.settlement.traces.sealing import SEALED_KEY_BYTES, get_public_key, open_data_key

FORMAT = "hanse-trace-1"

FILE_BYTES_MAX = OBJECT_BYTES_MAX * 4 // 3 + 65_536
"""The largest object in base64, and the rest."""

SEALED_KEYS_MAX = 2
"""One for each side."""


class _Key(msgspec.Struct, forbid_unknown_fields=True):
    recipient: Side
    public_key: str
    sealed: str


class _File(msgspec.Struct, forbid_unknown_fields=True):
    format: str
    trace_hash: str
    request_id: str
    sealed_keys: list[_Key]
    object: str


FORM = FileForm(FORMAT, _File, FILE_BYTES_MAX, "trace_invalid", "this exported trace does not hold")


def encode_bundle(
    content: bytes, trace_hash: Hash32, request_id: Hash32, keys: list[SealedKey]
) -> dict[str, Any]:
    """The document of an encrypted trace, JSON-ready."""
    return {
        "format": FORMAT,
        "trace_hash": trace_hash,
        "request_id": request_id,
        "sealed_keys": [
            {
                "recipient": key.recipient.value,
                "public_key": key.public_key,
                "sealed": b64encode(key.sealed).decode(),
            }
            for key in keys
        ],
        "object": b64encode(content).decode(),
    }


def decode_bundle(raw: bytes) -> tuple[bytes, Hash32, list[SealedKey]]:
    """Object, trace hash and sealed keys of a file; the object hashes to the trace hash.

    Raises:
        VerificationError: `trace_invalid`.
    """
    file = FORM.decode(raw)
    with FORM.reading():
        content = b64decode(file.object, validate=True)
        trace_hash = parse_hash32(file.trace_hash, "trace_hash")
        keys = [
            SealedKey(
                key.recipient,
                parse_hash32(key.public_key, "public_key"),
                b64decode(key.sealed, validate=True),
            )
            for key in file.sealed_keys
        ]
    if len(keys) > SEALED_KEYS_MAX:
        raise FORM.refuse(f"{len(keys)} sealed keys, at most {SEALED_KEYS_MAX}")
    if any(len(key.sealed) != SEALED_KEY_BYTES for key in keys):
        raise FORM.refuse("a sealed key in the file has a wrong length")
    if hash_object(content) != trace_hash:
        raise FORM.refuse(
            f"the object in the file hashes to {hash_object(content)}, it is called {trace_hash}"
        )
    return content, trace_hash, keys


def open_trace(
    content: bytes, trace_hash: Hash32, keys: list[SealedKey], private: X25519PrivateKey
) -> Trace:
    """Decrypt an object whose hash was checked, by whichever sealed key is ours.

    Raises:
        VerificationError: `trace_invalid` if none of the keys is, or the object is damaged.
    """
    public = get_public_key(private)
    found = [key for key in keys if key.public_key == public]
    if not found:
        sealed_to = ", ".join(f"{key.recipient} {key.public_key}" for key in keys)
        raise VerificationError(
            "trace_invalid",
            f"trace {trace_hash} is not sealed to {public} (it is sealed to: "
            f"{sealed_to or 'nobody, its keys were destroyed'})",
        )
    return decrypt_trace(content, open_data_key(found[0].sealed, private, trace_hash))
