"""The brokers: `hanse.provider` whole, with disk, node and network of the world."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from chaos.machine.disk import ChaosDatabase
from chaos.market.components import Component, Listener, close_files
from chaos.market.recording import RECORDS, open_record_seams
from chaos.world import TERMS, World, get_key
from hanse.chain import Rpc
from hanse.engines import Answer, Chunk, EngineRequest
from hanse.engines.echo_engine import EchoEngine, Fault, Settings
from hanse.protocol.errors import HanseError
from hanse.protocol.messages import Prices
from hanse.provider import BrokerKeys, BrokerProcess, BrokerSettings, Service, ServingLimits
from hanse.settlement.records.sides import Seams

PRICES = Prices(1_000_000, 500_000, 3_000_000)
"""A base unit a word in, three a word out: every fee is told apart by its last digit."""

MODEL = "echo-fake"

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
    """One provider's broker."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self.url = f"http://{name}"
        self.owner, self.receipt_key = get_key(name), get_key(f"{name} receipts")
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

        async def _open_database(self) -> ChaosDatabase:
            return component.open_database()

        def _connect(self) -> Rpc:
            return component.connect()

        def _get_record_seams(self) -> Seams | None:
            return open_record_seams(component)

        def _bind(self) -> Any:
            return Listener(component.world, component.url)

    return ChaosBroker
