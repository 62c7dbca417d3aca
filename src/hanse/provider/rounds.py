"""What a broker does again and again; `hanse.serving.Loops` calls it.

rounds = Rounds(broker, scheduler, renew_offers, money)
loops.repeat(30.0, rounds.maintain)
loops.repeat(30.0, rounds.settle)
"""

from collections.abc import Awaitable, Callable

from hanse.provider.app import Broker
from hanse.provider.offers import CONDEMNED
from hanse.settlement.money.provider_money import ProviderMoney
from hanse.settlement.money.provider_reader import ProviderMoneyReader
from hanse.settlement.netting.scheduler import Scheduler
from hanse.settlement.netting.settled import SettlementBatch

MONEY_LOOK_S = 60.0
"""Between looks at the money for health and metrics: it sums the book, 0.1 s a million requests."""


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
        self._broker.parts.metrics.unsettled = due
