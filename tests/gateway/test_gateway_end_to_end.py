"""OpenAI's real SDKs -> gateway -> SDK -> broker -> echo engine, all over loopback.

Only the chain is told instead of read, and the engine is a fake.
"""

import asyncio
import json
from collections import Counter

import openai
import pytest

from hanse.engines.echo_engine import Fault
from hanse.gateway import GatewayApp, GatewaySettings
from hanse.protocol.wire import decode_receipt
from tests.gateway.asgi_caller import Caller
from tests.gateway.gateway_parts import until
from tests.gateway.market_parts import (
    CHAT_MODEL,
    CHEAP,
    DEAR,
    EMBED_MODEL,
    SIGNER_KEY,
    USER,
    Market,
    open_market,
    wait_counted,
)
from tests.gateway.openai_js import drive, install

VOUCHER_FORGOTTEN_S = 300  # deadline and twice the clocks' skew
MESSAGES = [{"role": "user", "content": "one two three four five six seven eight"}]


@pytest.fixture
async def market(tmp_path):
    async with open_market(tmp_path) as market:
        yield market


@pytest.fixture
async def client(market):
    async with openai.AsyncOpenAI(
        base_url=market.gateway.base_url, api_key=market.gateway.key, max_retries=0
    ) as client:
        yield client


async def check_books(market: Market) -> int:
    """Both sides hold the same, and nothing is at work; returns the sum of all fees."""
    await until(lambda: not market.gateway.in_flight)
    await market.hanse.wait_idle()
    total = 0
    ours = {row.key.provider: row.book for row in await market.vouchers.list_sub_accounts()}
    for seller in (market.cheap, market.dear):
        state = await seller.book.find_state(USER, SIGNER_KEY.address)
        mine = ours.get(seller.provider)
        if state is None:
            assert mine is None or mine.acknowledged == 0
            continue
        assert mine is not None
        assert (state.book.in_flight, state.book.reserved) == (0, 0)
        assert (mine.in_flight, mine.in_flight_fee) == (0, 0)
        assert (mine.acknowledged, mine.acknowledged_fee) == (
            state.book.sequence,
            state.book.cumulative_fee,
        )
        total += state.book.cumulative_fee
    return total


async def test_a_whole_answer_is_paid_to_the_cheapest(client, market):
    raw = await client.chat.completions.with_raw_response.create(
        model=CHAT_MODEL, messages=MESSAGES
    )
    answer = raw.parse()
    receipt = decode_receipt(raw.headers["hanse-receipt"]).receipt
    assert answer.choices[0].message.content
    assert raw.headers["hanse-provider"] == CHEAP == receipt.provider
    assert raw.headers["hanse-fee"] == str(receipt.fee)
    assert receipt.usage.output_tokens == answer.usage.completion_tokens == 16
    assert await check_books(market) == receipt.fee > 0


async def test_a_stream_is_paid_and_its_receipt_passed_on(client, market):
    async with client.chat.completions.with_streaming_response.create(
        model=CHAT_MODEL, messages=MESSAGES, stream=True
    ) as response:
        lines = [line async for line in response.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    assert lines[-2].startswith(": hanse-receipt ")
    receipt = decode_receipt(lines[-2].removeprefix(": hanse-receipt ")).receipt
    assert receipt.usage.output_tokens == 16
    assert await check_books(market) == receipt.fee > 0


@pytest.mark.parametrize("wanted", [True, False])
async def test_usage_comes_in_the_stream_only_when_asked_for(client, market, wanted):
    stream = await client.chat.completions.create(
        model=CHAT_MODEL, messages=MESSAGES, stream=True, stream_options={"include_usage": wanted}
    )
    usages = [chunk.usage async for chunk in stream if chunk.usage]
    assert [usage.completion_tokens for usage in usages] == ([16] if wanted else [])
    await check_books(market)


@pytest.mark.parametrize("stream", [False, True])
async def test_several_answers_are_one_purchase(client, market, stream):
    fields = {"model": CHAT_MODEL, "messages": MESSAGES, "n": 4, "max_tokens": 5}
    if stream:
        texts, ends = {}, []
        usage_wanted = {"include_usage": True}
        async for chunk in await client.chat.completions.create(
            **fields, stream=True, stream_options=usage_wanted
        ):
            usage = chunk.usage
            for choice in chunk.choices:
                texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
                ends += [choice.index] if choice.finish_reason else []
        assert sorted(ends) == [0, 1, 2, 3]
    else:
        answer = await client.chat.completions.create(**fields)
        texts = {choice.index: choice.message.content for choice in answer.choices}
        usage = answer.usage
    assert sorted(texts) == [0, 1, 2, 3]
    assert all(len(text.split()) == 5 for text in texts.values())
    assert (usage.prompt_tokens, usage.completion_tokens) == (8, 20)
    [receipt] = [row.signed.receipt for row in await market.hanse.get_receipts()]
    assert (receipt.usage.input_tokens, receipt.usage.output_tokens) == (8, 20)
    assert await check_books(market) == receipt.fee > 0


async def test_what_is_authorised_covers_every_answer(client, market):
    asked = {"model": CHAT_MODEL, "messages": MESSAGES, "max_tokens": 16}
    for choices in (1, 4):
        await client.chat.completions.create(**asked, n=choices)
    rows = sorted(await market.hanse.get_receipts(), key=lambda row: row.signed.receipt.sequence)
    one, four = [row.signed.receipt for row in rows]
    assert (one.usage.output_tokens, four.usage.output_tokens) == (16, 64)
    assert four.fee > 2 * one.fee  # it was not held to the maximum of one answer


@pytest.mark.parametrize("kind", ["chat", "completion"])
async def test_each_answer_of_a_stream_that_breaks_goes_on_elsewhere(client, market, kind):
    market.cheap.engine.fault = Fault(kind="break", after_tokens=3)
    wishes = {"model": CHAT_MODEL, "n": 2, "max_tokens": 8, "stream": True}
    wishes["stream_options"] = {"include_usage": True}
    if kind == "chat":
        stream = await client.chat.completions.create(messages=MESSAGES, **wishes)
    else:
        stream = await client.completions.create(prompt=MESSAGES[0]["content"], **wishes)
    counts, ends = Counter(), Counter()
    async for chunk in stream:
        for choice in chunk.choices:
            ends[choice.index] += choice.finish_reason is not None
            counts[choice.index] += bool(choice.delta.content if kind == "chat" else choice.text)
    assert counts == {0: 8, 1: 8}
    assert ends == {0: 1, 1: 1}
    receipts = [row.signed.receipt for row in await market.hanse.get_receipts()]
    paid = [(receipt.provider, receipt.usage.output_tokens) for receipt in receipts]
    assert sorted(paid) == [(CHEAP, 6), (DEAR, 5), (DEAR, 5)]
    assert chunk.usage.completion_tokens == 16
    read = [receipt.usage.input_tokens + receipt.usage.cached_tokens for receipt in receipts]
    assert chunk.usage.prompt_tokens == sum(read)
    assert await check_books(market) == sum(receipt.fee for receipt in receipts)


async def test_completions_embeddings_and_models(client, market):
    text = await client.completions.create(model=CHAT_MODEL, prompt="once upon a time")
    assert text.choices[0].text
    vectors = await client.embeddings.create(
        model=EMBED_MODEL, input=["a", "b"], encoding_format="float"
    )
    assert [len(row.embedding) for row in vectors.data] == [8, 8]
    assert [row.id async for row in client.models.list()] == [EMBED_MODEL, CHAT_MODEL]
    assert await check_books(market) > 0


async def test_an_unknown_model_is_not_found(client, market):
    with pytest.raises(openai.NotFoundError) as caught:
        await client.chat.completions.create(model="nothing", messages=MESSAGES)
    assert caught.value.code == "model_not_found"
    assert await check_books(market) == 0


async def test_the_dear_one_serves_while_the_cheap_one_refuses(client, market):
    market.cheap.engine.fault = Fault(kind="refuse")
    raw = await client.chat.completions.with_raw_response.create(
        model=CHAT_MODEL, messages=MESSAGES
    )
    assert raw.headers["hanse-provider"] == DEAR
    assert await check_books(market) > 0


async def test_nobody_healthy_is_a_503(client, market):
    for seller in (market.cheap, market.dear):
        seller.engine.fault = Fault(kind="refuse")
    with pytest.raises(openai.InternalServerError) as caught:
        await client.chat.completions.create(model=CHAT_MODEL, messages=MESSAGES)
    assert caught.value.status_code == 503
    assert await check_books(market) == 0


async def test_too_little_money_is_a_402_with_amounts(tmp_path):
    async with open_market(tmp_path, funds=1) as market:
        async with openai.AsyncOpenAI(
            base_url=market.gateway.base_url, api_key=market.gateway.key, max_retries=0
        ) as client:
            with pytest.raises(openai.APIStatusError) as caught:
                await client.chat.completions.create(model=CHAT_MODEL, messages=MESSAGES)
        assert caught.value.status_code == 402
        facts = caught.value.body["hanse"]
        assert int(facts["needed"]) - int(facts["available"]) == int(facts["missing"]) > 0
        assert await check_books(market) == 0


async def test_engines_that_all_break_amid_a_stream_raise_and_cost_their_prefixes(client, market):
    market.cheap.engine.fault = Fault(kind="break", after_tokens=3)
    market.dear.engine.fault = Fault(kind="break", after_tokens=2)
    stream = await client.chat.completions.create(model=CHAT_MODEL, messages=MESSAGES, stream=True)
    words = []

    async def read() -> None:
        async for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                words.append(chunk.choices[0].delta.content)

    with pytest.raises(openai.APIError) as caught:
        await read()
    assert caught.value.code == "engine_unavailable"
    assert len(words) == 5
    assert await check_books(market) > 0


async def test_leaving_stops_the_engine_within_a_second_and_costs_the_prefix(tmp_path):
    async with open_market(tmp_path, token_delay_s=0.05) as market:
        async with openai.AsyncOpenAI(
            base_url=market.gateway.base_url, api_key=market.gateway.key
        ) as client:
            stream = await client.chat.completions.create(
                model=CHAT_MODEL, messages=MESSAGES, stream=True
            )
            seen = 0
            async for chunk in stream:
                seen += bool(chunk.choices and chunk.choices[0].delta.content)
                if seen == 3:
                    break
            assert market.cheap.engine.active == 1
            await stream.close()
            await until(lambda: market.cheap.engine.active == 0, limit_s=1.0)
        fee = await check_books(market)
        [stored] = await market.hanse.get_receipts()
        usage = stored.signed.receipt.usage
        assert 3 <= usage.output_tokens < 16
        assert stored.signed.receipt.fee == fee > 0


async def test_a_parallel_crowd_is_served_and_the_books_agree(client, market):
    async def ask(index: int) -> str:
        stream = await client.chat.completions.create(
            model=CHAT_MODEL, messages=MESSAGES, stream=True, seed=index
        )
        return "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])

    texts = await asyncio.gather(*(ask(index) for index in range(50)))
    assert all(len(text.split()) == 16 for text in texts)
    assert await check_books(market) > 0
    assert len(await market.hanse.get_receipts()) == 50


async def test_javascript_buys_whole_and_streamed(market):
    node = await asyncio.to_thread(install)
    gateway = market.gateway

    async def ask(scenario: str, model: str = CHAT_MODEL):
        return await drive(node, scenario, gateway.base_url, gateway.key, model)

    whole = await ask("chat")
    assert whole["text"]
    assert decode_receipt(whole["receipt"]).receipt.fee == int(whole["fee"])
    streamed = await ask("chatStreamUsage")
    assert streamed["usage"]["completion_tokens"] == 16
    assert len((await ask("embeddingsFloat", EMBED_MODEL))["vectors"]) == 2
    missing = await ask("chat", "nothing")
    assert (missing["error"], missing["code"]) == ("NotFoundError", "model_not_found")
    assert await check_books(market) > 0


@pytest.mark.parametrize("stream", [True, False])
async def test_leaving_at_any_event_or_moment_keeps_the_books_together(market, stream):
    gateway = market.gateway
    app = GatewayApp(GatewaySettings(), market.hanse, gateway.keys)
    body = json.dumps({"model": CHAT_MODEL, "messages": MESSAGES, "stream": stream}).encode()
    headers = {"authorization": f"Bearer {gateway.key}"}

    def call(leave_at: int | None = None) -> Caller:
        return Caller("POST", "/v1/chat/completions", headers, [body], leave_at)

    events = (await call().run(app)).events
    for leave_at in range(events + 1):
        await call(leave_at).run(app)
        assert app.in_flight == 0
    for moments in range(0, 120, 3):  # turns of the loop: signing, storing, sending, reading ...
        caller = call()
        running = asyncio.create_task(caller.run(app))
        for _ in range(moments):
            await asyncio.sleep(0)
        caller.leave()
        await running
        assert app.in_flight == 0
    await wait_counted(market.hanse)
    market.clock.ahead_s += VOUCHER_FORGOTTEN_S
    await market.hanse.resume()  # vouchers that certainly were never admitted free their money
    before = await check_books(market)
    whole = await call().run(app)  # nothing is locked up: the next request is served
    assert whole.status == 200
    assert await check_books(market) > before > 0
