"""A server inside a loop of our own: bound first, started later, stopped by whoever started it.

uvicorn's looks ten times a second whether it is to stop, and at its end waits in tenths of a second
for what is at work: an idle process is woken for nothing, and a test with three servers takes half
a second to end. `QuietServer` sleeps until it is told.

Source: uvicorn 0.54, `uvicorn/server.py`.
"""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn

from hanse.serving.connection import HEAD_READ_S
from hanse.serving.listener import CONNECTIONS_MAX, create_config, listen

ENDED_LOOK_S = 0.005
"""Between looks whether what was at work has ended, once the server is stopped."""


class QuietServer(uvicorn.Server):
    """uvicorn's server, which does nothing while nothing happens. Create it inside its loop.

    Attributes:
        loop: in which it runs.
        listening: set once connections are accepted.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        self.loop = asyncio.get_running_loop()
        self.listening = asyncio.Event()
        self._stopping = asyncio.Event()
        self._should_exit = False
        super().__init__(config)

    @property
    def should_exit(self) -> bool:
        """Whether it is to stop; may be set in a signal's handler and in another thread."""
        return self._should_exit

    @should_exit.setter
    def should_exit(self, value: bool) -> None:
        self._should_exit = value
        if value:
            self.loop.call_soon_threadsafe(self._stopping.set)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and tell."""
        await super().startup(sockets)
        self.listening.set()

    async def main_loop(self) -> None:
        """Wait to be stopped."""
        await self._stopping.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen no more, and hang up once what is at work has ended, or is cancelled in time."""
        for listener in (*self.servers, *(sockets or ())):
            listener.close()
        connections, tasks = self.server_state.connections, self.server_state.tasks
        for connection in tuple(connections):
            connection.shutdown()
        try:
            async with asyncio.timeout(self.config.timeout_graceful_shutdown):
                while (connections or tasks) and not self.force_exit:  # noqa: ASYNC110 - plain sets
                    await asyncio.sleep(ENDED_LOOK_S)
                for server in self.servers:
                    await server.wait_closed()
        except TimeoutError:
            for task in tasks:
                task.cancel()


class _Server(QuietServer):
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
        listening = asyncio.create_task(self._server.listening.wait())
        await asyncio.wait({self._task, listening}, return_when=asyncio.FIRST_COMPLETED)
        listening.cancel()
        if self._task.done():
            self._task.result()

    async def stop(self) -> None:
        """Close the listener and the connections; what is still at work is cancelled in time."""
        if self._server is not None and self._task is not None:
            self._server.should_exit = True
            await self._task
        self._socket.close()
