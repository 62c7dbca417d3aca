"""Looks at the market once and ranks it for one request: what `hanse match` shows.

Offers and heartbeats are fetched and verified as a gateway does; speeds and failures are only
known to a gateway that measured them, so here everybody counts as never asked.
"""

import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path

from hanse.auditor.reputation.evidence_folder import EvidenceFolder
from hanse.auditor.reputation.fetching import fetch_reputations, report_own_audits
from hanse.chain import Rpc
from hanse.cli.buying.attestation_policy import find_attestation_policy
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
from hanse.market.reputation import Reputation
from hanse.protocol.errors import HanseError
from hanse.protocol.limits import AMOUNT_MAX
from hanse.protocol.signatures import Address
from hanse.sdk.attesting import Attestations
from hanse.sdk.attesting.rounds import ANSWER_S
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
    reputations: dict[Address, Reputation] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)  # files that are no evidence, and why


async def match_market(
    session: Session,
    network: Network,
    shape: RequestShape,
    needs: Needs,
    region: str,
    evidence: Path | None = None,
) -> MatchReport:
    """Rank every offer of a model for one request, as if everybody had a sub-account.

    Evidence that a key of this home signed bars whom it caught, as in a gateway of this home.

    Raises:
        RequestError: `not_found`, if `evidence` is no folder.
        TransientError: the chain's node does not answer.
    """
    reputations: dict[Address, Reputation] = {}
    refused: dict[str, str] = {}
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
        if evidence is not None:
            folder = EvidenceFolder(evidence, market.domain)
            told, refused = folder.read(), folder.refused
            report_own_audits(market.health, told, session.list_addresses(), set())
            async with Rpc.connect(network.rpc_url) as rpc:
                reputations = await fetch_reputations(rpc, network.deployment, told, providers)
            for provider, reputation in reputations.items():
                market.health.take_reputation(provider, reputation.risk_ppm)
        policy = find_attestation_policy(session.home)
        machines = Attestations(
            *(market.transport, offers, board.attested, policy, time.time, secrets.token_bytes)
        )
        await machines.verify_due(ANSWER_S)
        await machines.stop()
    chooser = Chooser(board, lambda _: AMOUNT_MAX, lambda: providers, lambda: 1.0)
    now = time.time()
    found = chooser.rank(shape, needs, now)
    try:
        choice, error = chooser.choose(shape, needs, now), None
    except HanseError as refusal:
        choice, error = None, refusal
    return MatchReport(choice, found, board, missing, error, reputations, refused)
