"""A broker from its settings to its end: engines, chain, database, server.

Start: recover the book, start engines, index the chain, register and publish, serve. Stop: refuse
new requests with 503 `draining`, let those at work finish within a limit, stop the server, settle
if asked, close. What a crash skips of that, the next start makes good. What it does in between is
in `hanse.provider.rounds`.
"""

import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace

from hanse.chain import Key, Rpc
from hanse.chain.asset import Asset
from hanse.chain.deployment import verify_deployment
from hanse.chain.escrow import Escrow
from hanse.chain.index import EventIndex
from hanse.chain.outbox import Outbox
from hanse.chain.registry import Registry
from hanse.engines import Progress
from hanse.protocol.eip712 import Domain
from hanse.protocol.errors import HanseError
from hanse.protocol.messages import Prices
from hanse.protocol.signatures import Address
from hanse.provider.app import Broker, no_failpoint
from hanse.provider.attesting import open_attesting
from hanse.provider.chain_view import IndexedChainView
from hanse.provider.cheating import open_broker_cheats
from hanse.provider.finishing import Failpoint
from hanse.provider.offers import OfferBook, Service, list_engines
from hanse.provider.publishing import Publisher, fetch_confirmed_block, register_if_needed
from hanse.provider.rounds import MONEY_LOOK_S, Rounds
from hanse.provider.settings import BrokerKeys, BrokerSettings
from hanse.provider.sharing import Sharing
from hanse.serving import HttpServer, ServingProcess, run_until_signal
from hanse.settlement import SubAccountFunds, open_receipt_book
from hanse.settlement.books.book_guard import MARK_INTERVAL_S, verify_book_is_newest
from hanse.settlement.chain_state.index_storage import open_index_storage
from hanse.settlement.chain_state.outbox_storage import DatabaseOutboxStorage, open_outbox_storage
from hanse.settlement.chain_state.sub_account_fold import create_provider_fold
from hanse.settlement.money.provider_money import ProviderMoney
from hanse.settlement.money.provider_reader import ProviderMoneyReader
from hanse.settlement.netting.round_storage import open_round_storage
from hanse.settlement.netting.scheduler import Scheduler, fetch_gas_market
from hanse.settlement.netting.settled import SettlementBatch
from hanse.settlement.netting.settler import Settler
from hanse.settlement.openings.opening_book import open_opening_book
from hanse.settlement.records.sides import Seams, open_provider_submitter
from hanse.settlement.records.submitter import Submitter
from hanse.settlement.traces.document import Side
from hanse.settlement.traces.writer import TraceWriter, open_trace_writer
from hanse.store import Database, hold_folder, open_database

DATABASE_NAME = "broker.sqlite3"

LAST_RECEIPTS_S = 5.0
"""For the receipts of answers that were cancelled when draining took too long: one commit each."""

_log = logging.getLogger(__name__)


class BrokerProcess(ServingProcess):
    """A running broker. Make one with `start`, end it with `stop`."""

    def __init__(self, settings: BrokerSettings, services: Sequence[Service]) -> None:
        super().__init__("broker", self._begin_draining)
        self.settings = settings
        self._services = services
        self.broker: Broker
        self.scheduler: Scheduler
        self.records: Submitter
        self._rounds: Rounds
        self._sharing: Sharing
        self._publish: Callable[[], Awaitable[None]]

    @classmethod
    async def start(
        cls,
        settings: BrokerSettings,
        keys: BrokerKeys,
        services: Sequence[Service],
        progress: Progress | None = None,
        now_s: Callable[[], float] = time.time,
        failpoint: Failpoint = no_failpoint,
    ) -> "BrokerProcess":
        """Start everything; returns when paid requests are admitted.

        Raises:
            RequestError: a setting, a key or the database does not fit.
            TransientError: an engine, the chain's node or the store is not ready.
            ChainError: the Registry refused.
        """
        process = cls(settings, services)
        return await process._begin(process._start(keys, progress, now_s, failpoint))

    async def settle_now(self, gas_share_ppm: int | None = None) -> list[SettlementBatch]:
        """On demand; see `Scheduler.settle`.

        Raises:
            RequestError: `configuration_invalid`: another broker of this provider leads.
        """
        self._sharing.check_is_leader()
        return await self._rounds.settle_now(gas_share_ppm)

    async def reprice(self, prices: Mapping[int, Prices]) -> None:
        """Publish services at other prices, by number; nothing happens unless this broker leads.

        Requests that were signed for the old prices are served at them for a while.
        """
        if self._sharing.is_leader:
            self._services = [
                replace(service, prices=prices.get(service.service_id, service.prices))
                for service in self._services
            ]
            await self._publish()

    async def read_money(self) -> ProviderMoney:
        """Every unit of this provider: where, why, until when, and what would free it."""
        return await self._rounds.read_money()

    async def complete_due_refunds(self) -> int:
        """See `Scheduler.complete_due_refunds`."""
        return await self.scheduler.complete_due_refunds()

    async def stop(self) -> None:
        """Drain, stop serving, settle if the settings say so, close."""
        self.broker.begin_draining()
        await self.broker.wait_idle(self.settings.drain_time_s)
        try:
            await self.server.stop()
            await self.broker.wait_idle(LAST_RECEIPTS_S)  # cancelled answers are receipted too
            is_able = self._sharing.is_leader and not self.failed.done()
            if self.settings.settle_on_stop and is_able:
                await self.scheduler.settle(asked=True)
        except HanseError as error:
            _log.warning("the last settlement has to wait for the next start: %s", error.message)
        finally:
            await self._close()

    async def _start(
        self,
        keys: BrokerKeys,
        progress: Progress | None,
        now_s: Callable[[], float],
        failpoint: Failpoint,
    ) -> None:
        settings, deployment = self.settings, self.settings.deployment
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A second broker would end the first one's requests as if it had died.
        self._closers.enter_context(hold_folder(settings.data_dir, "broker"))
        database = await self._open_database()
        self._closers.push_async_callback(database.close)
        rpc = self._connect()
        self._closers.push_async_callback(rpc.close)
        await verify_deployment(rpc, deployment)
        self.server = self._bind()
        self._closers.push_async_callback(self.server.stop)

        domain = Domain(deployment.chain_id, deployment.escrow)
        sharing = await Sharing.join(
            *(settings, database, self.server.url, self.monotonic, self._draw_bytes)
        )
        self._sharing = sharing
        self._closers.push_async_callback(sharing.leave)
        book = await open_receipt_book(
            database, settings.provider, domain, keys.receipt, sharing.membership
        )
        sharing.begin(book, self._loops, now_s)
        escrow = Escrow(rpc, deployment.escrow)
        view = await self._start_view(database, rpc, escrow)
        mark = await verify_book_is_newest(settings.data_dir, database, view.list_funds())
        recovered = await book.recover(int(now_s()))
        if recovered:
            _log.warning("%s requests were cut by a crash and cost nothing", len(recovered))

        for engine in list_engines(self._services):
            self._closers.push_async_callback(engine.close)
            await engine.start(progress)

        storage = await open_outbox_storage(database, sharing.verify_leads)
        outbox = self._create_outbox(rpc, keys.receipt, storage)
        owner_outbox = self._create_outbox(rpc, keys.owner, storage) if keys.owner else None
        registry, asset = Registry(rpc, deployment.registry), Asset(rpc, deployment.asset)
        offers = OfferBook(now_s)
        publisher = Publisher(
            *(settings, database, registry, outbox, rpc, domain, keys.receipt, offers, now_s),
            sharing.verify_leads,
        )

        async def publish() -> None:
            await register_if_needed(settings, rpc, registry, asset, keys.receipt, owner_outbox)
            await publisher.publish_all(self._services, self._get_endpoints())

        async def adopt() -> bool:
            return await publisher.adopt(self._services)

        async def renew_offers() -> None:
            if sharing.is_leader:
                await publisher.renew(self._services, self._get_endpoints())

        self._publish = publish
        await sharing.offer(publish, adopt)

        traces = await self._open_traces(database, now_s, failpoint)
        self.records = await self._closers.enter_async_context(
            open_provider_submitter(
                *(settings.records, settings.provider, keys.receipt, database, rpc, deployment),
                traces.find_trace_hash if traces else None,
                self._get_record_seams(),
            )
        )
        cheats = open_broker_cheats(settings.cheats, keys.receipt, domain)
        settler = Settler(
            *(book, escrow, outbox, storage, settings.provider, view, failpoint),
            records_head=self.records.get_head,
            change_claim=cheats.claim,
        )
        self.broker = Broker(
            provider=settings.provider,
            domain=domain,
            book=book,
            chain_view=view,
            offers=offers,
            limits=settings.limits,
            now_s=now_s,
            monotonic=self.monotonic,
            failpoint=failpoint,
            traces=traces,
            openings=await open_opening_book(database),
            attesting=open_attesting(settings.attesting, settings.provider, keys.receipt.address),
            cheats=cheats,
        )
        self.scheduler = Scheduler(
            settler,
            settings.settlement_rules,
            lambda: fetch_gas_market(rpc),
            await open_round_storage(database, settings.provider),
            self.broker.parts.metrics.show_plan,
        )
        money = ProviderMoneyReader(
            settings.data_dir.name,
            settings.provider,
            keys.receipt.address,
            rpc,
            deployment,
            database,
            book,
            storage,
            view,
            settings.settlement_rules,
        )
        self._rounds = Rounds(self.broker, self.scheduler, renew_offers, money)
        await self._rounds.look()

        def lead() -> None:
            self._loops.spawn(outbox.run())
            self._loops.spawn(self.records.run())
            self._loops.repeat(settings.maintenance_interval_s, self._rounds.settle)

        sharing.lead(lead, publish, adopt, self._loops)
        self._loops.repeat(MARK_INTERVAL_S, mark.write)
        self._closers.push_async_callback(mark.close)
        self._loops.repeat(settings.maintenance_interval_s, self._rounds.maintain)
        self._loops.repeat(MONEY_LOOK_S, self._rounds.look_at_money)
        await self.server.start(self.broker)
        self.broker.admitting = True

    # The seams to disk, node, network and chance; a simulation overrides them.

    monotonic = staticmethod(time.monotonic)

    def _draw_bytes(self, count: int) -> bytes:
        return secrets.token_bytes(count)

    async def _open_database(self) -> Database:
        place = self.settings.database or self.settings.data_dir / DATABASE_NAME
        return await open_database(place, is_served=True)

    def _connect(self) -> Rpc:
        return Rpc.connect(self.settings.rpc_url)

    def _get_record_seams(self) -> Seams | None:
        return None

    def _bind(self) -> HttpServer:
        return HttpServer.bind(self.settings.host, self.settings.port)

    async def _open_traces(
        self, database: Database, now_s: Callable[[], float], failpoint: Failpoint
    ) -> TraceWriter | None:
        if (settings := self.settings.traces) is None:
            return None
        writer = await open_trace_writer(settings, database, Side.PROVIDER, now_s, failpoint)
        return await self._closers.enter_async_context(writer)

    async def _start_view(self, database: Database, rpc: Rpc, escrow: Escrow) -> IndexedChainView:
        settings, deployment = self.settings, self.settings.deployment

        async def fetch(user: Address, signer: Address) -> SubAccountFunds:
            block = await fetch_confirmed_block(rpc, settings)
            found = await escrow.read_sub_account(user, settings.provider, signer, block=block)
            return SubAccountFunds(
                found.balance, found.claimed, found.sequence, found.refund, found.unlock_time_s
            )

        view = IndexedChainView(fetch, self.monotonic)
        storage = await open_index_storage(
            database, "broker", create_provider_fold(settings.provider), view.on_change
        )
        await view.load(storage)
        index = EventIndex(
            rpc,
            [escrow.contract],
            storage,
            start_block=deployment.start_block,
            confirmations=deployment.confirmations,
        )
        await index.catch_up()
        self._loops.spawn(index.run())
        return view

    def _create_outbox(self, rpc: Rpc, key: Key, storage: DatabaseOutboxStorage) -> Outbox:
        deployment = self.settings.deployment
        return Outbox(
            rpc,
            key,
            storage,
            chain_id=deployment.chain_id,
            confirmations=deployment.confirmations,
            clock=self.monotonic,
        )

    def _get_endpoints(self) -> tuple[str, ...]:
        return self.settings.endpoints or (self.server.url,)

    def _begin_draining(self) -> None:
        if hasattr(self, "broker"):
            self.broker.begin_draining()


async def run_broker(
    settings: BrokerSettings,
    keys: BrokerKeys,
    services: Sequence[Service],
    *,
    on_ready: Callable[[BrokerProcess], None] = lambda process: None,
    progress: Progress | None = None,
) -> None:
    """Run a broker until SIGTERM or SIGINT, then drain and return.

    Raises:
        HanseError: it could not start, or had to stop: the message says why and what to do.
    """
    process = await BrokerProcess.start(settings, keys, services, progress)
    await run_until_signal(process, on_ready)
