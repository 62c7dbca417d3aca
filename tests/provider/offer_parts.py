"""An offer in force without a chain: built, signed and put, and what a registry would say of it."""

import time

from hanse.chain import Key
from hanse.market import PublishedService
from hanse.protocol.eip712 import Domain
from hanse.protocol.signatures import ZERO_HASH, to_hex
from hanse.provider import OfferBook, Service, build_offer, sign_offer


async def put_on_offer(
    offers: OfferBook,
    service: Service,
    *,
    provider: str,
    url: str,
    domain: Domain,
    receipt_key: Key,
    encryption_key: str = ZERO_HASH,
    valid_until: int | None = None,
) -> PublishedService:
    """The service's first offer; by default it is good for a day."""
    offer = await build_offer(
        service,
        provider=provider,
        endpoints=(url,),
        encryption_key=encryption_key,
        valid_until=valid_until or int(time.time()) + 86_400,
        revision=1,
    )
    offers.put(sign_offer(offer, domain, receipt_key), service)
    return PublishedService(
        provider,
        service.service_id,
        1,
        to_hex(offer.struct_hash()),
        offer.service_type,
        url,
        receipt_key.address,
    )
