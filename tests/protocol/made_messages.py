"""Random but valid messages, and one of each that the examples start from."""

from typing import Any

import msgspec
from coincurve import PrivateKey
from hypothesis import strategies as st

from hanse.protocol.eip712 import Domain
from hanse.protocol.hashing import hash_body
from hanse.protocol.limits import (
    AMOUNT_MAX,
    HEARTBEAT_COUNT_MAX,
    PRICE_PER_MTOK_MAX,
    SEQUENCE_MAX,
    TOKENS_MAX,
)
from hanse.protocol.messages import (
    FinishReason,
    Heartbeat,
    Offer,
    Prices,
    Query,
    Receipt,
    Request,
    SignedOffer,
    SignedReceipt,
    SignedVoucher,
    Usage,
    Voucher,
)
from hanse.protocol.signatures import get_address, sign_digest, to_hex

NOW_S = 1_800_000_000
DOMAIN = Domain(31_337, "0x" + "e5" * 20)
SIGNER_KEY = PrivateKey(b"\x01" * 32)
RECEIPT_KEY = PrivateKey(b"\x02" * 32)
ATTACKER_KEY = PrivateKey(b"\x03" * 32)
SIGNER = get_address(SIGNER_KEY.public_key)
RECEIPT_ADDRESS = get_address(RECEIPT_KEY.public_key)
USER = "0x" + "a1" * 20
PROVIDER = "0x" + "b2" * 20
BODY_HASH = hash_body("/v1/chat/completions", b"{}")

addresses = st.binary(min_size=20, max_size=20).map(to_hex)
hashes = st.binary(min_size=32, max_size=32).map(to_hex)
amounts = st.integers(0, AMOUNT_MAX)
counts = st.integers(0, SEQUENCE_MAX)
small = st.integers(0, HEARTBEAT_COUNT_MAX)
tokens = st.integers(0, TOKENS_MAX)
prices = st.integers(0, PRICE_PER_MTOK_MAX)
times = st.integers(0, 2**40)
names = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=40)
endpoints = st.sampled_from(["http://127.0.0.1:8000", "https://broker.test/a?b=c", "http://[::1]"])
usages = st.builds(Usage, tokens, tokens, tokens)

offers = st.builds(
    Offer,
    provider=addresses,
    service_id=counts,
    service_type=st.sampled_from(["chat", "embeddings"]),
    model=names,
    manifest_root=hashes,
    quantisation=names,
    engine=names,
    context_tokens=tokens,
    output_tokens_max=tokens,
    prices=st.builds(Prices, prices, prices, prices),
    verifiability=st.sampled_from(["tee", "embedded", "sampled", "reputation"]),
    endpoints=st.lists(endpoints, min_size=1, max_size=8).map(tuple),
    encryption_key=hashes,
    valid_until=times,
    revision=counts,
    region=st.sampled_from(["", "eu", "us-east", "ap-southeast-2"]),
)
heartbeats = st.builds(
    Heartbeat, addresses, counts, counts, small, small, small, small, st.booleans()
)
requests = st.builds(Request, hashes, hashes, amounts, hashes, times)
vouchers = st.builds(Voucher, addresses, addresses, amounts, counts, hashes)
receipts = st.builds(
    Receipt,
    addresses,
    addresses,
    addresses,
    st.integers(1, SEQUENCE_MAX),
    hashes,
    hashes,
    usages,
    amounts,
    amounts,
    st.sampled_from(FinishReason),
    times,
    hashes,
)
queries = st.builds(Query, addresses, addresses, addresses, counts, times)
domains = st.builds(Domain, st.integers(0, 2**256 - 1), addresses)


def make_offer(**changes: Any) -> Offer:
    """An offer in force at NOW_S: input 100, cached 10, output 300 base units per million."""
    offer = Offer(
        provider=PROVIDER,
        service_id=1,
        service_type="chat",
        model="smollm2-135m",
        manifest_root="0x" + "11" * 32,
        quantisation="Q4_0",
        engine="echo",
        context_tokens=2_048,
        output_tokens_max=1_024,
        prices=Prices(100, 10, 300),
        verifiability="sampled",
        endpoints=("http://127.0.0.1:8000",),
        encryption_key="0x" + "22" * 32,
        valid_until=NOW_S + 3_600,
        revision=1,
    )
    return msgspec.structs.replace(offer, **changes)


def make_voucher(key: PrivateKey = SIGNER_KEY, domain: Domain = DOMAIN, **changes: Any):
    """A signed voucher; `changes` go to its Request or its Voucher, by field name."""
    request = Request("0x" + "33" * 32, BODY_HASH, 1_000, "0x" + "44" * 32, NOW_S + 60)
    ours = {k: changes.pop(k) for k in list(changes) if k in Request.__struct_fields__}
    request = msgspec.structs.replace(request, **ours)
    voucher = Voucher(USER, PROVIDER, 5_000, 3, to_hex(request.struct_hash()))
    voucher = msgspec.structs.replace(voucher, **changes)
    signature = sign_digest(key, domain.digest(voucher.struct_hash()))
    return SignedVoucher(voucher, request, SIGNER, signature)


def make_receipt(
    voucher: SignedVoucher, key: PrivateKey = RECEIPT_KEY, **changes: Any
) -> SignedReceipt:
    """A right receipt for this voucher: 10,000 + 20,000 tokens, 7 base units."""
    receipt = Receipt(
        user=voucher.voucher.user,
        provider=voucher.voucher.provider,
        signer=voucher.signer,
        sequence=1,
        request_hash=voucher.voucher.request_hash,
        response_hash="0x" + "55" * 32,
        usage=Usage(input_tokens=10_000, output_tokens=20_000),
        fee=7,
        cumulative_fee=7,
        finish_reason=FinishReason.STOP,
        finished_at=NOW_S,
        commitment_root="0x" + "00" * 32,
    )
    receipt = msgspec.structs.replace(receipt, **changes)
    return SignedReceipt(receipt, sign_digest(key, DOMAIN.digest(receipt.struct_hash())))


def sign_offer(offer: Offer, key: PrivateKey = RECEIPT_KEY) -> SignedOffer:
    """The offer with its receipt key's signature."""
    return SignedOffer(offer, sign_digest(key, DOMAIN.digest(offer.struct_hash())))


def make_query(deadline: int = NOW_S + 60, key: PrivateKey = SIGNER_KEY, **changes: Any):
    """A question for receipts and its signature."""
    fields = {"user": USER, "provider": PROVIDER, "signer": SIGNER, "after_sequence": 0}
    query = Query(**{**fields, **changes}, deadline=deadline)
    return query, sign_digest(key, DOMAIN.digest(query.struct_hash()))
