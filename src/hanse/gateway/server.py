"""Running a gateway: socket, signals, graceful drain.

    async with Hanse.open(sdk_settings) as hanse:
        keys = await open_api_keys(database, time.time)
        await serve_gateway(settings, hanse, keys)

SIGTERM and SIGINT drain: nothing new is admitted, requests at work have `drain_s` to finish, what
is left then is cancelled (and its delivered prefix paid). A second signal does not wait. SIGHUP
reads the settings anew, where there is a file to read them from.

The loops behind it (keys and limits of other processes, money, what limits hold back) must not end:
should one, the gateway drains and says why.
"""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import FrameType

import uvicorn
from uvicorn.loops.auto import auto_loop_factory

from hanse.gateway.app import GatewayApp
from hanse.gateway.budgets.admission import Budgets, open_budgets
from hanse.gateway.client import MarketClient
from hanse.gateway.keys import ApiKeys, open_api_keys
from hanse.gateway.resilience.fallback import open_local
from hanse.gateway.resilience.reloading import reload
from hanse.gateway.settings import GatewaySettings
from hanse.gateway.telemetry.tracing import trace_requests
from hanse.serving import CLOSING_S, Loops, QuietServer, create_config, listen
from hanse.store import open_database

OnReady = Callable[["GatewayServer", int], None]
"""Told once the socket listens, with the server and the real port."""

ReadSettings = Callable[[], GatewaySettings]
"""Gives the settings as they stand now; raises a HanseError for what is wrong with them."""


class GatewayServer(QuietServer):
    """uvicorn's server, except that it drains before it closes."""

    def __init__(
        self,
        config: uvicorn.Config,
        gateway: GatewayApp,
        on_ready: OnReady | None = None,
    ) -> None:
        super().__init__(config)
        self.gateway = gateway
        self._on_ready = on_ready
        self._drained: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and tell."""
        await super().startup(sockets)
        if self._on_ready is not None:
            self._on_ready(self, sockets[0].getsockname()[1] if sockets else self.config.port)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """First signal: drain. Second: stop at once."""
        if self._drained is not None:
            self.should_exit = True
            self.force_exit = sig == signal.SIGINT
            return
        self.loop.call_soon_threadsafe(self.drain)

    def drain(self) -> None:
        """Admit nothing more, wait for what is at work, then stop."""
        if self._drained is None:
            self.gateway.paid.drain()
            self._drained = asyncio.get_running_loop().create_task(self._drain())

    async def _drain(self) -> None:
        if self.gateway.settings.shared_port and self.started:
            await asyncio.sleep(0)  # a turn of the loop takes the connections that wait
            for listening in self.servers:
                listening.close()
        await self.gateway.paid.wait_idle(self.gateway.settings.drain_s)
        self.gateway.paid.cut()
        await self.gateway.paid.wait_idle(CLOSING_S)
        self.should_exit = True


async def serve_gateway(
    settings: GatewaySettings,
    client: MarketClient,
    keys: ApiKeys,
    on_ready: OnReady | None = None,
    budgets: Budgets | None = None,
    read_settings: ReadSettings | None = None,
) -> None:
    """Serve until a signal or `GatewayServer.drain`; returns when everything is finished.

    Args:
        settings: where to listen and what to bound.
        client: an open `Hanse`.
        keys: who may ask.
        on_ready: told once the socket listens, with the server and the real port.
        budgets: what they may spend; None for no limits at all.
        read_settings: reads the settings anew at SIGHUP; None to end at it, as processes do.

    Raises:
        Exception: why one of its loops has ended, once what was at work is finished.
    """
    async with open_local(settings.fallback_url) as local, trace_requests(settings) as tracing:
        app = GatewayApp(settings, client, keys, budgets=budgets, local=local, tracing=tracing)
        await _serve(app, keys, on_ready, budgets, read_settings)


async def _serve(
    app: GatewayApp,
    keys: ApiKeys,
    on_ready: OnReady | None,
    budgets: Budgets | None,
    read_settings: ReadSettings | None,
) -> None:
    settings, loop = app.settings, asyncio.get_running_loop()
    listener = listen(settings.host, settings.port, is_shared=settings.shared_port)
    config = create_config(
        app,
        connections_max=settings.connections_max,
        descriptors_each=2,  # one to the application, one to the provider
        keep_alive_s=settings.keep_alive_s,
    )
    server = GatewayServer(config, app, on_ready)
    if read_settings is not None:
        loop.add_signal_handler(
            signal.SIGHUP, lambda: reload(read_settings, app.settings, app.apply)
        )
    loops = Loops("gateway", on_failed=server.drain)
    loops.repeat(settings.keys_refresh_s, keys.refresh)
    loops.spawn(app.money.run(settings.money_look_s))
    if budgets is not None:
        loops.repeat(settings.keys_refresh_s, budgets.refresh)
        loops.spawn(budgets.ledger.run())
    try:
        await server.serve([listener])
        if loops.failed.done():
            loops.failed.result()  # raises why
    finally:
        await loops.stop()
        loops.close()
        listener.close()
        if read_settings is not None:
            loop.remove_signal_handler(signal.SIGHUP)


def run_gateway(
    settings: GatewaySettings,
    open_client: Callable[[], AbstractAsyncContextManager[MarketClient]],
    database_path: str | os.PathLike[str],
    on_ready: OnReady | None = None,
    read_settings: ReadSettings | None = None,
) -> None:
    """Open everything, serve until a signal, close everything. Blocks; for a process of its own.

    Args:
        settings: where to listen and what to bound.
        open_client: gives an open `Hanse`; opening it resumes the vouchers whose end is unknown.
        database_path: file or URL of the API keys; a file is made with mode 0600.
        on_ready: see `serve_gateway`.
        read_settings: see `serve_gateway`.
    """

    async def run() -> None:
        database = await open_database(database_path)
        try:
            keys = await open_api_keys(database, time.time)
            async with open_client() as client:
                budgets = await open_budgets(database, keys, client, time.time)
                await serve_gateway(settings, client, keys, on_ready, budgets, read_settings)
                await budgets.ledger.close()
        finally:
            await database.close()

    with asyncio.Runner(loop_factory=auto_loop_factory()) as runner:
        runner.run(run())
