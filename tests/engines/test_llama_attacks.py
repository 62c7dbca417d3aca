"""Requests that would take the engine, or the machine, away from everybody else."""

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from hanse.engines import EngineRequest, Operation
from hanse.engines.llama_engine import LlamaEngine
from hanse.protocol.errors import RequestError, TransientError
from tests.engines.conftest import open_llama, wait_until
from tests.engines.test_contract import make_chat

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.slow]

DOUBLING = "\n".join(f"r{i} ::= r{i + 1} r{i + 1}" for i in range(40))
BOMB = f'root ::= r0\n{DOUBLING}\nr40 ::= "a"?'
"""Each line doubles the ways to read nothing: 2 ** 40 of them."""

PATTERN = {"type": "string", "pattern": "^((a?){1,100}){1,100}$"}


def ask_schema(schema: object) -> dict[str, object]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}


def read_process(pid: int | None) -> tuple[bytes, bytes]:
    folder = Path(f"/proc/{pid}")
    return (folder / "environ").read_bytes(), (folder / "cmdline").read_bytes()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def plain() -> AsyncIterator[LlamaEngine]:
    """As operators start it."""
    engine = open_llama(embeddings=False)
    await engine.start()
    yield engine
    await engine.close()


@pytest.mark.parametrize(
    ("extra", "param"),
    [
        ({"grammar": BOMB}, "grammar"),
        ({"response_format": ask_schema(PATTERN)}, "response_format.pattern"),
        (
            {"response_format": ask_schema({"type": "array", "items": [PATTERN]})},
            "response_format.pattern",
        ),
        (
            {"response_format": {"type": "json_object", "schema": PATTERN}},
            "response_format.pattern",
        ),
    ],
)
async def test_programs_for_the_engine_are_refused(
    plain: LlamaEngine, extra: dict[str, object], param: str
) -> None:
    with pytest.raises(RequestError) as caught:
        await plain.answer(make_chat(max_tokens=4, **extra))
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", param)


async def test_a_property_named_pattern_is_no_pattern(plain: LlamaEngine) -> None:
    schema = {"type": "object", "properties": {"pattern": {"type": "null"}}}
    answer = await plain.answer(make_chat(max_tokens=30, response_format=ask_schema(schema)))
    assert answer.usage.output_tokens > 0


async def test_a_schema_that_takes_seconds_to_compile_is_refused(plain: LlamaEngine) -> None:
    wide = {"type": "object", "properties": {f"p{i}": {"type": "null"} for i in range(1_000)}}
    for asked in (ask_schema(wide), {"type": "json_object", "schema": wide}):
        with pytest.raises(RequestError) as caught:
            await plain.answer(make_chat(max_tokens=4, response_format=asked))
        assert caught.value.code == "invalid_request"


HELLO = {"role": "user", "content": "hello"}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    "messages",
    [
        [{**HELLO, "name": {"a": [1]}}],
        [{**HELLO, "reasoning_content": 5}],
        [HELLO, {"role": "tool", "content": "x", "tool_call_id": 7}],
        [HELLO, {"role": "assistant", "content": None, "tool_calls": [{**CALL, "id": 5}]}],
    ],
    ids=["name", "reasoning_content", "tool_call_id", "id of a call"],
)
async def test_a_callers_fault_does_not_make_the_engine_look_broken(
    plain: LlamaEngine, messages: list[dict[str, object]]
) -> None:
    """It would open the breaker of everybody who shares the caller's gateway."""
    body = {"model": "m", "messages": messages, "max_tokens": 2}
    request = EngineRequest(operation=Operation.CHAT, body=body, answer_id="c")
    with pytest.raises(RequestError) as caught:
        await plain.answer(request)
    assert caught.value.code == "invalid_request"


async def test_the_engine_process_does_not_know_our_password(plain: LlamaEngine) -> None:
    os.environ["HANSE_PASSWORD"] = "marker-of-a-password"
    engine = open_llama(embeddings=False)
    try:
        await engine.start()
        environment, arguments = read_process(engine.pid)
    finally:
        del os.environ["HANSE_PASSWORD"]
        await engine.close()
    assert b"PATH=" in environment
    assert b"marker-of-a-password" not in environment + arguments


async def test_a_runaway_grammar_meets_the_bound_of_memory_and_others_are_served() -> None:
    engine = open_llama(embeddings=False, grammar=True, memory_max_mib=1_024, parallel=1)
    await engine.start()
    with pytest.raises((RequestError, TransientError)):
        await engine.answer(make_chat(max_tokens=4, grammar=BOMB))

    async def is_up() -> bool:
        return await engine.healthy()

    await wait_until(is_up, 30.0)
    assert (await engine.answer(make_chat(max_tokens=2))).usage.output_tokens == 2
    await engine.close()


async def test_a_process_that_hangs_is_replaced() -> None:
    engine = open_llama(embeddings=False, parallel=1, stuck_s=1.0)
    await engine.start()
    first = engine.pid
    assert first is not None
    os.kill(first, signal.SIGSTOP)

    async def is_up_again() -> bool:
        return engine.pid != first and await engine.healthy()

    await wait_until(is_up_again, 30.0)
    assert (await engine.answer(make_chat(max_tokens=2))).usage.output_tokens == 2
    await engine.close()


@pytest.mark.parametrize("shared_cache", [True, False])
async def test_cached_tokens_tell_of_other_users_only_where_the_cache_is_shared(
    plain: LlamaEngine, llama_anew: LlamaEngine, shared_cache: bool
) -> None:
    engine = plain if shared_cache else llama_anew
    victim = make_chat("The patient's name is Quetzal and he has measles.", max_tokens=2)
    await engine.answer(victim)
    guess = await engine.answer(victim)
    assert (guess.usage.cached_tokens > 0) is shared_cache
