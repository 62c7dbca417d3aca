"""Brokers that lie, break or stall: each is caught by its error, and the loss is bounded."""

import json

import pytest

from hanse.protocol.errors import HanseError, TransientError, VerificationError
from hanse.sdk import Hanse, TransportLimits, Verification
from tests.sdk.conftest import World

MESSAGES = [{"role": "user", "content": "What is the answer?"}]
BODY = json.dumps({"model": "echo", "messages": MESSAGES, "max_tokens": 50}).encode()
STREAM = BODY.replace(b'{"model"', b'{"stream": true, "model"')
MAXIMUM_FEE = 1_000  # above the maximum fee of one such request, 707 base units


async def buy(hanse: Hanse, body: bytes) -> bytes:
    answer = await hanse.request("/v1/chat/completions", body)
    if answer.is_stream:
        return b"".join([frame async for frame in answer.frames()])
    return await answer.read()


async def assert_loss_is_bounded(world: World, hanse: Hanse, requests: int = 1) -> None:
    """What could be claimed never passes the maxima of the requests that were signed."""
    for sub_account in await hanse.get_exposures():
        assert sub_account.book.highest_cumulative_max <= requests * MAXIMUM_FEE


COUNTED = ("response-hash", "usage", "tokens", "back-dated")
"""Lies in receipts that the provider can claim on anyway: counted, and held against it."""


@pytest.mark.parametrize("body", [BODY, STREAM], ids=["whole", "stream"])
@pytest.mark.parametrize(
    ("lie", "code"),
    [
        ("signature", "receipt_invalid"),
        ("request-hash", "receipt_invalid"),
        ("user", "receipt_invalid"),
        ("fee", "receipt_invalid"),
        ("sequence-gap", "receipt_invalid"),
        ("cumulative-jump", "receipt_invalid"),
        ("stripped", "receipt_invalid"),
        ("response-hash", "response_mismatch"),
        ("usage", "response_mismatch"),
        ("tokens", "response_mismatch"),
        ("back-dated", "response_mismatch"),
    ],
)
async def test_a_false_receipt_is_caught(world: World, lie: str, code: str, body: bytes) -> None:
    world.only(world.cheap)
    world.cheap.lie = lie
    async with world.open() as hanse:
        with pytest.raises(VerificationError) as caught:
            await buy(hanse, body)
        assert caught.value.code == code
        with pytest.raises(HanseError, match=r"is down since|is disputed"):
            await buy(hanse, body)
        assert world.cheap.paid_requests == 1, "it is not asked again"
        receipts = await hanse.get_receipts()
        if lie in COUNTED:
            assert [r.verification for r in receipts] == [Verification.MISMATCHED]
        await assert_loss_is_bounded(world, hanse)


@pytest.mark.parametrize("body", [BODY, STREAM], ids=["whole", "stream"])
async def test_a_receipt_of_another_request_is_caught(world: World, body: bytes) -> None:
    world.only(world.cheap)
    async with world.open() as hanse:
        await buy(hanse, body)
        world.cheap.lie = "other-request"
        with pytest.raises(VerificationError, match="the receipt is for request"):
            await buy(hanse, body)
        await assert_loss_is_bounded(world, hanse, 2)


@pytest.mark.parametrize(
    ("lie", "code"),
    [
        ("bytes", "response_mismatch"),
        ("malformed", "response_malformed"),
        ("two-lines", "response_malformed"),
        ("huge", "response_malformed"),
        ("two-receipts", "receipt_invalid"),
        ("late-frame", "response_malformed"),
    ],
)
async def test_a_false_stream_is_caught(world: World, lie: str, code: str) -> None:
    world.only(world.cheap)
    world.cheap.lie = lie
    async with world.open() as hanse:
        with pytest.raises(VerificationError) as caught:
            await buy(hanse, STREAM)
        assert caught.value.code == code
        assert hanse.get_offers()[0].health.is_down(world.clock())
        await assert_loss_is_bounded(world, hanse)


@pytest.mark.parametrize("lie", ["hang", "crash", "500"])
async def test_an_unknown_outcome_stays_in_flight_and_the_next_serves(
    world: World, lie: str
) -> None:
    world.limits = TransportLimits(silence_s=0.05, whole_s=0.05)
    world.cheap.lie = lie
    async with world.open() as hanse:
        assert b"forty" in await buy(hanse, BODY)
        books = {b.key.provider: b.book for b in await hanse.get_exposures()}
        assert books[world.cheap.provider].in_flight == 1, "nobody knows whether it was served"
        assert books[world.dear.provider].in_flight == 0
        world.cheap.lie = ""
        world.clock.now += 300  # past its deadline and both clocks' errors
        (report,) = await hanse.resume()
        assert report.released == 1
        await world.assert_books_agree(world.cheap, world.dear)


async def test_two_receipts_for_one_sequence_are_kept_as_evidence(world: World) -> None:
    world.only(world.cheap)
    async with world.open() as hanse:
        await buy(hanse, BODY)
        (first,) = await hanse.get_receipts()
        forged = world.cheap._sign(
            type(first.signed.receipt)(
                **{
                    name: getattr(first.signed.receipt, name)
                    for name in first.signed.receipt.__struct_fields__
                    if name != "finished_at"
                },
                finished_at=1,
            )
        )
        with pytest.raises(VerificationError, match="two different receipts for sequence 1"):
            await world.book.acknowledge(forged, Verification.VERIFIED, now_s=1)
        ((kept, _),) = await world.book.list_conflicts()
        assert kept == forged
        with pytest.raises(HanseError, match="disputed"):
            await buy(hanse, BODY)
        assert (await hanse.get_receipts())[0].signed == first.signed, "the first is not replaced"


async def test_a_dispute_survives_a_restart(world: World) -> None:
    world.only(world.cheap)
    world.cheap.lie = "cumulative-jump"
    async with world.open() as hanse:
        with pytest.raises(VerificationError):
            await buy(hanse, BODY)
    async with world.open() as hanse:
        with pytest.raises(HanseError, match="disputed"):
            await buy(hanse, BODY)
        assert world.cheap.paid_requests == 1


async def test_an_offer_that_is_not_the_published_one_is_not_listed(world: World) -> None:
    honest = world.cheap.offer
    world.cheap.offer = type(honest)(honest.offer, world.dear.offer.signature)
    async with world.open() as hanse:
        listed = [offer.listed.provider for offer in hanse.get_offers()]
        assert listed == [world.dear.provider]
        report = await hanse.discover()
        assert any("receipt key" in reason for reason in report.errors.values())


async def test_a_free_refusal_with_a_fee_is_not_believed(world: World) -> None:
    """An error after admission must cost nothing; one that charges is held against the provider."""
    world.only(world.cheap)
    async with world.open() as hanse:
        world.cheap.lie = "engine-fails"
        with pytest.raises(TransientError):
            await buy(hanse, BODY)
        (receipt,) = await hanse.get_receipts()
        assert receipt.signed.receipt.fee == 0
