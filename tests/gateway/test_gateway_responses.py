"""OpenAI's Responses API through OpenAI's real Python SDK, against a gateway over loopback."""

from collections.abc import AsyncIterator

import openai
import pydantic
import pytest

from hanse.protocol.wire import decode_receipt
from tests.gateway.dialect_parts import (
    MODEL,
    ScriptedMarket,
    call,
    leave,
    say,
    see_break,
    see_refusal,
    think,
)
from tests.gateway.gateway_parts import (
    FEE,
    PROVIDER,
    RunningGateway,
    make_receipt,
    run_gateway_here,
)

TOOL = {"type": "function", "name": "weather", "description": "Tells.", "parameters": {}}


@pytest.fixture
async def gateway() -> AsyncIterator[RunningGateway]:
    async with run_gateway_here(ScriptedMarket()) as running:
        yield running


@pytest.fixture
async def client(gateway) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=gateway.base_url, api_key=gateway.key, max_retries=0
    ) as client:
        yield client


async def ask(client, **fields):
    return await client.responses.create(**{"model": MODEL, "input": "hello"} | fields)


async def test_a_whole_answer_comes_with_receipt_provider_and_fee(client):
    raw = await client.responses.with_raw_response.create(model=MODEL, input="hello")
    response = raw.parse()
    assert response.output_text == "Hello"
    assert (response.id, response.status, response.store) == ("resp_abc", "completed", False)
    usage = response.usage
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (20, 7, 27)
    assert usage.input_tokens_details.cached_tokens == 8
    assert decode_receipt(raw.headers["hanse-receipt"]) == make_receipt()
    assert (raw.headers["hanse-provider"], raw.headers["hanse-fee"]) == (PROVIDER, str(FEE))


async def test_a_stream_has_openais_events_in_their_order(client, gateway):
    gateway.market.deltas = (
        think("Hm.") + say("Let", " me.") + call(0, "c1", "weather", '{"city":', '"Bremen"}')
    )
    gateway.market.finish_reason = "tool_calls"
    stream = await ask(client, stream=True, tools=[TOOL])
    events = [event async for event in stream]
    assert [event.type.removeprefix("response.") for event in events] == [
        "created", "in_progress",
        "output_item.added", "content_part.added", "reasoning_text.delta", "reasoning_text.done",
        "content_part.done", "output_item.done",
        "output_item.added", "content_part.added", "output_text.delta", "output_text.delta",
        "output_text.done", "content_part.done", "output_item.done",
        "output_item.added", "function_call_arguments.delta", "function_call_arguments.delta",
        "function_call_arguments.done", "output_item.done",
        "completed",
    ]  # fmt: skip
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [e.output_index for e in events[2:-1]] == [0] * 6 + [1] * 7 + [2] * 5
    reasoning, message, function = events[-1].response.output
    assert reasoning.content[0].text == "Hm."
    assert message.content[0].text == "Let me."
    assert (function.call_id, function.arguments) == ("c1", '{"city":"Bremen"}')
    assert {event.item_id for event in events[9:14]} == {message.id}


async def test_the_sdks_stream_helper_puts_it_together(client, gateway):
    gateway.market.deltas = say("Let", " me.") + call(0, "c1", "weather", "{}")
    async with client.responses.stream(model=MODEL, input="hello", tools=[TOOL]) as stream:
        kinds = [event.type async for event in stream]
        response = await stream.get_final_response()
    assert kinds[-1] == "response.completed"
    assert response.output_text == "Let me."
    assert response.output[1].name == "weather"
    assert response.usage.total_tokens == 27


async def test_an_answer_parsed_into_a_schema(client, gateway):
    class City(pydantic.BaseModel):
        name: str

    gateway.market.deltas = say('{"name":', '"Bremen"}')
    response = await client.responses.parse(model=MODEL, input="which?", text_format=City)
    assert response.output_parsed == City(name="Bremen")
    wanted = gateway.market.chat["response_format"]
    assert wanted["type"] == "json_schema"
    assert wanted["json_schema"]["strict"] is True
    assert wanted["json_schema"]["schema"]["required"] == ["name"]


async def test_functions_and_their_results_go_both_ways(client, gateway):
    gateway.market.deltas = think("Hm.") + say("Let me.") + call(0, "c1", "weather", "{}")
    first = await ask(client, tools=[TOOL], tool_choice={"type": "function", "name": "weather"})
    chat = gateway.market.chat
    function = {"name": "weather", "parameters": {}, "description": "Tells."}
    assert chat["tools"] == [{"type": "function", "function": function}]
    assert chat["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    result = {"type": "function_call_output", "call_id": "c1", "output": "rain"}
    asked = {"role": "user", "content": [{"type": "input_text", "text": "hello"}]}
    await ask(client, input=[asked, *first.output, result], tools=[TOOL], tool_choice="required")
    chat = gateway.market.chat
    assert chat["tool_choice"] == "required"
    user, said, told = chat["messages"]
    assert user == {"role": "user", "content": "hello"}
    assert (said["content"], said["reasoning_content"]) == ("Let me.", "Hm.")
    assert said["tool_calls"][0]["id"] == "c1"
    assert told == {"role": "tool", "tool_call_id": "c1", "content": "rain"}


async def test_every_field_that_is_taken_reaches_the_chat_completion(client, gateway):
    response = await ask(
        client,
        instructions="Be brief.", max_output_tokens=50, temperature=0.5, top_p=0.9, top_logprobs=2,
        include=["message.output_text.logprobs"], parallel_tool_calls=False, user="player-7",
        metadata={"scene": "inn"}, store=False, truncation="disabled", service_tier="auto",
        text={"format": {"type": "json_object"}},
    )  # fmt: skip
    chat = gateway.market.chat
    assert chat == {
        "model": MODEL, "max_completion_tokens": 50, "temperature": 0.5, "top_p": 0.9,
        "logprobs": True, "top_logprobs": 2, "parallel_tool_calls": False, "user": "player-7",
        "response_format": {"type": "json_object"},
        "messages": [{"role": "system", "content": "Be brief."},
                     {"role": "user", "content": "hello"}],
    }  # fmt: skip
    assert response.metadata == {"scene": "inn"}
    assert (response.instructions, response.max_output_tokens) == ("Be brief.", 50)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_was_cut_short_is_incomplete(client, gateway, stream):
    gateway.market.finish_reason = "length"
    response = await ask(client, stream=stream)
    if stream:
        last = [event async for event in response][-1]
        assert last.type == "response.incomplete"
        response = last.response
    assert response.status == "incomplete"
    assert response.incomplete_details.reason == "max_output_tokens"


IMAGE = {"type": "input_image", "image_url": "data:", "detail": "auto"}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"extra_body": {"n": 2}}, "n"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"store": True}, "store"),
        ({"background": True}, "background"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"input": [{"role": "user", "content": [IMAGE]}]}, "input[0].content[0].type"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        ({"extra_body": {"nonsense": 1}}, "nonsense"),
    ],
)
async def test_what_is_not_offered_is_refused_by_name(client, gateway, fields, param):
    refusal = await see_refusal(gateway, ask(client, **fields), openai.BadRequestError)
    assert (refusal.code, refusal.param) == ("unsupported_parameter", param)


@pytest.mark.parametrize(
    ("model", "kind", "code"),
    [
        ("nowhere", openai.NotFoundError, "model_not_found"),
        ("unpaid", openai.APIStatusError, "insufficient_balance"),
        ("unserved", openai.InternalServerError, "no_provider"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_errors_become_the_sdks_exceptions(client, model, kind, code, stream):
    with pytest.raises(kind) as caught:
        await ask(client, model=model, stream=stream)
    assert caught.value.code == code


async def test_a_stream_that_breaks_later_raises_in_the_middle(client, gateway):
    kinds, error = await see_break(gateway, ask(client, stream=True), openai.APIError)
    assert error.code == "engine_unavailable"
    assert kinds[:2] == ["response.created", "response.in_progress"]


async def test_leaving_closes_the_purchase(client, gateway):
    await leave(gateway, ask(client, stream=True))
