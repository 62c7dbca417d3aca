"""Unmodified SDKs -> gateway -> broker -> real models: what is promised of each field.

One network for the module; few tokens each.
"""

import asyncio
import json
import math
import time
from typing import Literal

import anthropic
import openai
import pydantic
import pytest
import pytest_asyncio
from pydantic_ai import Agent
from pydantic_ai.messages import (
    ModelRequest,
    ModelResponse,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from hanse.protocol.wire import decode_receipt
from tests.gateway.gateway_parts import until
from tests.gateway.openai_js import drive, install
from tests.gateway.real_parts import CHAT, EAR, EMBED, PRICES, VOICE, RealMarket, open_real_market

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

HELLO = [{"role": "user", "content": "Say hello."}]
TEXT = "The harbour is quiet tonight."
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
}
WEATHER = {"name": "get_weather", "description": "Weather of a city"}
TALK = [("Paris", "c1"), ("London", "c2")]  # a small model calls a tool as it did before


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def market(tmp_path_factory):
    async with open_real_market(tmp_path_factory.mktemp("real")) as market:
        yield market


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(market):
    async with openai.AsyncOpenAI(
        base_url=market.gateway.base_url, api_key=market.gateway.key, max_retries=0
    ) as client:
        yield client


async def ask(client, **fields):
    fields = {"model": CHAT, "messages": HELLO, "max_tokens": 12, "temperature": 0} | fields
    return await client.chat.completions.create(**fields)


async def get_last_receipt(market: RealMarket):
    await until(lambda: not market.gateway.in_flight)
    await market.hanse.wait_idle()
    return max(
        (row.signed.receipt for row in await market.hanse.get_receipts()),
        key=lambda receipt: receipt.sequence,
    )


async def test_a_stream_and_its_usage_are_what_the_receipt_says(client, market):
    stream = await ask(client, stream=True, stream_options={"include_usage": True})
    chunks = [chunk async for chunk in stream]
    usage = chunks[-1].usage
    receipt = await get_last_receipt(market)
    assert usage.completion_tokens == receipt.usage.output_tokens > 0
    assert usage.prompt_tokens == receipt.usage.input_tokens + receipt.usage.cached_tokens
    assert receipt.fee == PRICES[CHAT].get_fee(receipt.usage) > 0


async def test_the_same_seed_gives_the_same_text(client):
    await ask(client, max_tokens=1)  # from here on the prompt is cached, which rounds otherwise
    seeds = (7, 7, 8)
    answers = [await ask(client, seed=seed, temperature=1.5, max_tokens=20) for seed in seeds]
    first, second, other = [answer.choices[0].message.content for answer in answers]
    assert first == second != other


async def test_log_probabilities(client):
    answer = await ask(client, logprobs=True, top_logprobs=2, max_tokens=3)
    tokens = answer.choices[0].logprobs.content
    assert 1 <= len(tokens) <= 3
    for token in tokens:
        assert token.logprob <= 0
        assert len(token.top_logprobs) == 2
        assert token.top_logprobs[0].logprob >= token.top_logprobs[1].logprob


async def test_a_grammar_and_a_stop_string(client):
    grammar = 'root ::= "one two STOP three"'
    answer = await ask(client, extra_body={"grammar": grammar}, stop=["STOP"], max_tokens=20)
    assert answer.choices[0].message.content == "one two "
    assert answer.choices[0].finish_reason == "stop"


async def test_an_answer_in_a_schema(client):
    schema = {
        "type": "object",
        "properties": {"action": {"enum": ["wave", "flee"]}},
        "required": ["action"],
        "additionalProperties": False,
    }
    holder = {"name": "move", "schema": schema, "strict": True}
    answer = await ask(
        client, response_format={"type": "json_schema", "json_schema": holder}, max_tokens=40
    )
    assert json.loads(answer.choices[0].message.content)["action"] in ("wave", "flee")


@pytest.mark.parametrize("stream", [False, True])
async def test_several_answers_share_one_prompt_and_are_paid_together(client, market, stream):
    alone = await ask(client, max_tokens=8)
    fields = {"n": 2, "max_tokens": 8, "temperature": 1.5, "seed": 3, "logprobs": True}
    texts, tokens = {0: "", 1: ""}, {0: "", 1: ""}
    if stream:
        usage_wanted = {"include_usage": True}
        async for chunk in await ask(client, stream=True, stream_options=usage_wanted, **fields):
            usage = chunk.usage or None
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
                told = choice.logprobs.content or [] if choice.logprobs else []
                tokens[choice.index] += "".join(token.token for token in told)
    else:
        answer = await ask(client, **fields)
        usage = answer.usage
        for choice in answer.choices:
            texts[choice.index] = choice.message.content
            tokens[choice.index] = "".join(token.token for token in choice.logprobs.content)
    assert texts[0] != texts[1]
    assert texts == tokens
    assert usage.completion_tokens == 16
    assert usage.prompt_tokens == alone.usage.prompt_tokens
    receipt = await get_last_receipt(market)
    assert receipt.usage.output_tokens == 16
    assert receipt.usage.input_tokens + receipt.usage.cached_tokens == usage.prompt_tokens
    assert receipt.fee == PRICES[CHAT].get_fee(receipt.usage)


async def test_several_completions_of_one_prompt(client):
    answer = await client.completions.create(
        model=CHAT, prompt="Once upon a time there was", n=2, best_of=2, max_tokens=6, seed=1
    )
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert len({choice.text for choice in answer.choices}) == 2
    assert answer.usage.completion_tokens == 12


async def leave(stream, market, *, frames: int, busy_slots: int):
    """Hang up after so many frames with text; the receipt, once the engine has stopped in time."""
    seen = 0
    async for chunk in stream:
        seen += bool(chunk.choices and chunk.choices[0].delta.content)
        if seen == frames:
            break
    assert await market.llama.count_busy_slots() == busy_slots
    await stream.close()
    left = time.monotonic()
    while await market.llama.count_busy_slots():
        assert time.monotonic() < left + 1.0, "the engine works on for nobody"
    receipt = await get_last_receipt(market)
    assert receipt.finish_reason.name == "CANCELLED"
    assert receipt.fee == PRICES[CHAT].get_fee(receipt.usage)
    return receipt


async def test_leaving_ends_all_answers_and_costs_what_was_sent_of_them(client, market):
    grammar = {"grammar": "root ::= [a-z ]{1500}"}
    stream = await ask(client, stream=True, n=2, max_tokens=1_500, extra_body=grammar)
    receipt = await leave(stream, market, frames=6, busy_slots=2)
    assert 6 <= receipt.usage.output_tokens < 1_000


async def test_every_answer_fits_the_schema(client):
    schema = {"type": "object", "properties": {"action": {"enum": ["wave", "flee"]}},
              "required": ["action"], "additionalProperties": False}  # fmt: skip
    wanted = {"type": "json_schema", "json_schema": {"name": "move", "schema": schema}}
    raw = await client.chat.completions.with_raw_response.create(
        model=CHAT, messages=HELLO, n=2, max_tokens=40, response_format=wanted
    )
    assert raw.headers["hanse-structured"] == "valid"
    made = [json.loads(choice.message.content) for choice in raw.parse().choices]
    assert len(made) == 2
    assert all(each["action"] in ("wave", "flee") for each in made)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 3}, "n"),  # of two slots
        ({"messages": [{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": "data:"}}]}]}, "messages[0].content"),
        ({"reasoning_effort": "low"}, "reasoning_effort"),
    ],
)  # fmt: skip
async def test_what_the_engine_does_not_offer_is_refused_by_name(client, fields, param):
    with pytest.raises(openai.BadRequestError) as caught:
        await ask(client, **fields)
    assert caught.value.param == param


async def test_leaving_stops_the_engine_within_a_second_and_costs_the_prefix(client, market):
    stream = await ask(
        client, stream=True, max_tokens=1_500, extra_body={"grammar": "root ::= [a-z ]{1500}"}
    )
    receipt = await leave(stream, market, frames=3, busy_slots=1)
    assert 3 <= receipt.usage.output_tokens < 500


def make_openai_talk() -> list[dict[str, object]]:
    talk: list[dict[str, object]] = []
    for city, id_ in TALK:
        function = {"name": "get_weather", "arguments": json.dumps({"city": city})}
        talk += [
            {"role": "user", "content": f"What is the weather in {city}?"},
            {"role": "assistant", "content": None,
             "tool_calls": [{"id": id_, "type": "function", "function": function}]},
            {"role": "tool", "tool_call_id": id_, "content": "raining"},
            {"role": "assistant", "content": f"It is raining in {city}."},
        ]  # fmt: skip
    return [*talk, {"role": "user", "content": "What is the weather in Bremen?"}]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_tool_is_called_by_chat_completions(client, stream):
    tools = [{"type": "function", "function": {**WEATHER, "parameters": PARAMETERS}}]
    fields = {"messages": make_openai_talk(), "tools": tools, "max_tokens": 40}
    if stream:
        async with client.chat.completions.stream(model=CHAT, temperature=0, **fields) as events:
            answer = await events.get_final_completion()
    else:
        answer = await ask(client, **fields)
    [choice] = answer.choices
    assert choice.finish_reason == "tool_calls"
    [call] = choice.message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == (
        "get_weather",
        {"city": "Bremen"},
    )


async def test_a_tool_is_called_by_anthropics_messages(market):
    talk: list[dict[str, object]] = []
    for city, id_ in TALK:
        talk += [
            {"role": "user", "content": f"What is the weather in {city}?"},
            {"role": "assistant", "content": [
                {"type": "tool_use", "id": id_, "name": "get_weather", "input": {"city": city}}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": id_, "content": "raining"}]},
            {"role": "assistant", "content": f"It is raining in {city}."},
        ]  # fmt: skip
    talk.append({"role": "user", "content": "What is the weather in Bremen?"})
    gateway = market.gateway
    async with (
        anthropic.AsyncAnthropic(
            base_url=gateway.base_url.removesuffix("/v1"), api_key=gateway.key, max_retries=0
        ) as client,
        client.messages.stream(
            model=CHAT,
            max_tokens=40,
            messages=talk,
            tools=[{**WEATHER, "input_schema": PARAMETERS}],
            extra_body={"temperature": 0},
        ) as stream,
    ):
        message = await stream.get_final_message()
    assert message.stop_reason == "tool_use"
    assert [block.input for block in message.content] == [{"city": "Bremen"}]
    receipt = await get_last_receipt(market)
    assert message.usage.output_tokens == receipt.usage.output_tokens
    assert message.usage.input_tokens == receipt.usage.input_tokens
    assert message.usage.cache_read_input_tokens == receipt.usage.cached_tokens


async def test_responses_stream_from_the_real_model(client, market):
    async with client.responses.stream(
        model=CHAT, input="Say hello.", max_output_tokens=5, temperature=0
    ) as stream:
        events = [event async for event in stream]
    assert sum(event.type == "response.output_text.delta" for event in events) >= 2
    assert events[-1].type == "response.incomplete"  # as OpenAI tells of a limit on tokens
    response = events[-1].response
    assert response.output_text
    assert response.usage.output_tokens == (await get_last_receipt(market)).usage.output_tokens


async def test_an_agent_runs_its_tool_loop_on_the_real_model(market):
    gateway = market.gateway
    provider = OpenAIProvider(base_url=gateway.base_url, api_key=gateway.key)
    agent = Agent(
        OpenAIChatModel(CHAT, provider=provider),
        model_settings={"temperature": 0, "max_tokens": 40},
    )
    asked = []

    @agent.tool_plain
    def get_weather(city: str) -> str:
        """Weather of a city"""
        asked.append(city)
        return "raining"

    before = []
    for city, id_ in TALK:
        before += [
            ModelRequest([UserPromptPart(f"What is the weather in {city}?")]),
            ModelResponse([ToolCallPart("get_weather", {"city": city}, id_)]),
            ModelRequest([ToolReturnPart("get_weather", "raining", id_)]),
            ModelResponse([TextPart(f"It is raining in {city}.")]),
        ]
    result = await agent.run("What is the weather in Bremen?", message_history=before)
    assert asked == ["Bremen"]
    assert "raining" in result.output


class Move(pydantic.BaseModel):
    """What the innkeeper does next."""

    action: Literal["wave", "flee"]


async def test_an_agent_gets_its_output_type_from_the_real_model(market):
    """It demands a call of its output tool, which the engine holds the model to."""
    gateway = market.gateway
    provider = OpenAIProvider(base_url=gateway.base_url, api_key=gateway.key)
    agent = Agent(
        OpenAIChatModel(CHAT, provider=provider),
        output_type=Move,
        model_settings={"temperature": 0, "max_tokens": 60},
    )
    assert (await agent.run("A stranger draws a sword.")).output.action in ("wave", "flee")


async def test_anthropics_any_choice_is_a_call(market):
    gateway = market.gateway
    async with anthropic.AsyncAnthropic(
        base_url=gateway.base_url.removesuffix("/v1"), api_key=gateway.key, max_retries=0
    ) as client:
        message = await client.messages.create(
            model=CHAT,
            max_tokens=60,
            messages=HELLO,
            tools=[{**WEATHER, "input_schema": PARAMETERS}],
            tool_choice={"type": "any"},
        )
    assert message.stop_reason == "tool_use"
    assert isinstance(message.content[0].input["city"], str)


async def test_embeddings_tell_what_is_alike(client, market):
    texts = ["The dragon breathes fire.", "A dragon spits flames.", "Invoices are due monthly."]
    answer = await client.embeddings.create(model=EMBED, input=texts)
    dragon, alike, invoice = [row.embedding for row in answer.data]

    def compare(one: list[float], other: list[float]) -> float:
        dot = sum(a * b for a, b in zip(one, other, strict=True))
        return dot / math.hypot(*one) / math.hypot(*other)

    assert compare(dragon, alike) > compare(dragon, invoice)
    assert (await get_last_receipt(market)).usage.input_tokens == answer.usage.prompt_tokens


async def test_what_is_spoken_is_paid_by_the_character_and_heard_by_the_second(client, market):
    spoken = await client.audio.speech.with_raw_response.create(
        model=VOICE, voice="heart", input=TEXT, response_format="wav"
    )
    audio = spoken.content
    assert audio.startswith(b"RIFF")
    assert spoken.headers["content-type"] == "audio/wav"
    receipt = decode_receipt(spoken.headers["hanse-receipt"]).receipt
    assert receipt.usage.input_tokens == len(TEXT)
    assert receipt.fee == 2 * len(TEXT) == int(spoken.headers["hanse-fee"])
    heard = await client.audio.transcriptions.with_raw_response.create(
        model=EAR, file=("speech.wav", audio), language="en"
    )
    transcription = heard.parse()
    assert transcription.text.lower().endswith("is quiet tonight.")
    seconds = transcription.usage.seconds
    assert decode_receipt(heard.headers["hanse-receipt"]).receipt.usage.input_tokens == seconds
    assert int(heard.headers["hanse-fee"]) == 6 * seconds
    plain = await client.audio.transcriptions.create(
        model=EAR, file=("speech.wav", audio), response_format="text"
    )
    assert plain.strip().endswith("tonight.")


async def test_javascript_speaks_and_hears(market):
    node = await asyncio.to_thread(install)
    gateway = market.gateway
    seen = await drive(node, "audio", gateway.base_url, gateway.key, f"{VOICE},{EAR}")
    assert seen["type"] == "audio/mpeg"
    assert seen["text"].endswith("is quiet tonight.")


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"voice": "alloy"}, "voice"), ({"input": "9" * 5_000}, "input")],
)
async def test_speech_is_refused_by_name_and_costs_nothing(client, market, fields, param):
    before = (await get_last_receipt(market)).cumulative_fee
    with pytest.raises(openai.BadRequestError) as caught:
        await client.audio.speech.create(
            **{"model": VOICE, "voice": "heart", "input": TEXT, **fields}
        )
    assert caught.value.param == param
    assert (await get_last_receipt(market)).cumulative_fee == before


async def test_images_are_refused_by_name(client):
    with pytest.raises(openai.NotFoundError, match="no engine here makes images"):
        await client.images.generate(model="any", prompt="a harbour")
