"""Looks at the market once, without keys: what `hanse offers` shows.

Every offer comes verified, by the SDK's own discovery; every broker is asked for its health beside.
"""

import asyncio
import time
from contextlib import AsyncExitStack
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


async def look_at_market(session: Session, network: Network) -> MarketReport:
    """Read the Registry, fetch and verify every offer, ask every broker how it is.

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
        index, now_s = OfferIndex(), time.time
        discovery = Discovery(
            await open_chain(rpc, deployment, database, ZERO_ADDRESS, ZERO_ADDRESS),
            transport,
            index,
            HealthBook(now_s),
            Domain(deployment.chain_id, deployment.escrow),
            now_s,
        )
        report = await discovery.discover()
        offers = index.list_all()
        healths = await asyncio.gather(*(_fetch_health(transport, offer) for offer in offers))
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
