"""The broker's own offers: what they say, which are in force, and the models they sell.

An offer is built from an engine and an operator's prices, signed by the receipt key, and its hash
published in the Registry (`hanse.provider.publishing` sends that). A request names the offer that
it was signed for; one that was replaced stays good for a while, so that requests signed just before
a price change are served at their own price.

The manifest root is the Merkle root over `name NUL sha256 of the file` of the model's files by
name; zero where the engine only resells.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from hanse.engines import Engine, ModelDescription, Operation
from hanse.protocol import manifests
from hanse.protocol.eip712 import Domain
from hanse.protocol.errors import RequestError
from hanse.protocol.limits import DEADLINE_S_MAX, TOKENS_MAX
from hanse.protocol.messages import Offer, Prices, SignedOffer
from hanse.protocol.signatures import (
    Address,
    DigestSigner,
    Hash32,
    to_hex,
)

REPLACED_KEPT_S = DEADLINE_S_MAX
"""An offer that was replaced is honoured this long: no request signed for it lives longer."""

CONDEMNED = (
    "this provider is condemned: a fraud was proven against it on chain, and its stake is lost. "
    "What was signed to it can still be claimed; to sell again, begin under another address"
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Service:
    """One engine on offer.

    Several services may share an engine: one sells its answers, another its vectors.

    Attributes:
        service_id: the provider's own number for it in the Registry.
        engine: what answers; started before it is offered.
        prices: base units per million tokens.
        model: name that callers ask for; empty takes the engine's.
        verifiability: how the work can be checked; `reputation` claims nothing beyond receipts.
        only: what of the engine's operations is sold; None for all.
        follows_leader: of several brokers the leader sets its prices, and the others take them over
            (`BrokerProcess.reprice`); else all must be told the same.
    """

    service_id: int
    engine: Engine
    prices: Prices
    model: str = ""
    verifiability: str = "reputation"
    only: frozenset[Operation] | None = None
    follows_leader: bool = False

    @property
    def operations(self) -> frozenset[Operation]:
        """What is sold: what the engine can, unless less was chosen."""
        known = self.engine.capabilities.operations
        return known if self.only is None else known & self.only

    @property
    def service_type(self) -> str:
        """`chat` for a service that sells answers, beside vectors or not; else what it sells."""
        types = sorted(operation.service_type for operation in self.operations)
        return "chat" if "chat" in types or not types else types[0]


def list_engines(services: Sequence[Service]) -> list[Engine]:
    """Each engine of the services once."""
    return list({id(service.engine): service.engine for service in services}.values())


@dataclass(frozen=True)
class OfferInForce:
    """A signed offer with its hash and service; `honoured_until` is infinite while current."""

    signed: SignedOffer
    offer_hash: Hash32
    service: Service
    honoured_until: float = float("inf")


class OfferBook:
    """The offers of one broker by hash, by service and by model.

    Attributes:
        is_closed: nothing is offered any more; it is never opened again.
    """

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._by_hash: dict[Hash32, OfferInForce] = {}
        self._current: dict[int, OfferInForce] = {}
        self.is_closed = False

    def close(self, reason: str) -> None:
        """Offer nothing any more; requests that are signed already are honoured a while longer."""
        if self.is_closed:
            return
        _log.error("%s", reason)
        self.is_closed = True
        for current in self._current.values():
            self._honour(current, self._now_s())
        self._current.clear()

    def put(self, signed: SignedOffer, service: Service) -> OfferInForce:
        """Make this the current offer of its service; the one before is honoured a while longer."""
        now = self._now_s()
        before = self._current.get(service.service_id)
        offer_hash = to_hex(signed.offer.struct_hash())
        if before is not None and before.offer_hash != offer_hash:
            self._honour(before, now)
        current = OfferInForce(signed, offer_hash, service)
        self._by_hash[offer_hash] = self._current[service.service_id] = current
        for old in [o for o in self._by_hash.values() if o.honoured_until < now]:
            del self._by_hash[old.offer_hash]
        return current

    def get_in_force(self, offer_hash: Hash32) -> OfferInForce:
        """The offer that a request was signed for.

        Raises:
            RequestError: `offer_changed` if it is not one of this broker's or no longer binds.
        """
        now = self._now_s()
        found = self._by_hash.get(offer_hash)
        if found is None or found.honoured_until < now or found.signed.offer.valid_until <= now:
            current = sorted(offer.offer_hash for offer in self._current.values())
            raise RequestError(
                "offer_changed",
                f"offer {offer_hash} is not in force here: fetch /hanse/v1/offers and sign again",
                details={"offer_hash": offer_hash, "offers": current},
            )
        return found

    def _honour(self, offer: OfferInForce, now: float) -> None:
        self._by_hash[offer.offer_hash] = replace(offer, honoured_until=now + REPLACED_KEPT_S)

    def find_current(self, service_id: int) -> OfferInForce | None:
        """The current offer of a service."""
        return self._current.get(service_id)

    def list_current(self) -> list[OfferInForce]:
        """The current offers by service id."""
        return [self._current[key] for key in sorted(self._current)]


async def build_offer(
    service: Service,
    *,
    provider: Address,
    endpoints: Sequence[str],
    encryption_key: Hash32,
    valid_until: int,
    revision: int,
    region: str = "",
) -> Offer:
    """What this broker offers of a service, from its started engine.

    Raises:
        RequestError: `configuration_invalid` if the engine can do nothing of what is to be sold, or
            no user would take its prices.
    """
    prices = service.prices
    if prices.cached_per_mtok > prices.input_per_mtok:
        raise RequestError(
            "configuration_invalid",
            f"service {service.service_id} would sell cached input at {prices.cached_per_mtok}, "
            f"dearer than input at {prices.input_per_mtok}, and no user takes such an offer: lower "
            "the price of cached input to that of input or below",
        )
    if not service.operations:
        wanted = ", ".join(sorted(service.only or ()))
        raise RequestError(
            "configuration_invalid",
            f"service {service.service_id} is to sell {wanted}, which engine "
            f"{service.engine.name} cannot: leave it out, or take another engine",
        )
    types = {operation.service_type for operation in service.operations}
    if len(types - {"embeddings"}) > 1:
        raise RequestError(
            "configuration_invalid",
            f"service {service.service_id} would sell {', '.join(sorted(types))} at one price, "
            "though their units differ: make a service of each",
        )
    model = await service.engine.describe_model()
    capabilities = service.engine.capabilities
    return Offer(
        provider=provider,
        service_id=service.service_id,
        service_type=service.service_type,
        model=service.model or model.model,
        manifest_root=get_manifest_root(model),
        quantisation=model.quantisation or "unknown",
        engine=service.engine.name,
        context_tokens=min(capabilities.context_tokens, TOKENS_MAX),
        output_tokens_max=min(capabilities.output_tokens_max, TOKENS_MAX),
        prices=service.prices,
        verifiability=_get_verifiability(service),
        endpoints=tuple(endpoints),
        encryption_key=encryption_key,
        valid_until=valid_until,
        revision=revision,
        region=region,
    )


def sign_offer(offer: Offer, domain: Domain, receipt_key: DigestSigner) -> SignedOffer:
    """The offer with the receipt key's signature."""
    return SignedOffer(offer, receipt_key.sign_digest(domain.digest(offer.struct_hash())))


def get_manifest_root(model: ModelDescription) -> Hash32:
    """Merkle root over the model's files; zero if their bytes are out of sight.

    Of a provider's own copy it is the base model's: that is what is sold.
    """
    if model.base_root:
        return model.base_root
    return manifests.get_manifest_root((file.name, file.sha256) for file in model.files)


def _get_verifiability(service: Service) -> str:
    """An engine that proves makes `embedded` of a service that claims nothing by itself."""
    claims_nothing = service.verifiability == "reputation"
    return (
        "embedded"
        if claims_nothing and service.engine.capabilities.proves
        else (service.verifiability)
    )
