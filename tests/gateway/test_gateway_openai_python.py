"""The real, unmodified OpenAI Python SDK against a gateway over loopback."""

import asyncio
from collections.abc import AsyncIterator

import openai
import pytest

from hanse.protocol.wire import decode_receipt
from tests.gateway.gateway_parts import (
    CHUNK_MODEL,
    FEE,
    PROVIDER,
    MemoryMarket,
    RunningGateway,
    make_receipt,
    run_gateway_here,
    until,
)

MESSAGES = [{"role": "user", "content": "hello"}]


@pytest.fixture
async def gateway() -> AsyncIterator[RunningGateway]:
    async with run_gateway_here(MemoryMarket()) as running:
        yield running


@pytest.fixture
async def client(gateway: RunningGateway) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=gateway.base_url, api_key=gateway.key, max_retries=0
    ) as client:
        yield client


async def test_a_whole_chat_answer_comes_with_receipt_provider_and_fee(client):
    raw = await client.chat.completions.with_raw_response.create(
        model=CHUNK_MODEL, messages=MESSAGES
    )
    assert raw.parse().choices[0].message.content == "w0 w1 w2"
    assert raw.parse().usage.total_tokens == 8
    assert decode_receipt(raw.headers["hanse-receipt"]) == make_receipt()
    assert raw.headers["hanse-provider"] == PROVIDER
    assert raw.headers["hanse-fee"] == str(FEE)
    assert raw.headers["x-request-id"].startswith("req_")
    assert raw.parse()._request_id == raw.headers["x-request-id"]


async def test_a_streamed_chat_answer(client):
    stream = await client.chat.completions.create(model=CHUNK_MODEL, messages=MESSAGES, stream=True)
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content for chunk in chunks) == "w0 w1 w2 w3 w4 "
    assert all(chunk.usage is None for chunk in chunks)


async def test_usage_comes_in_the_stream_only_when_asked_for(client):
    stream = await client.chat.completions.create(
        model=CHUNK_MODEL, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 5


async def test_completions_whole_and_streamed(client):
    whole = await client.completions.create(model=CHUNK_MODEL, prompt="once")
    assert whole.choices[0].text == "w0 w1 w2"
    stream = await client.completions.create(model=CHUNK_MODEL, prompt="once", stream=True)
    assert "".join([chunk.choices[0].text async for chunk in stream]) == "w0 w1 w2 w3 w4 "


async def test_embeddings_in_the_encoding_that_the_sdk_asks_for(client):
    answer = await client.embeddings.create(model="org/memory-embed", input=["a", "b"])
    assert [row.embedding for row in answer.data] == [[0.25, -0.5]] * 2


async def test_models(client):
    assert [model.id async for model in client.models.list()] == [CHUNK_MODEL, "org/memory-embed"]
    assert (await client.models.retrieve("org/memory-embed")).owned_by == "hanse"
    with pytest.raises(openai.NotFoundError) as caught:
        await client.models.retrieve("nothing")
    assert caught.value.code == "model_not_found"


async def test_parameters_reach_the_provider_in_the_very_bytes_that_were_sent(client, gateway):
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    await client.chat.completions.create(
        model=CHUNK_MODEL, messages=MESSAGES, n=2, stop=["a"], seed=7, logprobs=True,
        response_format={"type": "json_object"}, tools=tools, max_completion_tokens=5,
    )  # fmt: skip
    path, body = gateway.market.bodies[-1]
    assert path == "/v1/chat/completions"
    for part in (b'"seed":7', b'"n":2', b'"logprobs":true', b'"json_object"', b'"tools":[{'):
        assert part in body


@pytest.mark.parametrize(
    ("model", "kind", "code"),
    [
        ("too-long", openai.BadRequestError, "context_length_exceeded"),
        ("nowhere", openai.NotFoundError, "model_not_found"),
        ("unpaid", openai.APIStatusError, "insufficient_balance"),
        ("busy", openai.RateLimitError, "rate_limited"),
        ("unserved", openai.InternalServerError, "no_provider"),
        ("expired", openai.InternalServerError, "no_provider"),
        ("breaks-first", openai.InternalServerError, "engine_unavailable"),
        ("defect", openai.InternalServerError, "internal_error"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_errors_become_the_sdks_exceptions(client, model, kind, code, stream):
    with pytest.raises(kind) as caught:
        await client.chat.completions.create(model=model, messages=MESSAGES, stream=stream)
    assert caught.value.code == code
    assert "secret" not in str(caught.value)


async def test_a_missing_balance_says_how_much(client):
    with pytest.raises(openai.APIStatusError) as caught:
        await client.chat.completions.create(model="unpaid", messages=MESSAGES)
    assert caught.value.status_code == 402
    facts = caught.value.body["hanse"]
    assert (facts["needed"], facts["available"], facts["missing"]) == ("300", "100", "200")


async def test_a_wrong_field_is_named(client):
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(model=CHUNK_MODEL, messages=MESSAGES, max_tokens=-1)
    assert caught.value.param == "max_tokens"


async def test_a_wrong_key_is_an_authentication_error(client, gateway):
    with pytest.raises(openai.AuthenticationError) as caught:
        await client.with_options(api_key="hgw_" + "a" * 43).models.list()
    assert caught.value.code == "api_key_invalid"
    [key] = await gateway.keys.list()
    await gateway.keys.revoke(key.id)
    with pytest.raises(openai.AuthenticationError):
        await client.models.list()


async def test_a_stream_that_breaks_later_raises_in_the_middle(client):
    stream = await client.chat.completions.create(
        model="breaks-later", messages=MESSAGES, stream=True
    )
    words = []

    async def read() -> None:
        async for chunk in stream:
            words.append(chunk.choices[0].delta.content)

    with pytest.raises(openai.APIError, match="the engine broke off") as caught:
        await read()
    assert words == ["w0 ", "w1 ", "w2 ", "w3 ", "w4 "]
    assert caught.value.code == "engine_unavailable"


async def test_a_stream_that_the_application_leaves_is_closed_upstream_within_a_second(
    client, gateway
):
    gateway.market.gate = asyncio.Event()
    stream = await client.chat.completions.create(model=CHUNK_MODEL, messages=MESSAGES, stream=True)
    async for _ in stream:
        break
    [answer] = gateway.market.open_answers
    await stream.close()
    await asyncio.wait_for(answer.closed.wait(), 1.0)
    assert answer.receipt is None


async def test_the_sdk_tries_again_after_503_and_honours_retry_after(gateway):
    async with openai.AsyncOpenAI(
        base_url=gateway.base_url, api_key=gateway.key, max_retries=1
    ) as client:
        with pytest.raises(openai.InternalServerError):
            await client.chat.completions.create(model="unserved", messages=MESSAGES)
    assert len(gateway.market.bodies) == 2


async def test_the_sync_client_works_too(gateway):
    def ask() -> list[str]:
        with openai.OpenAI(base_url=gateway.base_url, api_key=gateway.key) as client:
            stream = client.chat.completions.create(
                model=CHUNK_MODEL, messages=MESSAGES, stream=True
            )
            return [chunk.choices[0].delta.content for chunk in stream]

    assert await asyncio.to_thread(ask) == ["w0 ", "w1 ", "w2 ", "w3 ", "w4 "]
    await until(lambda: not gateway.market.open_answers)
