"""Parts of recorder tests: providers and users with sub-accounts, and receipts that both hold."""

import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from hanse.chain import Key, create_key
from hanse.chain.asset import Asset
from hanse.chain.deployment import open_records
from hanse.chain.registry import Registry
from hanse.protocol.eip712 import Domain
from hanse.protocol.messages import FinishReason, Receipt, SignedReceipt, Usage
from hanse.protocol.records import Side
from hanse.protocol.signatures import ZERO_HASH, to_hex
from hanse.recorder import RecorderProcess, RecorderSettings
from hanse.settlement.records.answers import Identity
from hanse.settlement.records.chain_check import ChainRecords
from hanse.settlement.records.recorder_client import HttpRecorderClient
from hanse.settlement.records.submission_book import open_submission_book
from hanse.settlement.records.submitter import RecordsSettings, Submitter
from hanse.store.sqlite import open_sqlite
from tests.provider.chain_parts import STAKE, Market
from tests.waiting import until as until

INTERVAL_BLOCKS = 5


@dataclass
class ReceiptList:
    """A source over a list: what a side's own book would hold."""

    receipts: list[SignedReceipt] = field(default_factory=list)

    def find_new(self, tx) -> list[tuple[SignedReceipt, ...]]:
        groups: dict[tuple, list[SignedReceipt]] = {}
        for signed in self.receipts:
            r = signed.receipt
            key = (r.user, r.provider, r.signer)
            row = tx.find_one(
                "SELECT sequence FROM record_cursors "
                "WHERE user_address = ? AND provider = ? AND signer = ?",
                key,
            )
            if r.sequence > (row[0] if row else 0):
                groups.setdefault(key, []).append(signed)
        return [tuple(group[:100]) for group in groups.values()]

    def list_passed(self, tx) -> list:
        return []


@dataclass
class Seller:
    """A registered provider."""

    owner: Key
    receipt: Key


@dataclass
class Buyer:
    """A user with a sub-account at each provider, its wallet as signer."""

    key: Key


class World:
    """Providers, users and their receipts on one market."""

    def __init__(self, market: Market, folder: Path) -> None:
        self.market, self.folder = market, folder
        d = market.deployment
        self.domain = Domain(d.chain_id, d.escrow)
        self.records = open_records(market.rpc, d)
        self.view = ChainRecords(market.rpc, self.records, d.confirmations)

    async def add_seller(self) -> Seller:
        market = self.market
        seller = Seller(await market.make_key(), await market.make_key())
        asset = Asset(market.rpc, market.deployment.asset)
        registry = Registry(market.rpc, market.deployment.registry)
        await market.do(
            seller.owner,
            asset.mint(seller.owner.address, STAKE),
            asset.approve(registry.address, STAKE),
            registry.register(STAKE, seller.receipt.address, seller.owner.address),
        )
        return seller

    async def add_buyer(self, *sellers: Seller) -> Buyer:
        market, key = self.market, await self.market.make_key()
        asset = Asset(market.rpc, market.deployment.asset)
        total = 1_000 * len(sellers)
        await market.do(
            key,
            asset.mint(key.address, total),
            asset.approve(market.deployment.escrow, total),
            market.escrow.deposit(total),
            *(market.escrow.fund(s.owner.address, key.address, 1_000) for s in sellers),
        )
        return Buyer(key)

    def make_receipt(self, seller: Seller, buyer: Buyer, sequence: int, fee: int = 3):
        receipt = Receipt(
            buyer.key.address,
            seller.owner.address,
            buyer.key.address,
            sequence,
            "0x" + f"{sequence:064x}",
            "0x" + "ab" * 32,
            Usage(1, 0, 2),
            fee,
            fee * sequence,
            FinishReason.STOP,
            1_900_000_000,
            ZERO_HASH,
        )
        digest = self.domain.digest(receipt.struct_hash())
        return SignedReceipt(receipt, seller.receipt.sign_digest(digest))

    @contextlib.asynccontextmanager
    async def submitter(
        self, who: Seller | Buyer, source, *urls: str, name: str = "", **options
    ) -> AsyncIterator[Submitter]:
        """A side's loop, driven by `step`."""
        is_seller = isinstance(who, Seller)
        party = who.owner.address if is_seller else who.key.address
        side, key = (Side.PROVIDER, who.receipt) if is_seller else (Side.USER, who.key)
        database = await open_sqlite(self.folder / f"{name or party}.db")
        client = options.pop("client", None) or HttpRecorderClient(5.0)
        resume, now_s = options.pop("resume", None), options.pop("now_s", time.time)
        settings = RecordsSettings(urls, **{"unreachable_s": 1.0, "resume_s": 0.0, **options})
        try:
            yield Submitter(
                settings,
                Identity(side, party, key, self.domain),
                await open_submission_book(database),
                source,
                client,
                self.view,
                now_s=now_s,
                resume=resume,
            )
        finally:
            await client.close()
            await database.close()

    async def start_recorder(self, key: Key | None = None, name="recorder", **options):
        key = key or await self.market.make_key()
        settings = RecorderSettings(
            data_dir=self.folder / name,
            rpc_url=self.market.url,
            deployment=self.market.deployment,
            interval_blocks=INTERVAL_BLOCKS,
            poll_interval_s=0.05,
            **options,
        )
        return await RecorderProcess.start(settings, key)

    async def read_commits(self, recorder: str) -> list:
        """Committed events of one recorder, in order, as the chain has them."""
        from hanse.chain.records import parse_committed

        head = await self.market.rpc.fetch_head()
        logs = await self.market.rpc.fetch_logs([self.records.address], first=0, last=head.number)
        events = [parse_committed(self.records.contract.find_event(log, 0)) for log in logs]
        return [event for event in events if event.recorder == recorder]


def digest_of(world: World, signed: SignedReceipt) -> str:
    return to_hex(world.domain.digest(signed.receipt.struct_hash()))


def key_of(signed: SignedReceipt) -> tuple[str, str, str, int]:
    r = signed.receipt
    return r.user, r.provider, r.signer, r.sequence


async def make_world_key() -> Key:
    return create_key()
