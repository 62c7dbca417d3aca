"""The HTTP client of the request path: what it sends, what it keeps, and where it stops reading."""

import asyncio
import contextlib

import pytest

from hanse.http import HttpBrokenError, HttpClient, HttpConnectError, HttpTimeoutError
from hanse.http.connection import BUFFER_BYTES_MAX, HEAD_BYTES_MAX, HttpConnection

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


class Peer:
    """A server that answers each request with the next script; the last one stays."""

    def __init__(self, *scripts) -> None:
        self.scripts = list(scripts)
        self.requests: list[bytes] = []
        self.connections = 0
        self.left = asyncio.Event()
        self.url = ""

    async def handle(self, reader, writer):
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
                self.requests.append(head + await reader.readexactly(int(length or 0)))
                script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
                if isinstance(script, bytes):
                    writer.write(script)
                    await writer.drain()
                elif await script(reader, writer):
                    break
        self.left.set()
        writer.close()


@contextlib.asynccontextmanager
async def calling(*scripts, **options):
    """A peer and a client of it."""
    peer = Peer(*scripts)
    server = await asyncio.start_server(peer.handle, "127.0.0.1", 0)
    peer.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/x?a=1"
    client = HttpClient(**{"connect_s": 2.0, **options})
    try:
        yield peer, client
    finally:
        await client.close()
        server.close()


async def ask(peer, client, silence_s=2.0, **more):
    return await client.send("POST", peer.url, {"x-a": "b"}, b"{}", silence_s=silence_s, **more)


async def fetch(peer, client, **more):
    response = await ask(peer, client, **more)
    try:
        parts = []
        while data := await response.read():
            parts.append(data)
        return b"".join(parts)
    finally:
        response.close()


def send(*pieces, then_close=False):
    """A script: these pieces, each in a write of its own."""

    async def script(reader, writer):
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        return then_close

    return script


async def until(is_so):
    """Poll, with a deadline."""
    async with asyncio.timeout(2):
        while not is_so():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.001)


async def hang(reader, writer):
    await reader.read(1)
    return True


async def test_what_is_sent_is_what_was_given():
    async with calling(OK) as (peer, client):
        assert await fetch(peer, client) == b"ok"
        (request,) = peer.requests
    head, _, body = request.partition(b"\r\n\r\n")
    host = peer.url.split("/")[2].encode()
    assert head.split(b"\r\n") == [
        b"POST /v1/x?a=1 HTTP/1.1",
        b"host: " + host,
        b"x-a: b",
        b"content-length: 2",
    ]
    assert body == b"{}"


async def test_a_connection_is_used_again_once_its_answer_was_read():
    async with calling(OK) as (peer, client):
        for _ in range(3):
            assert await fetch(peer, client) == b"ok"
        assert peer.connections == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
    ],
    ids=["told", "old"],
)
async def test_a_connection_that_ends_is_not_used_again(answer):
    async with calling(answer) as (peer, client):
        assert [await fetch(peer, client) for _ in range(2)] == [b"ok", b"ok"]
        assert peer.connections == 2


async def test_an_answer_that_is_left_hangs_up():
    async with calling(send(CHUNKED, b"2\r\nok\r\n")) as (peer, client):
        response = await ask(peer, client)
        assert await response.read() == b"ok"
        response.close()
        response.close()  # and may be closed twice
        await asyncio.wait_for(peer.left.wait(), 2)


async def test_a_body_whose_end_comes_late_keeps_its_connection():
    go_on = asyncio.Event()

    async def late(reader, writer):
        writer.write(CHUNKED + b"2\r\nok\r\n")
        await go_on.wait()
        writer.write(b"0\r\n\r\n")

    async with calling(late, connections_max=1) as (peer, client):
        for _ in range(2):
            go_on.clear()
            response = await ask(peer, client)
            assert await response.read() == b"ok"
            response.finish()
            assert await response.read() == b""
            go_on.set()
        await until(lambda: client._idle)
        assert peer.connections == 1


class Wire(asyncio.Transport):
    """A transport whose other end is the test."""

    def write(self, data):
        pass

    def is_closing(self):
        return False

    def abort(self):
        pass


@pytest.mark.parametrize(("reads_burst", "first"), [(True, b"abc"), (False, b"a")])
async def test_a_burst_is_one_piece_and_what_comes_later_is_not_waited_for(reads_burst, first):
    def ignore(*what):
        pass

    connection = HttpConnection(asyncio.get_running_loop(), 60.0, ignore, ignore)
    connection.connection_made(Wire())
    exchange = asyncio.create_task(connection.exchange(b"", silence_s=2.0, total_s=2.0))
    await asyncio.sleep(0)
    connection.data_received(CHUNKED)
    response = await exchange
    reading = asyncio.create_task(response.read_burst() if reads_burst else response.read())
    for packet in (b"1\r\na\r\n", b"1\r\nb\r\n", b"1\r\nc\r\n"):
        await asyncio.sleep(0)  # a turn of the loop each
        connection.data_received(packet)
    assert await reading == first
    connection.data_received(b"1\r\nd\r\n0\r\n\r\n")
    assert (first + await response.read()).endswith(b"d")


async def test_a_burst_that_breaks_off_gives_what_came_and_then_says_so():
    async with calling(CHUNKED + b"1\r\na\r\n") as (peer, client):
        response = await ask(peer, client)
        assert await response.read_burst() == b"a"
        await client.close()
        with pytest.raises(HttpBrokenError):
            await response.read_burst()


@pytest.mark.parametrize("more", [b"2\r\nok\r\n", b"zz\r\n"], ids=["more", "nonsense"])
async def test_a_body_that_goes_on_after_its_content_loses_its_connection(more):
    go_on = asyncio.Event()

    async def go(reader, writer):
        writer.write(CHUNKED + b"2\r\nok\r\n")
        await go_on.wait()
        writer.write(more)

    async with calling(go, connections_max=1) as (peer, client):
        response = await ask(peer, client)
        assert await response.read() == b"ok"
        response.finish()
        go_on.set()
        await asyncio.wait_for(peer.left.wait(), 2)
        response = await ask(peer, client)  # there is room again
        response.close()


async def test_a_caller_that_is_cancelled_hangs_up():
    async with calling(hang) as (peer, client):
        asking = asyncio.create_task(ask(peer, client))
        await until(lambda: peer.requests)
        asking.cancel()
        await asyncio.wait_for(peer.left.wait(), 2)


async def test_an_idle_connection_is_closed_in_time():
    async with calling(OK, idle_s=0.05) as (peer, client):
        assert await fetch(peer, client) == b"ok"
        await asyncio.wait_for(peer.left.wait(), 2)
        assert await fetch(peer, client) == b"ok"
        assert peer.connections == 2


async def test_a_connection_that_its_peer_closed_is_not_used_again():
    async with calling(send(OK, then_close=True)) as (peer, client):
        assert await fetch(peer, client) == b"ok"
        await asyncio.wait_for(peer.left.wait(), 2)
        await until(lambda: not client._idle)  # the end of the stream has come here, too
        assert await fetch(peer, client) == b"ok"
        assert peer.connections == 2


async def test_as_many_connections_as_allowed_and_no_more():
    release = asyncio.Event()

    async def wait(reader, writer):
        await release.wait()
        writer.write(OK)

    async with calling(wait, connections_max=2) as (peer, client):
        asking = [asyncio.create_task(fetch(peer, client)) for _ in range(5)]
        await until(lambda: len(peer.requests) == 2)
        assert peer.connections == 2
        release.set()
        assert await asyncio.gather(*asking) == [b"ok"] * 5
        assert peer.connections == 2


@pytest.mark.parametrize(
    "flood",
    [
        b"HTTP/1.1 200 OK\r\na: " + b"a" * 2 * HEAD_BYTES_MAX,
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * HEAD_BYTES_MAX,
        b"HTTP/1.1 100 Continue\r\n\r\n" * HEAD_BYTES_MAX,
        b"HTTP/1.1 200 " + b"O" * 2 * HEAD_BYTES_MAX,
    ],
    ids=["one header", "many headers", "interim answers", "reason"],
)
async def test_a_head_without_end_is_not_read_on(flood):
    pieces = [flood[i : i + 4096] for i in range(0, len(flood), 4096)]
    async with calling(send(*pieces)) as (peer, client):
        with pytest.raises(HttpBrokenError):
            await ask(peer, client)
        await asyncio.wait_for(peer.left.wait(), 2)


@pytest.mark.parametrize(
    "flood",
    [b"2;" + b"a" * 2 * HEAD_BYTES_MAX, b"0\r\n" + b"a: b\r\n" * HEAD_BYTES_MAX],
    ids=["chunk extension", "trailers"],
)
async def test_what_brings_a_body_no_further_is_not_read_on(flood):
    pieces = [flood[i : i + 4096] for i in range(0, len(flood), 4096)]
    async with calling(send(CHUNKED, *pieces)) as (peer, client):
        with pytest.raises(HttpBrokenError):
            await fetch(peer, client)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n",
    ],
    ids=["two lengths", "length and chunks", "no size", "upgrade", "not HTTP"],
)
async def test_what_is_no_answer_is_refused(answer):
    async with calling(answer) as (peer, client):
        with pytest.raises(HttpBrokenError):
            await fetch(peer, client)


@pytest.mark.parametrize("extra", [OK, b"x"], ids=["answer", "byte"])
async def test_what_nobody_asked_for_ends_the_connection(extra):
    async with calling(OK + extra, OK) as (peer, client):
        with contextlib.suppress(HttpBrokenError):
            await fetch(peer, client)
        assert await fetch(peer, client) == b"ok"  # and not what came unasked
        assert peer.connections == 2


@pytest.mark.parametrize(
    "body", [b"content-length: 4\r\n\r\nevil", b"\r\n", b"content-length: 0\r\n\r\n"]
)
async def test_a_second_answer_in_one_read_never_replaces_the_first(body):
    second = b"HTTP/1.1 418 No\r\nhanse-receipt: another's\r\n" + body
    async with calling(OK + second, OK) as (peer, client):
        response = await ask(peer, client)
        assert (response.status, "hanse-receipt" in response.headers) == (200, False)
        assert await response.read() == b"ok"
        assert await response.read() == b""
        response.close()
        assert await fetch(peer, client) == b"ok"
        assert peer.connections == 2


@pytest.mark.parametrize("cut", [b"", b"HTTP/1.1 200", OK[:-1], CHUNKED + b"5\r\nok"])
async def test_an_answer_that_breaks_off_is_told_from_one_that_ends(cut):
    async with calling(send(cut, then_close=True)) as (peer, client):
        with pytest.raises(HttpBrokenError):
            await fetch(peer, client)


async def test_an_answer_without_length_ends_with_its_connection():
    answer = b"HTTP/1.1 200 OK\r\n\r\nall of it"
    async with calling(send(answer, then_close=True)) as (peer, client):
        assert await fetch(peer, client) == b"all of it"
        assert await fetch(peer, client) == b"all of it"


async def test_interim_answers_are_passed_over():
    async with calling(b"HTTP/1.1 103 Early Hints\r\na: b\r\n\r\n" + OK) as (peer, client):
        response = await ask(peer, client)
        assert (response.status, "a" in response.headers) == (200, False)
        response.close()


@pytest.mark.parametrize("before", [b"", CHUNKED + b"2\r\nok\r\n"], ids=["head", "body"])
async def test_silence_ends_an_exchange(before):
    async with calling(send(before) if before else hang) as (peer, client):
        with pytest.raises(HttpTimeoutError):
            await fetch(peer, client, silence_s=0.05)


async def test_a_shorter_silence_counts_at_once_and_a_longer_one_too():
    async with calling(send(CHUNKED)) as (peer, client):
        response = await ask(peer, client, silence_s=60.0)
        response.set_silence(0.05)
        with pytest.raises(HttpTimeoutError):
            await response.read()
        response.close()

    async def late(reader, writer):
        writer.write(CHUNKED)
        await asyncio.sleep(0.15)
        writer.write(b"2\r\nok\r\n0\r\n\r\n")

    async with calling(late) as (peer, client):
        response = await ask(peer, client, silence_s=0.1)
        response.set_silence(5.0)
        assert await response.read() == b"ok"
        response.close()


async def test_dripping_bytes_end_with_the_time_for_all():
    async def drip(reader, writer):
        writer.write(CHUNKED)
        while True:
            writer.write(b"1\r\na\r\n")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with calling(drip) as (peer, client):
        with pytest.raises(HttpTimeoutError):
            await fetch(peer, client, silence_s=5.0, total_s=0.1)


async def test_a_reader_that_falls_behind_stops_the_sender():
    sent = 0

    async def pour(reader, writer):
        nonlocal sent
        writer.write(CHUNKED)
        for _ in range(1_024):
            writer.write(b"10000\r\n" + b"a" * 65_536 + b"\r\n")
            await writer.drain()
            sent += 65_536
        writer.write(b"0\r\n\r\n")

    async with calling(pour) as (peer, client):
        response = await ask(peer, client, silence_s=0.3)
        before = -1
        while sent != before:  # until it has stood still for a while
            before = sent
            await asyncio.sleep(0.2)
        assert sent < 64 * 1024 * 1024
        assert len(await response.read()) < 2 * BUFFER_BYTES_MAX + 262_144
        size = 0
        while data := await response.read():
            size += len(data)
        assert size > 60 * 1024 * 1024
        response.close()


async def test_nobody_there_means_that_nothing_was_sent():
    async with calling(OK, connect_s=0.3) as (peer, client):
        server = await asyncio.start_server(peer.handle, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        with pytest.raises(HttpConnectError):
            await client.send("GET", f"http://127.0.0.1:{port}/", {}, silence_s=1.0)
        with pytest.raises(HttpConnectError):
            await client.send("GET", "http://no-such-name.invalid/", {}, silence_s=1.0)
        with pytest.raises(HttpConnectError):  # a peer without TLS
            await client.send("GET", peer.url.replace("http:", "https:"), {}, silence_s=1.0)


async def test_a_socket_factory_may_refuse_an_address():
    def refuse(info):
        raise PermissionError("not there")

    async with calling(OK, socket_factory=refuse) as (peer, client):
        with pytest.raises(HttpConnectError) as caught:
            await ask(peer, client)
        assert isinstance(caught.value.__cause__, PermissionError)
    assert peer.connections == 0


@pytest.mark.parametrize(
    "url",
    ["ftp://x/", "x", "http://", "http://u:p@x/", "http://x:99999/", "/v1"],
)
async def test_what_is_no_url_is_not_called(url):
    async with calling(OK) as (_, client):
        with pytest.raises(ValueError, match=r"URL|[Pp]ort"):
            await client.send("GET", url, {}, silence_s=1.0)


async def test_a_url_cannot_smuggle_a_header():
    async with calling(OK) as (peer, client):
        response = await client.send("GET", peer.url + "\r\nx-b: c", {}, silence_s=1.0)
        response.close()
        assert peer.requests[0].count(b"\r\n") == 3


@pytest.mark.parametrize("value", ["a\r\nx: y", "a\nb", "a\0b", "a\rb", "ä\u20ac"])
async def test_a_header_cannot_smuggle_another(value):
    async with calling(OK) as (peer, client):
        with pytest.raises(ValueError, match=r"line's end|codec"):
            await client.send("GET", peer.url, {"a": value}, silence_s=1.0)
    assert peer.requests == []


async def test_a_closed_client_calls_nobody_and_has_hung_up():
    async with calling(OK) as (peer, client):
        assert await fetch(peer, client) == b"ok"
        await client.close()
        await asyncio.wait_for(peer.left.wait(), 2)
        with pytest.raises(HttpConnectError):
            await ask(peer, client)


async def test_a_unix_socket_is_reached_whatever_the_host(tmp_path):
    peer = Peer(OK)
    server = await asyncio.start_unix_server(peer.handle, str(tmp_path / "s"))
    peer.url = "http://engine/v1"
    client = HttpClient(connect_s=1.0, idle_s=0.0, unix_path=str(tmp_path / "s"))
    assert [await fetch(peer, client) for _ in range(2)] == [b"ok", b"ok"]
    assert peer.connections == 2  # with no idle time nothing is kept
    await client.close()
    server.close()
