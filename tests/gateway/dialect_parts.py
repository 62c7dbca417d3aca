"""A market that answers chat completions by a script, to hold the dialects' events to.

And what the SDK of every dialect must see: refusals, an end amid a stream, its own leaving.
"""

import asyncio
import json
from collections.abc import Awaitable
from typing import Any

import pytest

from hanse.protocol.errors import HanseError, TransientError
from hanse.protocol.hashing import DONE_FRAME
from tests.gateway.gateway_parts import (
    MemoryAnswer,
    MemoryMarket,
    RunningGateway,
    to_frame,
    until,
)

MODEL = "scripted"
USAGE = {
    "prompt_tokens": 20,
    "completion_tokens": 7,
    "total_tokens": 27,
    "prompt_tokens_details": {"cached_tokens": 8},
}


def say(*texts: str) -> list[dict[str, Any]]:
    return [{"content": text} for text in texts]


def think(*texts: str) -> list[dict[str, Any]]:
    return [{"reasoning_content": text} for text in texts]


def call(index: int, id_: str, name: str, *arguments: str) -> list[dict[str, Any]]:
    first = {"index": index, "id": id_, "type": "function"}
    parts: list[dict[str, Any]] = [{**first, "function": {"name": name, "arguments": ""}}]
    parts += [{"index": index, "function": {"arguments": part}} for part in arguments]
    return [{"tool_calls": [part]} for part in parts]


class ScriptedMarket(MemoryMarket):
    """Answers what `deltas` says, streamed or whole, to whatever is asked; keeps the chat bodies.

    Attributes:
        deltas: the answer, as a stream's deltas.
        finish_reason: how it ends.
        broken: raised after the deltas instead of an end.
    """

    def __init__(self) -> None:
        super().__init__()
        self.deltas = say("Hel", "lo")
        self.finish_reason = "stop"
        self.broken: HanseError | None = None

    @property
    def chat(self) -> dict[str, Any]:
        """The chat completion that was bought last."""
        path, body = self.bodies[-1]
        assert path == "/v1/chat/completions"
        chat: dict[str, Any] = json.loads(body)
        return chat

    def _answer(self, path: str, request: dict[str, Any]) -> MemoryAnswer:
        if request["model"] != MODEL:
            return super()._answer(path, request)
        head = {"id": "chatcmpl-abc", "created": 1_800_000_000, "model": MODEL}
        if not request.get("stream"):
            whole = json.dumps({**head, **self._get_whole()}).encode()
            return MemoryAnswer(self, whole, None, self.broken, self.gate)
        frames = [
            to_frame({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
            for delta in [{"role": "assistant", "content": None}, *self.deltas]
        ]
        end = {"index": 0, "delta": {}, "finish_reason": self.finish_reason}
        frames.append(to_frame({**head, "choices": [end]}))
        if request["stream_options"]["include_usage"]:
            frames.append(to_frame({**head, "choices": [], "usage": USAGE}))
        return MemoryAnswer(self, None, [*frames, DONE_FRAME], self.broken, self.gate)

    def _get_whole(self) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": ""}
        calls: dict[int, dict[str, Any]] = {}
        for delta in self.deltas:
            for name in ("content", "reasoning_content"):
                if name in delta:
                    message[name] = message.get(name, "") + delta[name]
            for part in delta.get("tool_calls", ()):
                known = calls.setdefault(part["index"], {**part, "function": {"arguments": ""}})
                known["function"]["name"] = (
                    part["function"].get("name") or known["function"]["name"]
                )
                known["function"]["arguments"] += part["function"]["arguments"]
        if calls:
            message["tool_calls"] = list(calls.values())
        choice = {"index": 0, "message": message, "finish_reason": self.finish_reason}
        return {"object": "chat.completion", "choices": [choice], "usage": USAGE}


async def see_refusal(gateway: RunningGateway, asked: Awaitable[Any], kind: type[Exception]) -> Any:
    """The SDK's exception; nothing was bought."""
    with pytest.raises(kind) as caught:
        await asked
    assert gateway.market.bodies == []
    return caught.value


async def see_break(
    gateway: RunningGateway, asking: Awaitable[Any], kind: type[Exception]
) -> tuple[list[str], Any]:
    """What a stream's reader got before its provider broke off, and the SDK's exception."""
    gateway.market.broken = TransientError("engine_unavailable", "the engine broke off")
    stream = await asking
    kinds: list[str] = []

    async def read() -> None:
        async for event in stream:
            kinds.append(event.type)

    with pytest.raises(kind, match="the engine broke off") as caught:
        await read()
    return kinds, caught.value


async def leave(gateway: RunningGateway, asking: Awaitable[Any]) -> None:
    """Leave a stream whose provider has more to say, and see the purchase closed."""
    gateway.market.gate = asyncio.Event()  # which nobody sets: by itself it does not end
    stream = await asking
    async for _ in stream:
        break
    assert gateway.market.open_answers
    await stream.close()
    await until(lambda: not gateway.market.open_answers)
