"""A gateway in a thread with a loop of its own, for callers that block."""

import asyncio
import threading
from typing import Any

from tests.gateway.gateway_parts import RunningGateway, run_gateway_here


class GatewayThread:
    """`with GatewayThread(market) as server:` listens on loopback until the end of the block."""

    def __init__(self, market: Any) -> None:
        self._market = market
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._running: RunningGateway

    @property
    def root_url(self) -> str:
        return self._running.base_url.removesuffix("/v1")

    @property
    def port(self) -> int:
        return self._running.port

    @property
    def key(self) -> str:
        return self._running.key

    def __enter__(self) -> "GatewayThread":
        self._thread.start()
        assert self._ready.wait(10), "the gateway did not start"
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive(), "the gateway did not stop"

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with run_gateway_here(self._market) as self._running:
            self._ready.set()
            await self._stop.wait()
