"""A small real market on loopback: two brokers over echo engines, the SDK, and a gateway on top.

Only the chain is told instead of read (`FixedChain`, `StaticChainView`).
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from hanse.chain import Key
from hanse.engines.base import Capabilities, Operation
from hanse.engines.echo_engine import EchoEngine, Settings
from hanse.gateway import GatewaySettings
from hanse.market import PublishedService
from hanse.protocol.eip712 import Domain
from hanse.protocol.messages import Prices
from hanse.protocol.signatures import ZERO_HASH
from hanse.provider import Broker, OfferBook, Service, StaticChainView
from hanse.provider.cheating import BrokerCheats
from hanse.sdk import FixedChain, Hanse, HanseParts
from hanse.sdk.transport import TransportLimits
from hanse.sdk.transport.http import HttpTransport
from hanse.serving import HttpServer
from hanse.settlement import ReceiptBook, SubAccountFunds, open_receipt_book
from hanse.settlement.books.voucher_book import VoucherBook, open_voucher_book
from hanse.settlement.traces.writer import TraceWriter
from hanse.store import open_sqlite
from tests.gateway.gateway_parts import RunningGateway, run_gateway_here
from tests.provider.offer_parts import put_on_offer

DOMAIN = Domain(31_337, "0x" + "e5" * 20)
USER = "0x" + "a1" * 20
SIGNER_KEY = Key(b"\x01" * 32)
CHEAP, DEAR = "0x" + "c1" * 20, "0x" + "d1" * 20
CHAT_MODEL, EMBED_MODEL = "echo-fake", "echo-embed"
FUNDS = 10**9


Front = Callable[[Any], Any]
"""Stands before the cheap provider's broker: an ASGI application around it."""


class MovableClock:
    """Unix seconds that a test can move on; everybody in a market shares one."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_s


class EchoEmbeddings(EchoEngine):
    """An echo engine that only embeds, as an embedding model does."""

    @property
    def capabilities(self) -> Capabilities:
        return msgspec.structs.replace(
            super().capabilities, operations=frozenset({Operation.EMBEDDINGS})
        )


@dataclass
class Seller:
    """One provider's process."""

    provider: str
    engine: EchoEngine
    book: ReceiptBook
    services: list[PublishedService]
    server: HttpServer


@dataclass
class Market:
    gateway: RunningGateway
    hanse: Hanse
    vouchers: VoucherBook
    clock: MovableClock
    cheap: Seller
    dear: Seller


@contextlib.asynccontextmanager
async def sell(
    provider: str,
    secret: int,
    price: int,
    funds: int,
    path: Path,
    clock: MovableClock,
    encryption_key: str = ZERO_HASH,
    traces: TraceWriter | None = None,
    front: Front | None = None,
    make_engine: type[EchoEngine] = EchoEngine,
    breaks_promises: bool = False,
    **engine_settings: object,
) -> AsyncIterator[Seller]:
    receipt_key = Key(bytes([secret]) * 32)
    database = await open_sqlite(path / f"{provider}.sqlite")
    book = await open_receipt_book(database, provider, DOMAIN, receipt_key)
    view = StaticChainView()
    view.set_funds(USER, SIGNER_KEY.address, SubAccountFunds(funds, 0))
    chat = make_engine(Settings(model=CHAT_MODEL, **engine_settings))  # type: ignore[arg-type]
    embed = EchoEmbeddings(Settings(model=EMBED_MODEL))
    server = HttpServer.bind("127.0.0.1", 0)
    offers, published = OfferBook(clock), []
    for number, engine in enumerate((chat, embed), 1):
        await engine.start()
        promised = "embedded" if breaks_promises else "reputation"
        prices = Prices(price, price, 3 * price)
        service = Service(number, engine, prices, verifiability=promised)
        published.append(
            await put_on_offer(
                offers,
                service,
                provider=provider,
                url=server.url,
                domain=DOMAIN,
                receipt_key=receipt_key,
                encryption_key=encryption_key,
            )
        )
    broker = Broker(
        provider=provider,
        domain=DOMAIN,
        book=book,
        chain_view=view,
        offers=offers,
        now_s=clock,
        traces=traces,
        cheats=BrokerCheats(breaks_promises=breaks_promises),
    )
    await server.start(broker if front is None else front(broker))
    broker.admitting = True
    try:
        yield Seller(provider, chat, book, published, server)
    finally:
        await server.stop()
        await chat.close()
        await embed.close()
        await database.close()


@contextlib.asynccontextmanager
async def open_market(
    path: Path,
    *,
    funds: int = FUNDS,
    encryption_key: str = ZERO_HASH,
    provider_traces: TraceWriter | None = None,
    user_traces: TraceWriter | None = None,
    front: Front | None = None,
    limits: TransportLimits | None = None,
    settings: GatewaySettings | None = None,
    breaks_promises: bool = False,
    **engine_settings: object,
) -> AsyncIterator[Market]:
    async with contextlib.AsyncExitStack() as stack:
        clock = MovableClock()
        cheap = await stack.enter_async_context(
            sell(
                CHEAP,
                2,
                100_000,
                funds,
                path,
                clock,
                encryption_key,
                provider_traces,
                front,
                breaks_promises=breaks_promises,
                **engine_settings,
            )
        )
        dear = await stack.enter_async_context(
            sell(DEAR, 3, 900_000, funds, path, clock, **engine_settings)
        )
        database = await open_sqlite(path / "user.sqlite")
        stack.push_async_callback(database.close)
        transport = HttpTransport(limits or TransportLimits(), reaches_private=True)
        stack.push_async_callback(transport.close)
        vouchers = await open_voucher_book(database, DOMAIN)
        chain = FixedChain(
            [*cheap.services, *dear.services],
            {CHEAP: SubAccountFunds(funds, 0), DEAR: SubAccountFunds(funds, 0)},
        )
        parts = HanseParts(
            domain=DOMAIN,
            user=USER,
            signer=SIGNER_KEY,
            book=vouchers,
            chain=chain,
            transport=transport,
            limits=limits or TransportLimits(),
            clock=clock,
            traces=user_traces,
        )
        hanse = await stack.enter_async_context(Hanse.join(parts))
        gateway = await stack.enter_async_context(
            run_gateway_here(hanse, settings or GatewaySettings(port=0, drain_s=2.0))
        )
        yield Market(gateway, hanse, vouchers, clock, cheap, dear)


async def wait_counted(hanse: Hanse) -> None:
    """Wait for what goes on behind answers. Brokers are asked for ten seconds after vouchers that
    they never admitted: those are left to whoever moves the clock past their deadline.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1):
            await hanse.wait_idle()
