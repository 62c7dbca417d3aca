"""The listener's bounds: heads that are too long or too slow, and connections that idle."""

import asyncio
import contextlib
import resource
from types import SimpleNamespace

import aiohttp
import pytest
from uvicorn.server import ServerState

from hanse.protocol.errors import RequestError
from hanse.serving import (
    COMPLETE,
    HEAD_BYTES_MAX,
    HEAD_READ_S,
    HttpServer,
    grant_connections,
    listen,
)
from hanse.serving.listener import CONNECTIONS_MAX, DESCRIPTORS_KEPT, create_config


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
async def test_head_that_is_too_long_is_refused(pieces):
    async with listening() as address:
        header = b"A: " + b"a" * (2 * HEAD_BYTES_MAX // pieces) + b"\r\n"
        answer = await talk(address, b"GET / HTTP/1.1\r\nHost: x\r\n" + header * pieces + b"\r\n")
        assert answer.startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize("data", [b"", b"GET / HTTP/1.1\r\nHost: x\r\nA: b"], ids=["none", "half"])
async def test_head_that_does_not_come_is_hung_up_on(data):
    http = HttpServer.bind("127.0.0.1", 0)
    await http.start(answer_ok, head_read_s=0.1)
    host, port = http.url.removeprefix("http://").split(":")
    assert (await talk((host, int(port)), data)).startswith(b"HTTP/1.1 408")
    # and a second head on a connection that has been served
    first = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(first)
    assert await reader.readuntil(b"ok")
    writer.write(b"GET / HTTP/1.1\r\nHo")
    rest = await asyncio.wait_for(reader.read(), 5)
    assert b"HTTP/1.1 408" in rest
    assert rest.count(b"HTTP/1.1") == 1
    writer.close()
    await http.stop()


async def test_connection_one_too_many_is_told_so():
    http = HttpServer.bind("127.0.0.1", 0)
    await http.start(answer_ok, connections_max=2)
    host, port = http.url.removeprefix("http://").split(":")
    first = [await asyncio.open_connection(host, int(port)) for _ in range(2)]
    await asyncio.sleep(0)
    refused = await talk((host, int(port)), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert refused.startswith(b"HTTP/1.1 503")
    assert b'"code":"overloaded"' in refused
    for _, writer in first:
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await first[0][0].read(100)).startswith(b"HTTP/1.1 200")
    for _, writer in first:
        writer.close()
    await http.stop()
    assert CONNECTIONS_MAX > 1_000


async def test_frames_arrive_whole_and_in_order():
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


@contextlib.asynccontextmanager
async def attacked(app=answer_ok, head_read_s=0.2):
    http = HttpServer.bind("127.0.0.1", 0)
    await http.start(app, head_read_s=head_read_s)
    host, port = http.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        await http.stop()


async def send_until_closed(reader, writer, data, pause_s, limit_s=5.0):
    """Go on sending; True if the server hung up within the limit."""

    async def read_all():
        with contextlib.suppress(ConnectionError):
            while await reader.read(65_536):
                pass

    reading = asyncio.create_task(read_all())
    with contextlib.suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(limit_s):
            while not reading.done():
                writer.write(data)
                await writer.drain()
                await asyncio.sleep(pause_s)
    hung_up = reading.done()
    reading.cancel()
    return hung_up


@pytest.mark.parametrize(
    ("first", "drip"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\r\n"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n", b"x"),
    ],
    ids=["empty lines between requests", "rest of a body that nobody reads"],
)
async def test_attacker_cannot_hold_a_connection_by_dripping(first, drip):
    async with attacked() as (reader, writer):
        writer.write(first)
        assert await send_until_closed(reader, writer, drip, pause_s=0.05)


@pytest.mark.parametrize(
    "start",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\nA: ",
        b"GET / HTTP/1.1\r\nHost: x\r\n",
        b"GET /",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: ",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1;",
    ],
    ids=["value", "name", "url", "trailer", "chunk extension"],
)
async def test_attacker_cannot_fill_memory_with_a_header_that_never_ends(start):
    sent = 0
    async with attacked(head_read_s=HEAD_READ_S) as (_, writer):
        writer.write(start)
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(3):
                while sent < 200 * 1024 * 1024:
                    writer.write(b"a" * 65_536)
                    await writer.drain()
                    sent += 65_536
    assert sent < 32 * 1024 * 1024  # what the system's buffers take, and no more


async def test_attacker_cannot_queue_thousands_of_requests_ahead():
    served = 0
    release = asyncio.Event()

    async def count(scope, receive, send):
        nonlocal served
        served += 1
        await release.wait()
        await answer_ok(scope, receive, send)

    async with attacked(count) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\n\r\n" * 5_000)
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 5) == b""
        release.set()
    assert served <= 1


async def test_a_body_is_said_to_be_complete_once_it_is_and_no_sooner():
    told = asyncio.Queue()

    async def read(scope, receive, send):
        more = True
        while more:
            told.put_nowait(scope["state"].get(COMPLETE))
            more = (await receive())["more_body"]
        await answer_ok(scope, receive, send)

    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n"
    async with listening(read) as (host, port), asyncio.timeout(5):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(head + b"abc")
        await reader.readuntil(b"ok")
        assert await told.get() == b"abc"
        for part in (head, b"a"):
            writer.write(part)
            assert await told.get() is None
        writer.write(b"bc")
        await reader.readuntil(b"ok")
        writer.write((head + b"abc") * 2)  # the second one waits for the first one's answer
        for _ in range(2):
            await reader.readuntil(b"ok")
            assert await told.get() == b"abc"
        assert told.empty()
        writer.close()


async def test_garbage_behind_a_request_is_not_mixed_into_its_answer():
    async def stream(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(50):
            await send({"type": "http.response.body", "body": b"data: x\n\n", "more_body": True})
            await asyncio.sleep(0.005)

    async with attacked(stream) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        got = await reader.readuntil(b"data: x\n\n")
        writer.write(b"\x00garbage\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            got += await asyncio.wait_for(reader.read(), 5)
    assert got.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("each", [1, 2])
def test_connections_stay_below_the_descriptors_that_there_are(each):
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, before[1]))
    try:
        granted = grant_connections(1_000_000, each)
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        assert soft > 300  # as far as the system lets
        assert soft - each < each * granted + DESCRIPTORS_KEPT <= soft
        assert grant_connections(10, each) == 10
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_an_address_that_is_taken_is_refused_by_name():
    with contextlib.closing(listen("127.0.0.1", 0)) as first:
        port = first.getsockname()[1]
        with pytest.raises(RequestError, match=f"port {port}") as refused:
            listen("127.0.0.1", port)
    assert refused.value.code == "configuration_invalid"


async def test_the_url_is_known_before_it_serves_and_after_it_stopped():
    """A broker that drains still renews its offers, which name the URL."""
    http = HttpServer.bind("127.0.0.1", 0)
    url = http.url
    await http.start(answer_ok)
    await http.stop()
    assert http.url == url != "http://127.0.0.1:0"


class StoppedLoop:
    """A clock that stands still, and what was to be called when."""

    def __init__(self):
        self.now, self.due = 1_000.0, []

    def time(self):
        return self.now

    def call_later(self, for_s, call):
        entry = (self.now + for_s, call)
        self.due.append(entry)
        return SimpleNamespace(cancel=lambda: self.due.remove(entry))

    def go_on_to_the_next(self):
        self.now, call = self.due.pop(0)
        call()


def test_a_connection_is_closed_so_long_after_its_last_answer_by_one_timer():
    loop, closed = StoppedLoop(), []
    config = create_config(answer_ok, keep_alive_s=75)
    config.load()
    protocol = config.http_protocol_class(config, ServerState(), {}, loop)
    protocol.connection_made(
        SimpleNamespace(
            get_extra_info=lambda name, default=None: default,
            is_closing=lambda: bool(closed),
            close=lambda: closed.append(loop.now),
            abort=lambda: None,
            pause_reading=lambda: None,
            resume_reading=lambda: None,
        )
    )
    protocol._stop_timer()  # its head came
    protocol.on_response_complete()
    loop.now += 50
    protocol.data_received(b"GET / HTTP/1.1\r\n")  # the second request
    protocol._stop_timer()
    protocol.on_response_complete()
    assert [at for at, _ in loop.due] == [1_075.0]  # the first answer's
    loop.go_on_to_the_next()
    assert (closed, [at for at, _ in loop.due]) == ([], [1_125.0])
    protocol._idle_since = None  # a request is at work
    loop.go_on_to_the_next()
    assert (closed, loop.due) == ([], [])
    protocol.on_response_complete()
    loop.go_on_to_the_next()
    assert closed == [1_200.0]


async def test_an_idle_server_wakes_nobody_and_stops_at_once():
    http = HttpServer.bind("127.0.0.1", 0)
    await http.start(answer_ok)
    loop = asyncio.get_running_loop()
    timers = [handle for handle in loop._scheduled if not handle.cancelled()]
    assert timers == []  # nothing that is to happen by itself
    await http.stop()


async def test_what_is_at_work_may_finish_when_the_server_is_stopped():
    begun, gate = asyncio.Event(), asyncio.Event()

    async def answer_late(scope, receive, send):
        begun.set()
        await gate.wait()
        await answer_ok(scope, receive, send)

    http = HttpServer.bind("127.0.0.1", 0)
    await http.start(answer_late)
    host, port = http.url.removeprefix("http://").split(":")
    talking = asyncio.create_task(talk((host, int(port)), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
    await begun.wait()
    stopping = asyncio.create_task(http.stop())
    await asyncio.sleep(0)
    assert not stopping.done()
    gate.set()
    assert (await talking).startswith(b"HTTP/1.1 200")
    await asyncio.wait_for(stopping, 5)


class Packets(asyncio.Transport):
    """A transport that keeps each write."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        pass


async def test_frames_of_one_turn_travel_together():
    sent = asyncio.Event()

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(3):
            await send({"type": "http.response.body", "body": b"f%d" % number, "more_body": True})
        sent.set()
        await asyncio.Event().wait()

    config = create_config(app)
    config.load()
    state = ServerState()
    protocol = config.http_protocol_class(config, state, {})
    packets = Packets()
    protocol.connection_made(packets)
    protocol.data_received(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    await sent.wait()
    await asyncio.sleep(0)
    (packet,) = packets.written
    assert packet.startswith(b"HTTP/1.1 200")
    assert packet.index(b"f0") < packet.index(b"f1") < packet.index(b"f2")
    protocol.connection_lost(None)
    for task in state.tasks:
        task.cancel()
