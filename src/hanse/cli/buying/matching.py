"""Looks at the market once and ranks it for one request: what `hanse match` shows.

Offers and heartbeats are fetched and verified as a gateway does; speeds and failures are only
known to a gateway that measured them, so here everybody counts as never asked.
"""

import time
from contextlib import AsyncExitStack
from dataclasses import dataclass

from hanse.chain import Rpc
from hanse.cli.network import Network
from hanse.cli.session import Session
from hanse.market import (
    Board,
    Choice,
    Chooser,
    HealthBook,
    Match,
    MeasuredBook,
    Needs,
    OfferIndex,
    PresenceBook,
    RequestShape,
)
from hanse.protocol.eip712 import Domain
from hanse.protocol.errors import HanseError
from hanse.protocol.limits import AMOUNT_MAX
from hanse.protocol.signatures import ZERO_ADDRESS
from hanse.sdk.chain_view import open_chain
from hanse.sdk.discovery import Discovery
from hanse.sdk.heartbeats import Heartbeats
from hanse.sdk.settings import reaches_private
from hanse.sdk.transport.http import HttpTransport
from hanse.store import open_database


@dataclass(frozen=True)
class MatchReport:
    """Who would be asked; `error` says why nobody if `choice` is None."""

    choice: Choice | None
    match: Match
    board: Board
    error: HanseError | None = None


async def match_market(
    session: Session, network: Network, shape: RequestShape, needs: Needs, region: str
) -> MatchReport:
    """Rank every offer of a model for one request, as if everybody had a sub-account.

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
        index, health = OfferIndex(), HealthBook(time.time)
        presence = PresenceBook(time.time)
        board = Board(index, health, MeasuredBook(), presence, time.time, region)
        chain = await open_chain(rpc, deployment, database, ZERO_ADDRESS, ZERO_ADDRESS)
        domain = Domain(deployment.chain_id, deployment.escrow)
        await Discovery(chain, transport, index, health, domain, time.time).discover()
        providers = {listed.provider for listed in index.list_all()}
        heartbeats = Heartbeats(transport, index, presence, lambda: providers, domain, time.time)
        await heartbeats.fetch_round()
    chooser = Chooser(board, lambda _: AMOUNT_MAX, lambda: providers, lambda: 1.0)
    now = time.time()
    found = chooser.rank(shape, needs, now)
    try:
        return MatchReport(chooser.choose(shape, needs, now), found, board)
    except HanseError as error:
        return MatchReport(None, found, board, error)
