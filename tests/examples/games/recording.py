"""A recorded exchange of the real gateway, which the games' clients are tested against.

    python -m tests.examples.games.recording         # writes exchanges.json anew

The gateway is the real one, over HTTP on loopback; the market behind it answers from a script, by
the model's name. A test records again and compares, so that the file stays what the gateway says.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

from hanse.gateway import GatewaySettings
from hanse.gateway.structured.contents import write_chunks, write_completion
from hanse.protocol.errors import RequestError, Shortfall, TransientError
from hanse.protocol.hashing import DONE_FRAME
from hanse.protocol.messages import Usage
from tests.gateway.gateway_parts import MemoryAnswer, MemoryMarket, run_gateway_here

FILE = Path(__file__).with_name("exchanges.json")

PERSONA = "You are Berta, who keeps the north gate."
ACTIONS = ["open_gate", "ask_for_toll", "wait"]
FALLBACK = {"action": "wait", "say": "Hm. Später."}
SESSION = "player-7/berta"
SITUATION = "A stranger draws a sword."
GREETING = "Wer bist du?"

MOVE = '{"action":"ask_for_toll","say":"Drei Gröschen."}'
WRONG = '{"action":"dance","say":"La la."}'
SPEECH = ["I am Bert", "a. Who asks", "? The toll is 3.5 gr", "ö", "schen...", " Pay", " it!"]
SENTENCES = ["I am Berta.", "Who asks?", "The toll is 3.5 gröschen...", "Pay it!"]

_SCHEMA = {
    "type": "object",
    "properties": {"action": {"enum": ACTIONS}, "say": {"type": "string", "maxLength": 200}},
    "required": ["action", "say"],
    "additionalProperties": False,
}
_KEPT = ("content-type", "retry-after", "hanse-")


def make_request(case: str, *, chooses: bool) -> tuple[dict[str, Any], dict[str, str]]:
    """What every client of this folder sends: body and headers."""
    said = SITUATION if chooses else GREETING
    body: dict[str, Any] = {
        "model": case,
        "messages": [
            {"role": "system", "content": PERSONA},
            {"role": "user", "content": said},
        ],
        "max_tokens": 120 if chooses else 200,
    }
    headers = {"hanse-session": SESSION, "hanse-class": "interactive"}
    if chooses:
        shape = {"name": "npc_move", "schema": _SCHEMA}
        body["response_format"] = {"type": "json_schema", "json_schema": shape}
        headers["hanse-default"] = json.dumps(FALLBACK, separators=(",", ":"))
    else:
        body["stream"] = True
    return body, headers


CASES = {
    "move": True,
    "move-repaired": True,
    "move-default": True,
    "move-unpaid": True,
    "move-busy": True,
    "speech": False,
    "speech-broken": False,
    "speech-unpaid": False,
}
"""Case -> whether it chooses an action."""


class GameMarket(MemoryMarket):
    """Answers by the model's name, as `CASES` name it."""

    def __init__(self) -> None:
        super().__init__()
        self._attempts: dict[str, int] = {}

    def _answer(self, path: str, request: dict[str, Any]) -> MemoryAnswer:
        case = request["model"]
        self._attempts[case] = self._attempts.get(case, 0) + 1
        if case.endswith("unpaid"):
            raise RequestError(
                "insufficient_balance",
                "this request needs 300 base units, 100 are there: deposit 200",
                details=Shortfall(300, 100).to_details(),
            )
        if case.endswith("busy"):
            raise TransientError("rate_limited", "too many requests", retry_after_s=7)
        if case.startswith("move"):
            wrong = case == "move-default" or (
                case == "move-repaired" and self._attempts[case] == 1
            )
            text = WRONG if wrong else MOVE
            return MemoryAnswer(self, write_completion("x", 1, case, text, Usage(5, 0, 3)))
        frames = [write_chunks("x", 1, case, text, None)[0] for text in SPEECH]
        end = write_chunks("x", 1, case, "", None)[1]
        broken = None
        if case == "speech-broken":
            frames = frames[:3]
            broken = TransientError("engine_unavailable", "the engine broke off")
        return MemoryAnswer(self, None, [*frames, end, DONE_FRAME], broken)


async def record() -> dict[str, Any]:
    """Make every request of a real gateway; returns what was asked and answered."""
    recorded = {}
    settings = GatewaySettings(port=0)
    async with run_gateway_here(GameMarket(), settings) as gateway, aiohttp.ClientSession() as http:
        for case, chooses in CASES.items():
            body, headers = make_request(case, chooses=chooses)
            asked = {"authorization": f"Bearer {gateway.key}", **headers}
            url = gateway.base_url + "/chat/completions"
            async with http.post(url, json=body, headers=asked) as answer:
                text = (await answer.read()).decode()
                told = {
                    name.lower(): value
                    for name, value in answer.headers.items()
                    if name.lower().startswith(_KEPT)
                }
            recorded[case] = {
                "request": {"headers": headers, "body": body},
                "response": {"status": answer.status, "headers": told, "body": text},
            }
    return recorded


class Replay:
    """Serves the recorded exchanges over HTTP, in parts that are cut at awkward places.

    Attributes:
        requests: what was asked, by case: lower-case headers and the body.
        port: where it listens.
    """

    def __init__(self, exchanges: dict[str, Any], part_bytes: int = 7) -> None:
        self.requests: dict[str, tuple[dict[str, str], dict[str, Any]]] = {}
        self.port = 0
        self._exchanges = exchanges
        self._part_bytes = part_bytes

    async def run(self) -> AsyncIterator["Replay"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in head[1:] if line)
        }
        cors = ""
        if "origin" in headers:
            cors = (
                "access-control-allow-origin: *\r\naccess-control-expose-headers: hanse-provider, "
                "hanse-fee, hanse-total-fee, hanse-structured, retry-after\r\n"
            )
        if head[0].startswith("OPTIONS"):
            wanted = headers.get("access-control-request-headers", "")
            allowed = f"access-control-allow-headers: {wanted}\r\n"
            writer.write(f"HTTP/1.1 204 No Content\r\n{cors}{allowed}\r\n".encode())
            writer.close()
            return
        body = json.loads(await reader.readexactly(int(headers["content-length"])))
        self.requests[body["model"]] = (headers, body)
        said = self._exchanges[body["model"]]["response"]
        told = "".join(f"{name}: {value}\r\n" for name, value in said["headers"].items())
        writer.write(
            f"HTTP/1.1 {said['status']} X\r\n{cors}{told}"
            "transfer-encoding: chunked\r\nconnection: close\r\n\r\n".encode()
        )
        content = said["body"].encode()
        for at in range(0, len(content), self._part_bytes):
            part = content[at : at + self._part_bytes]
            writer.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
            await writer.drain()
            await asyncio.sleep(0)
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        writer.close()


if __name__ == "__main__":
    FILE.write_text(json.dumps(asyncio.run(record()), indent=1, ensure_ascii=False) + "\n")
