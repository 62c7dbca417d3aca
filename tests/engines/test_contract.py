"""What every engine must do, whatever is behind it."""

import asyncio
import base64
import json
import struct
from typing import Any

import pytest

from hanse.engines import Answer, Chunk, Engine, EngineRequest, Operation
from hanse.engines.echo_engine import EchoEngine, Fault
from hanse.engines.llama_engine import LlamaEngine
from hanse.protocol.errors import RequestError
from hanse.protocol.messages import FinishReason, Usage
from tests.engines.conftest import wait_until

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]

PROMPT = "Name three colours of the rainbow, one on each line, please."


def make_chat(content: str = PROMPT, **fields: Any) -> EngineRequest:
    body = {"messages": [{"role": "user", "content": content}], "seed": 7, **fields}
    return EngineRequest(operation=Operation.CHAT, body=body, answer_id="chatcmpl-abc")


def make_completion(**fields: Any) -> EngineRequest:
    body = {"prompt": "Once upon a time there was", "seed": 7, **fields}
    return EngineRequest(operation=Operation.COMPLETION, body=body, answer_id="cmpl-abc")


async def collect(engine: Engine, request: EngineRequest) -> list[Chunk]:
    return [chunk async for chunk in engine.stream(request)]


def read_frames(chunks: list[Chunk]) -> list[dict[str, Any]]:
    data = b"".join(chunk.data for chunk in chunks)
    assert data.endswith(b"\n\n")
    frames = data.decode().removesuffix("\n\n").split("\n\n")
    assert all(frame.startswith("data: ") for frame in frames)
    return [json.loads(frame[6:]) for frame in frames]


def read_text(frames: list[dict[str, Any]]) -> str:
    choices = [choice for frame in frames for choice in frame["choices"]]
    return "".join(c["delta"].get("content") or "" if "delta" in c else c["text"] for c in choices)


def count_input(usage: Usage) -> int:
    return usage.input_tokens + usage.cached_tokens


async def check_idle(llama: LlamaEngine, echo: EchoEngine) -> bool:
    return echo.active == 0 and await llama.count_busy_slots() == 0


async def test_whole_and_stream_say_the_same(repeatable_engine: Engine) -> None:
    request = make_chat(max_tokens=12, temperature=0)
    whole = await repeatable_engine.answer(request)
    chunks = await collect(repeatable_engine, request)
    body = json.loads(whole.body)
    assert body["id"] == "chatcmpl-abc"
    assert body["object"] == "chat.completion"
    assert body["choices"][0]["message"]["role"] == "assistant"
    assert body["choices"][0]["message"]["content"] == read_text(read_frames(chunks))
    last = chunks[-1]
    assert last.finish_reason is whole.finish_reason is FinishReason.LENGTH
    assert last.usage.output_tokens == whole.usage.output_tokens == 12
    assert count_input(last.usage) == count_input(whole.usage) > 0
    assert body["usage"]["prompt_tokens"] == count_input(whole.usage)
    assert body["usage"]["completion_tokens"] == 12


async def test_completion_whole_and_stream(repeatable_engine: Engine) -> None:
    request = make_completion(max_tokens=8, temperature=0)
    body = json.loads((await repeatable_engine.answer(request)).body)
    chunks = await collect(repeatable_engine, request)
    assert body["object"] == "text_completion"
    assert body["choices"][0]["text"] == read_text(read_frames(chunks))
    assert chunks[-1].usage.output_tokens == 8
    assert chunks[-1].finish_reason is FinishReason.LENGTH


async def test_frames_carry_our_id_and_the_offered_model_only(engine: Engine) -> None:
    described = await engine.describe_model()
    frames = read_frames(await collect(engine, make_chat(max_tokens=6)))
    assert {frame["id"] for frame in frames} == {"chatcmpl-abc"}
    assert {frame["model"] for frame in frames} == {described.model}
    whole = json.loads((await engine.answer(make_chat(max_tokens=3))).body)
    assert whole["model"] == described.model


async def test_usage_grows_and_ends_in_one_finish(engine: Engine) -> None:
    chunks = await collect(engine, make_chat(max_tokens=12))
    outputs = [chunk.usage.output_tokens for chunk in chunks]
    assert outputs == sorted(outputs)
    assert [c.finish_reason is not None for c in chunks] == [False] * (len(chunks) - 1) + [True]
    assert b"[DONE]" not in b"".join(chunk.data for chunk in chunks)


async def test_usage_frame_only_on_request(engine: Engine) -> None:
    without = read_frames(await collect(engine, make_chat(max_tokens=4)))
    assert not any(frame.get("usage") for frame in without)
    asked = make_chat(max_tokens=4, stream_options={"include_usage": True})
    frames = read_frames(await collect(engine, asked))
    assert [bool(frame.get("usage")) for frame in frames].count(True) == 1
    assert frames[-1]["choices"] == []
    assert frames[-1]["usage"]["completion_tokens"] == 4


async def test_engine_private_fields_do_not_leak(engine: Engine) -> None:
    data = b"".join(chunk.data for chunk in await collect(engine, make_chat(max_tokens=3)))
    assert b"timings" not in data
    assert b"vendor/hidden-name" not in data


async def test_equal_seed_gives_equal_text(repeatable_engine: Engine) -> None:
    first = read_text(
        read_frames(await collect(repeatable_engine, make_chat(max_tokens=12, seed=5)))
    )
    again = read_text(
        read_frames(await collect(repeatable_engine, make_chat(max_tokens=12, seed=5)))
    )
    assert first == again
    others = [
        read_text(
            read_frames(await collect(repeatable_engine, make_chat(max_tokens=12, seed=seed)))
        )
        for seed in (6, 8, 9, 10)
    ]
    assert any(other != first for other in others)


async def test_cancelled_stream_is_metered_and_frees_its_slot(
    engine: Engine, llama: LlamaEngine, echo: EchoEngine
) -> None:
    # A story of 500 tokens would take many seconds.
    stream = engine.stream(make_completion(max_tokens=500, logit_bias={"2": -100}))
    chunks = [await anext(stream) for _ in range(4)]
    await stream.aclose()
    took_s = await wait_until(lambda: check_idle(llama, echo), 1.0)
    assert took_s < 1.0
    assert 1 <= chunks[-1].usage.output_tokens <= 500
    assert count_input(chunks[-1].usage) > 0
    texts = len([frame for frame in read_frames(chunks) if read_text([frame])])
    assert chunks[-1].usage.output_tokens >= texts


async def test_cancelled_whole_answer_frees_its_slot(
    engine: Engine, llama: LlamaEngine, echo: EchoEngine
) -> None:
    request = make_completion(max_tokens=1_000, logit_bias={"2": -100})
    if engine.name == "echo" or isinstance(engine, EchoEngine):
        request = make_completion(max_tokens=1_000)
    echo.fault = Fault(kind="hang", after_tokens=2)  # else its 16 tokens may be there first
    call = asyncio.create_task(engine.answer(request))

    async def is_busy() -> bool:
        return call.done() or not await check_idle(llama, echo)

    try:
        await wait_until(is_busy, 5.0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await wait_until(lambda: check_idle(llama, echo), 1.0)
    finally:
        echo.fault = Fault()


async def test_task_cancellation_frees_the_slot(
    engine: Engine, llama: LlamaEngine, echo: EchoEngine
) -> None:
    started = asyncio.Event()

    async def read() -> None:
        async for _ in engine.stream(make_completion(max_tokens=500, logit_bias={"2": -100})):
            started.set()

    task = asyncio.create_task(read())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await wait_until(lambda: check_idle(llama, echo), 1.0)


async def test_eight_at_once(engine: Engine) -> None:
    requests = [make_chat(f"{PROMPT} Number {i}.", max_tokens=8) for i in range(8)]
    answers: list[Answer] = await asyncio.gather(*(engine.answer(r) for r in requests))
    assert all(answer.usage.output_tokens >= 1 for answer in answers)
    assert all(json.loads(answer.body)["choices"] for answer in answers)


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"temperature": "hot"}, "invalid_request", "temperature"),
        ({"max_tokens": 0}, "invalid_request", "max_tokens"),
        ({"max_tokens": 10**6}, "invalid_request", "max_tokens"),
        ({"n": 17}, "unsupported_parameter", "n"),
        ({"n": 1, "best_of": 2}, "unsupported_parameter", "best_of"),
        ({"id_slot": 1}, "unsupported_parameter", "id_slot"),
        ({"messages": []}, "invalid_request", "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "invalid_request", None),
        ({"messages": [{"role": "user", "content": "half \ud800 pair"}]}, "invalid_request", None),
        (
            {"messages": [{"role": "assistant", "content": None, "tool_calls": "junk"}]},
            "invalid_request",
            "messages[0].tool_calls",
        ),
        ({"top_logprobs": 2}, "invalid_request", "top_logprobs"),
    ],
)
async def test_bad_fields_are_refused_by_name(
    engine: Engine, fields: dict[str, Any], code: str, param: str | None
) -> None:
    for attempt in (engine.answer(make_chat(**fields)), anext(engine.stream(make_chat(**fields)))):
        with pytest.raises(RequestError) as caught:
            await attempt
        assert caught.value.code == code
        assert caught.value.row.status == 400
        assert param is None or caught.value.param == param


async def test_harmless_fields_and_nulls_are_taken(engine: Engine) -> None:
    request = make_chat(
        max_tokens=2,
        user="u",
        metadata={"a": "b"},
        store=False,
        n=1,
        stop=None,
        service_tier="auto",
    )
    assert (await engine.answer(request)).usage.output_tokens == 2


async def test_prompt_over_the_context_is_the_callers_error(engine: Engine) -> None:
    request = make_chat("word " * 9_000, max_tokens=4)
    for attempt in (engine.answer(request), anext(engine.stream(request))):
        with pytest.raises(RequestError) as caught:
            await attempt
        assert caught.value.code == "context_length_exceeded"


async def test_count_is_never_below_what_is_metered(engine: Engine) -> None:
    for request in (make_chat(max_tokens=1), make_completion(max_tokens=1)):
        counted = await engine.count_tokens(request)
        metered = count_input((await engine.answer(request)).usage)
        assert counted >= metered
        if engine.name != "upstream":
            assert counted == metered


async def test_embeddings(engine: Engine) -> None:
    request = EngineRequest(
        operation=Operation.EMBEDDINGS,
        body={"input": ["a small house", "a big ship"]},
        answer_id="e",
    )
    answer = await engine.answer(request)
    data = json.loads(answer.body)["data"]
    assert [item["index"] for item in data] == [0, 1]
    assert abs(sum(x * x for x in data[0]["embedding"]) - 1) < 1e-3
    assert data[0]["embedding"] != data[1]["embedding"]
    assert answer.usage.output_tokens == 0
    assert count_input(answer.usage) >= 6
    again = json.loads((await engine.answer(request)).body)["data"]
    assert again == data


async def test_healthy_and_described(engine: Engine) -> None:
    assert await engine.healthy()
    assert (await engine.describe_model()).model
    assert engine.capabilities.parallel >= 1


async def test_logprobs(repeatable_real_engine: Engine) -> None:
    request = make_chat(max_tokens=3, temperature=0, logprobs=True, top_logprobs=2)
    whole = json.loads((await repeatable_real_engine.answer(request)).body)["choices"][0][
        "logprobs"
    ]
    frames = read_frames(await collect(repeatable_real_engine, request))
    streamed = [
        item
        for frame in frames
        for choice in frame["choices"]
        for item in (choice.get("logprobs") or {}).get("content") or []
    ]
    assert len(whole["content"]) == len(streamed) == 3
    assert [i["token"] for i in whole["content"]] == [i["token"] for i in streamed]
    assert all(item["logprob"] <= 0 and len(item["top_logprobs"]) == 2 for item in streamed)


async def test_json_schema_gives_valid_json(real_engine: Engine) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"enum": ["Ann", "Bo"]}, "age": {"type": "integer", "maximum": 99}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "p", "schema": schema}}
    answer = await real_engine.answer(make_chat(max_tokens=60, response_format=wanted))
    made = json.loads(json.loads(answer.body)["choices"][0]["message"]["content"])
    assert made["name"] in ("Ann", "Bo")
    assert isinstance(made["age"], int)
    assert answer.finish_reason is FinishReason.STOP


async def test_grammar_and_characters_of_several_tokens(repeatable_real_engine: Engine) -> None:
    request = make_completion(max_tokens=30, grammar='root ::= "\U0001f98a\U0001f43b日本é"')
    chunks = await collect(repeatable_real_engine, request)
    assert read_text(read_frames(chunks)) == "\U0001f98a\U0001f43b日本é"
    # More tokens than characters, so that counting frames would be wrong.
    assert chunks[-1].usage.output_tokens > 5
    whole = json.loads((await repeatable_real_engine.answer(request)).body)
    assert whole["choices"][0]["text"] == "\U0001f98a\U0001f43b日本é"
    assert whole["usage"]["completion_tokens"] == chunks[-1].usage.output_tokens


async def test_bad_grammar_is_the_callers_error(real_engine: Engine) -> None:
    with pytest.raises(RequestError) as caught:
        await anext(real_engine.stream(make_completion(max_tokens=3, grammar="root ::= nothing")))
    assert caught.value.code == "invalid_request"


async def test_stop_string_ends_the_answer(real_engine: Engine) -> None:
    request = make_completion(max_tokens=40, grammar='root ::= "one two STOP three"', stop="STOP")
    chunks = await collect(real_engine, request)
    assert read_text(read_frames(chunks)) == "one two "
    assert chunks[-1].finish_reason is FinishReason.STOP


WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def make_weather_talk(*cities: str) -> list[dict[str, object]]:
    """A small model calls a tool when it has done so before in the conversation."""
    talk: list[dict[str, object]] = []
    for number, city in enumerate(cities):
        talk.append({"role": "user", "content": f"What is the weather in {city}?"})
        function = {"name": "get_weather", "arguments": json.dumps({"city": city})}
        call = {"id": f"call_{number}", "type": "function", "function": function}
        talk.append({"role": "assistant", "content": None, "tool_calls": [call]})
        talk.append({"role": "tool", "tool_call_id": f"call_{number}", "content": "raining"})
        talk.append({"role": "assistant", "content": f"It is raining in {city}."})
    return [*talk, {"role": "user", "content": "What is the weather in Bremen?"}]


async def test_a_real_model_calls_a_tool(llama_anew: LlamaEngine) -> None:
    fields = {
        "messages": make_weather_talk("Paris", "London"),
        "tools": [WEATHER],
        "temperature": 0,
        "max_tokens": 40,
    }
    answer = await llama_anew.answer(make_chat(**fields))
    [choice] = json.loads(answer.body)["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert answer.finish_reason is FinishReason.TOOL_CALLS
    [call] = choice["message"]["tool_calls"]
    assert call["function"]["name"] == "get_weather"
    assert json.loads(call["function"]["arguments"]) == {"city": "Bremen"}
    chunks = await collect(llama_anew, make_chat(**fields))
    assert chunks[-1].finish_reason is FinishReason.TOOL_CALLS
    assert chunks[-1].usage.output_tokens == answer.usage.output_tokens


async def test_tools_are_refused_where_they_are_not_offered(upstream_llama: Engine) -> None:
    with pytest.raises(RequestError) as caught:
        await upstream_llama.answer(make_chat(tools=[WEATHER]))
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "tools")


MOOD = {"enum": ["calm", "angry"]}
ACT = {
    "type": "function",
    "function": {
        "name": "act",
        "description": "What the innkeeper does",
        "parameters": {
            "type": "object",
            "properties": {"mood": {"$ref": "#/$defs/Mood"}},
            "required": ["mood"],
            "$defs": {"Mood": MOOD},
        },
    },
}


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "act"}}])
async def test_a_call_that_is_demanded_is_made(llama_anew: LlamaEngine, choice) -> None:
    """llama.cpp would take both for `auto`, and this model would chat."""
    fields = {"tools": [ACT], "tool_choice": choice, "max_tokens": 60, "temperature": 0}
    answer = await llama_anew.answer(make_chat(**fields))
    [whole] = json.loads(answer.body)["choices"]
    assert whole["finish_reason"] == "tool_calls"
    assert answer.finish_reason is FinishReason.TOOL_CALLS
    [call] = whole["message"]["tool_calls"]
    assert call["function"]["name"] == "act"
    assert json.loads(call["function"]["arguments"])["mood"] in ("calm", "angry")
    chunks = await collect(llama_anew, make_chat(**fields))
    assert chunks[-1].finish_reason is FinishReason.TOOL_CALLS
    assert chunks[-1].usage.output_tokens == answer.usage.output_tokens > 0
    deltas = [frame["choices"][0]["delta"] for frame in read_frames(chunks) if frame["choices"]]
    [told] = [delta["tool_calls"] for delta in deltas if "tool_calls" in delta]
    assert told[0]["function"] == call["function"]
    assert not any(delta.get("content") for delta in deltas)


async def test_one_of_several_tools_is_demanded(llama: LlamaEngine) -> None:
    fields = {"tools": [WEATHER, ACT], "tool_choice": "required", "max_tokens": 60}
    answer = await llama.answer(make_chat(**fields, temperature=0))
    [call] = json.loads(answer.body)["choices"][0]["message"]["tool_calls"]
    assert call["function"]["name"] in ("get_weather", "act")


async def test_a_demanded_call_that_is_cut_short_is_told_as_far_as_it_came(
    llama: LlamaEngine,
) -> None:
    answer = await llama.answer(make_chat(tools=[ACT], tool_choice="required", max_tokens=3))
    [choice] = json.loads(answer.body)["choices"]
    assert choice["finish_reason"] == "length"
    assert "tool_calls" not in choice["message"]  # there is no name yet
    assert choice["message"]["content"].startswith("{")
    answer = await llama.answer(make_chat(tools=[ACT], tool_choice="required", max_tokens=12))
    [choice] = json.loads(answer.body)["choices"]
    assert choice["finish_reason"] == "length"
    [call] = choice["message"]["tool_calls"]
    assert call["function"]["name"] == "act"
    assert not choice["message"]["content"]


@pytest.mark.parametrize(
    "fields",
    [
        {"tool_choice": {"type": "function", "function": {"name": "none such"}}},
        {"tool_choice": "required", "tools": []},
        {"tool_choice": "required", "response_format": {"type": "json_object"}},
    ],
)
async def test_a_demand_that_cannot_be_met_is_refused(llama: LlamaEngine, fields) -> None:
    with pytest.raises(RequestError) as caught:
        await llama.answer(make_chat(**{"tools": [ACT], **fields}))
    assert caught.value.param == "tool_choice"


async def test_base64_embeddings_for_openai_clients(engine: Engine) -> None:
    """What OpenAI's SDKs ask for by default is the same vector, packed."""
    made: dict[str, Any] = {}
    for kind in ("float", "base64"):
        request = EngineRequest(
            operation=Operation.EMBEDDINGS,
            body={"input": "house", "encoding_format": kind},
            answer_id="e",
        )
        made[kind] = json.loads((await engine.answer(request)).body)["data"][0]["embedding"]
    count = len(made["float"])
    assert count >= 8
    unpacked = struct.unpack(f"<{count}f", base64.b64decode(made["base64"]))
    assert unpacked == pytest.approx(made["float"], abs=1e-5)
