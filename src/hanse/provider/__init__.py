"""The broker: a provider's process in front of its engines.

Run one (what the command line does):

    settings = BrokerSettings(provider=..., data_dir=..., rpc_url=..., deployment=..., port=8100)
    keys = BrokerKeys(receipt=receipt_key, owner=owner_key)   # owner: only to register
    services = [Service(1, open_engine("llama"), Prices(...), model="smollm2-135m")]
    await run_broker(settings, keys, services, on_ready=lambda process: print(process.url))

`run_broker` starts the engines, registers and publishes what is not on chain yet, serves until
SIGTERM or SIGINT, drains, settles if asked, and returns. To drive one from a program:

    process = await BrokerProcess.start(settings, keys, services, progress=...)
    process.url; await process.settle_now(); await process.complete_due_refunds()
    await process.stop()                                          # drains first

`Broker` is the bare ASGI application with everything passed in (book, chain view, offers, clock);
`StaticChainView` stands in for a chain.

app        routing, error shapes          serve      the path of a paid request
paid_body  what money depends on          finishing  every request's end: fee and receipt
streaming  frames, hold-back, leaving     sealing    answers under the caller's key
offers     build and sign                 publishing register, publish, renew
chain_view the chain's sub-accounts       queries    the signed read endpoints
slots      what may be at work at once    metrics    Prometheus
settings   limits of this process         http       bodies, headers and answers
lifecycle  start, drain, stop             loops      duties again and again
"""

from hanse.provider.app import Broker
from hanse.provider.chain_view import ChainView, IndexedChainView, StaticChainView
from hanse.provider.lifecycle import BrokerProcess, run_broker
from hanse.provider.offers import OfferBook, Service, build_offer, sign_offer
from hanse.provider.settings import BrokerKeys, BrokerSettings, ServingLimits

__all__ = [
    "run_broker",
    "BrokerProcess",
    "BrokerSettings",
    "BrokerKeys",
    "ServingLimits",
    "Service",
    "Broker",
    "OfferBook",
    "build_offer",
    "sign_offer",
    "ChainView",
    "IndexedChainView",
    "StaticChainView",
]
