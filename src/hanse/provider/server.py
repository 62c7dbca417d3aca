"""uvicorn with the limits that it lacks, run inside a loop of our own.

uvicorn bounds neither the length of a request's head nor the time it may take to arrive, nor what
is sent ahead or left unread, nor, in a way that suits us, the number of connections;
`BoundedHttpProtocol` does. Signals stay ours, because draining has to come before the listener
closes.
"""

import asyncio
import contextlib
import resource
import socket
from collections.abc import Iterator
from typing import Any, ClassVar

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from hanse.provider.app import ABORT

HEAD_BYTES_MAX = 16 * 1024
"""Request line and headers: the voucher takes 4 kB at most, browsers and proxies add a few more."""

HEAD_TIME_S = 10.0
"""For a head to arrive once its first byte, or the connection, is there; and for whatever else
comes while nothing is being served, such as the rest of a body that was refused.
"""

PIPELINED_MAX = 8
"""Requests sent ahead on one connection: each takes 2 kB, and one read can hold 10,000 of them."""

CLOSE_TIME_S = 5.0
"""For the other end to take what was sent before a closed connection is dropped."""

CONNECTIONS_MAX = 8_192
"""Open connections; more are closed at once. Fewer where the system grants fewer descriptors."""

DESCRIPTORS_KEPT = 128
"""Descriptors that connections may not take: the store, the engines and the chain need some."""

KEEP_ALIVE_S = 75
"""An idle connection is kept this long: longer than the pools of common clients."""

_BACKLOG = 2_048


GATHERED_BYTES_MAX = 64 * 1024
"""Written without waiting for the turn's end: so the transport's own buffer limits are seen."""


class _HeadTooLargeError(Exception):
    pass


class _SentAheadError(Exception):
    pass


class _GatheringTransport:
    """Hands everything written in one turn of the loop to the network in one system call.

    A status line and its first frame, or frames that an engine gave together, then travel as one
    packet. Nothing waits: the call is made before the loop looks at the network again.
    """

    __slots__ = ("_inner", "_loop", "_parts", "_size")

    def __init__(self, inner: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._inner = inner
        self._loop = loop
        self._parts: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> None:
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)
        self._size += len(data)
        if self._size > GATHERED_BYTES_MAX:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._inner.close()

    def _flush(self) -> None:
        if self._parts and not self._inner.is_closing():
            self._inner.write(b"".join(self._parts))
        self._parts.clear()
        self._size = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class BoundedHttpProtocol(HttpToolsProtocol):
    """One connection, with a bounded head."""

    head_time_s: ClassVar[float] = HEAD_TIME_S
    connections_max: ClassVar[int] = CONNECTIONS_MAX
    _head_bytes = 0
    _in_head = False
    _idle_bytes = 0
    _has_advanced = False
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, or close it if there are too many."""
        super().connection_made(_GatheringTransport(transport, self.loop))  # type: ignore[arg-type]
        if len(self.connections) > min(self.connections_max, get_connections_max()):
            transport.abort()
            return
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer with the connection."""
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bound what the parser keeps to itself, and how long it may come while nothing is served.

        The parser reports a header at its end only, and a trailer behind a chunked body likewise:
        so bytes count that bring the request no further.
        """
        self._has_advanced = False
        super().data_received(data)
        if self.transport.is_closing():
            return
        self._idle_bytes = 0 if self._has_advanced else self._idle_bytes + len(data)
        is_idle = self.cycle is None or (self.cycle.response_complete and not self.pipeline)
        if self._idle_bytes > HEAD_BYTES_MAX:
            self.send_400_response("This is more than a head may have.")
        elif is_idle and self._head_timer is None and self.timeout_keep_alive_task is None:
            # uvicorn stops its idle timer at any byte, and starts it after an answer only.
            self._arm()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP; into an answer that has begun nothing is mixed."""
        if self.cycle is not None and self.cycle.response_started != self.cycle.response_complete:
            self.transport.abort()
        else:
            super().send_400_response(msg)

    def on_body(self, body: bytes) -> None:
        """Part of a body."""
        self._has_advanced = True
        super().on_body(body)

    def on_message_begin(self) -> None:
        """A new head begins."""
        super().on_message_begin()
        self._head_bytes = 0
        self._in_head = True
        if self._head_timer is None:
            self._arm()

    def on_url(self, url: bytes) -> None:
        """Part of the request line."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self._count(len(name) + len(value) + 4)
        if self._in_head:  # else a trailer, which nobody asked for
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is there in time."""
        self._disarm()
        self._in_head = False
        self._has_advanced = True
        self.scope["state"][ABORT] = self.transport.abort
        super().on_headers_complete()
        if len(self.pipeline) > PIPELINED_MAX:
            self.transport.abort()
            raise _SentAheadError

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that idles, also if its other end does not read."""
        self._close()

    def _count(self, length: int) -> None:
        self._head_bytes += length
        if self._head_bytes > HEAD_BYTES_MAX:
            raise _HeadTooLargeError  # the parser reports it, and the connection ends with 400

    def _arm(self) -> None:
        self._head_timer = self.loop.call_later(self.head_time_s, self._close)

    def _close(self) -> None:
        self.transport.close()
        self.loop.call_later(CLOSE_TIME_S, self.transport.abort)

    def _disarm(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


def get_connections_max() -> int:
    """Connections for which this process has descriptors."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = CONNECTIONS_MAX + DESCRIPTORS_KEPT if soft == resource.RLIM_INFINITY else soft
    return max(1, most - DESCRIPTORS_KEPT)


def raise_descriptor_limit() -> None:
    """Take as many descriptors as connections may need, up to what the system grants."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS_MAX + DESCRIPTORS_KEPT
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the process."""
        yield


class HttpServer:
    """A listening ASGI application. `bind` first, so that the port is known before it serves."""

    def __init__(self, listener: socket.socket) -> None:
        self._socket = listener
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None

    @classmethod
    def bind(cls, host: str, port: int) -> "HttpServer":
        """Take an address; port 0 takes a free port.

        Raises:
            OSError: the address is taken or not ours.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # the protocol is named: asyncio turns Nagle's algorithm off only where it can see TCP, and
        # with it on a stream's first frame waits 40 ms for the caller's delayed acknowledgement
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen(_BACKLOG)
        except OSError:
            listener.close()
            raise
        return cls(listener)

    @property
    def url(self) -> str:
        """The base URL at the bound address."""
        host, port = self._socket.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def start(
        self, app: Any, protocol: type[BoundedHttpProtocol] = BoundedHttpProtocol
    ) -> None:
        """Serve; returns once connections are accepted."""
        raise_descriptor_limit()
        config = uvicorn.Config(
            app,
            http=protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",  # its warnings are one line for each malformed request
            access_log=False,
            server_header=False,
            proxy_headers=False,
            date_header=False,
            backlog=_BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=5,
        )
        self._server = _Server(config)
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        while not self._server.started:
            if self._task.done():
                self._task.result()
                return
            await asyncio.sleep(0.005)

    async def stop(self) -> None:
        """Close the listener and the connections; what is still at work is cancelled after 5 s."""
        if self._server is not None and self._task is not None:
            self._server.should_exit = True
            await self._task
        self._socket.close()
