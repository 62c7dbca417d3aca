"""Pooled connections to HTTP/1.1 servers.

Nothing is retried, no redirect is followed, no cookie is kept, no proxy is asked, nothing is
decompressed: the bytes are those that were sent. Names are looked up, and addresses of both
families tried, as RFC 8305 has it.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import NamedTuple

import aiohappyeyeballs
from yarl import URL

from hanse.http.connection import HttpConnection
from hanse.http.errors import HttpConnectError
from hanse.http.response import HttpResponse

IDLE_PER_HOST_MAX = 1_024
"""Idle connections kept to one server; each is a descriptor."""

URLS_MAX = 1_024
"""URLs whose parts are remembered: a few paths of each server that is called."""

EYEBALLS_DELAY_S = 0.25
"""Before the next address is tried beside a slow one; RFC 8305's recommendation."""

TOTAL_S = 1_800.0
"""For one exchange, so that dripping bytes cannot hold it for ever."""

AddressInfo = tuple[
    int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[object, ...]
]
"""One resolved address, as `getaddrinfo` gives it."""

SocketFactory = Callable[[AddressInfo], socket.socket]

_Place = tuple[bool, str, int]


class _Target(NamedTuple):
    """Where a URL leads (TLS, host, port), and its part of a request's head."""

    place: _Place
    head: bytes


class HttpClient:
    """See `hanse.http`. Create it inside a running event loop."""

    def __init__(
        self,
        *,
        connect_s: float,
        idle_s: float = 30.0,
        connections_max: int | None = None,
        socket_factory: SocketFactory | None = None,
        unix_path: str | None = None,
    ) -> None:
        """Open no connection yet.

        Args:
            connect_s: until a connection stands, the name's look-up and TLS included.
            idle_s: how long a connection is kept without use; 0 for never.
            connections_max: at once; who comes then waits.
            socket_factory: makes the socket to one resolved address, or raises OSError.
            unix_path: connect there, whatever the URL's host.
        """
        self._loop = asyncio.get_running_loop()
        self._connect_s = connect_s
        self._idle_s = idle_s
        self._room = asyncio.Semaphore(connections_max) if connections_max else None
        self._socket_factory = socket_factory
        self._unix_path = unix_path
        self._tls: ssl.SSLContext | None = None
        self._idle: dict[_Place, list[HttpConnection]] = {}
        self._places: dict[HttpConnection, _Place] = {}
        self._is_closed = False

    async def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes = b"",
        *,
        silence_s: float,
        total_s: float = TOTAL_S,
    ) -> HttpResponse:
        """Send one request and wait for the head of its answer.

        Args:
            method: such as `POST`.
            url: absolute.
            headers: besides host and content-length.
            body: in one piece.
            silence_s: until the head, and then between two arrivals.
            total_s: for everything.

        Raises:
            ValueError: the URL or a header is none.
            HttpConnectError: no connection; nothing was sent.
            HttpBrokenError: no whole head came.
        """
        target = _read_url(url)
        request = _encode(method, target, headers, body)
        if self._room is not None:
            await self._room.acquire()
        try:
            connection = self._take_idle(target.place) or await self._connect(target.place)
        except BaseException:
            if self._room is not None:
                self._room.release()
            raise
        return await connection.exchange(request, silence_s=silence_s, total_s=total_s)

    async def close(self) -> None:
        """Hang up everywhere."""
        self._is_closed = True
        for connection in tuple(self._places):
            connection.abort()
        await asyncio.sleep(0)  # the transports let go of their sockets

    def _take_idle(self, place: _Place) -> HttpConnection | None:
        idle = self._idle.get(place)
        while idle:
            connection = idle.pop()
            if connection.is_open:
                return connection
        return None

    async def _connect(self, place: _Place) -> HttpConnection:
        if self._is_closed:
            raise HttpConnectError("this client is closed")

        def create() -> HttpConnection:
            return HttpConnection(self._loop, self._idle_s, self._take_back, self._forget)

        is_tls, host, port = place
        sock: socket.socket | None = None
        try:
            async with asyncio.timeout(self._connect_s):
                if self._unix_path is not None:
                    _, connection = await self._loop.create_unix_connection(create, self._unix_path)
                else:
                    sock = await self._open_socket(host, port)
                    _, connection = await self._loop.create_connection(
                        create,
                        sock=sock,
                        ssl=self._get_tls() if is_tls else None,
                        server_hostname=host if is_tls else None,
                    )
        # A time-out and TLS's errors are OSErrors; uvloop has a RuntimeError for some.
        except (OSError, UnicodeError, RuntimeError) as error:
            if sock is not None:
                sock.close()
            raise HttpConnectError(f"cannot connect ({type(error).__name__})") from error
        self._places[connection] = place
        return connection

    async def _open_socket(self, host: str, port: int) -> socket.socket:
        infos = await self._loop.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP
        )
        return await aiohappyeyeballs.start_connection(
            infos,
            happy_eyeballs_delay=EYEBALLS_DELAY_S,
            interleave=1,
            loop=self._loop,
            socket_factory=self._socket_factory,
        )

    def _get_tls(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls

    def _take_back(self, connection: HttpConnection, is_reusable: bool) -> None:
        if self._room is not None:
            self._room.release()
        if not is_reusable:
            self._places.pop(connection, None)
            return
        idle = self._idle.setdefault(self._places[connection], [])
        if self._is_closed or len(idle) >= IDLE_PER_HOST_MAX:
            connection.abort()
        else:
            idle.append(connection)

    def _forget(self, connection: HttpConnection) -> None:
        """A connection is closed: by its other end, or by either side's patience."""
        place = self._places.pop(connection, None)
        idle = self._idle.get(place) if place else None
        if idle is not None and connection in idle:
            idle.remove(connection)
        if place is not None and not idle:
            self._idle.pop(place, None)


async def fetch_status(url: str, *, within_s: float) -> int:
    """The status of one GET, by a connection of its own; what comes behind the head is not read.

    Raises:
        ValueError: the URL is none.
        OSError: no answer, or none in time.
    """
    client = HttpClient(connect_s=within_s, idle_s=0)
    try:
        async with asyncio.timeout(within_s):
            answer = await client.send("GET", url, {"user-agent": "hanse"}, silence_s=within_s)
            answer.close()
            return answer.status
    finally:
        await client.close()


@lru_cache(URLS_MAX)
def _read_url(text: str) -> _Target:
    """Where it leads.

    Raises:
        ValueError: it is no absolute http(s) URL.
    """
    url = URL(text)
    if url.scheme not in ("http", "https") or not url.raw_host or url.port is None:
        raise ValueError("not an absolute http or https URL")
    if url.raw_user is not None or url.raw_password is not None:
        raise ValueError("a URL with a name or a password in it")
    head = f" {url.raw_path_qs} HTTP/1.1\r\nhost: {url.host_port_subcomponent}\r\n".encode("ascii")
    if head.count(b"\r\n") != 2 or head.count(b" ") != 3:
        raise ValueError("a URL with white space in it")
    return _Target((url.scheme == "https", url.raw_host, url.port), head)


def _encode(method: str, target: _Target, headers: Mapping[str, str], body: bytes) -> bytes:
    lines = ""
    for name, value in headers.items():
        lines += f"{name}: {value}\r\n"
    if lines.count("\r") != len(headers) or lines.count("\n") != len(headers) or "\0" in lines:
        raise ValueError("a header holds a line's end")
    length = b"content-length: %d\r\n\r\n" % len(body) if body or method == "POST" else b"\r\n"
    return method.encode("ascii") + target.head + lines.encode("latin-1") + length + body
