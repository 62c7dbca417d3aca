"""A request learns that its other end has hung up: from the connection, or from plain ASGI."""

import asyncio

import pytest

from hanse.serving import HttpServer, watch_departure


class Waiting:
    """An app that reads its body and then waits to be left."""

    def __init__(self) -> None:
        self.body = 0
        self.begun = asyncio.Event()
        self.left = asyncio.Event()

    async def __call__(self, scope, receive, send):
        more = True
        while more:
            event = await receive()
            self.body += len(event["body"])
            more = event["more_body"]
        stop = watch_departure(scope["state"], receive, self.left.set)
        self.begun.set()
        await asyncio.wait_for(self.left.wait(), 5)
        stop()


@pytest.mark.parametrize("size", [0, 2, 1_000_000], ids=["none", "small", "paused"])
async def test_a_connection_that_ends_is_told_of(size):
    app, http = Waiting(), HttpServer.bind("127.0.0.1", 0)
    await http.start(app)
    host, port = http.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    head = f"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {size}\r\n\r\n".encode()
    writer.write(head + b"a" * size)
    await asyncio.wait_for(app.begun.wait(), 5)
    assert app.body == size
    assert not app.left.is_set()
    writer.close()
    await asyncio.wait_for(app.left.wait(), 5)
    await http.stop()


async def test_a_request_that_has_ended_is_not_told_of_its_connections_end():
    told: list[str] = []

    async def app(scope, receive, send):
        stop = watch_departure(scope["state"], receive, lambda: told.append(scope["path"]))
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})
        stop()

    http = HttpServer.bind("127.0.0.1", 0)
    await http.start(app)
    host, port = http.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    for _ in range(2):
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204")
    writer.close()
    await http.stop()
    assert told == []


async def test_behind_another_server_its_disconnect_is_waited_for():
    events = asyncio.Queue()
    left = asyncio.Event()
    watch_departure({}, events.get, left.set)
    await events.put({"type": "http.request", "body": b"", "more_body": False})
    await asyncio.sleep(0)
    assert not left.is_set()
    await events.put({"type": "http.disconnect"})
    await asyncio.wait_for(left.wait(), 5)

    left.clear()
    stop = watch_departure({}, events.get, left.set)
    stop()
    await events.put({"type": "http.disconnect"})
    for _ in range(5):
        await asyncio.sleep(0)
    assert not left.is_set()
