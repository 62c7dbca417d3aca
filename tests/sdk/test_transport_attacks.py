"""A provider publishes an endpoint that is somebody else's, or answers without an end."""

import asyncio
import contextlib
import gzip

import pytest

from hanse.chain.deployment import Deployment
from hanse.sdk.settings import reaches_private
from hanse.sdk.transport import BrokenError, NotSentError, read_body
from hanse.sdk.transport.http import PRIVATE_REFUSED, HttpTransport

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"


class Trap:
    """A socket that only this machine can reach; keeps what it was sent."""

    def __init__(self, answer: bytes = HEAD + b"content-length: 2\r\n\r\n{}") -> None:
        self.answer = answer
        self.heads: list[bytes] = []
        self.port = 0
        self.endless = b""

    async def handle(self, reader, writer):
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            self.heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(self.answer)
            while self.endless:
                writer.write(self.endless)
                await writer.drain()
            await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def trap(answer: bytes | None = None, endless: bytes = b""):
    made = Trap() if answer is None else Trap(answer)
    made.endless = endless
    server = await asyncio.start_server(made.handle, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()


@contextlib.asynccontextmanager
async def transport(**options):
    made = HttpTransport(**options)
    try:
        yield made
    finally:
        await made.close()


async def ask(carrier, url):
    return await carrier.send("GET", url, {"authorization": "Hanse x"}, b"", silence_s=2.0)


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "localhost", "[::1]", "0.0.0.0", "[::ffff:127.0.0.1]", "[::]"),
        *("10.0.0.1", "192.168.1.1", "172.16.0.1", "169.254.169.254", "100.64.0.1", "[fd00::1]"),
    ],
)
async def test_a_private_endpoint_is_not_called(host):
    async with trap() as inner, transport() as carrier:
        with pytest.raises(NotSentError, match="private address") as caught:
            await ask(carrier, f"http://{host}:{inner.port}/admin")
        assert caught.value.message == PRIVATE_REFUSED
    assert inner.heads == []


@pytest.mark.parametrize(
    "url",
    ["file:///etc/passwd", "ftp://x/", "unix:///run/x", "http://2130706433/", "http://127.1/"],
)
async def test_no_other_scheme_and_no_disguised_address(url):
    async with transport(reaches_private=True) as carrier:
        with pytest.raises(NotSentError):
            await ask(carrier, url)


async def test_own_market_may_be_private_and_the_world_may_not():
    async with trap() as inner, transport(reaches_private=True) as carrier:
        answer = await ask(carrier, f"http://127.0.0.1:{inner.port}/x")
        assert await read_body(answer, 100) == b"{}"
    chains = {
        chain_id: Deployment(chain_id, *["0x" + "11" * 20] * 4, 0, 2, 0, *["0x" + "11" * 20] * 2)
        for chain_id in (1, 31_337)
    }
    assert reaches_private(None, chains[31_337])
    assert not reaches_private(None, chains[1])
    assert reaches_private(True, chains[1])
    assert not reaches_private(False, chains[31_337])


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(status):
    async with trap() as inner, transport(reaches_private=True) as carrier:
        to = f"http://127.0.0.1:{inner.port}/secret".encode()
        head = b"HTTP/1.1 %d X\r\nlocation: %s\r\ncontent-length: 0\r\n\r\n" % (status, to)
        async with trap(head) as broker:
            answer = await ask(carrier, f"http://127.0.0.1:{broker.port}/hanse/v1/offers")
            answer.close()
    assert answer.status == status
    assert inner.heads == []


async def test_a_body_without_an_end_is_cut_at_the_limit():
    chunk = b"10000\r\n" + b"a" * 65_536 + b"\r\n"
    head = HEAD + b"transfer-encoding: chunked\r\n\r\n"
    async with trap(head, chunk) as broker, transport(reaches_private=True) as carrier:
        answer = await ask(carrier, f"http://127.0.0.1:{broker.port}/")
        with pytest.raises(BrokenError, match="at most 1000000"):
            await read_body(answer, 1_000_000)
        answer.close()


async def test_a_packed_body_is_not_unpacked():
    bomb = gzip.compress(b"0" * 50_000_000)
    head = HEAD + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(bomb)
    async with trap(head + bomb) as broker, transport(reaches_private=True) as carrier:
        answer = await ask(carrier, f"http://127.0.0.1:{broker.port}/")
        assert await read_body(answer, 1_000_000) == bomb
        answer.close()


@pytest.mark.parametrize("endless", [b"a: b\r\n", b"a" * 4_096, b"HTTP/1.1 103 X\r\n\r\n"])
async def test_a_head_without_an_end_breaks_off(endless):
    start = b"" if endless.startswith(b"HTTP") else HEAD
    async with trap(start, endless) as broker, transport(reaches_private=True) as carrier:
        with pytest.raises((BrokenError, TimeoutError)):
            async with asyncio.timeout(5):
                await ask(carrier, f"http://127.0.0.1:{broker.port}/")
