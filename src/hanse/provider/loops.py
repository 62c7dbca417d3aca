"""What a broker does again and again, and what follows when one of these loops fails.

    loops = Loops(on_failed=broker.begin_draining)
    loops.spawn(index.run())                      # runs for ever; its end ends the broker
    loops.repeat(30.0, rounds.maintain)           # one line for another duty
    await loops.stop()

A `HanseError` of a repeated duty is logged and the duty is tried again after its interval; an
`InvariantError` and everything unexpected ends the process, since nothing that goes wrong with
money may go on unseen.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from hanse.protocol.errors import HanseError, InvariantError
from hanse.provider.app import Broker
from hanse.provider.offers import CONDEMNED
from hanse.settlement.money.provider_money import ProviderMoney
from hanse.settlement.money.provider_reader import ProviderMoneyReader
from hanse.settlement.netting.scheduler import Scheduler
from hanse.settlement.netting.settled import SettlementBatch

MONEY_LOOK_S = 60.0
"""Between looks at the money for health and metrics: it sums the book, 0.1 s a million requests."""

_log = logging.getLogger(__name__)


class Loops:
    """The background tasks of one process."""

    def __init__(self, on_failed: Callable[[], None] = lambda: None) -> None:
        self._on_failed = on_failed
        self._tasks: list[asyncio.Task[None]] = []
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done, with the reason, when a loop has ended and the process must stop."""

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something that never ends."""
        task = asyncio.create_task(work)
        task.add_done_callback(self._on_ended)
        self._tasks.append(task)

    def repeat(self, interval_s: float, work: Callable[[], Awaitable[None]]) -> None:
        """Do `work` every `interval_s`, for the first time after one interval; 0 for never."""
        if interval_s > 0:
            self.spawn(_repeat(interval_s, work))

    async def stop(self) -> None:
        """Cancel all loops and wait for them."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def close(self) -> None:
        """Let go of `failed`, once nobody waits for it any more."""
        if self.failed.done():
            self.failed.exception()  # looked at, so that nobody warns
        else:
            self.failed.cancel()

    def _on_ended(self, task: "asyncio.Task[None]") -> None:
        if task.cancelled() or self.failed.done():
            return
        error = task.exception()
        _log.error("a loop of the broker ended: %s", type(error).__name__)
        self._on_failed()
        self.failed.set_exception(error or RuntimeError("a loop ended"))


class Rounds:
    """The broker's own duties: looking after requests, refunds and offers, and settling."""

    def __init__(
        self,
        broker: Broker,
        scheduler: Scheduler,
        renew_offers: Callable[[], Awaitable[None]],
        money: ProviderMoneyReader,
    ) -> None:
        self._broker = broker
        self._scheduler = scheduler
        self._renew_offers = renew_offers
        self._money = money

    async def maintain(self) -> None:
        """Requests left unfinished, and offers that end soon."""
        await self._broker.maintain()
        await self._renew_offers()

    async def settle(self) -> None:
        """Settlements and refunds that are due; apart from `maintain`, which must not wait."""
        try:
            await self._scheduler.look()
        finally:
            await self.show_unsettled()

    async def settle_now(self, gas_share_ppm: int | None = None) -> list[SettlementBatch]:
        """On demand; see `Scheduler.settle`."""
        batches = await self._scheduler.settle(asked=True, gas_share_ppm=gas_share_ppm)
        await self.show_unsettled()
        return batches

    async def look(self) -> None:
        """Copy what the chain shows as claimed into the book, and show what is left."""
        await self._scheduler.settler.sync_settled()
        await self.show_unsettled()
        await self.read_money()

    async def look_at_money(self) -> None:
        """For health and metrics."""
        await self.read_money()

    async def read_money(self) -> ProviderMoney:
        """The provider's money in words; its alarms go into health and metrics too.

        It is also where a running broker learns that it was condemned: it offers nothing any more.
        """
        money = await self._money.read()
        self._broker.parts.metrics.show_money(money)
        self._broker.money_alarms = tuple(sorted({alarm.code for alarm in money.alarms}))
        if "condemned" in self._broker.money_alarms:
            self._broker.parts.offers.close(CONDEMNED)
        return money

    async def show_unsettled(self) -> None:
        """Set the gauge of what is owed."""
        due = sum(claim.due for claim in await self._broker.parts.book.read_due_claims())
        self._broker.parts.metrics.unsettled.set(due)


async def _repeat(interval_s: float, work: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(interval_s)
        try:
            await work()
        except InvariantError:
            raise
        except HanseError as error:
            _log.warning("will try again in %s s: %s", interval_s, error.message)
