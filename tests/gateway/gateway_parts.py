"""What the gateway's tests are made of: a market in memory and a gateway on loopback."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from hanse.gateway import ApiKeys, GatewayServer, GatewaySettings, open_api_keys, serve_gateway
from hanse.market import Needs
from hanse.protocol.errors import HanseError, RequestError, Shortfall, TransientError
from hanse.protocol.hashing import DONE_FRAME
from hanse.protocol.messages import FinishReason, Receipt, SignedReceipt, Usage
from hanse.protocol.wire.forms import read_form
from hanse.sdk.money import Alarm, Money, Place
from hanse.store import open_sqlite
from tests.waiting import until as until

PROVIDER = "0x" + "11" * 20
FEE = 1234
CHUNK_MODEL = "memory-chat"


def make_receipt() -> SignedReceipt:
    zero = "0x" + "00" * 32
    receipt = Receipt(
        user="0x" + "22" * 20,
        provider=PROVIDER,
        signer="0x" + "33" * 20,
        sequence=1,
        request_hash=zero,
        response_hash=zero,
        usage=Usage(5, 0, 3),
        fee=FEE,
        cumulative_fee=FEE,
        finish_reason=FinishReason.STOP,
        finished_at=1_800_000_000,
        commitment_root=zero,
    )
    return SignedReceipt(receipt, "0x" + "44" * 65)


@dataclass(frozen=True)
class MemoryReceipt:
    signed: SignedReceipt = field(default_factory=make_receipt)
    fee: int = FEE


def to_frame(content: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(content).encode() + b"\n\n"


def make_chunks(words: int = 5, *, chat: bool = True, usage: bool = False) -> list[bytes]:
    head = {"id": "chatcmpl-1", "created": 1, "model": CHUNK_MODEL}
    head["object"] = "chat.completion.chunk" if chat else "text_completion"
    frames = []
    for index in range(words):
        last = "stop" if index == words - 1 else None
        part: dict[str, Any] = (
            {"delta": {"content": f"w{index} "}} if chat else {"text": f"w{index} "}
        )
        frames.append(to_frame({**head, "choices": [{"index": 0, "finish_reason": last, **part}]}))
    if usage:
        counts = {"prompt_tokens": 5, "completion_tokens": words, "total_tokens": 5 + words}
        frames.append(to_frame({**head, "choices": [], "usage": counts}))
    return [*frames, DONE_FRAME]


def make_whole(path: str, request: dict[str, Any]) -> bytes:
    usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    if path.endswith("embeddings"):
        count = len(request["input"]) if isinstance(request["input"], list) else 1
        vector = [0.25, -0.5]
        if request.get("encoding_format") == "base64":
            vector = "AACAPgAAAL8="  # the same two numbers as little-endian float32
        data = [{"object": "embedding", "index": i, "embedding": vector} for i in range(count)]
        content: dict[str, Any] = {"object": "list", "data": data}
    elif path.endswith("chat/completions"):
        message = {"role": "assistant", "content": "w0 w1 w2"}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        content = {"object": "chat.completion", "id": "chatcmpl-1", "choices": choices}
    else:
        choices = [{"index": 0, "text": "w0 w1 w2", "finish_reason": "stop"}]
        content = {"object": "text_completion", "id": "cmpl-1", "choices": choices}
    return json.dumps({"created": 1, "model": request["model"], "usage": usage, **content}).encode()


class MemoryAnswer:
    """An answer that is all there; `gate`, if given, is waited for before each later frame."""

    def __init__(
        self,
        market: "MemoryMarket",
        whole: bytes | None,
        frames: list[bytes] | None = None,
        broken: HanseError | None = None,
        gate: asyncio.Event | None = None,
    ) -> None:
        self.provider = PROVIDER
        self.is_stream = frames is not None
        self.receipt: MemoryReceipt | None = None
        self.closed = asyncio.Event()
        self._market = market
        self._whole = whole
        self._frames = frames or []
        self._broken = broken
        self._gate = gate

    async def read(self) -> bytes:
        if self._gate is not None:
            await self._gate.wait()
        if self._broken is not None:
            raise self._broken
        assert self._whole is not None
        self.receipt = MemoryReceipt()
        return self._whole

    async def frames(self) -> AsyncIterator[bytes]:
        for frame in self._frames:
            if frame == DONE_FRAME:
                if self._broken is not None:
                    break
                self.receipt = MemoryReceipt()
            yield frame
            if self._gate is not None:
                await self._gate.wait()
        if self._broken is not None:
            raise self._broken

    async def close(self) -> None:
        if not self.closed.is_set():
            self.closed.set()
            self._market.open_answers.discard(self)


class MemoryMarket:
    """A market in memory, in the place of `hanse.sdk.Hanse`.

    The model's name chooses what happens: `memory-chat` answers; the others fail by name.
    """

    def __init__(self) -> None:
        self.bodies: list[tuple[str, bytes]] = []
        self.failures: list[tuple[str, str]] = []
        self.answers: list[MemoryAnswer] = []
        self.open_answers: set[MemoryAnswer] = set()
        self.gate: asyncio.Event | None = None
        self.delay: asyncio.Event | None = None
        self.asked = asyncio.Event()
        self.alarms: tuple[Alarm, ...] = ()

    async def request(
        self,
        path: str,
        body: bytes,
        needs: Needs | None = None,
        asked: list[str] | None = None,
    ) -> MemoryAnswer:
        self.bodies.append((path, body))
        self.asked.set()
        if self.delay is not None:
            await self.delay.wait()
        request = read_form(body).fields if body.startswith(b"--") else json.loads(body)
        answer = self._answer(path, request)
        self.answers.append(answer)
        self.open_answers.add(answer)
        return answer

    def report_failure(self, provider: str, reason: str) -> None:
        self.failures.append((provider, reason))

    def get_models(self) -> dict[str, Any]:
        rows = [
            {"id": name, "object": "model", "created": 1, "owned_by": "hanse"}
            for name in (CHUNK_MODEL, "org/memory-embed")
        ]
        return {"object": "list", "data": rows}

    async def read_money(self) -> Money:
        places = (Place("wallet", 2**60), Place("free", 7, PROVIDER))
        return Money(
            "0x" + "22" * 20, 9, places, 5, (), (), alarms=self.alarms, symbol="tHSD", decimals=6
        )

    def _answer(self, path: str, request: dict[str, Any]) -> MemoryAnswer:
        model = request["model"]
        if model in FAILURES:
            raise FAILURES[model]()
        if model == "defect":
            raise ZeroDivisionError("secret prompt")
        stream = bool(request.get("stream"))
        if model == "breaks-first":
            return MemoryAnswer(self, b"", [] if stream else None, _broke(), self.gate)
        if model not in (CHUNK_MODEL, "org/memory-embed", "breaks-later"):
            raise RequestError("model_not_found", f"no provider offers {model!r:.40}")
        if not stream or path.endswith("embeddings"):
            return MemoryAnswer(self, make_whole(path, request), None, None, self.gate)
        usage = bool((request.get("stream_options") or {}).get("include_usage"))
        frames = make_chunks(chat="chat" in path, usage=usage)
        broken = _broke() if model == "breaks-later" else None
        return MemoryAnswer(self, None, frames, broken, self.gate)


def _broke() -> TransientError:
    return TransientError("engine_unavailable", "the engine broke off")


FAILURES: dict[str, Callable[[], HanseError]] = {
    "unpaid": lambda: RequestError(
        "insufficient_balance",
        "this request needs 300 base units, 100 are there: deposit 200",
        details=Shortfall(300, 100).to_details(),
    ),
    "unserved": lambda: TransientError("no_provider", "no healthy provider", retry_after_s=0.01),
    "busy": lambda: TransientError("rate_limited", "too many", retry_after_s=0.01),
    "expired": lambda: RequestError("voucher_expired", "the deadline has passed"),
    "too-long": lambda: RequestError(
        "context_length_exceeded", "9 tokens, at most 8", param="messages"
    ),
}


@dataclass
class RunningGateway:
    market: Any
    keys: ApiKeys
    key: str
    server: GatewayServer
    port: int

    @property
    def in_flight(self) -> int:
        return self.server.gateway.in_flight

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"


@contextlib.asynccontextmanager
async def run_gateway_here(
    market: Any, settings: GatewaySettings | None = None
) -> AsyncIterator[RunningGateway]:
    """A gateway on loopback in this event loop."""
    database = await open_sqlite(":memory:")
    keys = await open_api_keys(database, time.time)
    _, text = await keys.create("test")
    ready: asyncio.Future[tuple[GatewayServer, int]] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(
        serve_gateway(
            settings or GatewaySettings(port=0, drain_s=1.0, market_wait_s=0),
            market,
            keys,
            on_ready=lambda server, port: ready.set_result((server, port)),
        )
    )
    done, _ = await asyncio.wait({serving, ready}, return_when=asyncio.FIRST_COMPLETED)
    if serving in done:
        serving.result()
    server, port = ready.result()
    try:
        yield RunningGateway(market, keys, text, server, port)
    finally:
        server.drain()
        await serving
        await database.close()
