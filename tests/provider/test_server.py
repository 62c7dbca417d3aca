"""The listener's bounds: heads that are too long or too slow, and connections that idle."""

import asyncio
import contextlib

import aiohttp
import pytest

from hanse.provider import server
from hanse.provider.server import HEAD_BYTES_MAX, BoundedHttpProtocol, HttpServer


async def answer_ok(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


@contextlib.asynccontextmanager
async def listening(app=answer_ok):
    http = HttpServer.bind("127.0.0.1", 0)
    await http.start(app)
    try:
        host, port = http.url.removeprefix("http://").split(":")
        yield host, int(port)
    finally:
        await http.stop()


async def talk(address, data):
    reader, writer = await asyncio.open_connection(*address)
    writer.write(data)
    try:
        return await asyncio.wait_for(reader.read(4_096), 5)
    finally:
        writer.close()


async def test_head_within_the_bound_is_served():
    async with listening() as address:
        head = b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * (HEAD_BYTES_MAX - 200) + b"\r\n\r\n"
        assert (await talk(address, head)).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("pieces", [1, 40])
async def test_head_that_is_too_long_ends_with_400(pieces):
    async with listening() as address:
        header = b"A: " + b"a" * (2 * HEAD_BYTES_MAX // pieces) + b"\r\n"
        answer = await talk(address, b"GET / HTTP/1.1\r\nHost: x\r\n" + header * pieces + b"\r\n")
        assert answer.startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("data", [b"", b"GET / HTTP/1.1\r\nHost: x\r\nA: b"], ids=["none", "half"])
async def test_head_that_does_not_come_is_hung_up_on(data):
    class Impatient(BoundedHttpProtocol):
        head_time_s = 0.1

    http = HttpServer.bind("127.0.0.1", 0)
    await http.start(answer_ok, protocol=Impatient)
    host, port = http.url.removeprefix("http://").split(":")
    assert await talk((host, int(port)), data) == b""
    # and a second head on a connection that has been served
    first = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(first)
    assert await reader.readuntil(b"ok")
    writer.write(b"GET / HTTP/1.1\r\nHo")
    rest = await asyncio.wait_for(reader.read(), 5)
    assert b"HTTP/1.1" not in rest
    writer.close()
    await http.stop()


async def test_connection_one_too_many_is_closed():
    class Crowded(BoundedHttpProtocol):
        connections_max = 2

    http = HttpServer.bind("127.0.0.1", 0)
    await http.start(answer_ok, protocol=Crowded)
    host, port = http.url.removeprefix("http://").split(":")
    first = [await asyncio.open_connection(host, int(port)) for _ in range(2)]
    await asyncio.sleep(0)
    with contextlib.suppress(ConnectionError):
        assert await talk((host, int(port)), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") == b""
    for _, writer in first:
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await first[0][0].read(100)).startswith(b"HTTP/1.1 200")
    for _, writer in first:
        writer.close()
    await http.stop()
    assert server.CONNECTIONS_MAX > 1_000


async def test_frames_of_one_turn_travel_together_and_in_order():
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(50):
            await send({"type": "http.response.body", "body": b"%d," % number, "more_body": True})
        await send({"type": "http.response.body", "body": b"x" * 200_000})

    async with (
        listening(app) as (host, port),
        aiohttp.ClientSession() as session,
        session.get(f"http://{host}:{port}/") as answer,
    ):
        body = await answer.read()
    assert body == b"".join(b"%d," % number for number in range(50)) + b"x" * 200_000
