"""How the user's side is set to choose providers, and the chooser made from it."""

from collections.abc import Callable
from dataclasses import dataclass

from hanse.market import (
    CHEAPEST,
    Board,
    Chooser,
    HealthBook,
    MeasuredBook,
    OfferIndex,
    Policy,
    PresenceBook,
)
from hanse.sdk.purchase.funding import Funding
from hanse.verification.attestation import Policy as AttestationPolicy

TRIAL_SHARE = 0.02
"""One request in fifty may go to a provider that was hardly asked before."""


@dataclass(frozen=True)
class Choosing:
    """How providers are chosen; a request may say otherwise.

    Attributes:
        policy: what counts how much.
        region: where this side is, for the weight of locality; empty for nowhere.
        trial_share: of the requests, how many may try a fresh provider; 0 for none.
        attestation: which machines are good enough; None leaves every offer of class `tee` out.
    """

    policy: Policy = CHEAPEST
    region: str = ""
    trial_share: float = TRIAL_SHARE
    attestation: AttestationPolicy | None = None


def create_chooser(
    choosing: Choosing,
    offers: OfferIndex,
    health: HealthBook,
    funding: Funding,
    clock: Callable[[], float],
    random_bytes: Callable[[int], bytes],
) -> Chooser:
    """A chooser over these offers, which nobody has measured yet."""
    board = Board(offers, health, MeasuredBook(), PresenceBook(clock), clock, choosing.region)
    return Chooser(
        board,
        funding.find_available,
        funding.list_funded,
        lambda: int.from_bytes(random_bytes(7), "big") / 2**56,
        policy=choosing.policy,
        trial_share=choosing.trial_share,
    )
