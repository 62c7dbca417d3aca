"""What holding an answer to a JSON schema, and staying up, add to it: one JSON line a case.

    make -s bench-layers

Processor time in memory, without sockets, keys or a market, the least of some rounds. The body has
1.9 kB and the schema of a character in a game; a held stream has 34 frames. What staying up costs
is the time of its layer over a stream less that of the stream's own frames; by streams of two
lengths it is cut into what each stream and what each frame takes.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from prometheus_client import CollectorRegistry

from hanse.gateway import GatewaySettings
from hanse.gateway.bodies import Body, names_format
from hanse.gateway.operations import CHAT, decode_body
from hanse.gateway.resilience.fallback import Fallback
from hanse.gateway.resilience.figures import StayingFigures
from hanse.gateway.resilience.steady import SteadyClient
from hanse.gateway.structured.contents import Gathering
from hanse.gateway.structured.demand import Demand, find_demand
from hanse.gateway.structured.validated import HeldAnswer, buy_validated

ROUNDS = 7
FRAMES = 34
SHORT, LONG, LONGEST = 100, 700, 10_000
"""Frames of a stream: below and above the bytes from which on what was delivered is read."""

SAID = '{"action":"trade","say":"Three silver coins, and not a single one less."}'
SCHEMA = {
    "type": "object",
    "properties": {
        "action": {"enum": ["greet", "trade", "flee", "wait"]},
        "say": {"type": "string", "maxLength": 200},
    },
    "required": ["action", "say"],
    "additionalProperties": False,
}
DONE = b"data: [DONE]\n\n"


def make_body(*, with_schema: bool, stream: bool = False) -> bytes:
    """A chat of 1.9 kB."""
    persona = "You keep the north gate of a trading town, and you are curt and fair. " * 22
    messages = [{"role": "system", "content": persona}, {"role": "user", "content": "Well?"}]
    body: dict[str, Any] = {"model": "m", "messages": messages, "stream": stream}
    if with_schema:
        form = {"name": "npc", "schema": SCHEMA}
        body["response_format"] = {"type": "json_schema", "json_schema": form}
    return json.dumps(body).encode()


def make_whole() -> bytes:
    """An answer that fits, not streamed."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"content": SAID}}
    return json.dumps({"id": "x", "object": "chat.completion", "choices": [choice]}).encode()


def make_frames(texts: list[str]) -> tuple[bytes, ...]:
    """One frame a text, and the end."""
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    frames = []
    for number, text in enumerate(texts, 1):
        last = "stop" if number == len(texts) else None
        choice = {"index": 0, "delta": {"content": text}, "finish_reason": last}
        frames.append(b"data: " + json.dumps({**head, "choices": [choice]}).encode() + b"\n\n")
    return (*frames, DONE)


def make_fitting_frames() -> tuple[bytes, ...]:
    """`SAID` in `FRAMES` pieces."""
    size = -(-len(SAID) // FRAMES)
    texts = [SAID[at : at + size] for at in range(0, len(SAID), size)]
    return make_frames(texts + [""] * (FRAMES - len(texts)))


class OneAnswerMarket:
    """Answers everything with the same stream."""

    def __init__(self, frames: tuple[bytes, ...]) -> None:
        self._frames = frames

    async def request(self, *_: Any) -> HeldAnswer:
        return HeldAnswer("0xp", True, None, self._frames)


def find(body: bytes) -> Demand:
    """The demand of a body that has one."""
    demand = find_demand(body, {}, "repair")
    assert demand is not None
    return demand


def find_none(body: bytes, fields: Body) -> None:
    """The look at a body without a schema, once the path has read it."""
    assert find_demand(body, {}, "repair", has_format=names_format(fields)) is None


def judge_whole(demand: Demand, whole: bytes) -> None:
    """What a whole answer goes through."""
    gathering = Gathering()
    gathering.add(whole)
    assert demand.find_fault(gathering) is None


async def read_all(frames: AsyncIterator[bytes]) -> None:
    """Read a stream to its end."""
    async for _ in frames:
        pass


def time_us(call: Callable[[], object], times: int) -> float:
    """Processor microseconds of one call, the least of all rounds."""
    least = float("inf")
    for _ in range(ROUNDS):
        began_s = time.process_time()
        for _ in range(times):
            call()
        least = min(least, time.process_time() - began_s)
    return least / times * 1e6


async def time_async_us(call: Callable[[], Coroutine[Any, Any, object]], times: int) -> float:
    """The same of a coroutine."""
    least = float("inf")
    for _ in range(ROUNDS):
        began_s = time.process_time()
        for _ in range(times):
            await call()
        least = min(least, time.process_time() - began_s)
    return least / times * 1e6


async def measure_held() -> float:
    """What a held stream of `FRAMES` frames costs."""
    body, market = make_body(with_schema=True, stream=True), OneAnswerMarket(make_fitting_frames())
    demand = find(body)

    async def buy(*_: Any) -> HeldAnswer:
        return await market.request()

    async def run() -> None:
        bought, told = await buy_validated(demand, body, buy, lambda _: None, "x", 1)
        assert dict(told)[b"hanse-structured"] == b"valid"
        await read_all(bought.frames())

    return await time_async_us(run, 200)


async def measure_staying(count: int) -> float:
    """What the layer that stays up adds to a stream of `count` frames."""
    market: Any = OneAnswerMarket(make_frames(["word "] * count))
    settings = GatewaySettings()
    figures = StayingFigures(CollectorRegistry())
    fallback = Fallback(None, lambda: settings, figures)
    steady = SteadyClient(market, lambda: settings, figures, fallback)
    body = make_body(with_schema=False, stream=True)

    async def run_bare() -> None:
        await read_all((await market.request()).frames())

    async def run_steady() -> None:
        answer = await steady.request("/v1/chat/completions", body)
        while await answer.read_batch():
            pass

    times = max(3, 20_000 // count)
    return await time_async_us(run_steady, times) - await time_async_us(run_bare, times)


async def measure() -> list[tuple[str, float]]:
    """Every case with its microseconds."""
    without, with_schema = make_body(with_schema=False), make_body(with_schema=True)
    demand, whole = find(with_schema), make_whole()
    fields = decode_body(CHAT, without)
    rows = [
        ("request without a schema", time_us(lambda: find_none(without, fields), 20_000)),
        ("demand of one with a schema", time_us(lambda: find(with_schema), 5_000)),
        ("whole answer judged", time_us(lambda: judge_whole(demand, whole), 5_000)),
        (f"held stream of {FRAMES} frames", await measure_held()),
    ]
    short, long, longest = [await measure_staying(n) for n in (SHORT, LONG, LONGEST)]
    a_frame = (long - short) / (LONG - SHORT)
    return [
        *rows,
        ("staying up, a stream", short - a_frame * SHORT),
        (f"staying up, a frame up to {LONG}", a_frame),
        (f"staying up, a frame beyond, to {LONGEST}", (longest - long) / (LONGEST - LONG)),
    ]


def main() -> None:
    """Measure and print."""
    for case, cpu_us in asyncio.run(measure()):
        print(json.dumps({"case": case, "cpu_us": round(cpu_us, 2)}), flush=True)


if __name__ == "__main__":
    main()
