"""Attacks on the gateway's socket that hold connections or fill memory without an API key."""

import asyncio
import contextlib
import resource

import pytest

from hanse.gateway import GatewaySettings
from hanse.serving import HEAD_READ_S
from hanse.serving.listener import DESCRIPTORS_KEPT
from tests.gateway.gateway_parts import MemoryMarket, run_gateway_here, until


@contextlib.asynccontextmanager
async def attacked(head_read_s=HEAD_READ_S):
    async with run_gateway_here(MemoryMarket()) as gateway:
        gateway.server.config.http_protocol_class.head_read_s = head_read_s
        reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
        try:
            yield reader, writer
        finally:
            writer.transport.abort()


@pytest.mark.parametrize(
    ("first", "drip"),
    [
        (b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", b"\r\n"),
        (b"POST /none HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n", b"x"),
    ],
    ids=["empty lines between requests", "rest of a body that nobody reads"],
)
async def test_attacker_cannot_hold_a_connection_by_dripping(first, drip):
    async with attacked(head_read_s=0.2) as (reader, writer):

        async def read_all():
            with contextlib.suppress(ConnectionError):
                while await reader.read(65_536):
                    pass

        reading = asyncio.create_task(read_all())
        writer.write(first)
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(5):
                while not reading.done():
                    writer.write(drip)
                    await writer.drain()
                    await asyncio.sleep(0.05)
        assert reading.done()


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: ", b"a"),
        (b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"a: b\r\n"),
        (b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: ", b"a"),
        (b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;", b"a"),
    ],
    ids=["header", "trailers", "one trailer", "chunk extension"],
)
async def test_attacker_cannot_fill_memory_behind_or_in_a_head(start, piece):
    sent = 0
    async with attacked() as (reader, writer):
        writer.write(start)
        data = piece * (65_536 // len(piece))
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(3):
                while sent < 200 * 1024 * 1024:
                    writer.write(data)
                    await writer.drain()
                    sent += len(data)
                    if reader.at_eof():
                        break
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(0):
                            await reader.read(1_024)
    assert sent < 32 * 1024 * 1024  # what the system's buffers take, and no more


async def test_attacker_cannot_queue_thousands_of_requests_ahead():
    async with attacked() as (reader, writer):
        writer.write(b"GET /health HTTP/1.1\r\n\r\n" * 5_000)
        with contextlib.suppress(ConnectionError):
            got = await asyncio.wait_for(reader.read(), 5)
            assert got.count(b"HTTP/1.1 200") < 50


async def test_connections_stay_below_the_descriptors_that_there_are():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (300, before[1]))
        async with run_gateway_here(MemoryMarket()) as gateway:
            granted = gateway.server.config.http_protocol_class.connections_max
            soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        assert soft > 300
        assert 2 * granted + DESCRIPTORS_KEPT <= soft
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("is_sent", [True, False], ids=["with bodies", "heads alone"])
async def test_one_key_cannot_have_gigabytes_of_bodies_held_nor_shut_others_out(is_sent):
    """It may have a quarter, here one body; heads without a body hold nothing."""
    settings = GatewaySettings(
        port=0, drain_s=1.0, body_bytes_max=1_000_000, body_bytes_in_flight_max=2_500_000
    )
    async with run_gateway_here(MemoryMarket(), settings) as gateway:
        _, other_key = await gateway.keys.create("another")
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer "
        greedy, other = (head + key.encode() + b"\r\n" for key in (gateway.key, other_key))
        held = []
        begun = (b"content-length: 1000000\r\n\r\n", b"x" * 500_000)
        for length, part in (begun, (b"transfer-encoding: chunked\r\n\r\n", b"")) * 3:
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            writer.write(greedy + length)
            if is_sent and len(held) < 3:
                writer.write(part)
            held.append((reader, writer))
        await until(lambda: gateway.server.gateway.in_flight == 6)
        await until(lambda: gateway.server.gateway.paid.bodies.total == 1_000_000 * is_sent)

        async def ask(head):
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            writer.write(head + b"content-length: 900000\r\n\r\n" + b"x" * 900_000)
            with contextlib.suppress(ConnectionError):
                return await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
            return b""

        assert (b"HTTP/1.1 503" in await ask(greedy)) == is_sent
        assert b"HTTP/1.1 400" in await ask(other)
        for _, writer in held:
            writer.transport.abort()
        await until(lambda: gateway.server.gateway.in_flight == 0)
        assert b"HTTP/1.1 400" in await ask(greedy)  # not JSON, and read to its end
