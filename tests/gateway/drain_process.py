"""A gateway in a process of its own over a market in memory that never finishes a stream."""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator

from hanse.gateway import GatewayServer, GatewaySettings, run_gateway
from tests.gateway.gateway_parts import MemoryMarket


@contextlib.asynccontextmanager
async def open_market() -> AsyncIterator[MemoryMarket]:
    market = MemoryMarket()
    market.gate = asyncio.Event()
    yield market


def announce(server: GatewayServer, port: int) -> None:
    print(os.getpid(), port, flush=True)


if __name__ == "__main__":
    settings = GatewaySettings(port=0, drain_s=float(sys.argv[2]))
    run_gateway(settings, open_market, sys.argv[1], on_ready=announce)
    print("closed", flush=True)
