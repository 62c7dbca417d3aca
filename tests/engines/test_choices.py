"""Several answers to one request (`n`): the same promises from every engine."""

import asyncio
import json
from typing import Any

import pytest

from hanse.engines import Engine, EngineRequest, Operation
from hanse.engines.echo_engine import EchoEngine
from hanse.engines.llama_engine import LlamaEngine
from hanse.protocol.errors import RequestError
from hanse.protocol.messages import FinishReason
from tests.engines.conftest import wait_until
from tests.engines.test_contract import (
    ACT,
    check_idle,
    collect,
    count_input,
    make_chat,
    make_completion,
    read_frames,
)

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]

SEED = 4
"""With it the fake begins three choices at three different words."""

LONG = {"max_tokens": 500, "logit_bias": {"2": -100}}
"""A story that would take many seconds: its end is not to be chosen."""


def read_texts(frames: list[dict[str, Any]]) -> dict[int, str]:
    """What a stream's frames say, by choice."""
    texts: dict[int, str] = {}
    for choice in (choice for frame in frames for choice in frame["choices"]):
        said = choice["delta"].get("content") or "" if "delta" in choice else choice["text"]
        texts[choice["index"]] = texts.get(choice["index"], "") + said
    return texts


def read_ends(frames: list[dict[str, Any]]) -> list[int]:
    """Which choices ended, in that order."""
    choices = [choice for frame in frames for choice in frame["choices"]]
    return [choice["index"] for choice in choices if choice.get("finish_reason")]


@pytest.mark.parametrize("operation", [Operation.CHAT, Operation.COMPLETION])
async def test_whole_choices_share_a_prompt_and_add_up(
    engine: Engine, operation: Operation
) -> None:
    make = make_chat if operation is Operation.CHAT else make_completion
    alone = await engine.answer(make(max_tokens=8))
    answer = await engine.answer(make(max_tokens=8, n=3, temperature=1.2, seed=SEED))
    body = json.loads(answer.body)
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert all(choice["finish_reason"] for choice in body["choices"])
    assert count_input(answer.usage) == count_input(alone.usage)
    assert answer.usage.output_tokens == 24
    assert body["usage"]["prompt_tokens"] == count_input(answer.usage)
    assert body["usage"]["completion_tokens"] == 24
    assert body["usage"]["total_tokens"] == 24 + count_input(answer.usage)
    said = [choice.get("message") or choice["text"] for choice in body["choices"]]
    assert len({json.dumps(each) for each in said}) == 3


@pytest.mark.parametrize("operation", [Operation.CHAT, Operation.COMPLETION])
async def test_streamed_choices_end_each_and_tell_one_usage(
    engine: Engine, operation: Operation
) -> None:
    make = make_chat if operation is Operation.CHAT else make_completion
    asked = make(
        max_tokens=8, n=3, temperature=1.2, seed=SEED, stream_options={"include_usage": True}
    )
    chunks = await collect(engine, asked)
    frames = read_frames(chunks)
    texts = read_texts(frames)
    assert sorted(texts) == [0, 1, 2]
    assert len(set(texts.values())) == 3
    assert sorted(read_ends(frames)) == [0, 1, 2]
    outputs = [chunk.usage.output_tokens for chunk in chunks]
    assert outputs == sorted(outputs)
    assert [c.finish_reason is not None for c in chunks] == [False] * (len(chunks) - 1) + [True]
    [stated] = [frame["usage"] for frame in frames if frame.get("usage")]
    assert frames[-1]["choices"] == []
    assert stated["completion_tokens"] == chunks[-1].usage.output_tokens == outputs[-1] == 24
    assert stated["prompt_tokens"] == count_input(chunks[-1].usage)
    details = stated.get("prompt_tokens_details")
    assert details is None or details["cached_tokens"] == chunks[-1].usage.cached_tokens
    assert {frame["id"] for frame in frames} == {asked.answer_id}
    assert not any("timings" in frame or "prompt_progress" in frame for frame in frames)


@pytest.mark.parametrize("make", [make_chat, make_completion])
@pytest.mark.parametrize("choices", [1, 2])
async def test_no_usage_frame_that_was_not_asked_for(engine: Engine, make, choices: int) -> None:
    frames = read_frames(await collect(engine, make(max_tokens=3, n=choices)))
    assert not any(frame.get("usage") for frame in frames)
    assert len(read_ends(frames)) == choices


async def tell_stories(llama: LlamaEngine, answer_id: str, **fields: Any) -> list[str]:
    body = {"messages": [{"role": "user", "content": "Tell me a story."}], **fields}
    body |= {"n": 3, "max_tokens": 12, "temperature": 1.5}
    request = EngineRequest(operation=Operation.CHAT, body=body, answer_id=answer_id)
    choices = json.loads((await llama.answer(request)).body)["choices"]
    return [choice["message"]["content"] for choice in choices]


async def test_one_seed_makes_all_choices_and_they_differ(llama: LlamaEngine) -> None:
    first = await tell_stories(llama, "chatcmpl-1", seed=5)
    assert await tell_stories(llama, "chatcmpl-2", seed=5) == first
    assert len(set(first)) == 3


async def test_without_a_seed_every_choice_is_new(llama: LlamaEngine) -> None:
    first, other = await tell_stories(llama, "chatcmpl-3"), await tell_stories(llama, "chatcmpl-4")
    assert all(one != two for one, two in zip(first, other, strict=True))


async def test_leaving_ends_every_choice(
    engine: Engine, llama: LlamaEngine, echo: EchoEngine
) -> None:
    stream = engine.stream(make_completion(n=3, **LONG))
    chunks = [await anext(stream) for _ in range(6)]
    await stream.aclose()
    assert await wait_until(lambda: check_idle(llama, echo), 1.0) < 1.0
    assert len(read_texts(read_frames(chunks))) > 1
    spoken = len([f for f in read_frames(chunks) if any(read_texts([f]).values())])
    assert spoken <= chunks[-1].usage.output_tokens <= 1_500
    assert count_input(chunks[-1].usage) > 0


async def test_leaving_a_whole_answer_ends_every_choice(
    llama: LlamaEngine, echo: EchoEngine
) -> None:
    call = asyncio.create_task(llama.answer(make_completion(n=3, **LONG)))

    async def is_busy() -> bool:
        return call.done() or await llama.count_busy_slots() == 3

    await wait_until(is_busy, 5.0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await wait_until(lambda: check_idle(llama, echo), 1.0)


async def test_each_choice_has_its_log_probabilities(real_engine: Engine) -> None:
    request = make_chat(max_tokens=3, n=2, temperature=1.2, logprobs=True, top_logprobs=2)
    for choice in json.loads((await real_engine.answer(request)).body)["choices"]:
        tokens = choice["logprobs"]["content"]
        assert len(tokens) == 3
        assert "".join(token["token"] for token in tokens) == choice["message"]["content"]
    streamed: dict[int, list[str]] = {0: [], 1: []}
    frames = read_frames(await collect(real_engine, request))
    for choice in (choice for frame in frames for choice in frame["choices"]):
        for token in (choice.get("logprobs") or {}).get("content") or ():
            assert len(token["top_logprobs"]) == 2
            streamed[choice["index"]].append(token["token"])
    assert {index: "".join(tokens) for index, tokens in streamed.items()} == read_texts(frames)


async def test_each_choice_fits_the_schema(real_engine: Engine) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"enum": ["Ann", "Bo"]}, "age": {"type": "integer", "maximum": 99}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "p", "schema": schema}}
    request = make_chat(max_tokens=60, n=3, temperature=1.5, response_format=wanted)
    answer = await real_engine.answer(request)
    made = [
        json.loads(choice["message"]["content"]) for choice in json.loads(answer.body)["choices"]
    ]
    assert len(made) == 3
    assert all(each["name"] in ("Ann", "Bo") for each in made)
    assert answer.finish_reason is FinishReason.STOP
    assert answer.usage.output_tokens > 15


async def test_each_choice_makes_the_call_that_is_demanded(llama: LlamaEngine) -> None:
    fields = {"tools": [ACT], "tool_choice": "required", "max_tokens": 60, "n": 2}
    answer = await llama.answer(make_chat(**fields))
    calls = [choice["message"]["tool_calls"][0] for choice in json.loads(answer.body)["choices"]]
    assert [json.loads(call["function"]["arguments"])["mood"] for call in calls]
    assert len({call["id"] for call in calls}) == 2
    assert answer.finish_reason is FinishReason.TOOL_CALLS
    frames = read_frames(await collect(llama, make_chat(**fields)))
    assert sorted(read_ends(frames)) == [0, 1]
    assert not any(read_texts(frames).values())


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({"n": 17}, "unsupported_parameter", "n"),
        ({"n": 0}, "invalid_request", "n"),
        ({"n": 129}, "invalid_request", "n"),
        ({"n": True}, "invalid_request", "n"),
        ({"n": 2, "best_of": 3}, "unsupported_parameter", "best_of"),
        ({"n": 2, "best_of": 1}, "unsupported_parameter", "best_of"),
    ],
)
async def test_more_than_an_engine_gives_is_refused_by_name(
    engine: Engine, fields: dict[str, Any], code: str, param: str
) -> None:
    assert 2 <= engine.capabilities.choices_max <= 16
    for attempt in (engine.answer(make_chat(**fields)), anext(engine.stream(make_chat(**fields)))):
        with pytest.raises(RequestError) as caught:
            await attempt
        assert (caught.value.code, caught.value.param) == (code, param)


async def test_best_of_as_many_as_are_returned_is_taken(engine: Engine) -> None:
    answer = await engine.answer(make_completion(max_tokens=2, n=2, best_of=2))
    assert answer.usage.output_tokens == 4


async def test_one_that_needs_all_slots_is_not_passed_over(llama: LlamaEngine) -> None:
    """Under a steady load of single answers, which never all end at once."""
    done = asyncio.Event()

    async def load(number: int) -> None:
        while not done.is_set():
            tokens = 5 + 3 * number
            await llama.answer(make_completion(max_tokens=tokens, logit_bias={"2": -100}))

    slots = llama.capabilities.parallel
    loads = [asyncio.create_task(load(number)) for number in range(slots + 2)]
    try:
        await wait_until(lambda: _has_busy(llama, slots), 5.0)
        answer = await asyncio.wait_for(llama.answer(make_chat(max_tokens=2, n=slots)), 10.0)
    finally:
        done.set()
        await asyncio.gather(*loads)
    assert answer.usage.output_tokens == 2 * slots


async def _has_busy(llama: LlamaEngine, count: int) -> bool:
    return await llama.count_busy_slots() >= count
