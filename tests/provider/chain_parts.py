"""A market of one's own on a local chain: contracts, a provider, a user with a sub-account."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hanse.chain import (
    Deployment,
    Key,
    LocalNode,
    MemoryOutboxStorage,
    Outbox,
    Rpc,
    create_key,
    deploy,
)
from hanse.chain.asset import Asset
from hanse.chain.escrow import Escrow, SubAccount
from hanse.contracts.deployment import Terms
from hanse.protocol.messages import Prices
from hanse.provider import BrokerSettings
from hanse.sdk import Settings

STAKE = 10**9
PRICES = Prices(100_000, 50_000, 300_000)
BLOCK_TIME_S = 0.02


@dataclass
class Market:
    """Contracts and keys on one node."""

    node: LocalNode
    url: str
    rpc: Rpc
    deployment: Deployment
    owner: Key
    receipt: Key

    @property
    def escrow(self) -> Escrow:
        return Escrow(self.rpc, self.deployment.escrow)

    async def make_key(self) -> Key:
        key = create_key()
        await self.node.fund(key.address, 10**20)
        return key

    def outbox(self, key: Key) -> Outbox:
        d = self.deployment
        return Outbox(
            self.rpc,
            key,
            MemoryOutboxStorage(),
            chain_id=d.chain_id,
            confirmations=d.confirmations,
        )

    async def do(self, key: Key, *calls: Any) -> None:
        outbox = self.outbox(key)
        for number, call in enumerate(calls):
            await outbox.enqueue(str(number), call)
        for number in range(len(calls)):
            await outbox.wait_final(str(number), poll_interval_s=BLOCK_TIME_S)

    async def make_user(self, amount: int, signer: Key | None = None) -> tuple[Key, Key]:
        """A user whose sub-account with the provider holds `amount`, and its signer."""
        user, signer = await self.make_key(), signer or create_key()
        asset = Asset(self.rpc, self.deployment.asset)
        await self.do(
            user,
            asset.mint(user.address, amount),
            asset.approve(self.deployment.escrow, amount),
            self.escrow.deposit(amount),
            self.escrow.fund(self.owner.address, signer.address, amount),
        )
        return user, signer

    def get_broker_settings(self, data_dir: Path, **options: Any) -> BrokerSettings:
        """Of a broker that settles only when it is asked to."""
        return BrokerSettings(
            provider=self.owner.address,
            data_dir=data_dir,
            rpc_url=self.url,
            deployment=self.deployment,
            stake=STAKE,
            settle_interval_s=0,
            **options,
        )

    async def make_wallet(self, amount: int, database: Path) -> tuple[Key, Settings]:
        """A wallet that holds `amount`, and the user's side that pays from it and signs by it."""
        wallet = await self.make_key()
        asset = Asset(self.rpc, self.deployment.asset)
        await self.do(wallet, asset.mint(wallet.address, amount))
        settings = Settings(
            self.url,
            self.deployment,
            database,
            signer=wallet,
            wallet=wallet,
            discover_interval_s=0.2,
        )
        return wallet, settings

    async def read_sub_account(self, user: Key, signer: Key) -> SubAccount:
        head = await self.rpc.fetch_head()
        return await self.escrow.read_sub_account(
            user.address, self.owner.address, signer.address, block=head.number
        )

    async def read_asset(self, address: str) -> int:
        head = await self.rpc.fetch_head()
        return await Asset(self.rpc, self.deployment.asset).read_balance(address, block=head.number)

    async def register(self, amount: int = STAKE) -> None:
        """Give the owner what it registers with."""
        await self.do(
            self.owner, Asset(self.rpc, self.deployment.asset).mint(self.owner.address, amount)
        )


@contextlib.asynccontextmanager
async def run_market(folder: Path, cache: Path, lock_time_s: int = 3_600) -> AsyncIterator[Market]:
    node = LocalNode(folder, cache_folder=cache, block_time_s=BLOCK_TIME_S)
    url = await node.start()
    rpc = Rpc.connect(url)
    try:
        owner, receipt, deployer = create_key(), create_key(), create_key()
        for key in (owner, receipt, deployer):
            await node.fund(key.address, 10**20)
        outbox = Outbox(rpc, deployer, MemoryOutboxStorage(), chain_id=31_337, confirmations=2)
        deployment = await deploy(
            rpc,
            outbox,
            Terms(lock_time_s=lock_time_s),
            confirmations=2,
            poll_interval_s=BLOCK_TIME_S,
        )
        market = Market(node, url, rpc, deployment, owner, receipt)
        await market.register()
        yield market
    finally:
        await rpc.close()
        await node.stop()
        await asyncio.sleep(0)
