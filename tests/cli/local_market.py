"""A market on the shared anvil for end-to-end tests: contracts, keys with money, processes."""

import asyncio
import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hanse.chain import Asset, Key, MemoryOutboxStorage, Outbox, Rpc, create_key, deploy
from hanse.chain.keys import Scrypt, create_keystore
from hanse.cli.network import Network, fetch_network, save_network
from hanse.contracts.deployment import Terms

PASSWORD = "a password of the tests"
LOCK_TIME_S = 3_600
TERMS = Terms(lock_time_s=LOCK_TIME_S)
UNIT = 1_000_000
READY_S = 60
LOOK_S = 0.02
"""As often as the node of the tests adds blocks."""


@dataclass
class Market:
    """One deployment with its home folder, and the processes that were started in it."""

    home: Path
    url: str
    network: Network
    minter: Key
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """For our commands."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("HANSE_")}
        return {**kept, "HANSE_HOME": str(self.home), "HANSE_PASSWORD": PASSWORD}

    def add_key(self, name: str, units: int = 0) -> str:
        """A key with native coin and whole units of the asset; returns its address."""
        key = create_keystore(self.home / "keys" / f"{name}.json", PASSWORD, scrypt=Scrypt.LIGHT)
        asyncio.run(self._give(key.address, units))
        return key.address

    def start(self, *arguments: str) -> tuple[subprocess.Popen[str], dict[str, Any]]:
        """Start a command that stays, and wait for its JSON document."""
        process = subprocess.Popen(
            [sys.executable, "-m", "hanse.cli", *arguments, "--json"],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise AssertionError(process.communicate(timeout=READY_S)[1])
        return process, json.loads(line)

    def advance_time(self, seconds: int) -> None:
        """Move the chain's clock."""

        async def move() -> None:
            async with Rpc.connect(self.url) as rpc:
                await rpc.request("evm_increaseTime", seconds)
                for _ in range(4):
                    await rpc.request("evm_mine")

        asyncio.run(move())

    def stop(self) -> None:
        """End what still runs."""
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=20)
            if process.poll() is None:
                process.kill()
                process.communicate()

    async def _give(self, address: str, units: int) -> None:
        async with Rpc.connect(self.url) as rpc:
            await rpc.request("anvil_setBalance", address, hex(10**20))
            if units:
                asset = Asset(rpc, self.network.deployment.asset)
                outbox = make_outbox(rpc, self.minter)
                await outbox.submit(
                    secrets.token_hex(8), asset.mint(address, units * UNIT), poll_interval_s=LOOK_S
                )


def make_outbox(rpc: Rpc, key: Key) -> Outbox:
    return Outbox(rpc, key, MemoryOutboxStorage(), chain_id=31_337, confirmations=2)


@contextlib.contextmanager
def open_market(home: Path, url: str, terms: Terms = TERMS) -> Iterator[Market]:
    """Deploy on the node and write the home folder's network.json."""
    deployer = create_key()

    async def begin() -> Network:
        async with Rpc.connect(url) as rpc:
            await rpc.request("anvil_setBalance", deployer.address, hex(10**21))
            deployment = await deploy(
                rpc,
                make_outbox(rpc, deployer),
                terms,
                confirmations=2,
                poll_interval_s=LOOK_S,
            )
        return await fetch_network(url, deployment)

    market = Market(home, url, asyncio.run(begin()), deployer)
    save_network(home, market.network)
    try:
        yield market
    finally:
        market.stop()


def wait_until(condition: Any, what: str, within_s: float = 30.0) -> Any:
    """Poll a condition until it is true; its value."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{what} did not happen within {within_s} s")
