"""Applications that leave, stall or drip: whatever happens, the provider is hung up on."""

import asyncio
import contextlib
import json
import socket
import time

import pytest

from hanse.gateway import GatewayApp, GatewaySettings, open_api_keys
from hanse.store import open_sqlite
from tests.gateway.asgi_caller import Caller
from tests.gateway.gateway_parts import CHUNK_MODEL, MemoryMarket, run_gateway_here, until

PATH = "/v1/chat/completions"


def make_body(*, stream: bool, model: str = CHUNK_MODEL) -> bytes:
    messages = [{"role": "user", "content": "hello"}]
    return json.dumps({"model": model, "messages": messages, "stream": stream}).encode()


@contextlib.asynccontextmanager
async def open_app(market, **settings):
    database = await open_sqlite(":memory:")
    keys = await open_api_keys(database, time.time)
    _, key = await keys.create("test")
    app = GatewayApp(GatewaySettings(**settings), market, keys)
    yield app, {"authorization": f"Bearer {key}"}
    await database.close()


@pytest.mark.parametrize("raises", [False, True])
@pytest.mark.parametrize("model", [CHUNK_MODEL, "breaks-later", "breaks-first", "unpaid"])
@pytest.mark.parametrize("stream", [False, True])
async def test_leaving_at_any_event_closes_the_provider_and_leaves_nothing_at_work(
    stream, model, raises
):
    market = MemoryMarket()
    async with open_app(market) as (app, headers):
        body = make_body(stream=stream, model=model)
        parts = [body[:10], body[10:]]
        events = (await Caller("POST", PATH, headers, parts).run(app)).events
        assert events >= 4
        for leave_at in range(events + 1):
            caller = Caller("POST", PATH, headers, parts, leave_at, raises=raises)
            await caller.run(app)
            assert app.in_flight == 0
            assert not market.open_answers
            assert all(answer.closed.is_set() for answer in market.answers)
            assert all(
                event.get("status", 200) < 500 or event["status"] == 503 for event in caller.sent
            )


@pytest.mark.parametrize("stream", [False, True])
async def test_leaving_while_the_provider_is_silent_cancels_at_once(stream):
    for where in ("delay", "gate"):  # before the provider's head, and in the middle of its answer
        market = MemoryMarket()
        setattr(market, where, asyncio.Event())
        async with open_app(market) as (app, headers):
            caller = Caller("POST", PATH, headers, [make_body(stream=stream)])
            running = asyncio.create_task(caller.run(app))
            await asyncio.wait_for(market.asked.wait(), 1)
            await asyncio.sleep(0)
            assert app.in_flight == 1
            caller.leave()
            await asyncio.wait_for(running, 1.0)
            assert app.in_flight == 0
            assert not market.open_answers


async def test_a_drip_of_a_body_is_ended_with_408():
    async with run_gateway_here(
        MemoryMarket(), GatewaySettings(port=0, body_read_s=0.2, drain_s=1.0)
    ) as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {gateway.key}\r\n"
        writer.write(f"{head}content-length: 100\r\n\r\n{{".encode())
        answer = await asyncio.wait_for(reader.read(), 3)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert json.loads(answer.split(b"\r\n\r\n")[1])["error"]["code"] == "request_timeout"
        assert not gateway.market.bodies
        writer.close()


@pytest.mark.parametrize("first", [b"", b"G", b"GET /health HTTP/1.1\r\nx: y"])
async def test_silent_connections_and_dripped_heads_are_ended(first, monkeypatch):
    async with run_gateway_here(MemoryMarket()) as gateway:
        gateway.server.config.http_protocol_class.head_read_s = 0.2
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(first)
        answer = await asyncio.wait_for(reader.read(), 3)
        assert answer.startswith(b"HTTP/1.1 408 ")
        writer.close()


@pytest.mark.parametrize("in_pieces", [False, True])
async def test_oversized_heads_are_refused(in_pieces):
    async with run_gateway_here(MemoryMarket()) as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(b"GET /health HTTP/1.1\r\nhost: x\r\n")
        with contextlib.suppress(ConnectionError):
            for index in range(40):
                writer.write(b"x-%d: %s\r\n" % (index, b"y" * 1_000))
                if in_pieces:
                    await writer.drain()
                    await asyncio.sleep(0)
            writer.write(b"\r\n")
            await writer.drain()
        answer = b""
        with contextlib.suppress(ConnectionError):
            answer = await asyncio.wait_for(reader.read(), 3)
        assert not answer or answer.startswith(b"HTTP/1.1 413 ")
        if not in_pieces:
            assert b"request_too_large" in answer
        writer.close()


async def test_what_is_not_http_gets_an_openai_shaped_400():
    async with run_gateway_here(MemoryMarket()) as gateway:
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        writer.write(b"\x16\x03\x01 hello\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 3)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert json.loads(answer.split(b"\r\n\r\n")[1])["error"]["code"] == "invalid_request"
        writer.close()


async def test_connections_above_the_limit_are_refused():
    settings = GatewaySettings(port=0, connections_max=2, drain_s=1.0)
    async with run_gateway_here(MemoryMarket(), settings) as gateway:
        held = [await asyncio.open_connection("127.0.0.1", gateway.port) for _ in range(2)]
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        answer = await asyncio.wait_for(reader.read(), 3)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"overloaded" in answer
        for _, other in [*held, (reader, writer)]:
            other.close()


class EndlessMarket(MemoryMarket):
    """Streams for ever, as fast as it is read."""

    def _answer(self, path, request):
        answer = super()._answer(path, request)

        async def frames():
            while True:
                yield b'data: {"x":"' + b"x" * 65_536 + b'"}\n\n'
                await asyncio.sleep(0)

        answer.frames = frames
        return answer


async def test_an_application_that_stops_reading_is_dropped():
    market = EndlessMarket()
    settings = GatewaySettings(port=0, send_stall_s=0.2, drain_s=1.0)
    async with run_gateway_here(market, settings) as gateway:
        plug = socket.socket()
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        plug.connect(("127.0.0.1", gateway.port))
        plug.setblocking(False)
        body = make_body(stream=True)
        head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {gateway.key}\r\n"
        plug.send(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        await until(lambda: len(market.answers) == 1)
        await asyncio.wait_for(market.answers[0].closed.wait(), 5)
        await until(lambda: not gateway.server.server_state.connections)
        plug.close()
