"""Data keys of traces, sealed to X25519 public keys.

    sealed = seal_data_key(data_key, offer.encryption_key, trace_hash)       # 80 bytes
    data_key = open_data_key(sealed, private_key, trace_hash)

HPKE in base mode with DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and AES-256-GCM; `info` names the
purpose and the trace, so a sealed key that was moved to another trace does not open. Whoever knows
a public key can seal to it: a sealed key says nothing about who made it.

A key of low order would make the shared secret known to everybody. RFC 9180 section 7.1.4 asks to
refuse it; the library does, and so a key in an offer that is one counts as none.

Source: RFC 9180; the tests compare with its vectors.
"""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from hanse.protocol.errors import RequestError, VerificationError
from hanse.protocol.signatures import ZERO_HASH, Hash32, parse_hash32, to_bytes, to_hex

DATA_KEY_BYTES = 32
SEALED_KEY_BYTES = 32 + DATA_KEY_BYTES + 16
"""The sender's fresh public key, the data key, and GCM's tag."""

INFO = b"hanse trace key 1\x00"

ENCRYPTION_KEY_HEADER = "Hanse-Encryption-Key"
"""By which a user's side names its public key; a broker's is in its offer."""

_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


def seal_data_key(data_key: bytes, recipient: Hash32, trace_hash: Hash32) -> bytes:
    """Seal a data key to one public key.

    Raises:
        RequestError: `unprocessable` if the recipient's key is none, or of low order.
    """
    if recipient == ZERO_HASH:
        raise RequestError("unprocessable", "the recipient has no encryption key (it is zero)")
    try:
        public = X25519PublicKey.from_public_bytes(to_bytes(recipient))
        return _SUITE.encrypt(data_key, public, info=INFO + to_bytes(trace_hash))
    except ValueError:
        raise RequestError(
            "unprocessable", f"nothing can be sealed to {recipient}: it is a key of low order"
        ) from None


def open_data_key(sealed: bytes, private: X25519PrivateKey, trace_hash: Hash32) -> bytes:
    """The data key of a trace.

    Raises:
        VerificationError: `trace_invalid` if it was not sealed to this key for this trace.
    """
    try:
        data_key = _SUITE.decrypt(sealed, private, info=INFO + to_bytes(trace_hash))
    except (InvalidTag, ValueError):
        data_key = b""
    if len(data_key) != DATA_KEY_BYTES:
        raise VerificationError(
            "trace_invalid",
            f"the key of trace {trace_hash} was not sealed to {get_public_key(private)}",
        )
    return data_key


def read_encryption_key(header: str | None) -> Hash32:
    """The public key in a `Hanse-Encryption-Key` header; zero if there is none that can be read.

    It is a wish for what the broker keeps for itself, so a malformed one refuses no request.
    """
    try:
        return parse_hash32(header)
    except RequestError:
        return ZERO_HASH


def get_public_key(private: X25519PrivateKey) -> Hash32:
    """The public half, as offers carry it."""
    return to_hex(private.public_key().public_bytes_raw())
