"""What a trace holds, how it is padded and encrypted, and what must be refused."""

import hashlib

import msgspec
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from hanse.protocol.errors import VerificationError
from hanse.protocol.messages import SignedReceipt
from hanse.protocol.signatures import to_hex
from hanse.settlement.traces import document
from hanse.settlement.traces.bundle import (
    FILE_BYTES_MAX,
    decode_bundle,
    encode_bundle,
    open_trace,
)
from hanse.settlement.traces.checking import check_trace
from hanse.settlement.traces.document import (
    MAGIC,
    Side,
    Trace,
    decrypt_trace,
    encrypt_trace,
    get_commitment,
    get_padded_bytes,
    hash_object,
)
from hanse.settlement.traces.notes import SealedKey
from hanse.settlement.traces.sealing import seal_data_key
from tests.protocol.made_messages import (
    DOMAIN,
    RECEIPT_ADDRESS,
    RECEIPT_KEY,
    make_receipt,
    receipts,
    requests,
)
from tests.settlement.trace_parts import (
    BODY,
    PROMPT,
    RESPONSE,
    STRANGER_PRIVATE,
    USER_PRIVATE,
    USER_PUBLIC,
    make_request,
    make_trace,
)

SIGNATURE = "0x" + "11" * 31 + "12" * 33 + "1b"
traces = st.builds(
    Trace,
    st.sampled_from(Side),
    requests,
    receipts.map(lambda receipt: SignedReceipt(receipt, SIGNATURE)),
    st.sampled_from(["/v1/chat/completions", "/v1/embeddings"]),
    st.binary(max_size=3_000),
    st.binary(max_size=3_000),
)


def seal_plain(plain: bytes) -> tuple[bytes, bytes]:
    """An object over any plaintext, as a hostile writer may make it."""
    key, nonce = b"k" * 32, b"n" * 12
    ahead = MAGIC + get_commitment(key) + nonce
    return ahead + AESGCM(key).encrypt(nonce, plain, ahead), key


@given(traces)
def test_a_trace_comes_back_as_it_went(trace):
    encrypted = encrypt_trace(trace)
    assert decrypt_trace(encrypted.content, encrypted.data_key) == trace
    assert encrypted.trace_hash == to_hex(hashlib.sha256(encrypted.content).digest())


def test_nothing_of_it_shows():
    encrypted = encrypt_trace(make_trace())
    voucher, receipt = make_request()
    for secret in (PROMPT, RESPONSE, voucher.voucher.user.encode(), receipt.signature.encode()):
        assert secret not in encrypted.content
        assert bytes.fromhex(voucher.voucher.user[2:]) not in encrypted.content


def test_one_request_twice_makes_two_objects_that_cannot_be_linked():
    first, second = encrypt_trace(make_trace()), encrypt_trace(make_trace())
    assert first.trace_hash != second.trace_hash
    assert first.data_key != second.data_key
    assert first.content[len(MAGIC) :][:44] != second.content[len(MAGIC) :][:44]


@given(st.integers(0, 20_000_000))
def test_padding_hides_the_length_and_costs_an_eighth_at_most(length):
    padded = get_padded_bytes(length)
    assert max(length, 256) <= padded <= max(length * 1.12, 256)
    assert get_padded_bytes(padded) == padded


def test_few_lengths_are_left():
    """What a stranger learns: 16 MiB of lengths fall on a few hundred sizes."""
    seen = {get_padded_bytes(length) for length in range(256, 2**20, 7)}
    assert len(seen) < 300


@given(st.data())
@settings(max_examples=60)
def test_a_changed_or_cut_object_is_refused(data):
    encrypted = encrypt_trace(make_trace())
    content = bytearray(encrypted.content)
    if data.draw(st.booleans()):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    else:
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    with pytest.raises(VerificationError):
        decrypt_trace(bytes(content), encrypted.data_key)


@given(st.binary(max_size=600))
def test_a_hostile_plaintext_is_refused_by_its_kind_alone(plain):
    with pytest.raises(VerificationError) as caught:
        decrypt_trace(*seal_plain(plain))
    assert caught.value.code == "trace_invalid"


@pytest.mark.parametrize(
    ("body_bytes", "response_bytes"), [(-1, 1), (1, -1), (2**40, 0), (0, 2**62), (10**30, 1)]
)
def test_lengths_that_are_not_there_are_refused(body_bytes, response_bytes):
    header = document._encode(make_trace())  # the rest of it must be right
    end = 4 + int.from_bytes(header[:4], "big")
    fields = msgspec.json.decode(header[4:end])
    fields |= {"body_bytes": body_bytes, "response_bytes": response_bytes}
    text = msgspec.json.encode(fields) if abs(body_bytes) < 2**63 else b'{"body_bytes":1e30}'
    with pytest.raises(VerificationError):
        decrypt_trace(*seal_plain(len(text).to_bytes(4, "big") + text + header[end:]))


def test_a_header_of_endless_brackets_is_refused():
    text = b"[" * 10_000
    with pytest.raises(VerificationError):
        decrypt_trace(*seal_plain(len(text).to_bytes(4, "big") + text))


def test_an_object_that_opens_under_another_key_too_is_refused():
    """AES-GCM commits to no key: user and judge must not be shown two plaintexts of one object."""
    encrypted = encrypt_trace(make_trace())
    with pytest.raises(VerificationError, match="another key"):
        decrypt_trace(encrypted.content, b"x" * 32)


def test_a_true_trace_passes_its_checks():
    trace = make_trace()
    check_trace(trace, DOMAIN, RECEIPT_ADDRESS, trace.receipt)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"body": b"another body"}, "trace_invalid"),
        ({"path": "/v1/completions"}, "trace_invalid"),
        ({"response": RESPONSE[:-1]}, "response_mismatch"),
        ({"request": make_request(2)[0].request}, "trace_invalid"),
        ({"receipt": make_request(2)[1]}, "trace_invalid"),
    ],
)
def test_a_trace_of_something_else_does_not_pass(changes, code):
    values = {name: getattr(make_trace(), name) for name in Trace.__dataclass_fields__}
    with pytest.raises(VerificationError) as caught:
        check_trace(Trace(**(values | changes)), DOMAIN, RECEIPT_ADDRESS)
    assert caught.value.code == code


def test_a_receipt_that_a_stranger_signed_does_not_pass():
    trace = make_trace()
    with pytest.raises(VerificationError) as caught:
        check_trace(trace, DOMAIN, "0x" + "99" * 20)
    assert caught.value.code == "receipt_invalid"


def test_a_receipt_that_is_not_the_one_in_the_books_does_not_pass():
    trace = make_trace()
    voucher, _ = make_request()
    held = make_receipt(voucher, RECEIPT_KEY, fee=6)
    with pytest.raises(VerificationError, match="differ"):
        check_trace(trace, DOMAIN, RECEIPT_ADDRESS, held)


def make_bundle() -> dict:
    encrypted = encrypt_trace(make_trace())
    sealed = seal_data_key(encrypted.data_key, USER_PUBLIC, encrypted.trace_hash)
    keys = [SealedKey(Side.USER, USER_PUBLIC, sealed)]
    return encode_bundle(encrypted.content, encrypted.trace_hash, "0x" + "44" * 32, keys)


def test_an_exported_trace_opens_with_its_own_key_only():
    content, name, keys = decode_bundle(msgspec.json.encode(make_bundle()))
    assert open_trace(content, name, keys, USER_PRIVATE).body == BODY
    with pytest.raises(VerificationError, match="not sealed to"):
        open_trace(content, name, keys, STRANGER_PRIVATE)
    with pytest.raises(VerificationError, match="destroyed"):
        open_trace(content, name, [], USER_PRIVATE)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "hanse-trace-2"},
        {"trace_hash": "0x" + "00" * 32},
        {"trace_hash": "../../etc/passwd"},
        {"object": "AAAA"},
        {"object": "not base64"},
        {"sealed_keys": [{"recipient": "user", "public_key": USER_PUBLIC, "sealed": "AAAA"}]},
        {"sealed_keys": [{"recipient": "judge", "public_key": USER_PUBLIC, "sealed": ""}]},
        {"sealed_keys": make_bundle()["sealed_keys"] * 3},
        {"more": 1},
    ],
)
def test_a_damaged_file_is_refused(changes):
    with pytest.raises(VerificationError) as caught:
        decode_bundle(msgspec.json.encode(make_bundle() | changes))
    assert caught.value.code == "trace_invalid"


@given(st.binary(max_size=300))
def test_rubbish_is_no_file(raw):
    with pytest.raises(VerificationError):
        decode_bundle(raw)


def test_a_file_that_is_too_large_is_not_parsed():
    with pytest.raises(VerificationError, match="more than"):
        decode_bundle(b"[" * (FILE_BYTES_MAX + 1))


def test_the_hash_is_the_objects():
    encrypted = encrypt_trace(make_trace())
    assert hash_object(encrypted.content) == encrypted.trace_hash
