"""The fake's faults, and the registry."""

import asyncio
import json

import pytest

from hanse.engines import EngineRequest, Operation, list_engines, open_engine
from hanse.engines.echo_engine import EchoEngine, Fault
from hanse.protocol.errors import RequestError, TransientError
from hanse.protocol.messages import FinishReason, Usage
from tests.engines.test_contract import collect, make_chat


async def start_echo(**settings: object) -> EchoEngine:
    engine = open_engine("echo", settings)
    assert isinstance(engine, EchoEngine)
    await engine.start()
    return engine


async def test_same_bytes_every_time() -> None:
    one, two = await start_echo(), await start_echo()
    assert await collect(one, make_chat()) == await collect(two, make_chat())
    assert await one.answer(make_chat()) == await two.answer(make_chat())


async def test_break_after_tokens() -> None:
    engine = await start_echo(fault={"kind": "break", "after_tokens": 3})
    stream = engine.stream(make_chat("a b c d"))
    seen = [(await anext(stream)).usage for _ in range(3)]
    with pytest.raises(TransientError):
        await anext(stream)
    assert seen[-1] == Usage(4, 0, 3)
    assert engine.active == 0


async def test_refuse_then_recover() -> None:
    engine = await start_echo(fault={"kind": "refuse"})
    assert not await engine.healthy()
    with pytest.raises(TransientError):
        await anext(engine.stream(make_chat()))
    engine.fault = Fault()
    assert (await engine.answer(make_chat())).usage.output_tokens == 16


async def test_empty_answer_is_complete_and_has_no_tokens() -> None:
    engine = await start_echo(fault={"kind": "empty"})
    (chunk,) = await collect(engine, make_chat())
    assert chunk.usage.output_tokens == 0
    assert chunk.finish_reason is FinishReason.STOP
    answer = json.loads((await engine.answer(make_chat())).body)
    assert answer["choices"][0]["message"]["content"] == ""


async def test_hang_ends_by_cancellation_only() -> None:
    engine = await start_echo(fault={"kind": "hang", "after_tokens": 2})
    stream = engine.stream(make_chat())
    await anext(stream)
    await anext(stream)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await anext(stream)
    await stream.aclose()
    assert engine.active == 0


async def test_overstated_usage() -> None:
    engine = await start_echo(fault={"kind": "overstate"})
    chunks = await collect(engine, make_chat("a b", max_tokens=5))
    assert chunks[-2].usage == Usage(2, 0, 5)
    assert chunks[-1].usage == Usage(4, 0, 10)


async def test_parallel_is_kept() -> None:
    engine = await start_echo(parallel=2, token_delay_s=0.001)
    peak = 0

    async def run() -> None:
        nonlocal peak
        async for _ in engine.stream(make_chat(max_tokens=4)):
            peak = max(peak, engine.active)

    await asyncio.gather(*(run() for _ in range(6)))
    assert peak == 2


async def test_closed_engine_is_transient() -> None:
    engine = await start_echo()
    await engine.close()
    with pytest.raises(TransientError):
        await engine.answer(make_chat())


def test_engines_are_found_by_their_files() -> None:
    assert list_engines() == ("echo", "hibari", "llama", "upstream", "whisper")


@pytest.mark.parametrize("name", ["none", "../x", "", "os.path", "Echo", "not_there.engine"])
def test_an_unknown_engine_is_refused(name: str) -> None:
    with pytest.raises(RequestError) as caught:
        open_engine(name)
    assert caught.value.code == "configuration_invalid"


@pytest.mark.parametrize(
    "settings", [{"unknown": 1}, {"answer_tokens": "many"}, {"fault": {"kind": "explode"}}]
)
def test_a_wrong_setting_is_refused(settings: dict[str, object]) -> None:
    with pytest.raises(RequestError) as caught:
        open_engine("echo", settings)
    assert caught.value.code == "configuration_invalid"


def test_an_engine_of_another_package_opens_by_its_module() -> None:
    assert isinstance(open_engine("hanse.engines.echo_engine"), EchoEngine)


async def test_answer_id_is_carried() -> None:
    engine = await start_echo()
    request = EngineRequest(
        operation=Operation.CHAT, body=make_chat().body, answer_id="chatcmpl-mine"
    )
    assert json.loads((await engine.answer(request)).body)["id"] == "chatcmpl-mine"
