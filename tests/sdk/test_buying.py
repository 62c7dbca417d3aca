"""A user buys from honest brokers."""

import asyncio
import json

import pytest

from hanse.market.health import BACKOFF_S_MIN, DECLINED_MAX
from hanse.protocol.errors import RequestError, TransientError
from hanse.protocol.hashing import DONE_FRAME, ResponseHasher
from hanse.protocol.messages import Prices
from hanse.sdk import CompletionStream, Needs, Verification
from hanse.settlement.books.receipt_records import SubAccountFunds
from tests.sdk.conftest import World

MESSAGES = [{"role": "user", "content": "What is the answer?"}]
BODY = json.dumps({"model": "echo", "messages": MESSAGES, "max_tokens": 50}).encode()
STREAM = json.dumps(
    {"model": "echo", "messages": MESSAGES, "max_tokens": 50, "stream": True}
).encode()


async def test_a_whole_answer_is_bought_from_the_cheapest(world: World) -> None:
    async with world.open() as hanse:
        answer = await hanse.chat("echo", MESSAGES, max_tokens=50)
        assert not isinstance(answer, CompletionStream)
        assert answer.text == "The answer is forty-two."
        assert answer.provider == world.cheap.provider
        assert answer.receipt.verification is Verification.VERIFIED
        assert answer.receipt.fee == 22  # 10 input at 1 and 6 output tokens at 2 base units
        await world.assert_books_agree(world.cheap)
        (receipt,) = await hanse.get_receipts()
        assert receipt.signed == answer.receipt.signed
        assert receipt.is_acknowledged


async def test_a_stream_passes_untouched_and_its_receipt_covers_it(world: World) -> None:
    async with world.open() as hanse:
        asked = json.loads(STREAM) | {"stream_options": {"include_usage": True}}  # else it is cut
        answer = await hanse.request("/v1/chat/completions", asked)
        hasher, frames = ResponseHasher(), []
        async for frame in answer.frames():
            hasher.update(frame)
            frames.append(frame)
            if frame == DONE_FRAME:
                assert answer.receipt is not None, "[DONE] before the receipt was counted"
        assert frames[-1] == DONE_FRAME
        assert not any(frame.startswith(b":") for frame in frames)
        assert answer.receipt.signed.receipt.response_hash == hasher.get_hash()
        assert answer.receipt.verification is Verification.VERIFIED
        await world.assert_books_agree(world.cheap)


async def test_text_streams(world: World) -> None:
    async with world.open() as hanse:
        stream = await hanse.chat("echo", MESSAGES, stream=True, max_tokens=50)
        assert isinstance(stream, CompletionStream)
        texts = [text async for text in stream.texts()]
        assert "".join(texts) == "The answer is forty-two."
        assert stream.receipt is not None


async def test_many_requests_at_once_keep_the_books_equal(world: World) -> None:
    async with world.open() as hanse:

        async def buy(is_stream: bool) -> None:
            answer = await hanse.request("/v1/chat/completions", STREAM if is_stream else BODY)
            if is_stream:
                async for _ in answer.frames():
                    pass
            else:
                await answer.read()

        await asyncio.gather(*(buy(number % 2 == 0) for number in range(60)))
        await hanse.wait_idle()
        await world.assert_books_agree(world.cheap)
        assert world.cheap.book.sequence == 60


async def test_prices_decide_unless_a_provider_is_asked_for(world: World) -> None:
    async with world.open() as hanse:
        needs = Needs(providers=frozenset({world.dear.provider}))
        answer = await hanse.request("/v1/chat/completions", BODY, needs)
        await answer.read()
        assert answer.provider == world.dear.provider


async def test_a_provider_that_is_gone_is_passed_over_and_costs_nothing(world: World) -> None:
    async with world.open() as hanse:
        del world.transport.apps["http://cheap"]
        answer = await hanse.request("/v1/chat/completions", BODY)
        await answer.read()
        assert answer.provider == world.dear.provider
        found = {b.key.provider: b.book for b in await hanse.get_exposures()}
        assert found[world.cheap.provider].in_flight == 0, "nothing was sent, so it is released"


@pytest.mark.parametrize(
    ("status", "code"),
    [(503, "overloaded"), (429, "rate_limited"), (503, "draining"), (422, "offer_changed")],
)
async def test_a_refusal_sends_the_request_elsewhere(world: World, status: int, code: str) -> None:
    async with world.open() as hanse:
        world.cheap.refuse = (status, code)
        answer = await hanse.request("/v1/chat/completions", BODY)
        await answer.read()
        assert answer.provider == world.dear.provider
        found = {b.key.provider: b.book for b in await hanse.get_exposures()}
        assert found[world.cheap.provider].in_flight == 0


async def test_a_request_that_is_at_fault_is_not_tried_elsewhere(world: World) -> None:
    async with world.open() as hanse:
        world.cheap.refuse = (400, "invalid_request")
        with pytest.raises(RequestError, match="refused"):
            await hanse.request("/v1/chat/completions", BODY)
        assert world.dear.paid_requests == 0


async def test_what_one_engine_does_not_offer_is_asked_of_the_next_and_nobody_is_blamed(
    world: World,
) -> None:
    async with world.open() as hanse:
        world.cheap.refuse = (400, "unsupported_parameter")
        answer = await hanse.request("/v1/chat/completions", BODY)
        await answer.read()
        assert answer.provider == world.dear.provider
        assert not any(offer.health.failures for offer in hanse.get_offers())
        world.dear.refuse = world.cheap.refuse
        with pytest.raises(RequestError) as refused:  # where nobody offers it, it is refused
            await hanse.request("/v1/chat/completions", BODY)
        assert refused.value.code == "unsupported_parameter"
        world.cheap.refuse = None
        answer = await hanse.request("/v1/chat/completions", BODY)
        await answer.read()
        assert answer.provider == world.cheap.provider  # for what it does offer it is the first
        assert {b.book.in_flight for b in await hanse.get_exposures()} == {0}


async def test_a_cheap_provider_that_declines_everything_is_asked_less_and_less(
    world: World,
) -> None:
    async with world.open() as hanse:
        world.cheap.refuse = (400, "unsupported_parameter")
        for times in range(DECLINED_MAX + 4):
            await (await hanse.request("/v1/chat/completions", BODY)).read()
            world.clock.now += BACKOFF_S_MIN if times < DECLINED_MAX else 0
        cheap = next(o for o in hanse.get_offers() if o.listed.provider == world.cheap.provider)
        assert cheap.health.failures == 1
        assert world.cheap.paid_requests == DECLINED_MAX + 1
        assert world.dear.paid_requests == DECLINED_MAX + 4


async def test_an_engine_that_fails_costs_nothing_and_the_next_serves(world: World) -> None:
    async with world.open() as hanse:
        world.cheap.lie = "engine-fails"
        answer = await hanse.request("/v1/chat/completions", BODY)
        await answer.read()
        assert answer.provider == world.dear.provider
        await world.assert_books_agree(world.cheap, world.dear)
        assert world.cheap.book.cumulative_fee == 0


async def test_missing_money_is_named_with_amounts(world: World) -> None:
    for broker in world.brokers:
        world.chain.funds[broker.provider] = SubAccountFunds(100, 0)
    async with world.open() as hanse:
        with pytest.raises(RequestError) as caught:
            await hanse.request("/v1/chat/completions", BODY)
        assert caught.value.code == "insufficient_balance"
        details = caught.value.details
        assert int(details["needed"]) - int(details["available"]) == int(details["missing"]) > 0
        assert world.cheap.paid_requests == world.dear.paid_requests == 0


async def test_missing_money_at_the_broker_is_named_too(world: World) -> None:
    async with world.open() as hanse:
        for broker in world.brokers:
            broker.refuse = (402, "insufficient_balance")
        with pytest.raises(RequestError) as caught:
            await hanse.request("/v1/chat/completions", BODY)
        assert caught.value.code == "insufficient_balance"
        assert caught.value.details["missing"] == "480"


async def test_why_nobody_fits_is_said(world: World) -> None:
    async with world.open() as hanse:
        with pytest.raises(RequestError, match="no provider offers 'other'"):
            await hanse.request("/v1/chat/completions", BODY.replace(b"echo", b"other"))
        cheap = Needs(max_prices=Prices(1, 1, 1))
        with pytest.raises(RequestError, match="your limit is 1"):
            await hanse.request("/v1/chat/completions", BODY, cheap)
        world.transport.apps.clear()
        with pytest.raises(TransientError, match="cannot connect"):
            await hanse.request("/v1/chat/completions", BODY)
        with pytest.raises(TransientError, match="is down since"):
            await hanse.request("/v1/chat/completions", BODY)


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("/v1/other", BODY, "not_found"),
        ("/v1/chat/completions", b"{", "invalid_request"),
        ("/v1/chat/completions", b"[]", "invalid_request"),
        ("/v1/chat/completions", b'{"messages": []}', "invalid_request"),
        ("/v1/chat/completions", b'{"model": "echo", "n": 0}', "invalid_request"),
        ("/v1/chat/completions", b"x" * (4 * 1024 * 1024 + 1), "request_too_large"),
        ("/v1/chat/completions", b'{"model": "echo", "max_tokens": 1001}', "unprocessable"),
    ],
)
async def test_bad_requests_are_refused_before_anything_is_signed(
    world: World, path: str, body: bytes, code: str
) -> None:
    async with world.open() as hanse:
        with pytest.raises(RequestError) as caught:
            await hanse.request(path, body)
        assert caught.value.code == code
        assert await hanse.get_exposures() == []


async def test_a_stream_that_broke_off_does_not_end_when_asked_again(world: World) -> None:
    world.only(world.cheap)
    async with world.open() as hanse:
        world.cheap.lie = "cut-before-receipt"
        stream = await hanse.request("/v1/chat/completions", STREAM)
        for _ in range(2):
            with pytest.raises(TransientError, match="broke off"):  # noqa: PT012 - the loop is it
                while await stream.read_batch():
                    pass


async def test_a_voucher_that_is_too_low_is_signed_again_once(world: World) -> None:
    world.only(world.cheap)
    async with world.open() as hanse:
        world.cheap.lie = "cut-before-receipt"
        stream = await hanse.request("/v1/chat/completions", STREAM)
        with pytest.raises(TransientError, match="broke off"):
            async for _ in stream.frames():
                pass
        world.cheap.lie = ""
        world.clock.now += 5  # its back-off is over
        world.cheap.refuse = (402, "voucher_too_low")
        answer = await hanse.request("/v1/chat/completions", BODY)
        await answer.read()
        await hanse.wait_idle()
        await world.assert_books_agree(world.cheap)
        assert world.cheap.book.sequence == 2


async def test_the_only_provider_is_asked_again_a_second_after_it_failed(world: World) -> None:
    world.only(world.cheap)
    async with world.open() as hanse:
        apps = dict(world.transport.apps)
        world.transport.apps.clear()
        for _ in range(5):  # a back-off of 16 s, which would be for the sake of others
            with pytest.raises(TransientError):
                await hanse.request("/v1/chat/completions", BODY)
            world.clock.now = hanse.get_offers()[0].health.retry_at
        with pytest.raises(TransientError, match="cannot connect"):
            await hanse.request("/v1/chat/completions", BODY)
        assert hanse.get_offers()[0].health.retry_at - world.clock.now > 10
        world.transport.apps.update(apps)
        world.clock.now += BACKOFF_S_MIN
        answer = await hanse.request("/v1/chat/completions", BODY)
        assert answer.choice is not None
        assert answer.choice.why == "probe"
        await answer.read()
        assert hanse.get_offers()[0].health.failures == 0


async def test_a_wrong_request_keeps_nobody_from_a_provider_that_is_back(world: World) -> None:
    world.only(world.cheap)
    async with world.open() as hanse:
        apps = dict(world.transport.apps)
        world.transport.apps.clear()
        with pytest.raises(TransientError):
            await hanse.request("/v1/chat/completions", BODY)
        world.transport.apps.update(apps)
        world.clock.now += BACKOFF_S_MIN
        world.cheap.refuse = (400, "invalid_request")
        with pytest.raises(RequestError):
            await hanse.request("/v1/chat/completions", BODY)
        world.cheap.refuse = None
        await (await hanse.request("/v1/chat/completions", BODY)).read()
