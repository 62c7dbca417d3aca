"""Addresses and signatures: what is accepted, in exactly one form."""

import pytest
from coincurve import PrivateKey
from eth_account import Account
from hypothesis import given, settings
from hypothesis import strategies as st

from hanse.protocol.errors import HanseError, RequestError
from hanse.protocol.signatures import (
    CURVE_ORDER,
    get_address,
    keccak,
    parse_address,
    parse_hash32,
    recover_signer,
    sign_digest,
    to_bytes,
    to_checksum,
    to_compact,
    verify_signature,
)

# EIP-55's own test vectors: all capitals, all lower, and four normal ones
EIP55 = [
    "0x52908400098527886E0F7030069857D2E4169EE7",
    "0x8617E340B3D01FA5F11F306F4090FD50E238070D",
    "0xde709f2102306220921060314715629080e2fb77",
    "0x27b1fdb04752bbc536007a920d24acb045561c26",
    "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
    "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
    "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
    "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
]
SIGNER_KEY = PrivateKey(b"\x01" * 32)
SIGNER = get_address(SIGNER_KEY.public_key)
DIGEST = keccak(b"a message")
SIGNATURE = sign_digest(SIGNER_KEY, DIGEST)

keys = st.integers(1, CURVE_ORDER - 1).map(lambda n: PrivateKey(n.to_bytes(32, "big")))


@pytest.mark.parametrize("address", EIP55)
def test_checksum_vectors(address):
    assert to_checksum(address.lower()) == address
    assert parse_address(address) == address.lower()


@pytest.mark.parametrize("address", EIP55[4:])
def test_one_letter_in_the_wrong_case_is_a_mistyped_address(address):
    place = next(i for i, c in enumerate(address) if i > 1 and c.isalpha())
    mistyped = address[:place] + address[place].swapcase() + address[place + 1 :]
    with pytest.raises(RequestError, match="wrong checksum") as caught:
        parse_address(mistyped, "user")
    assert caught.value.code == "invalid_request"
    assert caught.value.param == "user"
    assert address in caught.value.message  # what it should have been


@pytest.mark.parametrize(
    "text",
    [None, 5, b"0x", "", "0x", "0x" + "a" * 39, "0x" + "a" * 41, "0X" + "a" * 40, "a" * 42]
    + ["0x" + "g" * 40, "0x" + " " * 40, "0x" + "٣" * 40, "0x" + "a" * 39 + "\n"],
)
def test_what_is_no_address(text):
    with pytest.raises(RequestError, match="40 hex digits"):
        parse_address(text)


@pytest.mark.parametrize("text", [None, 1, "0x" + "a" * 63, "0x" + "z" * 64, "0x" + " " * 64, ""])
def test_what_is_no_hash(text):
    with pytest.raises(RequestError, match="64 hex digits"):
        parse_hash32(text)


def read_by_the_letter(text: object, digits: int) -> str | None:
    """What an address or a hash is, letter by letter: the lower-case form, or None for no such."""
    if not isinstance(text, str) or len(text) != 2 + digits or text[:2] != "0x":
        return None
    return text.lower() if all(c in "0123456789abcdefABCDEF" for c in text[2:]) else None


def nearly_hex(digits: int) -> st.SearchStrategy[str]:
    """Texts of about the right length: hex in either case, and now and then something else."""
    plain = st.text("0123456789abcdef", min_size=digits, max_size=digits)
    length = st.integers(digits - 1, digits + 1)
    mixed = length.flatmap(
        lambda n: (
            st.text("0123456789abcdefABCDEF", min_size=n, max_size=n)
            | st.text("09afAF gG\n\u0663\uff11\u212a\u0130", min_size=n, max_size=n)
        )
    )
    return st.tuples(st.sampled_from(["0x", "0x", "0x", "0X", "x0"]), plain | mixed).map("".join)


@given(text=nearly_hex(64))
@settings(max_examples=300)
def test_a_hash_is_what_the_letters_say(text):
    try:
        assert parse_hash32(text) == read_by_the_letter(text, 64)
    except RequestError as error:
        assert (error.code, read_by_the_letter(text, 64)) == ("invalid_request", None)  # noqa: PT017


@given(text=nearly_hex(40))
@settings(max_examples=300)
def test_an_address_is_what_the_letters_and_the_checksum_say(text):
    read = read_by_the_letter(text, 40)
    is_one = read is not None and text[2:] in (read[2:], read[2:].upper(), to_checksum(read)[2:])
    try:
        assert parse_address(text) == read
        assert is_one
    except RequestError as error:
        assert (error.code, is_one) == ("invalid_request", False)  # noqa: PT017


@given(text=nearly_hex(130))
@settings(max_examples=300)
def test_a_signature_has_130_hex_digits_and_nothing_between_them(text):
    try:
        recover_signer(DIGEST, text)
    except RequestError as error:
        is_form = "130 hex digits" in error.message
        assert is_form == (read_by_the_letter(text, 130) is None)


def test_hash_comes_back_in_lower_case():
    assert parse_hash32("0x" + "AB" * 32) == "0x" + "ab" * 32


@given(key=keys, digest=st.binary(min_size=32, max_size=32))
@settings(max_examples=50, deadline=None)
def test_signature_recovers_to_its_signer_as_eth_account_has_it(key, digest):
    signature = sign_digest(key, digest)
    assert recover_signer(digest, signature) == get_address(key.public_key)
    theirs = Account.unsafe_sign_hash(digest, key.secret)
    assert to_bytes(signature) == theirs.signature
    assert Account.from_key(key.secret).address.lower() == get_address(key.public_key)


def flip(signature: str) -> str:
    """The other signature of the same message and key: s -> n - s, and v with it."""
    raw = to_bytes(signature)
    s = CURVE_ORDER - int.from_bytes(raw[32:64], "big")
    return "0x" + raw[:32].hex() + s.to_bytes(32, "big").hex() + f"{27 + 28 - raw[64]:02x}"


def test_the_second_signature_of_a_message_is_refused():
    with pytest.raises(RequestError, match="lower half"):
        recover_signer(DIGEST, flip(SIGNATURE))
    assert Account._recover_hash(DIGEST, signature=to_bytes(flip(SIGNATURE))).lower() == SIGNER


@pytest.mark.parametrize("v", [0, 1, 2, 26, 29, 35, 255])
def test_only_27_and_28_are_v(v):
    with pytest.raises(RequestError, match="27 or 28"):
        recover_signer(DIGEST, SIGNATURE[:-2] + f"{v:02x}")


@pytest.mark.parametrize("s", [0, CURVE_ORDER // 2 + 1, CURVE_ORDER, CURVE_ORDER + 1, 2**256 - 1])
def test_s_outside_its_range(s):
    with pytest.raises(RequestError, match="lower half"):
        recover_signer(DIGEST, SIGNATURE[:66] + f"{s:064x}" + SIGNATURE[-2:])


@pytest.mark.parametrize("r", [0, CURVE_ORDER, 2**256 - 1])
def test_r_outside_its_range(r):
    with pytest.raises(RequestError, match="no key"):
        recover_signer(DIGEST, "0x" + f"{r:064x}" + SIGNATURE[66:])


@pytest.mark.parametrize(
    "garbage",
    [None, 7, b"", "", "0x", SIGNATURE[:-2], SIGNATURE + "00", SIGNATURE[2:], "0x" + "g" * 130]
    # bytes.fromhex skips spaces: these came up short and crashed once
    + ["0x" + " " * 130, SIGNATURE[:-2] + "  ", "0x" + "٣" * 130],
)
def test_garbage_is_no_signature(garbage):
    with pytest.raises(RequestError) as caught:
        recover_signer(DIGEST, garbage)
    assert caught.value.code == "signature_invalid"


@given(signature=st.binary(min_size=65, max_size=65).map(lambda raw: "0x" + raw.hex()))
@settings(max_examples=200)
def test_random_signatures_never_crash_and_never_are_the_signers(signature):
    try:
        assert recover_signer(DIGEST, signature) != SIGNER
    except HanseError as error:
        assert error.code == "signature_invalid"  # noqa: PT017


def test_verify_names_both_addresses():
    other = "0x" + "ab" * 20
    with pytest.raises(RequestError) as caught:
        verify_signature(DIGEST, SIGNATURE, other, "the voucher")
    assert SIGNER in caught.value.message
    assert other in caught.value.message
    verify_signature(DIGEST, SIGNATURE, SIGNER, "the voucher")


@given(key=keys, digest=st.binary(min_size=32, max_size=32))
@settings(max_examples=50, deadline=None)
def test_compact_form_holds_the_same_signature(key, digest):
    raw = to_bytes(sign_digest(key, digest))
    r, vs = to_compact("0x" + raw.hex())
    number = int.from_bytes(vs, "big")
    assert r == raw[:32]
    assert (number & (2**255 - 1)).to_bytes(32, "big") == raw[32:64]
    assert 27 + (number >> 255) == raw[64]
