"""A market that answers chat completions from a script, one text an attempt."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import msgspec

from hanse.gateway.structured.contents import write_chunks, write_completion
from hanse.protocol.errors import HanseError
from hanse.protocol.messages import Usage
from tests.gateway.gateway_parts import MemoryReceipt

SCHEMA = {
    "type": "object",
    "properties": {"action": {"enum": ["greet", "flee", "wait"]}},
    "required": ["action"],
    "additionalProperties": False,
}
GOOD, BAD = '{"action":"greet"}', '{"action":"dance"}'
FEE = 100


def make_body(**extra: Any) -> bytes:
    shape = {"type": "json_schema", "json_schema": {"name": "npc", "schema": SCHEMA}}
    request = {"model": "m", "messages": [{"role": "user", "content": "?"}]}
    return json.dumps(request | {"response_format": shape} | extra).encode()


class ScriptedAnswer:
    def __init__(self, provider: str, parts: list[bytes], stream: bool, fee: int) -> None:
        self.provider = provider
        self.is_stream = stream
        self.receipt: MemoryReceipt | None = None
        self.closed = False
        self._parts = parts
        self._fee = fee

    async def read(self) -> bytes:
        self._end()
        return self._parts[0]

    async def frames(self) -> AsyncIterator[bytes]:
        for part in self._parts:
            if b"[DONE]" in part:
                self._end()
            yield part

    async def close(self) -> None:
        self.closed = True

    def _end(self) -> None:
        receipt = MemoryReceipt()
        signed = msgspec.structs.replace(receipt.signed.receipt, usage=Usage(3, 1, 2))
        whole = msgspec.structs.replace(receipt.signed, receipt=signed)
        self.receipt = replace(receipt, signed=whole, fee=self._fee)


class ScriptedMarket:
    """Answers attempt i with script[i]: a text, ready-made parts, or an error."""

    def __init__(self, *script: str | list[bytes] | HanseError) -> None:
        self.script = list(script)
        self.bodies: list[dict[str, Any]] = []
        self.avoided: list[str] = []
        self.preferred: list[str] = []
        self.answers: list[ScriptedAnswer] = []
        self.spent: list[int] = []

    async def buy(self, body: bytes, avoid: str = "", prefer: str = "") -> ScriptedAnswer:
        request = json.loads(body)
        said = self.script[len(self.bodies)]
        self.bodies.append(request)
        self.avoided.append(avoid)
        self.preferred.append(prefer)
        if isinstance(said, HanseError):
            raise said
        stream = bool(request.get("stream"))
        if isinstance(said, list):
            parts = said
        elif stream:
            parts = list(write_chunks("x", 1, "m", said, None))
        else:
            parts = [write_completion("x", 1, "m", said, Usage())]
        answer = ScriptedAnswer(f"0xp{len(self.bodies)}", parts, stream, FEE * len(self.bodies))
        self.answers.append(answer)
        return answer

    def note(self, receipt: Any) -> None:
        self.spent.append(receipt.fee)
