"""A market on loopback whose one provider runs real models: SmolLM2, Whisper tiny.en, hibari.

Only the chain is told instead of read.
"""

import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from hanse.chain import Key
from hanse.engines import Engine, Operation, open_engine
from hanse.engines.llama_engine import LlamaEngine
from hanse.gateway import GatewaySettings
from hanse.protocol.messages import Prices
from hanse.provider import Broker, OfferBook, Service, StaticChainView
from hanse.sdk import FixedChain, Hanse, HanseParts
from hanse.sdk.transport import TransportLimits
from hanse.sdk.transport.http import HttpTransport
from hanse.serving import HttpServer
from hanse.settlement import SubAccountFunds, open_receipt_book
from hanse.settlement.books.voucher_book import open_voucher_book
from hanse.store import open_sqlite
from tests.gateway.gateway_parts import RunningGateway, run_gateway_here
from tests.gateway.market_parts import DOMAIN, FUNDS, SIGNER_KEY, USER
from tests.provider.offer_parts import put_on_offer

PROVIDER = "0x" + "c1" * 20
CHAT, EMBED, EAR, VOICE = "smollm2", "smollm2-vectors", "whisper-tiny.en", "hibari"
PRICES = {
    CHAT: Prices(100_000, 50_000, 300_000),
    EMBED: Prices(100_000, 100_000, 0),
    EAR: Prices(6_000_000, 6_000_000, 0),  # 6 base units a second
    VOICE: Prices(2_000_000, 2_000_000, 0),  # 2 base units a character
}
MODELS_DIR = Path(__file__).parents[2] / ".cache" / "models"


@dataclass
class RealMarket:
    gateway: RunningGateway
    hanse: Hanse
    llama: LlamaEngine


def make_services(llama: Engine, ear: Engine, voice: Engine) -> list[Service]:
    answers = frozenset({Operation.CHAT, Operation.COMPLETION})
    return [
        Service(1, llama, PRICES[CHAT], model=CHAT, only=answers),
        Service(2, llama, PRICES[EMBED], model=EMBED, only=frozenset({Operation.EMBEDDINGS})),
        Service(3, ear, PRICES[EAR]),
        Service(4, voice, PRICES[VOICE]),
    ]


@contextlib.asynccontextmanager
async def open_real_market(path: Path) -> AsyncIterator[RealMarket]:
    async with contextlib.AsyncExitStack() as stack:
        llama = open_engine(
            "llama", {"cache_dir": str(MODELS_DIR), "threads": 2, "parallel": 2, "grammar": True}
        )
        assert isinstance(llama, LlamaEngine)
        ear, voice = open_engine("whisper", {"threads": 2}), open_engine("hibari", {})
        for engine in (llama, ear, voice):
            await engine.start()
            stack.push_async_callback(engine.close)
        receipt_key, funds = Key(b"\x02" * 32), SubAccountFunds(FUNDS, 0)
        database = await open_sqlite(path / "provider.sqlite")
        stack.push_async_callback(database.close)
        view = StaticChainView()
        view.set_funds(USER, SIGNER_KEY.address, funds)
        server = HttpServer.bind("127.0.0.1", 0)
        offers, published = OfferBook(time.time), []
        for service in make_services(llama, ear, voice):
            published.append(
                await put_on_offer(
                    offers,
                    service,
                    provider=PROVIDER,
                    url=server.url,
                    domain=DOMAIN,
                    receipt_key=receipt_key,
                )
            )
        broker = Broker(
            provider=PROVIDER,
            domain=DOMAIN,
            book=await open_receipt_book(database, PROVIDER, DOMAIN, receipt_key),
            chain_view=view,
            offers=offers,
        )
        await server.start(broker)
        stack.push_async_callback(server.stop)
        broker.admitting = True
        users = await open_sqlite(path / "user.sqlite")
        stack.push_async_callback(users.close)
        transport = HttpTransport(TransportLimits(), reaches_private=True)
        stack.push_async_callback(transport.close)
        parts = HanseParts(
            domain=DOMAIN,
            user=USER,
            signer=SIGNER_KEY,
            book=await open_voucher_book(users, DOMAIN),
            chain=FixedChain(published, {PROVIDER: funds}),
            transport=transport,
            clock=time.time,
        )
        hanse = await stack.enter_async_context(Hanse.join(parts))
        settings = GatewaySettings(port=0, drain_s=2.0)
        gateway = await stack.enter_async_context(run_gateway_here(hanse, settings))
        yield RealMarket(gateway, hanse, llama)
