"""Running a gateway: socket, signals, graceful drain.

    async with Hanse.open(sdk_settings) as hanse:
        keys = await open_api_keys(database, time.time)
        await serve_gateway(settings, hanse, keys)

SIGTERM and SIGINT drain: nothing new is admitted, requests at work have `drain_s` to finish, what
is left then is cancelled (and its delivered prefix paid). A second signal does not wait.
"""

import asyncio
import os
import resource
import signal
import socket
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import FrameType

import uvicorn
from uvicorn.loops.auto import auto_loop_factory

from hanse.gateway.api_keys import ApiKeys, open_api_keys
from hanse.gateway.app import GatewayApp
from hanse.gateway.client import MarketClient
from hanse.gateway.http_protocol import BoundedHttpProtocol
from hanse.gateway.settings import GatewaySettings
from hanse.protocol.errors import HanseError, RequestError
from hanse.store import open_sqlite

CLOSING_S = 5
"""For cancelled requests to hang up on their providers and tell their applications."""

DESCRIPTORS_KEPT = 128
"""Descriptors that connections may not take: the books, the chain and logs need some."""

BACKLOG = 1_024
"""Connections that the system accepts before this process takes them."""

OnReady = Callable[["GatewayServer", int], None]
"""Told once the socket listens, with the server and the real port."""


class GatewayServer(uvicorn.Server):
    """uvicorn's server, except that it drains before it closes."""

    def __init__(
        self,
        config: uvicorn.Config,
        gateway: GatewayApp,
        drain_s: float,
        on_ready: OnReady | None = None,
    ) -> None:
        super().__init__(config)
        self.gateway = gateway
        self._drain_s = drain_s
        self._on_ready = on_ready
        self._drained: asyncio.Task[None] | None = None
        self.loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and tell."""
        await super().startup(sockets)
        if self._on_ready is not None:
            self._on_ready(self, sockets[0].getsockname()[1] if sockets else self.config.port)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """First signal: drain. Second: stop at once."""
        if self._drained is not None or self.loop is None:
            self.should_exit = True
            self.force_exit = sig == signal.SIGINT
            return
        self.loop.call_soon_threadsafe(self.drain)

    def drain(self) -> None:
        """Admit nothing more, wait for what is at work, then stop."""
        if self._drained is None:
            self.gateway.drain()
            self._drained = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        await self.gateway.wait_idle(self._drain_s)
        self.gateway.cut()
        await self.gateway.wait_idle(CLOSING_S)
        self.should_exit = True


async def serve_gateway(
    settings: GatewaySettings,
    client: MarketClient,
    keys: ApiKeys,
    on_ready: OnReady | None = None,
) -> None:
    """Serve until a signal or `GatewayServer.drain`; returns when everything is finished.

    Args:
        settings: where to listen and what to bound.
        client: an open `Hanse`.
        keys: who may ask.
        on_ready: told once the socket listens, with the server and the real port.
    """
    listener = _listen(settings)
    app = GatewayApp(settings, client, keys)
    server = GatewayServer(_get_config(settings, app), app, settings.drain_s, on_ready)
    server.loop = asyncio.get_running_loop()
    refreshing = asyncio.create_task(_refresh(keys, settings.keys_refresh_s))
    try:
        await server.serve([listener])
    finally:
        refreshing.cancel()
        listener.close()


def run_gateway(
    settings: GatewaySettings,
    open_client: Callable[[], AbstractAsyncContextManager[MarketClient]],
    database_path: str | os.PathLike[str],
    on_ready: OnReady | None = None,
) -> None:
    """Open everything, serve until a signal, close everything. Blocks; for a process of its own.

    Args:
        settings: where to listen and what to bound.
        open_client: gives an open `Hanse`; opening it resumes the vouchers whose end is unknown.
        database_path: SQLite file of the API keys; made with mode 0600 if it is not there.
        on_ready: see `serve_gateway`.
    """

    async def run() -> None:
        database = await open_sqlite(database_path)
        try:
            keys = await open_api_keys(database, time.time)
            async with open_client() as client:
                await serve_gateway(settings, client, keys, on_ready)
        finally:
            await database.close()

    with asyncio.Runner(loop_factory=auto_loop_factory()) as runner:
        runner.run(run())


def _listen(settings: GatewaySettings) -> socket.socket:
    """A listening socket.

    Raises:
        RequestError: `configuration_invalid` if the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listener = socket.create_server(
            (settings.host, settings.port), family=family, backlog=BACKLOG, reuse_port=False
        )
    except OSError as error:
        raise RequestError(
            "configuration_invalid",
            f"cannot listen on {settings.host} port {settings.port}: {error.strerror}; "
            "name another port, or stop what listens there",
            param="port",
        ) from None
    # Accepted sockets inherit it. asyncio sets it only on sockets whose protocol number is given,
    # and a stream of small frames without it waits 40 ms for the other end's delayed ACK.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def grant_connections(wanted: int) -> int:
    """Connections that this process may hold: raises its descriptors as far as the system lets.

    Without descriptors left nothing works: neither the books nor a request to a provider.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * wanted + DESCRIPTORS_KEPT  # one to the application, one to the provider
    if hard != resource.RLIM_INFINITY:
        needed = min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    else:
        needed = max(needed, soft)
    return max(1, min(wanted, (needed - DESCRIPTORS_KEPT) // 2))


def _get_config(settings: GatewaySettings, app: GatewayApp) -> uvicorn.Config:
    class Protocol(BoundedHttpProtocol):
        connections_max = grant_connections(settings.connections_max)

    return uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",  # its warnings are one line for each malformed request
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=CLOSING_S,
    )


async def _refresh(keys: ApiKeys, every_s: float) -> None:
    """Follow what other processes do to the keys; a database that is away for a while is no end."""
    while True:
        await asyncio.sleep(every_s)
        try:
            await keys.refresh()
        except HanseError:
            continue
