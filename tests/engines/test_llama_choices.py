"""What the engine `llama` adds to llama.cpp's several choices: seeds, and whose turn it is."""

import asyncio
import json
from collections.abc import AsyncGenerator

import pytest

from hanse.engines.llama.choices import fit_seed, join_usage
from hanse.engines.llama.requests import tell_calls
from hanse.engines.llama.turns import Turns
from hanse.protocol.errors import TransientError
from hanse.protocol.limits import CHOICES_MAX


@pytest.mark.parametrize("seed", [0, -1, 2**32 - 1, 2**32 - 2, 2**63 - 1, -(2**63)])
def test_no_choices_seed_asks_for_chance(seed: int) -> None:
    body = {"n": 16, "seed": seed}
    fit_seed(body)
    assert 0 <= body["seed"] <= body["seed"] + CHOICES_MAX - 1 < 2**32 - 1


def test_one_answer_keeps_its_seed() -> None:
    body = {"seed": -1}
    fit_seed(body)
    assert body == {"seed": -1}


async def join(*frames: bytes, choices: int) -> list[bytes]:
    async def send() -> AsyncGenerator[list[bytes], None]:
        for frame in frames:
            yield [frame]

    return [payload async for some in join_usage(send(), choices) for payload in some]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"name": "act", "arguments": {"mood": "ca', ("act", '{"mood": "ca')),
        ('{"name":"act","arguments":{"mood":"calm"}', ("act", '{"mood":"calm"}')),
        ('{"name":"act","argum', ("act", "")),
        ('{ "name" : "a\\"ct"', ('a"ct', "")),
        ('{"name": "act", "arguments": {"a": 1}}', ("act", '{"a":1}')),
        ('{"name": "ac', None),
        ("", None),
    ],
)
async def test_a_call_that_is_cut_is_told_as_far_as_it_came(text: str, told: object) -> None:
    async def send() -> AsyncGenerator[list[bytes], None]:
        for delta, reason in (({"content": text[:9]}, None), ({"content": text[9:]}, "length")):
            choice = {"index": 0, "delta": delta, "finish_reason": reason}
            yield [json.dumps({"choices": [choice]}).encode()]

    frames = [json.loads(payload) async for some in tell_calls(send(), "x") for payload in some]
    *_, first, last = (frame["choices"][0] for frame in frames)
    assert (last["delta"], last["finish_reason"]) == ({}, "length")
    if told is None:
        assert first["delta"] == {"content": text}
        return
    [call] = first["delta"]["tool_calls"]
    assert (call["function"]["name"], call["function"]["arguments"]) == told


def tell_end(index: int, tokens: int = 0) -> bytes:
    choice = {"index": index, "text": "", "finish_reason": "stop"}
    usage = {"completion_tokens": tokens, "prompt_tokens": 5, "total_tokens": 5 + tokens}
    return json.dumps({"choices": [choice], **({"usage": usage} if tokens else {})}).encode()


def tell_usage(tokens: int) -> bytes:
    return json.dumps(
        {"choices": [], "usage": {"completion_tokens": tokens, "prompt_tokens": 5}, "timings": {}}
    ).encode()


async def test_usage_is_told_once_wherever_the_server_puts_it() -> None:
    all_of_it = {"completion_tokens": 7, "prompt_tokens": 5, "total_tokens": 12}
    for frames in (
        (tell_end(1, 3), tell_end(0, 4)),
        (tell_end(1), tell_usage(3), tell_end(0), tell_usage(4)),
    ):
        *ends, told = [json.loads(frame) for frame in await join(*frames, choices=2)]
        assert [end["choices"][0]["index"] for end in ends] == [1, 0]
        assert not any("usage" in end for end in ends)
        assert told == {"choices": [], "usage": all_of_it}


async def test_what_is_no_usage_passes_as_it_came() -> None:
    text = rb'{"choices":[{"index":0,"text":"\"usage\":{","finish_reason":null}]}'
    frames = (text, tell_end(0), b'{"error": {"message": "out of memory"}}', b"[DONE]")
    assert await join(*frames, choices=1) == list(frames)


class Asker:
    """Holds turns, and notes who got theirs."""

    def __init__(self, slots: int, wait_s: float = 10.0) -> None:
        self.turns = Turns(slots, wait_s)
        self.begun: list[str] = []
        self._ends: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def ask(self, name: str, count: int) -> None:
        self._ends[name] = asyncio.Event()
        self._tasks[name] = asyncio.create_task(self._hold(name, count))
        await self._settle()

    async def _hold(self, name: str, count: int) -> None:
        async with self.turns.hold(count):
            self.begun.append(name)
            await self._ends[name].wait()

    async def end(self, *names: str) -> None:
        for name in names:
            self._ends[name].set()
        await self._settle()

    async def cancel(self, name: str) -> None:
        self._tasks[name].cancel()
        await self._settle()

    async def _settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)


async def test_single_answers_never_wait_while_nobody_needs_more() -> None:
    asker = Asker(slots=2)
    for name in "abcd":
        await asker.ask(name, 1)
    assert asker.begun == list("abcd")


async def test_turns_are_taken_in_order() -> None:
    asker = Asker(slots=2)
    await asker.ask("a", 1)
    await asker.ask("both", 2)
    await asker.ask("b", 1)
    assert asker.begun == ["a"]
    await asker.end("a")
    assert asker.begun == ["a", "both"]
    await asker.ask("again", 2)
    await asker.end("both")
    assert asker.begun == ["a", "both", "b"]
    await asker.end("b")
    assert asker.begun == ["a", "both", "b", "again"]


async def test_what_fits_beside_several_goes_on() -> None:
    asker = Asker(slots=4)
    await asker.ask("three", 3)
    await asker.ask("a", 1)
    await asker.ask("b", 1)
    assert asker.begun == ["three", "a"]
    await asker.end("a")
    assert asker.begun == ["three", "a", "b"]


async def test_one_that_leaves_the_queue_lets_the_next_go() -> None:
    asker = Asker(slots=2)
    await asker.ask("a", 1)
    await asker.ask("both", 2)
    await asker.ask("b", 1)
    await asker.cancel("both")
    assert asker.begun == ["a", "b"]


async def test_one_that_leaves_as_its_turn_comes_gives_it_on() -> None:
    asker = Asker(slots=2)
    await asker.ask("a", 1)
    await asker.ask("both", 2)
    await asker.ask("other", 2)
    asker._ends["a"].set()
    await asyncio.sleep(0)  # now "both" has its turn, and has not seen it
    await asker.cancel("both")
    assert asker.begun[-1] == "other"
    await asker.end("other")
    await asker.ask("again", 2)
    assert asker.begun[-1] == "again"


async def test_a_turn_that_does_not_come_is_an_engine_that_is_busy() -> None:
    asker = Asker(slots=2, wait_s=0.02)
    await asker.ask("a", 1)
    with pytest.raises(TransientError):
        async with asker.turns.hold(2):
            pass
    await asker.ask("b", 1)
    await asker.end("a", "b")
    await asker.ask("both", 2)
    assert asker.begun == ["a", "b", "both"]
