"""A provider that wants more money than it earned: each attack ends with the loss in bounds."""

import asyncio
from typing import Any

import msgspec
import pytest

from hanse.chain import Key
from hanse.protocol.books import ProviderBook
from hanse.protocol.errors import HanseError, VerificationError
from hanse.protocol.hashing import hash_response
from hanse.protocol.limits import ANSWER_RETAINED_BYTES_MAX, SEQUENCE_MAX
from hanse.protocol.messages import FinishReason, SignedReceipt, Usage
from hanse.protocol.wire import encode_receipt, receipt_to_json
from hanse.sdk import TransportLimits, Verification
from tests.sdk.conftest import World, to_service
from tests.sdk.fake_broker import FakeBroker
from tests.sdk.test_dishonest import BODY, STREAM, buy


class Attack:
    """Stands in front of a fake broker; each test overrides what it lies about."""

    def __init__(self, broker: FakeBroker) -> None:
        self.broker = broker
        self.pages = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["method"] == "POST":
            await self.sell(scope, receive, send)
        elif scope["path"] == "/hanse/v1/receipts":
            self.pages += 1
            await self.show_receipts(scope, receive, send)
        else:
            await self.broker(scope, receive, send)

    async def sell(self, scope: Any, receive: Any, send: Any) -> None:
        await self.broker(scope, receive, send)

    async def show_receipts(self, scope: Any, receive: Any, send: Any) -> None:
        await self.broker(scope, receive, send)


async def send_json(send: Any, status: int, content: object) -> None:
    body = msgspec.json.encode(content)
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


class RefusesAndCharges(Attack):
    """Says 503 to everybody, and makes a receipt for a good answer that it never sent."""

    async def sell(self, scope: Any, receive: Any, send: Any) -> None:
        body = (await receive())["body"]
        header = dict(scope["headers"])[b"authorization"].decode()
        signed = self.broker._admit(scope["path"], body, header)
        answer = msgspec.json.encode(
            {
                "choices": [{"message": {"content": "The answer is forty-two."}}],
                "usage": {"prompt_tokens": 10, "completion_tokens": 6},
            }
        )
        self.broker._finish(
            signed, Usage(10, 0, 6), hash_response(answer), FinishReason.STOP, answer
        )
        await send_json(send, 503, {"error": {"message": "busy", "code": "overloaded"}})


async def test_a_refusal_that_is_charged_for_later_is_held_against_the_provider(
    world: World,
) -> None:
    world.only(world.cheap)
    world.transport.apps[world.cheap.url] = RefusesAndCharges(world.cheap)
    async with world.open() as hanse:
        with pytest.raises(HanseError, match="busy"):
            await buy(hanse, BODY)
        world.clock.now += 120  # it may be asked again
        report = await hanse._resumer.resume_provider(world.cheap.provider)
        (receipt,) = await hanse.get_receipts()
        assert receipt.verification is Verification.MISMATCHED
        assert "refused" in receipt.reason
        assert report.errors
        assert hanse.get_offers()[0].health.is_down(world.clock() + 3_000), "not just a failure"


class ShowsTheSamePageForEver(Attack):
    """Every page of receipts is the first one, and there is always more."""

    async def show_receipts(self, scope: Any, receive: Any, send: Any) -> None:
        receipts = [
            {"request_id": i, "receipt": receipt_to_json(r)}
            for i, r in self.broker.receipts.items()
        ]
        await send_json(send, 200, {"receipts": receipts, "in_flight": [], "more": True})


async def test_endless_pages_of_known_receipts_end(world: World) -> None:
    world.only(world.cheap)
    attack = ShowsTheSamePageForEver(world.cheap)
    world.transport.apps[world.cheap.url] = attack
    async with world.open() as hanse:
        await buy(hanse, BODY)
        await hanse._resumer.resume_provider(world.cheap.provider)
        assert attack.pages <= 2, "a page that brings nothing new is the last"


class ShowsAHugeSequence(Attack):
    """Its only receipt has the highest sequence that the wire can carry."""

    async def show_receipts(self, scope: Any, receive: Any, send: Any) -> None:
        (known,) = self.broker.receipts.values()
        huge = self.broker._sign(msgspec.structs.replace(known.receipt, sequence=SEQUENCE_MAX))
        page = [{"request_id": "0x" + "00" * 32, "receipt": receipt_to_json(huge)}]
        await send_json(send, 200, {"receipts": page, "in_flight": [], "more": False})


async def test_an_adopted_receipt_cannot_name_an_impossible_sequence(world: World) -> None:
    async with world.open() as hanse:
        await buy(hanse, BODY)
    (world.folder / "user.db").unlink()
    world.transport.apps[world.cheap.url] = ShowsAHugeSequence(world.cheap)
    async with world.open() as hanse:
        await buy(hanse, BODY.replace(b"What", b"Which"))  # the book knows some sub-account
        reports = await hanse.resume(adopt=True)
        found = {report.provider: report for report in reports}
        assert found[world.cheap.provider].errors
        assert not found[world.dear.provider].errors


async def test_a_long_answer_that_was_cut_does_not_make_an_honest_provider_look_guilty(
    world: World,
) -> None:
    world.only(world.cheap)
    world.cheap.frames_text = tuple(f"{number:07} " * 8_000 for number in range(24))  # 1.5 MB
    broker = world.cheap

    def keep_the_end(request_id: str, answer: bytes) -> None:
        FakeBroker.keep(broker, request_id, answer[-ANSWER_RETAINED_BYTES_MAX:])

    broker.keep = keep_the_end  # type: ignore[method-assign]
    world.cheap.lie = "cut-before-receipt"
    async with world.open() as hanse:
        with pytest.raises(HanseError):
            await buy(hanse, STREAM)
        report = await hanse._resumer.resume_provider(world.cheap.provider)
        (receipt,) = await hanse.get_receipts()
        assert receipt.verification is Verification.UNVERIFIED, receipt.reason
        assert not report.errors


class MovesCachedTokens(Attack):
    """The answer says that the prompt came from the cache, the receipt charges it as fresh."""

    async def sell(self, scope: Any, receive: Any, send: Any) -> None:
        body = (await receive())["body"]
        header = dict(scope["headers"])[b"authorization"].decode()
        signed = self.broker._admit(scope["path"], body, header)
        details = {"cached_tokens": 10}
        usage = {"prompt_tokens": 10, "completion_tokens": 6, "prompt_tokens_details": details}
        answer = msgspec.json.encode(
            {"choices": [{"message": {"content": "The answer is"}}], "usage": usage}
        )
        made: SignedReceipt = self.broker._finish(
            signed, Usage(10, 0, 6), hash_response(answer), FinishReason.STOP, answer
        )
        raw = [(b"hanse-receipt", encode_receipt(made).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": raw})
        await send({"type": "http.response.body", "body": answer, "more_body": False})


async def test_cached_tokens_charged_as_fresh_are_caught(world: World) -> None:
    world.only(world.cheap)
    world.transport.apps[world.cheap.url] = MovesCachedTokens(world.cheap)
    async with world.open() as hanse:
        with pytest.raises(VerificationError, match="cached"):
            await buy(hanse, BODY)


class AsksToWait(Attack):
    """Refuses for a time that is no number, or beyond all numbers."""

    retry_after = ""

    async def sell(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        headers = [(b"retry-after", self.retry_after.encode())]
        body = msgspec.json.encode({"error": {"message": "busy", "code": "overloaded"}})
        await send({"type": "http.response.start", "status": 503, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})


@pytest.mark.parametrize("retry_after", ["\u00b2", "9" * 400, "-1", "1e5", " 5", "0x10"])
async def test_a_wait_that_is_no_number_stops_nobody(world: World, retry_after: str) -> None:
    attack = AsksToWait(world.cheap)
    attack.retry_after = retry_after
    world.transport.apps[world.cheap.url] = attack
    async with world.open() as hanse:
        assert b"forty" in await buy(hanse, BODY), "the next provider serves"
    world.only(world.cheap)
    async with world.open() as hanse:
        with pytest.raises(HanseError) as caught:
            await buy(hanse, BODY)
        assert (caught.value.retry_after_s or 0) < 86_400, "a caller can be told so many seconds"


async def test_a_sequence_that_is_left_out_is_held_against_the_provider(world: World) -> None:
    """Receipts behind a gap are never acknowledged, so their maxima stay claimable for ever."""
    world.only(world.cheap)
    world.cheap.lie = "crash"
    async with world.open() as hanse:
        with pytest.raises(HanseError):
            await buy(hanse, BODY)
        world.clock.now += 5
        world.cheap.lie = ""
        world.cheap.book = ProviderBook(sequence=1)
        await buy(hanse, BODY)
        report = await hanse._resumer.resume_provider(world.cheap.provider)
        assert "receipt 1 is missing" in report.errors[0]
        assert hanse.get_offers()[0].health.is_down(world.clock() + 3_000)


class Drips(Attack):
    """Sends its receipts a byte at a time, each well before anybody calls it silent."""

    async def show_receipts(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": b" ", "more_body": True})
            await asyncio.sleep(0.01)


async def test_receipts_that_drip_do_not_hold_up_a_request(world: World) -> None:
    world.limits = TransportLimits(silence_s=0.5, whole_s=0.5, total_s=0.3)
    world.transport.apps[world.cheap.url] = Drips(world.cheap)
    world.cheap.refuse = (402, "voucher_too_low")
    async with world.open() as hanse, asyncio.timeout(10):
        assert b"forty" in await buy(hanse, BODY), "the next provider serves"


@pytest.mark.parametrize("code", ["voucher_too_low", "fee_too_low", "model_not_found"])
async def test_a_provider_that_refuses_everybody_is_left_alone_for_a_while(
    world: World, code: str
) -> None:
    """Else a few cheap ones that refuse at no cost would stand before every request."""
    world.cheap.refuse = (404 if code == "model_not_found" else 402, code)
    async with world.open() as hanse:
        assert b"forty" in await buy(hanse, BODY)
        asked = world.cheap.paid_requests
        assert b"forty" in await buy(hanse, BODY)
        assert world.cheap.paid_requests == asked


class DripsAnswers(Attack):
    """Its 402 brings receipts of cut answers, and each kept answer drips when it is fetched."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if "/answers/" not in scope["path"]:
            await super().__call__(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": b" ", "more_body": True})
            await asyncio.sleep(0.01)


async def test_many_kept_answers_that_drip_do_not_hold_up_a_request(world: World) -> None:
    world.limits = TransportLimits(silence_s=0.5, whole_s=0.5, total_s=0.5)
    world.only(world.cheap)
    cut = 8
    async with world.open() as hanse:
        world.cheap.lie = "crash-admitted"
        for _ in range(cut):
            with pytest.raises(HanseError):
                await buy(hanse, BODY)
            world.clock.now += 61
        for signed in world.cheap.vouchers.values():
            world.cheap._finish(signed, Usage(10, 0, 6), "0x" + "77" * 32, FinishReason.STOP, b"")
    world.cheap.lie = ""
    world.cheap.refuse = (402, "voucher_too_low")
    world.transport.apps[world.cheap.url] = DripsAnswers(world.cheap)
    world.chain.services.append(to_service(world.dear))
    async with world.open() as hanse:
        started = asyncio.get_running_loop().time()
        assert b"forty" in await buy(hanse, BODY), "the next provider serves"
        assert asyncio.get_running_loop().time() - started < cut * world.limits.total_s / 2


async def test_a_receipt_key_that_changed_meanwhile_does_not_lock_a_sub_account(
    world: World,
) -> None:
    """Signed by the new key for a voucher made under the old one: counted once the chain shows it.

    Never counted, it would keep every later receipt from being acknowledged.
    """
    world.only(world.cheap)
    async with world.open() as hanse:
        world.cheap.key = Key(b"\x33" * 32)
        with pytest.raises(VerificationError, match="the provider's receipt key is"):
            await buy(hanse, BODY)
        report = await hanse._resumer.resume_provider(world.cheap.provider)
        assert report.errors, "before the chain shows it, it could be anybody's"
        world.cheap.offer = world.cheap._sign_offer(world.cheap.offer.offer.prices, "echo")
        world.only(world.cheap)
        await hanse.discover()
        report = await hanse._resumer.resume_provider(world.cheap.provider)
        assert not report.errors
        await world.assert_books_agree(world.cheap)
