"""A gateway in a process of its own over a market in memory; its streams go on at SIGUSR1 only.

python -m tests.gateway.drain_process DATABASE SETTINGS.json
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from hanse.gateway import GatewayServer, GatewaySettings, run_gateway
from hanse.protocol.errors import RequestError
from tests.gateway.gateway_parts import MemoryMarket


@contextlib.asynccontextmanager
async def open_market() -> AsyncIterator[MemoryMarket]:
    market = MemoryMarket()
    market.gate = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, market.gate.set)
    yield market


def announce(server: GatewayServer, port: int) -> None:
    print(os.getpid(), port, flush=True)


def read_settings() -> GatewaySettings:
    try:
        return msgspec.json.decode(Path(sys.argv[2]).read_bytes(), type=GatewaySettings)
    except msgspec.DecodeError as error:
        raise RequestError("configuration_invalid", str(error)) from None


if __name__ == "__main__":
    run_gateway(read_settings(), open_market, sys.argv[1], announce, read_settings)
    print("closed", flush=True)
