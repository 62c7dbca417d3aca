"""A server inside a loop of our own: bound first, started later, stopped by whoever started it."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn

from hanse.serving.connection import HEAD_READ_S
from hanse.serving.listener import CONNECTIONS_MAX, create_config, listen


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the process: it has to drain before the listener closes."""
        yield


class HttpServer:
    """A listening ASGI application. `bind` first, so that the port is known before it serves.

    Attributes:
        url: the base URL at the bound address, also once it is closed: what runs beside the server
            may still ask for it while the process stops.
    """

    def __init__(self, listener: socket.socket) -> None:
        self._socket = listener
        host, port = listener.getsockname()[:2]
        self.url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None

    @classmethod
    def bind(cls, host: str, port: int) -> "HttpServer":
        """Take an address; port 0 takes a free port.

        Raises:
            RequestError: `configuration_invalid` if it cannot be had.
        """
        return cls(listen(host, port))

    async def start(
        self,
        app: Any,
        *,
        connections_max: int = CONNECTIONS_MAX,
        head_read_s: float = HEAD_READ_S,
    ) -> None:
        """Serve; returns once connections are accepted."""
        config = create_config(app, connections_max=connections_max, head_read_s=head_read_s)
        self._server = _Server(config)
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        while not self._server.started:
            if self._task.done():
                self._task.result()
                return
            await asyncio.sleep(0.005)

    async def stop(self) -> None:
        """Close the listener and the connections; what is still at work is cancelled in time."""
        if self._server is not None and self._task is not None:
            self._server.should_exit = True
            await self._task
        self._socket.close()
