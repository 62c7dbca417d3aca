"""A market of fake brokers in memory, and a user's client in front of it."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hanse.chain import Key
from hanse.market import PublishedService
from hanse.protocol.eip712 import Domain
from hanse.protocol.messages import Prices
from hanse.sdk import FixedChain, Hanse, HanseParts, TransportLimits
from hanse.sdk.choosing import Choosing
from hanse.sdk.disputes import Disputes
from hanse.sdk.transport.asgi import AsgiTransport
from hanse.settlement.books.receipt_records import SubAccountFunds
from hanse.settlement.books.voucher_book import VoucherBook, open_voucher_book
from hanse.store import Database, open_database, open_sqlite
from tests.sdk.fake_broker import FakeBroker

DOMAIN = Domain(31337, "0x" + "e5" * 20)
USER = Key(b"\x05" * 32)
CHEAP = Prices(1_000_000, 500_000, 2_000_000)
DEAR = Prices(2_000_000, 1_000_000, 4_000_000)


JoinDisputes = Callable[[Database], Awaitable[Disputes]]


class Clock:
    """Unix seconds that only a test moves."""

    def __init__(self) -> None:
        self.now = 1_900_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class World:
    """Two brokers, a chain that is told, a database file, and the user's client."""

    folder: Path
    clock: Clock = field(default_factory=Clock)
    limits: TransportLimits = field(default_factory=lambda: TransportLimits(silence_s=2.0))

    def __post_init__(self) -> None:
        self.cheap = FakeBroker(DOMAIN, b"\x11" * 32, self.clock, url="http://cheap", prices=CHEAP)
        self.dear = FakeBroker(DOMAIN, b"\x22" * 32, self.clock, url="http://dear", prices=DEAR)
        self.brokers = [self.cheap, self.dear]
        self.chain = FixedChain(
            [to_service(broker) for broker in self.brokers],
            {broker.provider: SubAccountFunds(1_000_000, 0) for broker in self.brokers},
        )
        self.choosing = Choosing(trial_share=0.0)
        self.join_disputes: JoinDisputes | None = None
        self.open_book: Callable[[Database, Domain], Awaitable[VoucherBook]] = open_voucher_book
        self.transport = AsgiTransport({broker.url: broker for broker in self.brokers})

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Hanse]:
        """A client on the world's database file; opening it again is a restart."""
        database = await open_sqlite(self.folder / "user.db")
        try:
            self.book = await self.open_book(database, DOMAIN)
            parts = HanseParts(
                domain=DOMAIN,
                user=USER.address,
                signer=USER,
                book=self.book,
                chain=self.chain,
                transport=self.transport,
                limits=self.limits,
                clock=self.clock,
                choosing=self.choosing,
                disputes=await self.join_disputes(database) if self.join_disputes else None,
            )
            async with Hanse.join(parts) as hanse:
                yield hanse
        finally:
            await database.close()

    def only(self, broker: FakeBroker) -> None:
        """Leave only this broker on the market."""
        self.chain.services = [to_service(broker)]

    async def assert_books_agree(self, *brokers: FakeBroker) -> None:
        """The user's and the brokers' books say the same, and nothing is in flight."""
        found = {b.key.provider: b for b in await self.book.list_sub_accounts()}
        for broker in brokers:
            mine, theirs = found[broker.provider].book, broker.book
            assert (mine.acknowledged, mine.acknowledged_fee) == (
                theirs.sequence,
                theirs.cumulative_fee,
            )
            assert (mine.in_flight, mine.in_flight_fee) == (0, 0)
            assert (theirs.in_flight, theirs.reserved) == (0, 0)


def to_service(broker: FakeBroker) -> PublishedService:
    offer = broker.offer.offer
    return PublishedService(
        offer.provider,
        offer.service_id,
        offer.revision,
        broker.offer_hash,
        offer.service_type,
        broker.url,
        broker.key.address,
    )


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    await made.transport.close()


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = await open_database(database_url)
    yield opened
    await opened.close()


OpenBook = Callable[[], VoucherBook]
