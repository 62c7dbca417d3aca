"""Getting out alone: a user whose provider is gone, and providers whose user is gone.

A network of its own: its gateway is killed at the start and never comes back.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from hanse.chain import Rpc
from hanse.chain.escrow import Escrow
from hanse.cli.first_round import PURSE, open_user
from hanse.cli.local_network import LOCK_TIME_S
from tests.network.books import ProviderSide, read_units, wait_agreed
from tests.network.market import (
    SUB_ACCOUNT,
    Market,
    open_network,
    plan,
    stream_words,
    until,
)

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]

GONE, LEFT, IDLE = "wismar", "rostock", "lubeck"
PLANS = [plan(name, model=f"echo-{name}") for name in (GONE, LEFT, IDLE)]
ANSWERS = 3


@dataclass
class Abandoned:
    """A market in which everybody was served, and then the gateway died."""

    market: Market
    books: dict[str, ProviderSide]

    async def read_sub_account(self, name: str) -> Any:
        network = self.market.network
        async with Rpc.connect(network.rpc_url) as rpc:
            return await Escrow(rpc, network.deployment.escrow).read_sub_account(
                network.get_key("user").address,
                self.market.get_address(name),
                network.get_key("gateway").address,
                block=(await rpc.fetch_head()).number,
            )

    async def refund_all(self, name: str) -> None:
        """Ask for the whole balance, also what the provider has receipts for."""
        async with open_user(self.market.network) as hanse:
            balance = (await self.read_sub_account(name)).balance
            await hanse.account.request_refund(self.market.get_address(name), balance)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def abandoned(
    tmp_path_factory: pytest.TempPathFactory, anvil_cache: Path
) -> AsyncIterator[Abandoned]:
    async with open_network(tmp_path_factory.mktemp("exits"), anvil_cache, PLANS) as market:
        for chosen in PLANS:
            for number in range(ANSWERS):
                outcome = await stream_words(market.client, chosen.model, f"word{number}", [])
                assert outcome == "ended"
        books = {chosen.name: await wait_agreed(market, chosen.name) for chosen in PLANS}
        assert all(book.sequence == ANSWERS and book.fees > 0 for book in books.values())
        await market.end("gateway")
        yield Abandoned(market, books)


async def test_a_provider_claims_everything_while_its_user_is_gone(abandoned):
    """Every receipt is paid, also after the user asked for all of it back."""
    market, owed = abandoned.market, abandoned.books[LEFT].fees
    await abandoned.refund_all(LEFT)
    pending = await abandoned.read_sub_account(LEFT)
    assert pending.refund == pending.balance == SUB_ACCOUNT

    settled = await market.network.run_command("settle", "--name", LEFT)
    assert settled["paid"] == str(owed)
    assert [claim["status"] for claim in settled["batches"][0]["claims"]] == ["paid"]
    units = await read_units(market)
    assert units.provider_wallets[LEFT] == units.claimed[LEFT] == owed
    after = await abandoned.read_sub_account(LEFT)
    assert after.refund == after.balance == SUB_ACCOUNT - owed  # it takes at most what is left


async def test_a_user_takes_everything_out_while_its_provider_is_gone(abandoned):
    """By commands alone; what was receipted stays for the provider, who may come back."""
    market, owed = abandoned.market, abandoned.books[GONE].fees
    command = market.network.run_command
    await market.end(GONE)

    before = await read_units(market)
    asked = await command("account", "refund", GONE, "--signer", "gateway")
    assert asked["amount"] == str(SUB_ACCOUNT - owed)
    await market.network.node.advance_time(LOCK_TIME_S + 1)
    await command("account", "refund", GONE, "--claim", "--signer", "gateway")
    await command("account", "withdraw", str((SUB_ACCOUNT - owed) / 1_000_000))

    after = await read_units(market)
    assert after.user_wallet == before.user_wallet + SUB_ACCOUNT - owed
    assert (await abandoned.read_sub_account(GONE)).balance == owed
    money = await command("money")
    assert money["differences"] == []
    assert money["by_place"]["refund"] in (
        "0",
        str((await abandoned.read_sub_account(LEFT)).refund),
    )

    # and the provider, back after all, still gets what it has receipts for
    settled = await command("settle", "--name", GONE)
    assert settled["paid"] == str(owed)
    assert (await read_units(market)).provider_wallets[GONE] == owed


async def test_refunds_complete_by_themselves_with_the_user_offline(abandoned):
    """The brokers do it, after they have claimed what they are owed: nobody else runs."""
    market, owed = abandoned.market, abandoned.books[IDLE].fees
    await abandoned.refund_all(IDLE)
    before = await read_units(market)
    await market.network.node.advance_time(LOCK_TIME_S + 1)
    assert not {"gateway", GONE} & market.network.processes.keys()

    async def is_complete() -> bool:
        held = await abandoned.read_sub_account(IDLE)
        return held.refund == held.balance == 0

    # a broker looks at refunds twice a minute
    await until(is_complete, 75, "the broker completes the refund")
    after = await read_units(market)
    assert after.claimed[IDLE] == after.provider_wallets[IDLE] == owed
    assert after.sub_accounts[IDLE] == 0
    assert after.account >= before.account + SUB_ACCOUNT - owed

    # the user comes back, once no broker is about to complete another, and takes what is there
    async def is_nothing_pending() -> bool:
        return (await abandoned.read_sub_account(LEFT)).refund == 0

    await until(is_nothing_pending, 75, "the other broker completes its refund, if there is one")
    await market.network.run_command("account", "withdraw", "all")
    left = await read_units(market)
    assert left.account == 0
    assert left.user_wallet + sum(left.sub_accounts.values()) + sum(left.claimed.values()) == PURSE
