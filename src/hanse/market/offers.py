"""Verified offers, by what callers ask for.

The Registry says which services exist and what their offers hash to; brokers hand out the offers
themselves. Only an offer whose hash is the published one and whose signature is the registered
receipt key's gets in here; `hanse.sdk.discovery` sees to that.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from hanse.protocol.messages import Offer, SignedOffer
from hanse.protocol.signatures import Address, Hash32

OFFERS_MAX = 100_000
"""Offers of one market in memory, about 2 kB each."""


@dataclass(frozen=True, slots=True)
class PublishedService:
    """A service as the Registry shows it at a confirmed block.

    `uri` is where its broker answers; `receipt_key` signs its offers and receipts; `is_active`
    whether its provider's stake stands.
    """

    provider: Address
    service_id: int
    revision: int
    offer_hash: Hash32
    service_type: str
    uri: str
    receipt_key: Address
    is_active: bool = True


@dataclass(frozen=True, slots=True)
class ListedOffer:
    """A verified offer with its hash and the key that its receipts are checked with.

    Attributes:
        offer: without its signature.
        provider: who offers it.
        endpoint: the broker's base URL that is used, without a slash at the end.
    """

    signed: SignedOffer
    offer_hash: Hash32
    receipt_key: Address
    offer: Offer = field(init=False, repr=False, compare=False)
    provider: Address = field(init=False, repr=False, compare=False)
    endpoint: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # each is read a dozen times for one request
        object.__setattr__(self, "offer", self.signed.offer)
        object.__setattr__(self, "provider", self.signed.offer.provider)
        object.__setattr__(self, "endpoint", self.signed.offer.endpoints[0].rstrip("/"))


class OfferIndex:
    """The offers of one market, in memory."""

    def __init__(self) -> None:
        self._by_service: dict[tuple[Address, int], ListedOffer] = {}
        self._by_provider: dict[Address, list[ListedOffer]] = {}
        self._by_model: dict[tuple[str, str], tuple[ListedOffer, ...]] = {}
        self._on_change: Callable[[tuple[str, str], tuple[ListedOffer, ...]], None] = _ignore

    def watch(self, on_change: Callable[[tuple[str, str], tuple[ListedOffer, ...]], None]) -> None:
        """Call this with type of service, model and their offers, after each change of these."""
        self._on_change = on_change

    def replace_all(self, offers: Iterable[ListedOffer]) -> None:
        """Make the index hold exactly these, at most `OFFERS_MAX`."""
        by_service: dict[tuple[Address, int], ListedOffer] = {}
        for listed in offers:
            if len(by_service) < OFFERS_MAX:
                by_service[listed.provider, listed.offer.service_id] = listed
        by_model: dict[tuple[str, str], list[ListedOffer]] = {}
        for listed in by_service.values():
            by_model.setdefault((listed.offer.service_type, listed.offer.model), []).append(listed)
        before = self._by_model
        self._by_service = by_service
        self._by_provider = {}
        for listed in by_service.values():
            self._by_provider.setdefault(listed.provider, []).append(listed)
        self._by_model = {key: tuple(found) for key, found in by_model.items()}
        for key in before.keys() | self._by_model.keys():
            offers_now = self._by_model.get(key, ())
            if offers_now != before.get(key, ()):
                self._on_change(key, offers_now)

    def find(self, provider: Address, service_id: int) -> ListedOffer | None:
        """The offer of one service, or None."""
        return self._by_service.get((provider, service_id))

    def list_of(self, provider: Address) -> list[ListedOffer]:
        """Every offer of one provider."""
        return self._by_provider.get(provider, [])

    def list_for(self, service_type: str, model: str) -> tuple[ListedOffer, ...]:
        """Every offer of this model for this type of service."""
        return self._by_model.get((service_type, model), ())

    def list_all(self) -> list[ListedOffer]:
        """Every offer, by model and price."""
        return sorted(
            self._by_service.values(),
            key=lambda listed: (
                listed.offer.model,
                listed.offer.prices.output_per_mtok,
                listed.provider,
            ),
        )

    def list_models(self) -> list[str]:
        """Every model on offer, sorted."""
        return sorted({model for _, model in self._by_model})


def _ignore(name: tuple[str, str], offers: tuple[ListedOffer, ...]) -> None:
    """Nobody watches."""
