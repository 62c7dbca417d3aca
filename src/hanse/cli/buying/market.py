"""Looks at the market once, without keys: what `hanse offers` shows.

Every offer comes verified, by the SDK's own discovery; every broker is asked for its health beside.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from hanse.chain import Rpc
from hanse.cli.network import Network
from hanse.cli.session import Session
from hanse.market import HealthBook, ListedOffer, OfferIndex
from hanse.protocol.eip712 import Domain
from hanse.protocol.errors import HanseError
from hanse.protocol.signatures import ZERO_ADDRESS
from hanse.sdk.chain_view import open_chain
from hanse.sdk.discovery import Discovery
from hanse.sdk.settings import reaches_private
from hanse.sdk.transport import Transport, read_body
from hanse.sdk.transport.http import HttpTransport
from hanse.store import open_database

HEALTH_S = 5.0
"""A broker answers /health from memory; one that takes longer is as good as gone."""

HEALTH_BYTES_MAX = 65_536


@dataclass(frozen=True)
class SeenOffer:
    """A verified offer; `health` is `ok` or why not."""

    listed: ListedOffer
    health: str


@dataclass(frozen=True)
class MarketReport:
    """One look: the verified offers, and the published services that gave none, with the reason."""

    offers: list[SeenOffer]
    missing: dict[str, str]


@dataclass(frozen=True)
class OpenMarket:
    """What it takes to look at the market; `discovery` fills `offers`, verified."""

    offers: OfferIndex
    health: HealthBook
    domain: Domain
    transport: HttpTransport
    discovery: Discovery


@asynccontextmanager
async def open_market(session: Session, network: Network) -> AsyncIterator[OpenMarket]:
    """Open what reads the Registry and asks brokers.

    What was read of the Registry stays in HOME/market.db, so that the next look goes on from there.

    Raises:
        TransientError: the chain's node does not answer.
    """
    deployment = network.deployment
    async with AsyncExitStack() as stack:
        database = await open_database(session.get_database_path("market"))
        stack.push_async_callback(database.close)
        rpc = await stack.enter_async_context(Rpc.connect(network.rpc_url))
        transport = HttpTransport(
            reaches_private=reaches_private(network.private_endpoints, deployment)
        )
        stack.push_async_callback(transport.close)
        chain = await open_chain(rpc, deployment, database, ZERO_ADDRESS, ZERO_ADDRESS)
        offers, health = OfferIndex(), HealthBook(time.time)
        domain = Domain(deployment.chain_id, deployment.escrow)
        discovery = Discovery(chain, transport, offers, health, domain, time.time)
        yield OpenMarket(offers, health, domain, transport, discovery)


async def look_at_market(session: Session, network: Network) -> MarketReport:
    """Every verified offer, and how its broker is; see `open_market` for the errors."""
    async with open_market(session, network) as market:
        report = await market.discovery.discover()
        offers = market.offers.list_all()
        asked = (_fetch_health(market.transport, offer) for offer in offers)
        healths = await asyncio.gather(*asked)
    seen = [SeenOffer(*pair) for pair in zip(offers, healths, strict=True)]
    return MarketReport(seen, report.errors)


async def _fetch_health(transport: Transport, listed: ListedOffer) -> str:
    try:
        async with asyncio.timeout(HEALTH_S):
            url = f"{listed.endpoint}/health"
            answer = await transport.send("GET", url, {}, b"", silence_s=HEALTH_S)
            try:
                await read_body(answer, HEALTH_BYTES_MAX)
            finally:
                answer.close()
    except TimeoutError:
        return f"silent for {HEALTH_S:g} s"
    except HanseError as error:
        return error.message
    return "ok" if answer.status == 200 else "not admitting requests"
