"""Looks at the market once and ranks it for one request: what `hanse match` shows.

Offers and heartbeats are fetched and verified as a gateway does; speeds and failures are only
known to a gateway that measured them, so here everybody counts as never asked.
"""

import time
from dataclasses import dataclass

from hanse.cli.buying.market import open_market
from hanse.cli.network import Network
from hanse.cli.session import Session
from hanse.market import (
    Board,
    Choice,
    Chooser,
    Match,
    MeasuredBook,
    Needs,
    PresenceBook,
    RequestShape,
)
from hanse.protocol.errors import HanseError
from hanse.protocol.limits import AMOUNT_MAX
from hanse.sdk.heartbeats import Heartbeats


@dataclass(frozen=True)
class MatchReport:
    """Who would be asked; `error` says why nobody if `choice` is None.

    `missing` are the published services, of whatever model, that gave no offer, with the reason.
    """

    choice: Choice | None
    match: Match
    board: Board
    missing: dict[str, str]
    error: HanseError | None = None


async def match_market(
    session: Session, network: Network, shape: RequestShape, needs: Needs, region: str
) -> MatchReport:
    """Rank every offer of a model for one request, as if everybody had a sub-account.

    Raises:
        TransientError: the chain's node does not answer.
    """
    async with open_market(session, network) as market:
        offers, presence = market.offers, PresenceBook(time.time)
        board = Board(offers, market.health, MeasuredBook(), presence, time.time, region)
        missing = (
            await market.discovery.discover()
        ).errors  # the board follows what comes into the offers
        providers = {listed.provider for listed in offers.list_all()}
        heartbeats = Heartbeats(
            market.transport, offers, presence, lambda: providers, market.domain, time.time
        )
        await heartbeats.fetch_round()
    chooser = Chooser(board, lambda _: AMOUNT_MAX, lambda: providers, lambda: 1.0)
    now = time.time()
    found = chooser.rank(shape, needs, now)
    try:
        return MatchReport(chooser.choose(shape, needs, now), found, board, missing)
    except HanseError as error:
        return MatchReport(None, found, board, missing, error)
