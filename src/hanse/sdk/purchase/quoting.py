"""What a request would cost, before it is made: by each provider, at most and as expected.

    quotes = hanse.quote("/v1/chat/completions", body)      # best first, then who cannot be asked

The maximum is what a voucher must authorise: `protocol/pricing.py`, exact. What is expected assumes
four bytes a token and an answer of `OUTPUT_TOKENS_EXPECTED` tokens at most; the fee that is paid is
what was metered, and never more than the maximum.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from hanse.market import ListedOffer, Match, RequestShape
from hanse.market.matching import price_offer
from hanse.protocol.signatures import Address


@dataclass(frozen=True, slots=True)
class Quote:
    """One provider's price of one request, base units.

    Attributes:
        provider: who.
        maximum_fee: what the request can cost at most.
        expected_fee: what it will probably cost.
        output_tokens_max: output tokens that the maximum allows for.
        obstacle: why it cannot be asked now; empty if it can.
    """

    provider: Address
    maximum_fee: int
    expected_fee: int
    output_tokens_max: int
    obstacle: str = ""

    def to_document(self) -> dict[str, Any]:
        """JSON-ready, amounts as decimal strings."""
        return {
            "provider": self.provider,
            "maximum_fee": str(self.maximum_fee),
            "expected_fee": str(self.expected_fee),
            "output_tokens_max": self.output_tokens_max,
            "obstacle": self.obstacle or None,
        }


def quote_match(found: Match, shape: RequestShape, most: int | None = None) -> list[Quote]:
    """Everybody of a match, or the first `most`: best first, then whoever cannot be asked."""
    fitting = [quote_offer(candidate.listed, shape) for candidate in found.candidates[:most]]
    if most is not None and len(fitting) >= most:
        return fitting
    others = [quote_offer(one.listed, shape, one.reason) for one in found.exclusions]
    return (fitting + sorted(others, key=_by_price))[:most]


def quote_offers(offers: Iterable[ListedOffer], shape: RequestShape) -> list[Quote]:
    """Bare offers, cheapest first: what a look at the market without money can say."""
    fitting = (
        one
        for one in offers
        if (one.offer.service_type, one.offer.model) == (shape.service_type, shape.model)
    )
    return sorted((quote_offer(one, shape) for one in fitting), key=_by_price)


def quote_offer(listed: ListedOffer, shape: RequestShape, obstacle: str = "") -> Quote:
    """One offer's price of one request."""
    priced = price_offer(listed, shape)
    return Quote(
        listed.provider,
        priced.maximum_fee,
        priced.expected_fee,
        priced.output_tokens_max,
        obstacle,
    )


def _by_price(quote: Quote) -> tuple[int, int, Address]:
    return quote.expected_fee, quote.maximum_fee, quote.provider
