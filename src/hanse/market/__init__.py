"""Who offers what, and who is asked: offers, health, matching.

    index = OfferIndex();  index.put(ListedOffer(...))     offers that were verified
    health = HealthBook(); health.report_failure(...)      what was seen of the endpoints, in memory
    match(candidates, health, needs, now_s, available)     pure: ranked offers, reasons for the rest
    explain(match, needs)                                  the error that says why nobody fits

The shell that reads the Registry and fetches offers is `hanse.sdk.discovery`.
"""

from hanse.market.health import HealthBook, ProviderHealth
from hanse.market.matching import (
    Candidate,
    Exclusion,
    Match,
    Needs,
    explain,
    match,
)
from hanse.market.offers import ListedOffer, OfferIndex, PublishedService

__all__ = [
    "ListedOffer",
    "OfferIndex",
    "PublishedService",
    "HealthBook",
    "ProviderHealth",
    "Needs",
    "Candidate",
    "Exclusion",
    "Match",
    "match",
    "explain",
]
