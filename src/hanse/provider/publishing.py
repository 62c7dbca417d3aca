"""Puts a provider and its offers on the chain, and keeps the offers renewed.

An offer is stored before it is published, so that a crash in between finds the same offer again and
does not spend another revision. An offer that says what would be said now, is what the Registry
shows, and is good for a while yet, is kept.

A provider whose stake does not stand cannot publish; it starts all the same, since it can always
claim what was signed to it. One that is condemned offers nothing any more, for ever.
"""

import asyncio
import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import msgspec

from hanse.chain import Call, OutboxEntry, Rpc
from hanse.chain.asset import Asset
from hanse.chain.outbox import Outbox
from hanse.chain.registry import PublishedService, Registry
from hanse.protocol.eip712 import Domain
from hanse.protocol.errors import RequestError, VerificationError
from hanse.protocol.messages import Offer, SignedOffer
from hanse.protocol.signatures import DigestSigner, to_hex
from hanse.protocol.wire import offer_from_json, offer_to_json
from hanse.provider.offers import CONDEMNED, OfferBook, Service, build_offer, sign_offer
from hanse.provider.settings import BrokerSettings
from hanse.store import Database, Transaction

_COMPONENT = "broker_offers"
_STEPS = ("CREATE TABLE broker_offers (service_id TEXT PRIMARY KEY, offer TEXT NOT NULL)",)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Publisher:
    """Publishes the offers of one provider by its receipt key."""

    settings: BrokerSettings
    database: Database
    registry: Registry
    outbox: Outbox
    rpc: Rpc
    domain: Domain
    receipt_key: DigestSigner
    offers: OfferBook
    now_s: Callable[[], float]
    verify: Callable[[Transaction], None] = lambda tx: None
    """Raises, inside each write, if this process may not publish any more."""

    async def publish_all(self, services: Sequence[Service], endpoints: Sequence[str]) -> None:
        """Bring every service's offer into force; sends a transaction only for what has changed.

        Without a standing stake nothing new is published, which is said in the log.

        Raises:
            ChainError: the Registry refused.
        """
        await self.database.migrate(_COMPONENT, _STEPS)
        if await self._is_condemned():
            return
        # together, so that several services wait for one block and not for one each
        await asyncio.gather(*(self._publish(service, endpoints) for service in services))

    async def adopt(self, services: Sequence[Service]) -> bool:
        """Take over what another process of this provider has published for all of them.

        Returns:
            Whether every service has its offer, or none may have one: the provider is condemned.

        Raises:
            RequestError: `configuration_invalid` if it sells something else than this process does.
        """
        await self.database.migrate(_COMPONENT, _STEPS)
        is_whole = True
        for service in [] if self.offers.is_closed else services:
            stored = await self._find_stored(service.service_id)
            if stored is None or stored.offer.valid_until <= self.now_s():
                is_whole = False
                continue
            current = self.offers.find_current(service.service_id)
            if current is not None and current.signed == stored:
                continue
            if service.follows_leader:
                service = replace(service, prices=stored.offer.prices)
            endpoints, until = stored.offer.endpoints, stored.offer.valid_until
            own = await self._build(service, endpoints, until, 0)
            if not _says_the_same(stored.offer, own):
                raise RequestError(
                    "configuration_invalid",
                    f"another broker on this database offers service {service.service_id} "
                    f"otherwise ({_show_differences(stored.offer, own)}): give all the same "
                    "engine, model, prices, settings and keys, and change them with all stopped",
                )
            self.offers.put(stored, service)
        return is_whole or await self._is_condemned()

    async def renew(self, services: Sequence[Service], endpoints: Sequence[str]) -> None:
        """Publish again what is past half of its time; asks neither engine nor chain for the rest.

        Raises:
            ChainError: the Registry refused.
        """
        half_s = self.settings.offer_valid_s // 2
        for service in services:
            current = self.offers.find_current(service.service_id)
            if current is None or current.signed.offer.valid_until - self.now_s() <= half_s:
                if await self._is_condemned():
                    return
                await self._publish(service, endpoints)

    async def _publish(self, service: Service, endpoints: Sequence[str]) -> None:
        now = int(self.now_s())
        wanted = await self._build(service, endpoints, now + self.settings.offer_valid_s, 0)
        block = await fetch_confirmed_block(self.rpc, self.settings)
        listed = await self.registry.read_service(
            self.settings.provider, service.service_id, block=block
        )
        stored = await self._find_stored(service.service_id)
        if stored is not None and _says_the_same(stored.offer, wanted):
            good_for_s = stored.offer.valid_until - now
            is_listed = listed.active and listed.offer_hash == to_hex(stored.offer.struct_hash())
            if is_listed and good_for_s > self.settings.offer_valid_s // 2:
                self.offers.put(stored, service)
                return
        if not await self.registry.read_is_active(self.settings.provider, block=block):
            _log.warning(
                "service %s is not published: the stake of %s does not stand (unbonding, or below "
                "the minimum); what is owed is settled all the same",
                service.service_id,
                self.settings.provider,
            )
            return
        revision = max(listed.revision, stored.offer.revision if stored else 0) + 1
        offer = await self._build(service, endpoints, wanted.valid_until, revision)
        signed = sign_offer(offer, self.domain, self.receipt_key)
        await self._store(service.service_id, signed)
        # the Registry's URI is where the broker answers; users add /hanse/v1/offers to it
        published = _to_published(offer, endpoints[0])
        await submit_anew(
            self.outbox, "publish", self.registry.publish_service(self.settings.provider, published)
        )
        self.offers.put(signed, service)
        _log.info("published service %s, revision %s", service.service_id, revision)

    async def _is_condemned(self) -> bool:
        """Whether the confirmed Registry says so; then all offers end, and the log says why."""
        if not self.offers.is_closed:
            block = await fetch_confirmed_block(self.rpc, self.settings)
            info = await self.registry.read_provider(self.settings.provider, block=block)
            if info.is_condemned:
                self.offers.close(CONDEMNED)
        return self.offers.is_closed

    async def _build(
        self, service: Service, endpoints: Sequence[str], valid_until: int, revision: int
    ) -> Offer:
        return await build_offer(
            service,
            provider=self.settings.provider,
            endpoints=endpoints,
            encryption_key=self.settings.encryption_key,
            valid_until=valid_until,
            revision=revision,
            region=self.settings.region,
        )

    async def _find_stored(self, service_id: int) -> SignedOffer | None:
        row = await self.database.read(
            lambda tx: tx.find_one(
                "SELECT offer FROM broker_offers WHERE service_id = ?", (str(service_id),)
            )
        )
        try:
            return offer_from_json(msgspec.json.decode(row[0])) if row else None
        except VerificationError as error:  # of another version of the wire: published anew
            _log.warning("the stored offer of service %s: %s", service_id, error.message)
            return None

    async def _store(self, service_id: int, signed: SignedOffer) -> None:
        text = msgspec.json.encode(offer_to_json(signed)).decode()

        def put(tx: Transaction) -> None:
            self.verify(tx)
            tx.execute(
                "INSERT INTO broker_offers (service_id, offer) VALUES (?, ?) "
                "ON CONFLICT (service_id) DO UPDATE SET offer = excluded.offer",
                (str(service_id), text),
            )

        await self.database.write(put)


async def register_if_needed(
    settings: BrokerSettings,
    rpc: Rpc,
    registry: Registry,
    asset: Asset,
    receipt_key: DigestSigner,
    owner_outbox: Outbox | None,
) -> bool:
    """Register the provider unless it is; returns whether it was done now.

    Raises:
        RequestError: `configuration_invalid` if it must be registered and the owner's key is not at
            hand, or if the Registry shows another receipt key than ours.
        ChainError: the Registry refused.
    """
    block = await fetch_confirmed_block(rpc, settings)
    info = await registry.read_provider(settings.provider, block=block)
    if info.is_registered:
        if info.receipt_key != receipt_key.address:
            raise RequestError(
                "configuration_invalid",
                f"the Registry shows receipt key {info.receipt_key} for {settings.provider}, this "
                f"broker has {receipt_key.address}: use that key, or announce this one",
            )
        return False
    if owner_outbox is None or owner_outbox.address != settings.provider:
        raise RequestError(
            "configuration_invalid",
            f"{settings.provider} is not registered, and its own key is not at hand: "
            "start once with it",
        )
    if settings.stake > 0:
        await submit_anew(owner_outbox, "approve", asset.approve(registry.address, settings.stake))
    payee = settings.payee or settings.provider
    await submit_anew(
        owner_outbox,
        "register",
        registry.register(settings.stake, receipt_key.address, payee),
    )
    return True


async def fetch_confirmed_block(rpc: Rpc, settings: BrokerSettings) -> int:
    """The newest block that is deep enough to decide by."""
    head = await rpc.fetch_head()
    return max(0, head.number - settings.deployment.confirmations)


async def submit_anew(outbox: Outbox, name: str, call: Call) -> OutboxEntry:
    """Submit a call and wait; the same call that is still on its way is waited for instead."""
    digest = hashlib.sha256((call.to or "").encode() + call.data).hexdigest()[:32]
    number = 0
    while True:
        key = f"{name}:{digest}:{number}"
        found = await outbox.find(key)
        if found is None or not found.is_final:
            return await outbox.submit(key, call)
        number += 1


def _says_the_same(offer: Offer, wanted: Offer) -> bool:
    same = msgspec.structs.replace(offer, valid_until=wanted.valid_until, revision=wanted.revision)
    return same == wanted


def _show_differences(theirs: Offer, own: Offer) -> str:
    """What two offers say differently, for people."""
    return "; ".join(
        f"{name}: there {getattr(theirs, name)!r:.100}, here {getattr(own, name)!r:.100}"
        for name in Offer.__struct_fields__
        if name != "revision" and getattr(theirs, name) != getattr(own, name)
    )


def _to_published(offer: Offer, uri: str) -> PublishedService:
    return PublishedService(
        offer.service_id,
        offer.revision,
        to_hex(offer.struct_hash()),
        offer.service_type,
        uri,
        offer.prices.input_per_mtok,
        offer.prices.cached_per_mtok,
        offer.prices.output_per_mtok,
    )
