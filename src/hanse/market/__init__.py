"""Who offers what, how they fare, and who is asked.

    offers    verified offers, by what callers ask for
    health    who failed or lied lately, and is left alone
    measured  how fast each service was
    presence  heartbeats: who is there, and how busy
    board     all of it in one row for each service
    policy, scoring, affinity    how good an offer is for a request, and what stays where
    tree      the best of many rows without looking at most
    matching  hard limits, the plain ranking, reasons in words
    choosing  `Chooser.choose`: one provider for one request

No module here does I/O. What fills it is `hanse.sdk.discovery` and `hanse.sdk.heartbeats`.
"""

from hanse.market.board import Board
from hanse.market.choosing import Choice, Chooser
from hanse.market.health import HealthBook, ProviderHealth
from hanse.market.matching import Candidate, Exclusion, Match, Needs, Ranked, explain
from hanse.market.measured import MeasuredBook
from hanse.market.offers import ListedOffer, OfferIndex, PublishedService
from hanse.market.policy import BALANCED, CHEAPEST, FASTEST, POLICIES, Policy, read_policy
from hanse.market.presence import PresenceBook
from hanse.market.scoring import RequestShape

__all__ = [
    "BALANCED",
    "CHEAPEST",
    "FASTEST",
    "POLICIES",
    "Board",
    "Candidate",
    "Choice",
    "Chooser",
    "Exclusion",
    "HealthBook",
    "ListedOffer",
    "Match",
    "MeasuredBook",
    "Needs",
    "OfferIndex",
    "Policy",
    "PresenceBook",
    "ProviderHealth",
    "PublishedService",
    "Ranked",
    "RequestShape",
    "explain",
    "read_policy",
]
