"""The real, unmodified Anthropic Python SDK against a gateway over loopback."""

from collections.abc import AsyncIterator

import aiohttp
import anthropic
import pytest

from hanse.gateway import GatewaySettings
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

MESSAGES = [{"role": "user", "content": "hello"}]
TOOL = {"name": "weather", "description": "Tells.", "input_schema": {"type": "object"}}


@pytest.fixture
async def gateway() -> AsyncIterator[RunningGateway]:
    async with run_gateway_here(ScriptedMarket()) as running:
        yield running


@pytest.fixture
async def client(gateway) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(
        base_url=gateway.base_url.removesuffix("/v1"), api_key=gateway.key, max_retries=0
    ) as client:
        yield client


async def ask(client, **fields):
    return await client.messages.create(
        **{"model": MODEL, "max_tokens": 50, "messages": MESSAGES} | fields
    )


async def test_a_whole_answer_comes_with_receipt_provider_and_fee(client):
    raw = await client.messages.with_raw_response.create(
        model=MODEL, max_tokens=50, messages=MESSAGES
    )
    message = await raw.parse()
    assert message.content[0].text == "Hello"
    assert (message.id, message.role, message.stop_reason) == ("msg_abc", "assistant", "end_turn")
    usage = message.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens) == (12, 8, 7)
    assert decode_receipt(raw.headers["hanse-receipt"]) == make_receipt()
    assert (raw.headers["hanse-provider"], raw.headers["hanse-fee"]) == (PROVIDER, str(FEE))
    assert message._request_id == raw.headers["x-request-id"]


async def test_a_stream_has_anthropics_events_in_their_order(client, gateway):
    gateway.market.deltas = say("Let", " me.") + call(0, "c1", "weather", '{"city":', '"Bremen"}')
    gateway.market.finish_reason = "tool_calls"
    stream = await ask(client, stream=True, tools=[TOOL])
    events = [event async for event in stream]
    assert [event.type for event in events] == [
        "message_start",
        "content_block_start", "content_block_delta", "content_block_delta", "content_block_stop",
        "content_block_start", "content_block_delta", "content_block_delta", "content_block_stop",
        "message_delta", "message_stop",
    ]  # fmt: skip
    assert [event.index for event in events[1:9]] == [0] * 4 + [1] * 4
    assert events[-2].delta.stop_reason == "tool_use"
    assert events[-2].usage.output_tokens == 7


async def test_the_sdks_stream_helper_puts_text_tool_use_and_usage_together(client, gateway):
    gateway.market.deltas = (
        say("Let me.") + call(0, "c1", "weather", '{"city":', '"Bremen"}') + call(1, "c2", "clock")
    )
    gateway.market.finish_reason = "tool_calls"
    async with client.messages.stream(
        model=MODEL, max_tokens=50, messages=MESSAGES, tools=[TOOL]
    ) as stream:
        text = "".join([part async for part in stream.text_stream])
        message = await stream.get_final_message()
    assert text == message.content[0].text == "Let me."
    assert [(block.id, block.name, block.input) for block in message.content[1:]] == [
        ("c1", "weather", {"city": "Bremen"}),
        ("c2", "clock", {}),
    ]
    usage = message.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens) == (12, 8, 7)


async def test_a_stream_carries_its_receipt_in_a_comment_before_its_end(client):
    async with client.messages.with_streaming_response.create(
        model=MODEL, max_tokens=50, messages=MESSAGES, stream=True
    ) as response:
        text = (await response.read()).decode()
    frames = text.rstrip("\n").split("\n\n")
    [receipt] = [frame for frame in frames if frame.startswith(":")]
    assert decode_receipt(receipt.removeprefix(": hanse-receipt ")) == make_receipt()
    assert frames[-1].startswith("event: message_stop\ndata: ")
    assert "[DONE]" not in text


async def test_tools_and_their_results_go_both_ways(client, gateway):
    gateway.market.deltas = call(0, "c1", "weather", '{"city":"Bremen"}')
    gateway.market.finish_reason = "tool_calls"
    choice = {"type": "tool", "name": "weather", "disable_parallel_tool_use": True}
    first = await ask(client, tools=[TOOL], tool_choice=choice)
    assert first.stop_reason == "tool_use"
    [block] = first.content
    assert (block.type, block.id, block.input) == ("tool_use", "c1", {"city": "Bremen"})
    chat = gateway.market.chat
    function = {"name": "weather", "parameters": {"type": "object"}, "description": "Tells."}
    assert chat["tools"] == [{"type": "function", "function": function}]
    assert chat["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    assert chat["parallel_tool_calls"] is False
    result = {"type": "tool_result", "tool_use_id": block.id, "content": "rain", "is_error": True}
    turns = [
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": [result, {"type": "text", "text": "So?"}]},
    ]
    await ask(client, tools=[TOOL], messages=MESSAGES + turns, tool_choice={"type": "any"})
    chat = gateway.market.chat
    assert chat["tool_choice"] == "required"
    _, said, told, asked = chat["messages"]
    [again] = said["tool_calls"]
    assert (again["id"], again["function"]["arguments"]) == ("c1", '{"city":"Bremen"}')
    assert told == {"role": "tool", "tool_call_id": "c1", "content": "error: rain"}
    assert asked == {"role": "user", "content": "So?"}


async def test_every_field_that_is_taken_reaches_the_chat_completion(client, gateway):
    schema = {"type": "object"}
    gateway.market.deltas = say("{}")
    await ask(
        client,
        system=[{"type": "text", "text": "Be", "cache_control": {"type": "ephemeral"}},
                {"type": "text", "text": "brief."}],
        stop_sequences=["END"], metadata={"user_id": "player-7"}, service_tier="auto",
        output_config={"format": {"type": "json_schema", "schema": schema}},
        extra_body={"temperature": 0.5, "top_p": 0.9, "top_k": 40},
    )  # fmt: skip
    chat = gateway.market.chat
    assert chat.pop("messages") == [{"role": "system", "content": "Be\nbrief."}, *MESSAGES]
    holder = {"name": "answer", "schema": schema, "strict": True}
    assert chat == {
        "model": MODEL, "max_tokens": 50, "stop": ["END"], "temperature": 0.5, "top_p": 0.9,
        "top_k": 40, "user": "player-7",
        "response_format": {"type": "json_schema", "json_schema": holder},
    }  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
async def test_reasoning_is_shown_only_when_asked_for(client, gateway, stream):
    gateway.market.deltas = think("Hm", "m.") + say("Yes.")

    async def get_blocks(**fields):
        if not stream:
            return (await ask(client, **fields)).content
        async with client.messages.stream(
            model=MODEL, max_tokens=50, messages=MESSAGES, **fields
        ) as events:
            return (await events.get_final_message()).content

    assert [block.type for block in await get_blocks()] == ["text"]
    thought, text = await get_blocks(thinking={"type": "adaptive"})
    assert (thought.thinking, text.text) == ("Hmm.", "Yes.")
    turns = [{"role": "assistant", "content": [thought, text]}, *MESSAGES]
    await ask(client, messages=MESSAGES + turns)
    assert gateway.market.chat["messages"][1]["reasoning_content"] == "Hmm."


@pytest.mark.parametrize(
    ("finish_reason", "stop_reason"),
    [("stop", "end_turn"), ("length", "max_tokens"), ("content_filter", "refusal")],
)
async def test_stop_reasons(client, gateway, finish_reason, stop_reason):
    gateway.market.finish_reason = finish_reason
    assert (await ask(client)).stop_reason == stop_reason


IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ""}}
DOCUMENT = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": ""}}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": [{"role": "user", "content": [IMAGE]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [DOCUMENT]}]}, "messages[0].content[0].type"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
        ({"thinking": {"type": "enabled", "budget_tokens": 1024}}, "thinking.type"),
        ({"container": "c"}, "container"),
        ({"extra_body": {"n": 2}}, "n"),
        ({"extra_body": {"nonsense": 1}}, "nonsense"),
        ({"extra_body": {"mcp_servers": []}}, "mcp_servers"),
    ],
)
async def test_what_is_not_offered_is_refused_by_name(client, gateway, fields, param):
    refusal = await see_refusal(gateway, ask(client, **fields), anthropic.BadRequestError)
    error = refusal.body["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "unsupported_parameter")
    assert error["param"] == param


@pytest.mark.parametrize(
    ("model", "kind", "error_type"),
    [
        ("nowhere", anthropic.NotFoundError, "not_found_error"),
        ("unpaid", anthropic.APIStatusError, "billing_error"),
        ("busy", anthropic.RateLimitError, "rate_limit_error"),
        ("unserved", anthropic.InternalServerError, "overloaded_error"),
        ("defect", anthropic.InternalServerError, "api_error"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_errors_become_the_sdks_exceptions(client, model, kind, error_type, stream):
    with pytest.raises(kind) as caught:
        await ask(client, model=model, stream=stream)
    body = caught.value.body
    assert (body["type"], body["error"]["type"]) == ("error", error_type)
    assert "secret" not in str(caught.value)


async def test_a_wrong_key_is_an_authentication_error(client):
    with pytest.raises(anthropic.AuthenticationError) as caught:
        await ask(client.with_options(api_key="hgw_" + "a" * 43))
    assert caught.value.body["error"]["code"] == "api_key_invalid"


async def test_a_wrong_field_is_named(client):
    with pytest.raises(anthropic.BadRequestError) as caught:
        await ask(client, max_tokens=-1)
    assert caught.value.body["error"]["param"] == "max_tokens"


async def test_a_stream_that_breaks_later_raises_in_the_middle(client, gateway):
    asking = ask(client, stream=True)
    kinds, error = await see_break(gateway, asking, anthropic.APIStatusError)
    assert kinds[:3] == ["message_start", "content_block_start", "content_block_delta"]
    assert error.body["error"]["type"] == "overloaded_error"


@pytest.mark.parametrize(
    "deltas",
    [
        [{"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}],
        call(0, "a", "f") + say("between") + call(0, "a", "f", "{}")[1:],
        [{"content": 7}],
    ],
    ids=["a call without a name", "back to an ended call", "text that is none"],
)
async def test_a_provider_that_makes_no_sense_ends_the_stream_as_malformed(client, gateway, deltas):
    gateway.market.deltas = deltas
    stream = await ask(client, stream=True)

    async def read():
        async for _ in stream:
            pass

    with pytest.raises(anthropic.APIStatusError) as caught:
        await read()
    assert caught.value.body["error"]["code"] == "response_malformed"


async def test_arguments_that_are_no_object_are_not_passed_off_as_one(client, gateway):
    gateway.market.deltas = call(0, "c1", "weather", "[1]")
    with pytest.raises(anthropic.InternalServerError) as caught:
        await ask(client)
    assert caught.value.body["error"]["code"] == "response_malformed"


async def test_a_call_that_max_tokens_cut_has_no_input_but_says_so(client, gateway):
    gateway.market.deltas = call(0, "c1", "get_weather", '{"city":"Bre')
    gateway.market.finish_reason = "length"
    message = await ask(client)
    (block,) = message.content
    assert (block.name, block.input) == ("get_weather", {})
    assert message.stop_reason == "max_tokens"


async def test_leaving_closes_the_purchase(client, gateway):
    await leave(gateway, ask(client, stream=True))


async def test_token_counting_is_not_there_and_says_so(client):
    with pytest.raises(anthropic.NotFoundError) as caught:
        await client.messages.count_tokens(model=MODEL, messages=MESSAGES)
    assert "count_tokens" in str(caught.value)


async def test_a_plain_client_may_send_a_bearer_key_and_no_version(gateway):
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            f"{gateway.base_url}/messages",
            json={"model": MODEL, "max_tokens": 5, "messages": MESSAGES},
            headers={"Authorization": f"Bearer {gateway.key}"},
        ) as response,
    ):
        assert response.status == 200
        assert (await response.json())["type"] == "message"


@pytest.mark.parametrize("path", ["messages", "responses", "audio/speech", "audio/transcriptions"])
async def test_a_browser_may_ask_before_it_calls(path):
    settings = GatewaySettings(port=0, allowed_origins=("https://game.example",))
    wanted = "x-api-key, anthropic-version, content-type"
    asked = {"Origin": "https://game.example", "Access-Control-Request-Headers": wanted}
    async with (
        run_gateway_here(ScriptedMarket(), settings) as gateway,
        aiohttp.ClientSession() as session,
        session.options(f"{gateway.base_url}/{path}", headers=asked) as response,
    ):
        assert response.status == 204
        headers = response.headers
    assert headers["access-control-allow-origin"] == "https://game.example"
    assert headers["access-control-allow-headers"] == wanted
    assert "POST" in headers["access-control-allow-methods"]
    exposed = {name.strip() for name in headers["access-control-expose-headers"].split(",")}
    assert {"hanse-receipt", "hanse-fee", "request-id"} <= exposed
