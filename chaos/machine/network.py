"""The network between components: requests and answers as messages that can be lost or late.

    network.listen("http://broker-1", app, process)
    transport = ChaosTransport(network)          # hanse.sdk.transport.Transport, for one client

One exchange is one connection: its chunks arrive in order, whole or not at all, with the client
told that it broke. Across exchanges anything goes. What can happen to a request, by lot and by
`Weather`: refused at connect; lost on the way, so that the client waits until it gives up; late by
seconds, so that it may arrive after the client gave up; delivered twice, as a proxy may do. To an
answer: cut after some chunks, or stuck. A process that dies breaks its connections at both ends.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Mapping
from contextvars import Context
from dataclasses import dataclass
from random import Random
from typing import Any
from urllib.parse import urlsplit

from chaos.machine.loop import Process, VirtualLoop, get_process
from hanse.sdk.transport import BrokenError, NotSentError, Response
from hanse.sdk.transport.asgi import AsgiApp, Event, make_scope

WAITS_S = (0.0005, 0.001, 0.004, 0.02, 0.1)
"""One way, in fair weather."""

SEND_AHEAD_MAX = 16
"""Chunks on their way that a server may be ahead of its reader, as a socket's buffer allows."""


@dataclass
class Weather:
    """How likely each fault of one exchange is."""

    refused: float = 0.0
    lost: float = 0.0
    late: float = 0.0
    twice: float = 0.0
    cut: float = 0.0
    stuck: float = 0.0


class Network:
    """Who listens where, and the weather that all share.

    `doubled` holds the authorization of requests that were delivered twice.
    """

    def __init__(self, loop: VirtualLoop, lot: Random, counts: "Counter[str]") -> None:
        self.loop = loop
        self.lot = lot
        self.counts = counts
        self.weather = Weather()
        self.doubled: set[str] = set()
        self._apps: dict[str, list[tuple[AsgiApp, Process]]] = {}

    def listen(self, url: str, app: AsgiApp, process: Process) -> None:
        """Serve at an address until the process dies or stops listening.

        Several may serve one address: a balancer stands there, and each request comes to one.
        """
        others = [one for one in self._apps.get(url, []) if one[1].alive and one[1] is not process]
        self._apps[url] = [*others, (app, process)]

    def stop_listening(self, url: str, process: Process) -> None:
        """Refuse connections to it from now on, as far as this process served them."""
        self._apps[url] = [one for one in self._apps.get(url, []) if one[1] is not process]

    def find(self, url: str) -> tuple[AsgiApp, Process] | None:
        """Who serves an address now, if anyone that does lives."""
        found = [one for one in self._apps.get(url, []) if one[1].alive]
        return found[0] if len(found) == 1 else self.lot.choice(found) if found else None

    def get_wait_s(self) -> float:
        """One way."""
        return self.lot.choice(WAITS_S)

    def happens(self, name: str) -> bool:
        """Whether this fault happens now; counts it."""
        chance = getattr(self.weather, name)
        if not chance or self.lot.random() >= chance:
            return False
        self.counts[f"message_{name}"] += 1
        return True


class ChaosTransport:
    """`hanse.sdk.transport.Transport` over the network, for the process that makes it."""

    def __init__(self, network: Network) -> None:
        self._network = network

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, *, silence_s: float
    ) -> Response:
        """See `Transport`."""
        network = self._network
        parts = urlsplit(url)
        target = f"{parts.scheme}://{parts.netloc}"
        await asyncio.sleep(network.get_wait_s())
        if network.find(target) is None or network.happens("refused"):
            raise NotSentError("cannot connect (the chaos network refuses)")
        scope = make_scope(method, url, headers, body)
        client = get_process()
        assert client is not None
        connection = _Connection(network, client, body, silence_s)
        if not network.happens("lost"):
            wait_s = network.get_wait_s()
            if network.happens("late"):
                wait_s += network.lot.uniform(1.0, 40.0)
            _call_later(network, wait_s, connection.arrive, target, scope)
            if network.happens("twice"):
                network.doubled.add(headers.get("authorization", ""))
                again = _Connection(network, client, body, silence_s)  # nobody reads its answer
                later_s = wait_s + network.lot.uniform(0.0, 5.0)
                _call_later(network, later_s, again.arrive, target, dict(scope))
        await connection.wait_head()
        return connection

    async def close(self) -> None:
        """See `Transport`."""


class _Connection:
    """Both ends of one exchange. The client's end is a `Response`."""

    def __init__(self, network: Network, client: Process, body: bytes, silence_s: float) -> None:
        self.status = 0
        self._network = network
        self._client = client
        self._server: Process | None = None
        self._body = body
        self._silence_s = silence_s
        self._headers: dict[str, str] = {}
        # the server's end
        self._was_read = False
        self._client_left = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._on_way = 0
        self._last_due_s = 0.0
        self._is_stuck = False
        # the client's end
        self._closed = False
        self._arrived: deque[bytes | BrokenError | None] = deque()
        self._news = asyncio.Event()
        client.on_death.append(self._lose_client)

    # ------------------------------------------------------------------ the server's end

    def arrive(self, target: str, scope: Event) -> None:
        """The request reaches whoever serves the address now."""
        found = self._network.find(target)
        if found is None:
            self._break("connection reset")
            return
        app, self._server = found
        self._server.on_death.append(lambda: self._break("connection reset"))
        self._server.spawn(self._run(app, scope))

    async def _run(self, app: AsgiApp, scope: Event) -> None:
        try:
            await app(scope, self._receive, self._send)
        except Exception as error:  # as a server does: log, and close the connection
            self._network.counts[f"app_{type(error).__name__}"] += 1
        self._put(BrokenError("the answer broke off"))

    async def _receive(self) -> Event:
        if not self._was_read:
            self._was_read = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self._client_left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, event: Event) -> None:
        if self._client_left.is_set():
            return  # as a server does: what is sent to nobody is dropped
        if event["type"] == "http.response.start":
            headers = {k.decode().lower(): v.decode() for k, v in event.get("headers", [])}
            self._put((event["status"], headers))
            return
        await self._room.wait()
        if chunk := event.get("body", b""):
            self._put(bytes(chunk))
        if not event.get("more_body", False):
            self._put(None)

    def _put(self, item: Any) -> None:
        """Put one thing on its way to the client, after all that went before it."""
        network = self._network
        if self._is_stuck:
            return
        if isinstance(item, bytes):
            if network.happens("cut"):
                item = BrokenError("connection reset")
                self._client_left.set()
            elif network.happens("stuck"):
                self._is_stuck = True
                return
            self._on_way += 1
            if self._on_way >= SEND_AHEAD_MAX:
                self._room.clear()
        now_s = network.loop.time()
        self._last_due_s = max(self._last_due_s + 1e-6, now_s + network.get_wait_s())
        _call_later(network, self._last_due_s - now_s, self._take, item)

    # ------------------------------------------------------------------ the client's end

    def _take(self, item: Any) -> None:
        if self._closed or not self._client.alive:
            return
        if isinstance(item, tuple):
            self.status, self._headers = item
        else:
            self._arrived.append(item)
        self._news.set()

    async def wait_head(self) -> None:
        """Until the head is here; raises BrokenError if it does not come."""
        try:
            async with asyncio.timeout(self._silence_s):
                while not self.status:
                    if self._arrived and isinstance(self._arrived[0], BrokenError):
                        raise self._arrived[0]
                    await self._wait_news()
        except TimeoutError:
            self.close()
            raise BrokenError(f"no answer within {self._silence_s:g} s") from None
        except BaseException:
            self.close()
            raise

    def find_header(self, name: str) -> str | None:
        """See `Response`."""
        return self._headers.get(name)

    async def read(self) -> bytes:
        """See `Response`."""
        try:
            async with asyncio.timeout(self._silence_s):
                while not self._arrived:
                    await self._wait_news()
        except TimeoutError:
            raise BrokenError("the answer stopped coming") from None
        item = self._arrived.popleft()
        if item is None:  # the end, and it stays the end
            self._arrived.appendleft(None)
            return b""
        if isinstance(item, BrokenError):
            raise item
        self._on_way -= 1
        if self._on_way < SEND_AHEAD_MAX and not self._room.is_set():
            self._tell_server(self._room.set)
        return item

    def close(self) -> None:
        """See `Response`."""
        if not self._closed:
            self._closed = True
            self._tell_server(self._client_left.set)
            self._tell_server(self._room.set)

    async def _wait_news(self) -> None:
        self._news.clear()
        await self._news.wait()

    # ------------------------------------------------------------------ both

    def _tell_server(self, what: Callable[[], None]) -> None:
        _call_later(self._network, self._network.get_wait_s(), what)

    def _lose_client(self) -> None:
        self._closed = True
        self._tell_server(self._client_left.set)
        self._tell_server(self._room.set)

    def _break(self, why: str) -> None:
        _call_later(self._network, self._network.get_wait_s(), self._take, BrokenError(why))


def _call_later(network: Network, wait_s: float, what: Callable[..., Any], *args: Any) -> None:
    """In the network's own name: it goes on when sender or receiver dies."""
    network.loop.call_later(wait_s, what, *args, context=Context())
