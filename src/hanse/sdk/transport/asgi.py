"""`Transport` to ASGI apps in this process: tests without sockets, with the same code above it.

    transport = AsgiTransport({"http://provider-1": app})

What an app sends arrives chunk by chunk; closing a response tells the app that its caller has left
(`http.disconnect`). An app that raises, or ends in mid-body, looks like a connection that broke.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from hanse.sdk.transport import BrokenError, NotSentError, Response

Event = MutableMapping[str, Any]
AsgiApp = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Event]], Callable[[Event], Awaitable[None]]],
    Awaitable[None],
]

CHUNKS_AHEAD_MAX = 16
"""Chunks an app may send ahead of its reader, as a socket's buffer would let it."""


class AsgiTransport:
    """`Transport` to apps by base URL; one that is taken out of `apps` refuses connections."""

    def __init__(self, apps: Mapping[str, AsgiApp]) -> None:
        self.apps = dict(apps)
        self._tasks: set[asyncio.Task[None]] = set()

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, *, silence_s: float
    ) -> Response:
        """See `Transport.send`."""
        parts = urlsplit(url)
        app = self.apps.get(f"{parts.scheme}://{parts.netloc}")
        if app is None:
            raise NotSentError("cannot connect (no such app)")
        scope = make_scope(method, url, headers, body)
        exchange = _AsgiResponse(body, silence_s)
        task = asyncio.create_task(exchange.run(app, scope))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        exchange.task = task
        await exchange.wait_head()
        return exchange

    async def close(self) -> None:
        """See `Transport.close`."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def make_scope(method: str, url: str, headers: Mapping[str, str], body: bytes) -> Event:
    """What an ASGI server tells an app of a request from this machine."""
    parts = urlsplit(url)
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": parts.scheme,
        "path": parts.path,
        "raw_path": parts.path.encode(),
        "query_string": parts.query.encode(),
        "root_path": "",
        "headers": [(k.lower().encode(), v.encode()) for k, v in headers.items()]
        + [(b"content-length", str(len(body)).encode())],
        "client": ("127.0.0.1", 0),
        "server": (parts.hostname, parts.port),
    }


class _AsgiResponse:
    def __init__(self, body: bytes, silence_s: float) -> None:
        self.status = 0
        self.task: asyncio.Task[None] | None = None
        self._headers: dict[str, str] = {}
        self._body = body
        self._silence_s = silence_s
        self._was_read = False
        self._left = asyncio.Event()
        self._head = asyncio.Event()
        self._chunks: asyncio.Queue[bytes | None] = asyncio.Queue(CHUNKS_AHEAD_MAX)
        self._ended = False
        self._was_answered = False  # and all of it read

    async def run(self, app: AsgiApp, scope: MutableMapping[str, Any]) -> None:
        with contextlib.suppress(Exception):  # a crash of the app shows as a broken connection
            await app(scope, self._receive, self._send)
        if not self._ended and not self._left.is_set():
            await self._chunks.put(None)
        self._head.set()

    async def wait_head(self) -> None:
        try:
            async with asyncio.timeout(self._silence_s):
                await self._head.wait()
        except TimeoutError:
            self.close()
            raise BrokenError(f"no answer within {self._silence_s:g} s") from None
        except asyncio.CancelledError:
            self.close()
            raise
        if not self.status:
            raise BrokenError("no answer (the app broke off)")

    def find_header(self, name: str) -> str | None:
        return self._headers.get(name)

    async def read(self) -> bytes:
        if self._was_answered:
            return b""
        try:
            async with asyncio.timeout(self._silence_s):
                chunk = await self._chunks.get()
        except TimeoutError:
            raise BrokenError("the answer stopped coming") from None
        if chunk is not None:
            return chunk
        if not self._ended:
            raise BrokenError("the answer broke off")
        self._was_answered = True
        return b""

    def close(self) -> None:
        self._left.set()
        while not self._chunks.empty():
            self._chunks.get_nowait()

    async def _receive(self) -> Event:
        if not self._was_read:
            self._was_read = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, event: Event) -> None:
        if self._left.is_set():
            return  # as a server does: what is sent to nobody is dropped
        if event["type"] == "http.response.start":
            self.status = event["status"]
            self._headers = {k.decode().lower(): v.decode() for k, v in event.get("headers", [])}
            self._head.set()
            return
        if chunk := event.get("body", b""):
            await self._chunks.put(bytes(chunk))
        if not event.get("more_body", False):
            self._ended = True
            await self._chunks.put(None)
