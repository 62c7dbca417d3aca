"""The real, unmodified OpenAI JavaScript SDK against a gateway over loopback."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from hanse.protocol.errors import TransientError
from hanse.protocol.wire import decode_receipt
from tests.gateway.dialect_parts import MODEL, ScriptedMarket, call, say
from tests.gateway.gateway_parts import (
    CHUNK_MODEL,
    FEE,
    PROVIDER,
    MemoryMarket,
    RunningGateway,
    make_receipt,
    run_gateway_here,
)
from tests.gateway.openai_js import drive, install


@pytest.fixture(scope="session")
def node() -> str:
    return install()


@pytest.fixture
async def gateway() -> AsyncIterator[RunningGateway]:
    async with run_gateway_here(MemoryMarket()) as running:
        yield running


@pytest.fixture
def ask(node, gateway):
    async def ask(scenario: str, model: str = CHUNK_MODEL, key: str = ""):
        return await drive(node, scenario, gateway.base_url, key or gateway.key, model)

    return ask


async def test_a_whole_chat_answer_comes_with_receipt_provider_and_fee(ask):
    seen = await ask("chat")
    assert seen["text"] == "w0 w1 w2"
    assert seen["usage"]["total_tokens"] == 8
    assert decode_receipt(seen["receipt"]) == make_receipt()
    assert (seen["provider"], seen["fee"]) == (PROVIDER, str(FEE))
    assert seen["requestId"].startswith("req_")


async def test_streams_with_usage_only_when_asked_for(ask):
    plain, counted = await asyncio.gather(ask("chatStream"), ask("chatStreamUsage"))
    assert plain == {"text": "w0 w1 w2 w3 w4 ", "usage": None, "chunks": 5}
    assert counted["chunks"] == 6
    assert counted["usage"]["completion_tokens"] == 5


async def test_completions_whole_and_streamed(ask):
    whole, stream = await asyncio.gather(ask("completion"), ask("completionStream"))
    assert whole == {"text": "w0 w1 w2"}
    assert stream["text"] == "w0 w1 w2 w3 w4 "


async def test_embeddings_and_models(ask):
    vectors, models = await asyncio.gather(ask("embeddings", "org/memory-embed"), ask("models"))
    assert vectors == {"vectors": [[0.25, -0.5]] * 2}
    assert models == {"ids": [CHUNK_MODEL, "org/memory-embed"], "one": "org/memory-embed"}


@pytest.mark.parametrize(
    ("model", "kind", "status", "code"),
    [
        ("too-long", "BadRequestError", 400, "context_length_exceeded"),
        ("unpaid", "APIError", 402, "insufficient_balance"),
        ("nowhere", "NotFoundError", 404, "model_not_found"),
        ("busy", "RateLimitError", 429, "rate_limited"),
        ("unserved", "InternalServerError", 503, "no_provider"),
        ("breaks-first", "InternalServerError", 503, "engine_unavailable"),
    ],
)
async def test_errors_become_the_sdks_exceptions(ask, model, kind, status, code):
    whole, stream = await asyncio.gather(ask("chat", model), ask("chatStream", model))
    for seen in (whole, stream):
        assert (seen["error"], seen["status"], seen["code"]) == (kind, status, code)
    if status == 402:
        assert whole["hanse"]["missing"] == "200"


async def test_wrong_fields_and_wrong_keys(ask):
    field, key = await asyncio.gather(ask("badField"), ask("chat", key="hgw_" + "a" * 43))
    assert (field["error"], field["param"]) == ("BadRequestError", "max_tokens")
    assert (key["error"], key["code"]) == ("AuthenticationError", "api_key_invalid")


async def test_a_stream_that_breaks_later_raises_in_the_middle(ask):
    seen = await ask("chatStream", "breaks-later")
    assert seen["text"] == "w0 w1 w2 w3 w4 "
    assert (seen["error"], seen["code"]) == ("APIError", "engine_unavailable")
    assert "the engine broke off" in seen["message"]


async def test_an_aborted_stream_is_closed_upstream_within_a_second(ask, gateway):
    gateway.market.gate = asyncio.Event()
    assert (await ask("abort"))["text"] == "w0 "
    [answer] = gateway.market.answers
    await asyncio.wait_for(answer.closed.wait(), 1.0)
    assert answer.receipt is None


async def test_responses_whole_and_through_the_stream_helper(node):
    market = ScriptedMarket()
    market.deltas = say("Let", " me.") + call(0, "c1", "weather", '{"city":', '"Bremen"}')
    async with run_gateway_here(market) as gateway:
        whole = await drive(node, "response", gateway.base_url, gateway.key, MODEL)
        stream = await drive(node, "responseStream", gateway.base_url, gateway.key, MODEL)
        market.broken = TransientError("engine_unavailable", "the engine broke off")
        broken = await drive(node, "responseStream", gateway.base_url, gateway.key, MODEL)
    assert (whole["text"], whole["usage"]["total_tokens"]) == ("Let me.", 27)
    assert decode_receipt(whole["receipt"]) == make_receipt()
    assert stream["kinds"][-1] == "response.completed"
    message, function = stream["output"]
    assert message["content"][0]["text"] == "Let me."
    assert (function["call_id"], function["arguments"]) == ("c1", '{"city":"Bremen"}')
    assert broken["code"] == "engine_unavailable"
