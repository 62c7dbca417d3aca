"""What a hosted gateway asks for: what it pays itself, and a margin. Pure.

It buys of the `count` cheapest providers of each model, which are the ones that it funds, and sells
at the dearest of these prices, each kind of token by itself, plus the margin, rounded up. So
whichever of them serves, the price covers the cost. What it promises of a model is what all of them
do.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from hanse.market import ListedOffer
from hanse.protocol.limits import PRICE_PER_MTOK_MAX
from hanse.protocol.messages import Prices
from hanse.protocol.signatures import Address

PPM = 1_000_000

Name = tuple[str, str]
"""Type of service and model."""


@dataclass(frozen=True)
class Resale:
    """One model as a hosted gateway sells it.

    Attributes:
        name: type of service and model.
        cost: the dearest that it pays itself, base units per million tokens.
        prices: what it asks.
        context_tokens, output_tokens_max: what each of its providers offers at least.
        providers: whom it buys of.
    """

    name: Name
    cost: Prices
    prices: Prices
    context_tokens: int
    output_tokens_max: int
    providers: tuple[Address, ...]


def plan_resale(
    offers: Iterable[ListedOffer],
    *,
    own: Address,
    count: int,
    margin_ppm: int,
    models: tuple[str, ...] = (),
) -> dict[Name, Resale]:
    """What to sell at which price, by name.

    Args:
        offers: of the market, verified.
        own: whose offers are not bought: one's own.
        count: providers bought of, for each model.
        margin_ppm: added to the cost; 100,000 is 10 %.
        models: only these; empty for all.
    """
    by_name: dict[Name, list[ListedOffer]] = {}
    for listed in offers:
        offer = listed.offer
        if listed.provider != own and (not models or offer.model in models):
            by_name.setdefault((offer.service_type, offer.model), []).append(listed)
    found = {}
    for name, sold in sorted(by_name.items()):
        by_price = sorted(sold, key=lambda one: (_sum_prices(one), one.provider))
        providers = tuple(dict.fromkeys(one.provider for one in by_price))[:count]
        bought = [one.offer for one in by_price if one.provider in providers]
        cost = Prices(
            max(offer.prices.input_per_mtok for offer in bought),
            max(offer.prices.cached_per_mtok for offer in bought),
            max(offer.prices.output_per_mtok for offer in bought),
        )
        found[name] = Resale(
            name,
            cost,
            add_margin(cost, margin_ppm),
            min(offer.context_tokens for offer in bought),
            min(offer.output_tokens_max for offer in bought),
            providers,
        )
    return found


def add_margin(cost: Prices, margin_ppm: int) -> Prices:
    """Each price and the margin, rounded up in the seller's favour."""

    def add(price: int) -> int:
        return min(PRICE_PER_MTOK_MAX, -(-price * (PPM + margin_ppm) // PPM))

    return Prices(add(cost.input_per_mtok), add(cost.cached_per_mtok), add(cost.output_per_mtok))


def _sum_prices(listed: ListedOffer) -> int:
    return listed.offer.prices.input_per_mtok + listed.offer.prices.output_per_mtok
