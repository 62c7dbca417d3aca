"""Data keys sealed by HPKE: RFC 9180's vectors, and what must not open."""

import hashlib
import hmac

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from hanse.protocol.errors import RequestError, VerificationError
from hanse.protocol.signatures import ZERO_HASH, to_bytes
from hanse.settlement.traces.sealing import (
    INFO,
    SEALED_KEY_BYTES,
    open_data_key,
    read_encryption_key,
    seal_data_key,
)
from tests.settlement.trace_parts import (
    LOW_ORDER,
    STRANGER_PRIVATE,
    USER_PRIVATE,
    USER_PUBLIC,
)

DATA_KEY, TRACE, OTHER_TRACE = b"k" * 32, "0x" + "ab" * 32, "0x" + "cd" * 32


def extract(suite_id: bytes, salt: bytes, label: bytes, key: bytes) -> bytes:
    return hmac.new(salt or bytes(32), b"HPKE-v1" + suite_id + label + key, hashlib.sha256).digest()


def expand(suite_id: bytes, key: bytes, label: bytes, info: bytes, length: int) -> bytes:
    info = length.to_bytes(2, "big") + b"HPKE-v1" + suite_id + label + info
    made, block = b"", b""
    for number in range(1, -(-length // 32) + 1):
        block = hmac.new(key, block + info + bytes([number]), hashlib.sha256).digest()
        made += block
    return made[:length]


def open_by_the_rfc(
    sealed: bytes, private: X25519PrivateKey, info: bytes, aad: bytes, aead: int
) -> bytes:
    """RFC 9180 base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256; written from the text alone."""
    enc, ciphertext = sealed[:32], sealed[32:]
    public = private.public_key().public_bytes_raw()
    shared = private.exchange(X25519PublicKey.from_public_bytes(enc))
    kem = b"KEM" + (0x20).to_bytes(2, "big")
    secret = expand(kem, extract(kem, b"", b"eae_prk", shared), b"shared_secret", enc + public, 32)
    suite = b"HPKE" + (0x20).to_bytes(2, "big") + (1).to_bytes(2, "big") + aead.to_bytes(2, "big")
    context = b"\x00" + extract(suite, b"", b"psk_id_hash", b"")
    context += extract(suite, b"", b"info_hash", info)
    base = extract(suite, secret, b"secret", b"")
    key = expand(suite, base, b"key", context, {1: 16, 2: 32}[aead])
    nonce = expand(suite, base, b"base_nonce", context, 12)
    return AESGCM(key).decrypt(nonce, ciphertext, aad)


def test_the_independent_hpke_agrees_with_the_rfcs_vector():
    """RFC 9180, appendix A.1.1, encryption 0 (AES-128-GCM is the one of the text)."""
    private = X25519PrivateKey.from_private_bytes(
        bytes.fromhex("4612c550263fc8ad58375df3f557aac531d26850903e55a9f23f21d8534e8ac8")
    )
    enc = "37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431"
    sealed = (
        "f938558b5d72f1a23810b4be2ab4f84331acc02fc97babc53a52ae8218a355a96d8770ac83d07bea87e13c512a"
    )
    info = bytes.fromhex("4f6465206f6e2061204772656369616e2055726e")
    opened = open_by_the_rfc(bytes.fromhex(enc + sealed), private, info, b"Count-0", aead=1)
    assert opened == b"Beauty is truth, truth beauty"


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_what_is_sealed_here_opens_by_the_rfc(data_key, trace):
    trace_hash = "0x" + trace.hex()
    sealed = seal_data_key(data_key, USER_PUBLIC, trace_hash)
    assert len(sealed) == SEALED_KEY_BYTES
    assert open_by_the_rfc(sealed, USER_PRIVATE, INFO + trace, b"", aead=2) == data_key
    assert open_data_key(sealed, USER_PRIVATE, trace_hash) == data_key


def test_two_sealings_of_one_key_have_nothing_in_common():
    first, second = (seal_data_key(DATA_KEY, USER_PUBLIC, TRACE) for _ in range(2))
    assert first[:32] != second[:32]
    assert first[32:] != second[32:]


@pytest.mark.parametrize("point", [ZERO_HASH, *LOW_ORDER])
def test_nothing_is_sealed_to_a_key_of_low_order(point):
    with pytest.raises(RequestError) as caught:
        seal_data_key(DATA_KEY, point, TRACE)
    assert caught.value.code == "unprocessable"


def test_a_stranger_opens_nothing():
    sealed = seal_data_key(DATA_KEY, USER_PUBLIC, TRACE)
    with pytest.raises(VerificationError) as caught:
        open_data_key(sealed, STRANGER_PRIVATE, TRACE)
    assert caught.value.code == "trace_invalid"
    assert DATA_KEY.hex() not in caught.value.message


def test_a_sealed_key_belongs_to_its_trace():
    with pytest.raises(VerificationError):
        open_data_key(seal_data_key(DATA_KEY, USER_PUBLIC, TRACE), USER_PRIVATE, OTHER_TRACE)


@given(st.integers(0, SEALED_KEY_BYTES - 1), st.integers(1, 255))
def test_a_changed_byte_opens_nothing(place, change):
    sealed = bytearray(seal_data_key(DATA_KEY, USER_PUBLIC, TRACE))
    sealed[place] ^= change  # X25519 ignores a point's top bit; HPKE hashes all of its bytes
    with pytest.raises(VerificationError):
        open_data_key(bytes(sealed), USER_PRIVATE, TRACE)


@given(st.binary(max_size=200))
def test_rubbish_opens_nothing(sealed):
    with pytest.raises(VerificationError):
        open_data_key(sealed, USER_PRIVATE, TRACE)


def test_a_sealed_key_of_low_order_points_opens_nothing():
    sealed = seal_data_key(DATA_KEY, USER_PUBLIC, TRACE)
    for point in (ZERO_HASH, *LOW_ORDER):
        with pytest.raises(VerificationError):
            open_data_key(to_bytes(point) + sealed[32:], USER_PRIVATE, TRACE)


@pytest.mark.parametrize("header", [None, "", "0x12", "x" * 66, "0x" + "g" * 64, "0x" + "a" * 4096])
def test_a_malformed_header_is_no_key(header):
    assert read_encryption_key(header) == ZERO_HASH


def test_a_header_names_a_key():
    assert read_encryption_key(USER_PUBLIC.upper().replace("0X", "0x")) == USER_PUBLIC
