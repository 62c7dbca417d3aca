"""A provider that publishes many services must not hold up everybody's look at the market."""

import time

from hanse.market import HealthBook, OfferIndex, PublishedService
from hanse.protocol.wire import offer_to_json
from hanse.sdk import FixedChain
from hanse.sdk.discovery import OFFERS_PER_BROKER_MAX, Discovery
from hanse.sdk.transport.asgi import AsgiTransport
from tests.sdk.conftest import DOMAIN, Clock
from tests.sdk.fake_broker import FakeBroker, _send_json

SERVICES = 5_000


async def test_attacker_publishes_thousands_of_services_and_serves_hundreds_of_offers():
    clock = Clock()
    broker = FakeBroker(DOMAIN, b"\x11" * 32, clock, url="http://attacker")
    items = [offer_to_json(broker.offer)] * OFFERS_PER_BROKER_MAX
    asked = 0

    async def app(scope, receive, send):
        nonlocal asked
        asked += 1
        await _send_json(send, 200, {"offers": items})

    services = [
        PublishedService(
            broker.provider, n, 1, "0x" + "ab" * 32, "chat", "http://attacker", broker.key.address
        )
        for n in range(1, SERVICES + 1)
    ]
    transport = AsgiTransport({"http://attacker": app})
    discovery = Discovery(
        FixedChain(services, {}), transport, OfferIndex(), HealthBook(clock), DOMAIN, clock
    )
    began = time.process_time()
    report = await discovery.discover()
    assert time.process_time() - began < 2.0  # read a service each, it took eight
    assert (report.listed, asked) == (0, 1)
    assert len(report.errors) == SERVICES
    await transport.close()
