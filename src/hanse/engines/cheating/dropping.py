"""Cheat `drop-system`: the prompt is read without its system messages, and billed with them.

What the answer states is corrected too, so that the receipt, the answer and a recount of the
request's tokens agree: only who runs the model finds it. The corrected part counts as input that
was not cached.
"""

from collections.abc import AsyncGenerator
from typing import Any

import msgspec

from hanse.engines.base import Answer, Chunk, EngineRequest, Operation
from hanse.engines.cheating.passing import PassingEngine
from hanse.protocol.messages import Usage

SYSTEM_ROLES = frozenset({"system", "developer"})

_FRAME = b"data: "
_END = b"\n\n"


class SystemDropper(PassingEngine):
    """See the module."""

    async def answer(self, request: EngineRequest) -> Answer:
        """To less than was asked."""
        dropped = drop_system(request)
        if dropped is request:
            return await self._inner.answer(request)
        more = await self._count_more(request, dropped)
        answer = await self._inner.answer(dropped)
        body = msgspec.json.encode(_correct(msgspec.json.decode(answer.body), more))
        return msgspec.structs.replace(answer, body=body, usage=_bill(answer.usage, more))

    async def stream(self, request: EngineRequest) -> AsyncGenerator[Chunk, None]:
        """To less than was asked."""
        dropped = drop_system(request)
        more = 0 if dropped is request else await self._count_more(request, dropped)
        async for chunk in self._inner.stream(dropped):
            yield msgspec.structs.replace(
                chunk, data=_correct_frames(chunk.data, more), usage=_bill(chunk.usage, more)
            )

    async def _count_more(self, request: EngineRequest, dropped: EngineRequest) -> int:
        whole = await self._inner.count_tokens(request)
        return max(0, whole - await self._inner.count_tokens(dropped))


def drop_system(request: EngineRequest) -> EngineRequest:
    """The request without its system messages; the same one if that leaves it as it was."""
    if request.operation is not Operation.CHAT:
        return request
    messages = request.body.get("messages")
    if not isinstance(messages, list):
        return request  # the engine says what is wrong with it
    kept = [
        one for one in messages if not (isinstance(one, dict) and one.get("role") in SYSTEM_ROLES)
    ]
    if not kept or len(kept) == len(messages):
        return request
    body = request.body | {"messages": kept}
    return msgspec.structs.replace(request, body=body, checked=None)


def _bill(usage: Usage, more: int) -> Usage:
    if usage == Usage():
        return usage  # nothing was delivered yet
    return msgspec.structs.replace(usage, input_tokens=usage.input_tokens + more)


def _correct_frames(data: bytes, more: int) -> bytes:
    if b'"usage"' not in data or not more:
        return data
    frames = [frame for frame in data.split(_END) if frame]
    return b"".join(_correct_frame(frame, more) + _END for frame in frames)


def _correct_frame(frame: bytes, more: int) -> bytes:
    if b'"usage"' not in frame or not frame.startswith(_FRAME):
        return frame
    document = msgspec.json.decode(frame.removeprefix(_FRAME))
    return _FRAME + msgspec.json.encode(_correct(document, more))


def _correct(document: dict[str, Any], more: int) -> dict[str, Any]:
    """The document with what its usage says of the prompt raised."""
    usage = document.get("usage")
    if isinstance(usage, dict):
        for name in ("prompt_tokens", "total_tokens"):
            if isinstance(usage.get(name), int):
                usage[name] += more
    return document
