"""Addresses, hashes and secp256k1 signatures as text, and their checks.

Inside Hanse an address is `0x` and 40 lower-case hex digits, a hash `0x` and 64, a signature `0x`
and 130 (r, s, v with v 27 or 28 and s in the lower half of the curve's order). One form everywhere
means that a plain `==` compares them and that they travel in JSON and SQL as they are.

Source: SEC 1 for the curve, EIP-2 for the low s, EIP-55 for the mixed-case checksum, EIP-2098 for
the compact form.
"""

import re
from typing import Protocol

from coincurve import PrivateKey, PublicKey
from coincurve._libsecp256k1 import ffi, lib  # type: ignore[import-not-found]  # compiled
from coincurve.context import GLOBAL_CONTEXT
from coincurve.flags import EC_UNCOMPRESSED
from sha3 import keccak_256

from hanse.protocol.errors import RequestError

Address = str
Hash32 = str
Signature = str

CURVE_ORDER = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141
ZERO_ADDRESS: Address = "0x" + "0" * 40
ZERO_HASH: Hash32 = "0x" + "0" * 64

_HEX = frozenset("0123456789abcdef")

# what Hanse itself writes; a request has a dozen of them
_match_address = re.compile("0x[0-9a-f]{40}").fullmatch
_match_hash32 = re.compile("0x[0-9a-f]{64}").fullmatch


class DigestSigner(Protocol):
    """Whatever can sign a 32-byte digest: a key file, a hardware wallet, a remote signer."""

    @property
    def address(self) -> Address:
        """The address that signatures recover to."""
        ...

    def sign_digest(self, digest: bytes) -> Signature:
        """Sign exactly these 32 bytes, without any prefix; low s."""
        ...


def keccak(data: bytes) -> bytes:
    """Keccak-256 as Ethereum uses it (not SHA3-256)."""
    digest: bytes = keccak_256(data).digest()
    return digest


def parse_address(text: object, field: str = "address") -> Address:
    """Check an address and return it in lower case.

    Raises:
        RequestError: `invalid_request` if it is not 0x and 40 hex digits, or is in mixed case with
            a wrong EIP-55 checksum (which means a mistyped address).
    """
    if type(text) is str and _match_address(text):
        return text
    if not isinstance(text, str) or len(text) != 42 or text[:2] != "0x":
        raise RequestError("invalid_request", f"{field} must be 0x and 40 hex digits", param=field)
    lower = text.lower()
    if not _HEX.issuperset(lower[2:]):
        raise RequestError("invalid_request", f"{field} must be 0x and 40 hex digits", param=field)
    if text[2:] not in (lower[2:], text[2:].upper()) and text != to_checksum(lower):
        raise RequestError(
            "invalid_request",
            f"{field} {text} has a wrong checksum, expected {to_checksum(lower)}",
            param=field,
        )
    return lower


def parse_hash32(text: object, field: str = "hash") -> Hash32:
    """Check a 32-byte hash and return it in lower case."""
    if type(text) is str and _match_hash32(text):
        return text
    if not isinstance(text, str) or len(text) != 66 or text[:2] != "0x":
        raise RequestError("invalid_request", f"{field} must be 0x and 64 hex digits", param=field)
    lower = text.lower()
    if not _HEX.issuperset(lower[2:]):
        raise RequestError("invalid_request", f"{field} must be 0x and 64 hex digits", param=field)
    return lower


def to_checksum(address: Address) -> str:
    """The EIP-55 form of a lower-case address, for people and for other tools."""
    digits = address[2:]
    mask = keccak(digits.encode()).hex()
    return "0x" + "".join(
        c.upper() if int(m, 16) >= 8 else c for c, m in zip(digits, mask, strict=False)
    )


def to_bytes(text: str) -> bytes:
    """The bytes of an address, hash or signature in its text form."""
    return bytes.fromhex(text[2:])


def to_hex(data: bytes) -> str:
    """`0x` and lower-case hex."""
    return "0x" + data.hex()


def get_address(public_key: PublicKey) -> Address:
    """The address of a public key: the last 20 bytes of the hash of its 64 bytes."""
    return "0x" + keccak(public_key.format(compressed=False)[1:])[12:].hex()


def sign_digest(secret: PrivateKey, digest: bytes) -> Signature:
    """Sign a 32-byte digest (RFC 6979 nonce, low s)."""
    raw = secret.sign_recoverable(digest, hasher=None)
    return "0x" + raw[:64].hex() + format(raw[64] + 27, "02x")


def recover_signer(digest: bytes, signature: object) -> Address:
    """The address whose key signed `digest`.

    Raises:
        RequestError: `signature_invalid` if the signature is malformed, has v outside 27 and 28, r
            or s outside the curve's order, or s in the upper half (a second signature for the same
            message).
    """
    if not isinstance(signature, str) or len(signature) != 132 or signature[:2] != "0x":
        raise RequestError("signature_invalid", "a signature is 0x and 130 hex digits (r, s, v)")
    try:
        raw = bytes.fromhex(signature[2:])
    except ValueError:
        raw = b""
    if len(raw) != 65:  # fromhex skips spaces, and then comes up short
        raise RequestError("signature_invalid", "a signature is 0x and 130 hex digits (r, s, v)")
    s = int.from_bytes(raw[32:64], "big")
    if raw[64] not in (27, 28) or not 0 < s <= CURVE_ORDER // 2:
        raise RequestError(
            "signature_invalid", "signature needs v of 27 or 28 and s in the lower half"
        )
    key = _recover_key(raw[:64], raw[64] - 27, digest)
    if key is None:
        raise RequestError("signature_invalid", "no key can have made this signature")
    return "0x" + keccak(key[1:])[12:].hex()


def _recover_key(compact: bytes, recovery_id: int, digest: bytes) -> bytes | None:
    """The 65 bytes of the key, or None where there is none.

    As `PublicKey.from_signature_and_message` and `format` do it, without what lies between: a
    seventh of the time of this check, which each side makes of each request.
    """
    if len(digest) != 32:  # C would read on
        return None
    context = GLOBAL_CONTEXT.ctx
    signature = ffi.new("secp256k1_ecdsa_recoverable_signature *")
    key = ffi.new("secp256k1_pubkey *")
    parse = lib.secp256k1_ecdsa_recoverable_signature_parse_compact
    is_found = parse(context, signature, compact, recovery_id) and lib.secp256k1_ecdsa_recover(
        context, key, signature, digest
    )
    if not is_found:
        return None
    text, length = ffi.new("unsigned char[65]"), ffi.new("size_t *", 65)
    lib.secp256k1_ec_pubkey_serialize(context, text, length, key, EC_UNCOMPRESSED)
    return bytes(text)


def verify_signature(digest: bytes, signature: object, expected: Address, what: str) -> None:
    """Check that `expected` signed `digest`.

    Raises:
        RequestError: `signature_invalid`, naming the address that it recovers to and the one
            expected.
    """
    actual = recover_signer(digest, signature)
    if actual != expected:
        raise RequestError(
            "signature_invalid", f"{what} is signed by {actual}, expected {expected}"
        )


def to_compact(signature: Signature) -> tuple[bytes, bytes]:
    """The EIP-2098 pair (r, vs) that the contracts take; v's one bit is the top bit of s."""
    raw = to_bytes(signature)
    s = int.from_bytes(raw[32:64], "big") | ((raw[64] - 27) << 255)
    return raw[:32], s.to_bytes(32, "big")
