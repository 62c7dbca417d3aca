"""A hosted gateway: its user pays it by voucher, it pays its providers, and both have receipts."""

import asyncio
import contextlib
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from hanse.chain import Rpc
from hanse.chain.registry import Registry
from hanse.cli.local_network import NATIVE_WEI, ChildProcess, find_free_port
from hanse.cli.selling.resale import add_margin
from hanse.market import ListedOffer, Needs
from hanse.protocol.messages import Receipt
from hanse.sdk import Hanse, Settings
from tests.network.market import Market, is_healthy, until
from tests.store.postgres_server import PostgresServer

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]

SELLERS = ("lubeck", "hamburg")
MODEL = "echo-shared"
MARGIN_PPM = 100_000


SOLD = ["--margin-percent", "10", "--model", MODEL, "--fund-to", "0.5", "--fund-per-day", "2"]
SOLD += ["--register", "--settle-every", "0"]
FEE = 3 * 110 + 3 * 440
"""Three tokens in and three out, as docs/gateway/hosted.md says."""


async def give_stake(market: Market, name: str, *buying: str) -> str:
    """What a host needs, and its paying keys; returns its provider's address."""
    network = market.network
    async with Rpc.connect(network.rpc_url) as rpc:
        registry = Registry(rpc, network.deployment.registry)
        stake = await registry.read_minimum_stake(block=(await rpc.fetch_head()).number)
    await network.give(name, stake)
    await network.node.fund(network.get_key(f"{name}-receipt").address, NATIVE_WEI)
    for key in buying:
        await network.give(key, 2_000_000)
    return network.get_key(name).address


async def start_hosted(market: Market) -> str:
    """A hosted gateway on the market's chain, selling one model; returns its provider's address."""
    provider = await give_stake(market, "host", "buying")
    port = find_free_port()
    arguments = ["gateway", "host", "--key", "buying", *SOLD, "--port", str(port)]
    child = await market.network._start("host", port, arguments)
    await until(lambda: is_healthy(child), 90, "the hosted gateway admits requests")
    return provider


async def start_one_of_several(
    market: Market, home: Path, key: str, database: str, endpoint: str
) -> ChildProcess:
    """One process of the host `guild`, as on a machine of its own: its home, its paying key."""
    port, log_path = find_free_port(), home / "logs" / f"{key}.log"
    log_path.parent.mkdir(exist_ok=True)
    arguments = ["gateway", "host", "--name", "guild", "--key", key, *SOLD, "--port", str(port)]
    arguments += ["--home", str(home), "--endpoint", endpoint]
    with log_path.open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "hanse.cli", *arguments),
            env={**market.environment, "HANSE_DATABASE": database},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    child = ChildProcess(key, f"http://127.0.0.1:{port}", process, log_path)
    market.network.processes[key] = child
    await until(lambda: is_healthy(child), 90, f"{key} admits requests")
    return child


def get_settings(market: Market, name: str, folder: Path) -> Settings:
    """Of a user whose own key pays and signs."""
    network, key = market.network, market.network.get_key(name)
    return Settings(
        network.rpc_url,
        network.deployment,
        folder / f"{name}.db",
        signer=key,
        wallet=key,
        discover_interval_s=0.2,
    )


async def buy(hanse: Hanse, provider: str, *, stream: bool = False) -> Receipt:
    """Three words for three words, of this provider and no other."""
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "three words here"}],
        "max_tokens": 3,
        "stream": stream,
    }
    needs = Needs(providers=frozenset({provider}))
    answer = await hanse.request("/v1/chat/completions", body, needs)
    if stream:
        _ = [frame async for frame in answer.frames()]
    else:
        await answer.read()
    assert answer.receipt is not None
    return answer.receipt.signed.receipt


class Balancer:
    """One address for several brokers: hands connections to the one that it is told to."""

    def __init__(self) -> None:
        self.url = ""
        self._port = 0
        self._open: set[asyncio.StreamWriter] = set()

    async def turn_to(self, child: ChildProcess) -> None:
        """This one from now on; connections to another have ended on both sides."""
        self._port = int(child.url.rpartition(":")[2])
        for writer in self._open:
            writer.write_eof()
        await until(lambda: not self._open)

    @contextlib.asynccontextmanager
    async def listen(self) -> AsyncIterator["Balancer"]:
        server = await asyncio.start_server(self._pass_on, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server:
            yield self

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            theirs, ours = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            writer.close()
            return
        self._open.add(writer)
        await asyncio.gather(_copy(reader, ours), _copy(theirs, writer))
        self._open.discard(writer)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def test_a_user_pays_a_hosted_gateway_which_pays_its_providers(
    market: Market, tmp_path: Path
) -> None:
    network = market.network
    hosted = await start_hosted(market)
    try:
        await network.give("tenant", 1_000_000)
        async with Hanse.open(get_settings(market, "tenant", tmp_path)) as hanse:
            await hanse.account.open(500_000, {hosted: 500_000})

            def find_offer() -> ListedOffer | None:
                offers = [offer.listed for offer in hanse.get_offers()]
                return next((one for one in offers if one.provider == hosted), None)

            offer = await until(find_offer, 30, "its offer is on the market")
            dear = [
                one.listed.offer.prices
                for one in hanse.get_offers()
                if one.listed.provider == market.get_address("hamburg")
            ]
            assert offer.offer.prices == add_margin(dear[0], MARGIN_PPM)

            sold = [await buy(hanse, hosted, stream=stream) for stream in (False, True)]
        # the other half of the chain: what the gateway bought, by its own vouchers and books
        shown = await network.run_command("receipts", "list", "--key", "buying")
        bought = [one["receipt"] for one in shown["receipts"]]
        assert len(bought) == len(sold) == 2
        sellers = {market.get_address("lubeck"), market.get_address("hamburg")}
        assert {one["provider"] for one in bought} <= sellers
        assert {one.provider for one in sold} == {hosted}
        margin = sum(one.fee for one in sold) - sum(int(one["fee"]) for one in bought)
        assert [one.fee for one in sold] == [FEE] * 2
        assert {int(one["fee"]) for one in bought} <= {3 * 100 + 3 * 200, 3 * 100 + 3 * 400}
        assert margin > 0
        tokens = sum(one.usage.output_tokens for one in sold)
        assert tokens == sum(int(one["output_tokens"]) for one in bought) == 6
        status = await network.run_command("provider", "money", "--name", "host")
        assert status["earned"] == str(sum(one.fee for one in sold))
    finally:
        await network.stop_process("host")
    keys = await network.run_command("gateway", "keys", "list")
    lent = [one for one in keys["keys"] if one["name"] == "host-host"]
    assert lent
    assert all(one["revoked_at"] for one in lent)


async def test_several_processes_of_one_host_share_its_book_and_outlive_each_other(
    market: Market, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    network, database = market.network, postgres_server.create_database()
    provider = await give_stake(market, "guild", "buying-1", "buying-2")
    await network.give("member", 1_000_000)
    settings = get_settings(market, "member", tmp_path)
    async with Balancer().listen() as balancer, Hanse.open(settings) as hanse:

        def find_offer() -> bool:
            return any(one.listed.provider == provider for one in hanse.get_offers())

        first = await start_one_of_several(market, network.home, "buying-1", database, balancer.url)
        await balancer.turn_to(first)
        other_home = tmp_path / "home"
        shutil.copytree(network.home / "keys", other_home / "keys")
        for name in ("network.json", "password"):
            shutil.copy(network.home / name, other_home / name)
        second = await start_one_of_several(market, other_home, "buying-2", database, balancer.url)
        try:
            await hanse.account.open(500_000, {provider: 500_000})
            await until(find_offer, 30, "its offer is on the market")
            sold = [await buy(hanse, provider)]
            await balancer.turn_to(second)
            sold.append(await buy(hanse, provider))

            # the first one leads; it dies as a crash would, and its gateway must not stay behind
            assert (await fetch_leader(second)) != (await fetch_instance(second))
            orphans = list_children(first.process.pid)
            assert orphans
            await network.kill_process("buying-1")
            await until(lambda: not any(map(is_alive, orphans)), 30, "its gateway has ended")
            sold.append(await buy(hanse, provider))

            async def leads() -> bool:
                return (await fetch_leader(second)) == (await fetch_instance(second))

            await until(leads, 30, "the other one leads")
            sold.append(await buy(hanse, provider))
        finally:
            for key in ("buying-1", "buying-2"):
                if key in network.processes:
                    await network.stop_process(key)
    assert [one.sequence for one in sold] == [1, 2, 3, 4]
    assert [one.cumulative_fee for one in sold] == [FEE, 2 * FEE, 3 * FEE, 4 * FEE]
    status = await run_command(market, database, "provider", "money", "--name", "guild")
    assert status["earned"] == str(4 * FEE)
    bought = {
        key: await run_command(market, database, "receipts", "list", "--key", key)
        for key in ("buying-1", "buying-2")
    }
    assert {key: len(shown["receipts"]) for key, shown in bought.items()} == {
        "buying-1": 1,
        "buying-2": 3,
    }


async def run_command(market: Market, database: str, *arguments: str) -> dict[str, Any]:
    """What one of our commands says of what is on this database."""
    process = await asyncio.create_subprocess_exec(
        *market.network._get_command(arguments, "--json"),
        env={**market.environment, "HANSE_DATABASE": database},
        stdout=asyncio.subprocess.PIPE,
    )
    shown, _ = await process.communicate()
    assert process.returncode == 0
    return dict(json.loads(shown))


async def fetch_health(child: ChildProcess) -> dict[str, str]:
    async with aiohttp.ClientSession() as session, session.get(f"{child.url}/health") as answer:
        return dict(await answer.json())


async def fetch_leader(child: ChildProcess) -> str:
    return (await fetch_health(child))["leader"]


async def fetch_instance(child: ChildProcess) -> str:
    return (await fetch_health(child))["instance"]


def list_children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
