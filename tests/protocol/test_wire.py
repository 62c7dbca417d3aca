"""The wire: what is written reads back, and every malformed field is refused with its code."""

import base64
import contextlib
import itertools
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanse.protocol.errors import HanseError, RequestError, VerificationError
from hanse.protocol.limits import AMOUNT_MAX, HEADER_BYTES_MAX, SEQUENCE_MAX, TOKENS_MAX
from hanse.protocol.messages import Query, SignedOffer, SignedReceipt, SignedVoucher
from hanse.protocol.wire import (
    QUERY_SCHEME,
    RECEIPT_COMMENT,
    VOUCHER_SCHEME,
    decode_query_header,
    decode_receipt,
    decode_voucher_header,
    encode_query_header,
    encode_receipt,
    encode_receipt_frame,
    encode_voucher_header,
    from_base64url,
    offer_from_json,
    offer_to_json,
    receipt_from_json,
    receipt_to_json,
    to_base64url,
)
from tests.protocol.made_messages import (
    NOW_S,
    PROVIDER,
    SIGNER,
    USER,
    amounts,
    counts,
    make_offer,
    make_receipt,
    make_voucher,
    offers,
    queries,
    receipts,
    requests,
    sign_offer,
    vouchers,
)

signatures = st.binary(min_size=65, max_size=65).map(lambda raw: "0x" + raw.hex())
ANSWER_KEY = bytes(range(32))


def pack(data: object) -> str:
    return to_base64url(json.dumps(data).encode())


def unpack(value: str) -> dict:
    return json.loads(from_base64url(value.rpartition(" ")[2]))


VOUCHER = unpack(encode_voucher_header(make_voucher(), 2, ANSWER_KEY))
QUERY = unpack(encode_query_header(Query(USER, PROVIDER, SIGNER, 2, NOW_S), "0x" + "12" * 65))
RECEIPT = receipt_to_json(make_receipt(make_voucher()))
OFFER = offer_to_json(sign_offer(make_offer()))


@given(request=requests, voucher=vouchers, sequence=counts, signature=signatures)
def test_voucher_round_trip(request, voucher, sequence, signature):
    """The request hash is recomputed from what travels, so the draft's own is replaced first."""
    voucher = msgspec.structs.replace(voucher, request_hash="0x" + request.struct_hash().hex())
    signed = SignedVoucher(voucher, request, voucher.user, signature)
    parsed = decode_voucher_header(encode_voucher_header(signed, sequence, ANSWER_KEY))
    assert parsed.to_signed_voucher(request.body_hash) == signed
    assert parsed.header.acknowledged == sequence
    assert parsed.answer_key == ANSWER_KEY


@given(query=queries, signature=signatures)
def test_query_round_trip(query, signature):
    assert decode_query_header(encode_query_header(query, signature)) == (query, signature)


@given(receipt=receipts, signature=signatures)
def test_receipt_round_trip(receipt, signature):
    signed = SignedReceipt(receipt, signature)
    assert decode_receipt(encode_receipt(signed)) == signed
    assert receipt_from_json(json.loads(json.dumps(receipt_to_json(signed)))) == signed
    frame = encode_receipt_frame(signed)
    assert frame.startswith(RECEIPT_COMMENT)
    assert frame.endswith(b"\n\n")
    assert frame.count(b"\n") == 2  # an SSE frame of one line, whatever is inside
    assert decode_receipt(frame[len(RECEIPT_COMMENT) :].decode()) == signed


@given(offer=offers, signature=signatures)
def test_offer_round_trip(offer, signature):
    signed = SignedOffer(offer, signature)
    assert offer_from_json(json.loads(json.dumps(offer_to_json(signed)))) == signed


def test_the_largest_voucher_fits_its_header():
    largest = make_voucher(
        cumulative_max=AMOUNT_MAX, maximum_fee=AMOUNT_MAX, sequence_max=SEQUENCE_MAX
    )
    value = encode_voucher_header(largest, SEQUENCE_MAX, ANSWER_KEY)
    assert len(value) < 1_400 < HEADER_BYTES_MAX
    assert decode_voucher_header(value).header.cumulative_max == AMOUNT_MAX


@given(amount=amounts)
def test_amounts_are_strings_that_javascript_cannot_round(amount):
    signed = make_receipt(make_voucher(), fee=amount, cumulative_fee=amount)
    data = receipt_to_json(signed)
    assert data["fee"] == data["cumulative_fee"] == str(amount)


BAD_ADDRESSES = ["", "0x", "0x" + "a" * 39, "0x" + "G" * 40, "0xAa" + "b" * 38, 5, None, ["0x"]]
BAD_HASHES = ["", "0x" + "1" * 63, "0x" + "1" * 65, "0x" + "g" * 64, 1, None]
BAD_COUNTS = ["", "-1", "+1", "1.0", "1e3", " 1", "1 ", "01", "0x1", "1_0", "٣", "9" * 5_000]
NOT_STRINGS = [1, 1.5, 1e24, True, None, [], {}]
BAD_NUMBERS = [-1, 2**70, 1.5, 1e24, "1", True, None, [], {}]
TOO_MUCH = [str(AMOUNT_MAX + 1)]
TOO_MANY = [str(SEQUENCE_MAX + 1)]
BAD_AMOUNTS = BAD_COUNTS + NOT_STRINGS + TOO_MUCH
BAD_SEQUENCES = BAD_COUNTS + NOT_STRINGS + TOO_MANY

BAD_VOUCHER_FIELDS = {
    "v": [0, 2, "1", 1.5, None],
    "user": BAD_ADDRESSES,
    "provider": BAD_ADDRESSES,
    "signer": BAD_ADDRESSES,
    "cumulative_max": BAD_AMOUNTS,
    "sequence_max": BAD_SEQUENCES,
    "offer_hash": BAD_HASHES,
    "maximum_fee": BAD_AMOUNTS,
    "request_id": BAD_HASHES,
    "deadline": BAD_NUMBERS,
    "acknowledged": BAD_SEQUENCES,
    "answer_key": ["", "AA", to_base64url(b"k" * 31), to_base64url(b"k" * 33), "!" * 43, 1, None],
    "signature": [1, None, []],
}
BAD_QUERY_FIELDS = {
    "v": [0, 2, "1", None],
    "user": BAD_ADDRESSES,
    "provider": BAD_ADDRESSES,
    "signer": BAD_ADDRESSES,
    "after_sequence": BAD_SEQUENCES,
    "deadline": BAD_NUMBERS,
    "signature": [1, None, []],
}
BAD_RECEIPT_FIELDS = {
    "v": [0, 2, "1", None],
    "user": BAD_ADDRESSES,
    "provider": BAD_ADDRESSES,
    "signer": BAD_ADDRESSES,
    "sequence": BAD_SEQUENCES + ["0"],  # sequences begin at 1
    "request_hash": BAD_HASHES,
    "response_hash": BAD_HASHES,
    "input_tokens": BAD_NUMBERS + [TOKENS_MAX + 1],
    "cached_tokens": BAD_NUMBERS + [TOKENS_MAX + 1],
    "output_tokens": BAD_NUMBERS + [TOKENS_MAX + 1],
    "fee": BAD_AMOUNTS,
    "cumulative_fee": BAD_AMOUNTS,
    "finish_reason": ["", "Stop", "STOP", "done", 1, None],
    "finished_at": BAD_NUMBERS,
    "commitment_root": BAD_HASHES,
    "signature": [1, None, []],
}
BAD_PRICES = [{"input_per_mtok": "1"}, {}, None, "1", [1, 2, 3]] + [
    {"input_per_mtok": bad, "cached_per_mtok": "1", "output_per_mtok": "1"}
    for bad in BAD_COUNTS + NOT_STRINGS + [str(2**80 + 1)]
]
BAD_NAMES = ["", "x" * 129, "a\nb", "a\x00b", "\u202e", 1, None]
BAD_OFFER_FIELDS = {
    "v": [0, 2, "1", None],
    "provider": BAD_ADDRESSES,
    "service_id": BAD_NUMBERS,
    "service_type": ["", "CHAT", "images", 1, None],
    "model": BAD_NAMES,
    "manifest_root": BAD_HASHES,
    "quantisation": BAD_NAMES,
    "engine": BAD_NAMES,
    "context_tokens": BAD_NUMBERS + [TOKENS_MAX + 1],
    "output_tokens_max": BAD_NUMBERS + [TOKENS_MAX + 1],
    "prices": BAD_PRICES,
    "verifiability": ["", "proven", 1, None],
    "endpoints": [[], ["http://a"] * 9, ["ftp://a"], ["http://" + "a" * 250], ["http://a b"]]
    + [["http://a\r\nX: y"], ["http://\ud800"], ["http://é"], "http://a", [1], None],
    "encryption_key": BAD_HASHES,
    "valid_until": BAD_NUMBERS,
    "revision": BAD_NUMBERS,
    "region": ["EU", "eu-", "e" * 33, "e u", 1, None],
    "signature": [1, None, []],
}


def every(fields: dict[str, list]) -> list:
    return [
        pytest.param(field, bad, id=f"{field}-{bad!r:.30}".encode("ascii", "replace").decode())
        for field, bads in fields.items()
        for bad in bads
    ]


@pytest.mark.parametrize(("field", "bad"), every(BAD_VOUCHER_FIELDS))
def test_malformed_voucher_field(field, bad):
    with pytest.raises(RequestError) as caught:
        decode_voucher_header(VOUCHER_SCHEME + pack({**VOUCHER, field: bad}))
    assert caught.value.code == "header_malformed"
    assert len(caught.value.message) < 300  # what a stranger sends is not echoed at length


@pytest.mark.parametrize(("field", "bad"), every(BAD_QUERY_FIELDS))
def test_malformed_query_field(field, bad):
    with pytest.raises(RequestError) as caught:
        decode_query_header(QUERY_SCHEME + pack({**QUERY, field: bad}))
    assert caught.value.code == "header_malformed"


@pytest.mark.parametrize(("field", "bad"), every(BAD_RECEIPT_FIELDS))
def test_malformed_receipt_field(field, bad):
    with pytest.raises(VerificationError) as caught:
        decode_receipt(pack({**RECEIPT, field: bad}))
    assert caught.value.code == "receipt_invalid"
    with pytest.raises(VerificationError) as caught:
        receipt_from_json({**RECEIPT, field: bad})
    assert caught.value.code == "receipt_invalid"


@pytest.mark.parametrize(("field", "bad"), every(BAD_OFFER_FIELDS))
def test_malformed_offer_field(field, bad):
    with pytest.raises(VerificationError) as caught:
        offer_from_json({**OFFER, field: bad})
    assert caught.value.code == "offer_invalid"


@pytest.mark.parametrize(
    ("good", "bads"),
    [
        (VOUCHER, BAD_VOUCHER_FIELDS),
        (QUERY, BAD_QUERY_FIELDS),
        (RECEIPT, BAD_RECEIPT_FIELDS),
        (OFFER, BAD_OFFER_FIELDS),
    ],
    ids=["voucher", "query", "receipt", "offer"],
)
def test_the_tables_above_leave_out_no_field(good, bads):
    assert set(good) == set(bads)


READERS = {
    "voucher": (lambda data: decode_voucher_header(VOUCHER_SCHEME + pack(data)), VOUCHER),
    "query": (lambda data: decode_query_header(QUERY_SCHEME + pack(data)), QUERY),
    "receipt header": (lambda data: decode_receipt(pack(data)), RECEIPT),
    "receipt": (receipt_from_json, RECEIPT),
    "offer": (offer_from_json, OFFER),
}


@pytest.mark.parametrize("reader", READERS)
def test_missing_and_unknown_fields(reader):
    read, good = READERS[reader]
    read(good)
    for field in good:
        with pytest.raises(HanseError):
            read({name: value for name, value in good.items() if name != field})
    with pytest.raises(HanseError):
        read({**good, "extra": 1})


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("data", [None, [], "text", 1, {}, [[]], {"v": 1}], ids=repr)
def test_other_json_than_an_object_of_these_fields(reader, data):
    with pytest.raises(HanseError):
        READERS[reader][0](data)


RAW = [b"\xff\xfe", b'"\xff"', b'{"\xff":1}', b"[" * 2_500, b'{"v":' * 400, b"", b"{", b"1e999"]
RAW += [b'{"v":1,"v":1}', b'{"v":"\\ud800"}', b"\x00" * 100, b"NaN", b"{}{}"]


@pytest.mark.parametrize("raw", RAW, ids=lambda raw: repr(raw[:12]))
def test_bytes_that_are_no_such_json(raw):
    text = to_base64url(raw)
    for read in (
        lambda: decode_voucher_header(VOUCHER_SCHEME + text),
        lambda: decode_query_header(QUERY_SCHEME + text),
        lambda: decode_receipt(text),
    ):
        with pytest.raises(HanseError) as caught:
            read()
        assert caught.value.code in ("header_malformed", "receipt_invalid")


@pytest.mark.parametrize(
    "value", ["", "Hanse", "Bearer sk-1", "hanse " + pack(VOUCHER), "Hanse-Query " + pack(VOUCHER)]
)
def test_another_scheme(value):
    with pytest.raises(RequestError, match="Hanse") as caught:
        decode_voucher_header(value)
    assert caught.value.code == "header_malformed"


def test_headers_have_a_length():
    long = "A" * (HEADER_BYTES_MAX + 1)
    for read in (decode_voucher_header, decode_query_header, decode_receipt):
        with pytest.raises(HanseError, match=f"at most {HEADER_BYTES_MAX}"):
            read(long)


@given(data=st.binary(max_size=100))
def test_base64url_round_trip(data):
    assert (
        from_base64url(to_base64url(data))
        == data
        == base64.urlsafe_b64decode(to_base64url(data) + "==")
    )


@pytest.mark.parametrize("text", ["A", "AA==", "A+/A", "AB", "A A=", "é", "AA\n", "\ud800", "===="])
def test_only_one_text_stands_for_the_bytes(text):
    """ "AB" has loose bits at its end: the same byte as "AA"."""
    with pytest.raises(RequestError, match="base64url"):
        from_base64url(text)


def test_a_text_is_read_exactly_if_it_is_how_its_bytes_are_written():
    letters = [*map(chr, range(128)), "\x80", "é", "\uff21", "\u0663"]
    texts = ["", *letters, *map("".join, itertools.product(letters, letters))]
    texts += [before + one for before in ("AA", "Qw", "-_A", "_-zQQ", "AA=") for one in letters]
    for text in texts:
        try:
            is_read = to_base64url(from_base64url(text)) == text
        except RequestError:
            is_read = False
        assert is_read == _is_written(text), text


def _is_written(text):
    """By Python's own decoder and encoder of the same alphabet."""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        return False
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode() == text


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@given(data=st.data(), value=json_values, reader=st.sampled_from(sorted(READERS)))
def test_any_json_in_any_field_is_read_or_refused(data, value, reader):
    read, good = READERS[reader]
    field = data.draw(st.sampled_from(sorted(good)))
    with contextlib.suppress(HanseError):
        read({**good, field: value})


@given(raw=st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(raw):
    for text in (raw.decode("latin-1"), to_base64url(raw), raw.decode("utf-8", "surrogateescape")):
        for read in (
            decode_receipt,
            lambda t: decode_voucher_header(VOUCHER_SCHEME + t),
            lambda t: decode_query_header(QUERY_SCHEME + t),
            decode_voucher_header,
        ):
            with pytest.raises(HanseError):
                read(text)


@given(data=st.data(), reader=st.sampled_from(["voucher", "query", "receipt"]))
def test_one_changed_byte_is_read_or_refused(data, reader):
    scheme, good, read = {
        "voucher": (VOUCHER_SCHEME, VOUCHER, decode_voucher_header),
        "query": (QUERY_SCHEME, QUERY, decode_query_header),
        "receipt": ("", RECEIPT, decode_receipt),
    }[reader]
    raw = bytearray(json.dumps(good).encode())
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(HanseError):
        read(scheme + to_base64url(bytes(raw)))
