"""A recorder that answers otherwise than it should: the real one behind a proxy that tampers."""

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec

from hanse.serving import HttpServer

Tamper = Callable[[str, Any], Any]
"""From path and decoded answer to what is sent instead."""


class TamperingApp:
    """ASGI in front of ASGI; `tamper` is None while it is honest."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.tamper: Tamper | None = None
        self.asked: list[str] = []

    async def __call__(self, scope, receive, send) -> None:
        parts, head = [], {}

        async def collect(message) -> None:
            if message["type"] == "http.response.start":
                head.update(message)
            else:
                parts.append(message.get("body", b""))

        await self._app(scope, receive, collect)
        body = b"".join(parts)
        self.asked.append(scope["path"])
        if self.tamper is not None and head["status"] == 200:
            body = msgspec.json.encode(self.tamper(scope["path"], msgspec.json.decode(body)))
        headers = [(name, value) for name, value in head["headers"] if name != b"content-length"]
        headers.append((b"content-length", str(len(body)).encode()))
        await send({**head, "headers": headers})
        await send({"type": "http.response.body", "body": body})


@contextlib.asynccontextmanager
async def run_tampering(app: Any) -> AsyncIterator[tuple[TamperingApp, str]]:
    """Serve a tampering proxy on a port of its own."""
    tampering = TamperingApp(app)
    server = HttpServer.bind("127.0.0.1", 0)
    await server.start(tampering)
    try:
        yield tampering, server.url
    finally:
        await server.stop()
