"""The brokers: `hanse.provider` whole, with disk, node and network of the world.

    first = BrokerComponent(world, "broker-2", SHARED)
    second = BrokerComponent(world, "broker-2-second", SHARED, first)

Two brokers of one provider share its database and stand behind one address. A real pair shares
PostgreSQL; what is SQLite here runs one transaction after the other as well. That the two engines
promise the same is the store's own tests' affair, and how PostgreSQL fails is not seen here.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

from chaos.machine.disk import ChaosDatabase
from chaos.market.components import Component, Listener, close_files
from chaos.market.recording import RECORDS, open_record_seams
from chaos.market.tracing import get_trace_settings, open_chaos_traces
from chaos.world import TERMS, World, get_key
from hanse.chain import Rpc
from hanse.engines import Answer, Chunk, EngineRequest
from hanse.engines.echo_engine import EchoEngine, Fault, Settings
from hanse.protocol.errors import HanseError
from hanse.protocol.messages import Prices
from hanse.provider import BrokerKeys, BrokerProcess, BrokerSettings, Service, ServingLimits
from hanse.settlement.records.sides import Seams
from hanse.settlement.traces.document import Side
from hanse.settlement.traces.writer import TraceWriter
from hanse.store.database import Database
from hanse.store.leases import LeaseTerms

PRICES = Prices(1_000_000, 500_000, 3_000_000)
"""A base unit a word in, three a word out: every fee is told apart by its last digit."""

MODEL = "echo-fake"

SHARED = "postgresql://chaos"
"""Says that the database may be shared; what is opened is the component's disk."""

LEASE = LeaseTerms(beat_s=0.5, missed_max=4)

LIMITS = ServingLimits(
    request_time_s=12.0, keep_alive_s=2.0, send_stall_s=6.0, queue_max=8, body_time_s=5.0
)


class CountingEngine(EchoEngine):
    """The fake engine, counting in the world how often each answer was begun."""

    def __init__(self, world: World, settings: Settings) -> None:
        super().__init__(settings)
        self._world = world

    async def answer(self, request: EngineRequest) -> Answer:
        """See `Engine`."""
        self._world.served[request.answer_id] += 1
        return await super().answer(request)

    async def stream(self, request: EngineRequest) -> AsyncGenerator[Chunk, None]:
        """See `Engine`."""
        self._world.served[request.answer_id] += 1
        async for chunk in super().stream(request):
            yield chunk


class BrokerComponent(Component):
    """One provider's broker, or one of two that are `beside` each other on one disk."""

    def __init__(
        self,
        world: World,
        name: str,
        database: str = "",
        beside: "BrokerComponent | None" = None,
        *,
        has_traces: bool = False,
    ) -> None:
        super().__init__(world, name)
        if beside is not None:
            self.disk, self.role = beside.disk, beside.role
            self.disk.is_shared = True
        self.url = f"http://{self.role}"
        self.owner, self.receipt_key = get_key(self.role), get_key(f"{self.role} receipts")
        self.has_traces = has_traces
        self._database = database
        self.fault = Fault()
        self.broker: BrokerProcess | None = None
        self._engine: CountingEngine | None = None

    @property
    def is_admitting(self) -> bool:
        """Whether it takes paid requests."""
        ready = self.is_alive and self.broker is not None and self.broker.broker.admitting
        return bool(ready)

    def settle(self) -> None:
        """Settle all that is owed, as on an operator's demand."""
        if self.is_admitting and self.process is not None and self.broker is not None:
            settling = self.process.spawn(self._settle(self.broker))
            self.broker.failed.add_done_callback(lambda _: settling.cancel())

    async def _settle(self, broker: BrokerProcess) -> None:
        try:
            await broker.settle_now()
        except HanseError as error:
            self.world.note(f"{self.name} settles later: {error.code}: {error.message[:200]}")

    def set_fault(self, fault: Fault) -> None:
        """What its engine does wrong from now on."""
        self.fault = fault
        if self._engine is not None:
            self._engine.fault = fault

    async def main(self) -> None:
        """See `Component`."""
        settings = BrokerSettings(
            provider=self.owner.address,
            data_dir=self.folder,
            rpc_url="",
            deployment=self.world.deployment,
            endpoints=(self.url,),
            stake=TERMS.minimum_stake,
            settle_interval_s=45.0,
            settle_margin_s=1_800.0,
            maintenance_interval_s=4.0,
            offer_valid_s=1_200,
            limits=LIMITS,
            records=RECORDS,
            database=self._database,
            lease=LEASE,
            traces=get_trace_settings(self) if self.has_traces else None,
        )
        self._engine = CountingEngine(
            self.world,
            Settings(model=MODEL, answer_tokens=40, token_delay_s=0.02, parallel=6),
        )
        self._engine.fault = self.fault
        services = [Service(1, self._engine, PRICES)]
        keys = BrokerKeys(self.receipt_key, self.owner)
        self.broker = None
        broker = await _make_class(self).start(settings, keys, services, now_s=self.get_time_s)
        self.broker = broker
        self.world.note(f"{self.name} admits")
        await asyncio.wait([broker.failed])
        self.broker = None
        error = broker.failed.exception()
        await broker.stop()
        assert error is not None
        raise error

    def _on_death(self) -> None:
        super()._on_death()
        close_files(self.folder / "broker.lock")


def _make_class(component: BrokerComponent) -> type[BrokerProcess]:
    class ChaosBroker(BrokerProcess):
        monotonic = staticmethod(component.world.loop.time)

        def _draw_bytes(self, count: int) -> bytes:
            return component.lot.randbytes(count)

        async def _open_database(self) -> ChaosDatabase:
            return component.open_database()

        def _connect(self) -> Rpc:
            return component.connect()

        def _get_record_seams(self) -> Seams | None:
            return open_record_seams(component)

        def _bind(self) -> Any:
            return Listener(component.world, component.url)

        async def _open_traces(
            self,
            database: Database,
            now_s: Callable[[], float],
            failpoint: Callable[[str], None],
        ) -> TraceWriter | None:
            if not component.has_traces:
                return None
            writer = await open_chaos_traces(component, database, Side.PROVIDER)
            return await self._closers.enter_async_context(writer)

    return ChaosBroker
