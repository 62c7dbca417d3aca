"""From the Registry to verified offers.

The Registry names each service, the hash of its offer and where its broker answers. The offers
themselves come from the brokers, `GET <uri>/hanse/v1/offers`; one is taken only if its hash is the
published one, its signature the registered receipt key's, and its provider and service the ones
that were asked for. A broker that does not answer keeps the offers it had, as long as the Registry
still publishes their hashes.

Source: `docs/protocol.md`, section "Signed messages".
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from hanse.market import HealthBook, ListedOffer, OfferIndex, PublishedService
from hanse.protocol.eip712 import Domain
from hanse.protocol.errors import HanseError, TransientError, VerificationError
from hanse.protocol.messages import SignedOffer
from hanse.protocol.signatures import Address
from hanse.protocol.verify import verify_offer
from hanse.protocol.wire import offer_from_json
from hanse.sdk.chain_view import ChainView
from hanse.sdk.transport import Transport, read_body

OFFERS_BODY_BYTES_MAX = 1024 * 1024
"""One broker's offers, about 1.5 kB each."""

OFFERS_PER_BROKER_MAX = 256
"""Offers read of one broker; it has one a model."""

FETCHES_AT_ONCE_MAX = 32
"""Brokers asked at once; the others wait."""

FETCH_S = 10.0
"""A broker answers this from memory; one that takes longer is not worth asking for more."""


class _Offers(msgspec.Struct):
    offers: list[Any]


@dataclass
class DiscoveryReport:
    """What one look at the market found: `listed` offers, and why others are not listed."""

    listed: int = 0
    errors: dict[str, str] = field(default_factory=dict)


class _ReadOffers:
    """A broker's offers, read once however many services it published; still unverified."""

    def __init__(self) -> None:
        self.by_service: dict[tuple[Address, int], list[SignedOffer]] = {}
        self.problem = ""


class Discovery:
    """Keeps an `OfferIndex` up to date."""

    def __init__(
        self,
        chain: ChainView,
        transport: Transport,
        offers: OfferIndex,
        health: HealthBook,
        domain: Domain,
        clock: Callable[[], float],
    ) -> None:
        self._chain = chain
        self._transport = transport
        self._offers = offers
        self._health = health
        self._domain = domain
        self._clock = clock
        self._lock = asyncio.Lock()

    async def discover(self) -> DiscoveryReport:
        """Read the Registry at the confirmed block and fetch what is new.

        Raises:
            TransientError: `chain_unavailable`.
        """
        async with self._lock:
            await self._chain.refresh()
            return await self._fetch_all()

    async def _fetch_all(self) -> DiscoveryReport:
        report = DiscoveryReport()
        listed: list[ListedOffer] = []
        brokers: dict[tuple[Address, str], list[PublishedService]] = {}
        for service in self._chain.list_services():
            known = self._offers.find(service.provider, service.service_id)
            if not service.is_active:
                report.errors[_name(service)] = "its provider's stake does not stand"
            elif known and self._is_current(known, service):
                listed.append(known)
            else:
                brokers.setdefault((service.provider, service.uri), []).append(service)
        slots = asyncio.Semaphore(FETCHES_AT_ONCE_MAX)
        found = await asyncio.gather(
            *(
                self._fetch_broker(slots, uri, wanted, report)
                for (_, uri), wanted in brokers.items()
            )
        )
        for offers in found:
            listed += offers
        self._offers.replace_all(listed)
        report.listed = len(listed)
        return report

    def _is_current(self, known: ListedOffer, service: PublishedService) -> bool:
        return (
            known.offer_hash == service.offer_hash
            and known.receipt_key == service.receipt_key
            and known.offer.valid_until > self._clock()
        )

    async def _fetch_broker(
        self,
        slots: asyncio.Semaphore,
        uri: str,
        wanted: list[PublishedService],
        report: DiscoveryReport,
    ) -> list[ListedOffer]:
        try:
            async with slots, asyncio.timeout(FETCH_S):
                items = await self._fetch_offers(uri)
        except (HanseError, TimeoutError) as error:
            reason = error.message if isinstance(error, HanseError) else f"silent for {FETCH_S:g} s"
            for service in wanted:
                report.errors[_name(service)] = reason
                self._health.report_failure(service.provider, reason)
            return []
        listed = []
        read = _read_offers(items)
        for service in wanted:
            try:
                listed.append(self._find_offer(read, service))
            except VerificationError as error:
                report.errors[_name(service)] = error.message
        return listed

    async def _fetch_offers(self, uri: str) -> list[Any]:
        url = uri.rstrip("/") + "/hanse/v1/offers"
        response = await self._transport.send("GET", url, {}, b"", silence_s=FETCH_S)
        try:
            body = await read_body(response, OFFERS_BODY_BYTES_MAX)
        finally:
            response.close()
        if response.status != 200:
            raise TransientError(
                "provider_unreachable", f"its offers come with status {response.status}"
            )
        try:
            return msgspec.json.decode(body, type=_Offers).offers[:OFFERS_PER_BROKER_MAX]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise VerificationError("offer_invalid", "its offers are malformed") from None

    def _find_offer(self, read: "_ReadOffers", service: PublishedService) -> ListedOffer:
        """The offer that the Registry published, verified."""
        seen = read.problem
        for signed in read.by_service.get((service.provider, service.service_id), ()):
            offer = signed.offer
            offer_hash = "0x" + offer.struct_hash().hex()
            if offer_hash != service.offer_hash:
                seen = f"the offer hashes to {offer_hash}, published was {service.offer_hash}"
                continue
            if offer.service_type != service.service_type:
                raise VerificationError(
                    "offer_invalid",
                    f"the offer is for {offer.service_type}, published was {service.service_type}",
                )
            verify_offer(signed, self._domain, service.receipt_key, int(self._clock()))
            return ListedOffer(signed, offer_hash, service.receipt_key)
        raise VerificationError("offer_invalid", seen or "the broker does not have the offer")


def _read_offers(items: list[Any]) -> _ReadOffers:
    found = _ReadOffers()
    for item in items:
        try:
            signed = offer_from_json(item)
        except VerificationError as error:
            found.problem = error.message
            continue
        key = (signed.offer.provider, signed.offer.service_id)
        found.by_service.setdefault(key, []).append(signed)
    return found


def _name(service: PublishedService) -> str:
    return f"{service.provider}/{service.service_id}"
