"""Openings are fetched from the broker that committed, or it is said why not."""

import json

import msgspec
import pytest
from coincurve import PrivateKey

from hanse.auditor.openings import fetch_opening
from hanse.protocol.commitments.tree import OPENINGS_PATH
from hanse.protocol.errors import RequestError, TransientError
from hanse.protocol.messages import Offer, SignedOffer, SignedVoucher, Voucher
from hanse.protocol.signatures import to_hex
from hanse.sdk.transport.asgi import AsgiTransport
from hanse.settlement.books.voucher_records import StoredVoucher, VoucherState
from tests.verification.audits.bought_answers import OFFER, PATH, sell
from tests.verification.audits.toy_model import ToyModel
from tests.verification.evidence.made_evidence import DOMAIN, USER, Signer


def make_voucher(offer: Offer, signer: Signer) -> StoredVoucher:
    request = sell(ToyModel(), 8).bought.request
    voucher = Voucher(USER.address, offer.provider, 5, 1, to_hex(request.struct_hash()))
    signed = SignedVoucher(voucher, request, signer.address, "0x")
    return StoredVoucher(
        signed, PATH, SignedOffer(offer, "0x"), offer.provider, bytes(32), 10, 8,
        VoucherState.RECEIPTED, None, 0, True, 1,
    )  # fmt: skip


def make_broker(status: int, body: bytes, asked: list[str]):  # type: ignore[no-untyped-def]
    async def app(scope, receive, send):  # type: ignore[no-untyped-def]
        asked.append(scope["path"])
        assert any(name == b"authorization" for name, _ in scope["headers"])
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": body})

    return app


async def test_an_opening_comes_from_the_first_endpoint_that_answers() -> None:
    asked: list[str] = []
    endpoints = ("http://gone.example", "http://broker.example/")
    offer = msgspec.structs.replace(OFFER, endpoints=endpoints)
    transport = AsgiTransport({"http://broker.example": make_broker(200, b"opening", asked)})
    voucher = make_voucher(offer, USER)
    assert await fetch_opening(transport, DOMAIN, voucher, USER) == b"opening"
    assert asked == [OPENINGS_PATH + voucher.signed.request.request_id]


async def test_a_broker_without_the_opening_says_so_and_a_wrong_key_is_named() -> None:
    refusal = json.dumps({"error": {"code": "not_found", "message": "not kept"}}).encode()
    broker = make_broker(404, refusal, [])
    voucher = make_voucher(OFFER, USER)
    with pytest.raises(RequestError) as refused:
        await fetch_opening(AsgiTransport({"http://broker.example": broker}), DOMAIN, voucher, USER)
    assert refused.value.code == "not_found"
    with pytest.raises(TransientError):
        await fetch_opening(AsgiTransport({}), DOMAIN, voucher, USER)
    other = Signer(PrivateKey(bytes([9]) * 32))
    with pytest.raises(RequestError, match="--signer"):
        await fetch_opening(AsgiTransport({}), DOMAIN, voucher, other)
