"""When a provider settles: looks at what waits, lets `plan_settlement` decide, sends, looks again.

    scheduler = Scheduler(settler, rules, lambda: fetch_gas_market(rpc), storage, show)
    await scheduler.look()                         # the loop's duty, every half minute
    batches = await scheduler.settle(asked=True)   # a person's wish, under the same gas rule
    plan = await scheduler.make_plan(asked=True)   # what that would do; changes nothing

A plan's transactions are sent one after another; each carries the price up to which it keeps the
gas rule, so that none is signed above it however the market moves meanwhile. Then comes a new plan.
A round that the clock, an exposure or a person called for goes on until nothing is left that is
worth its gas; what a refund called for is its own claim alone and leaves the clock as it was.
A round settles each sub-account once: what is sold while its transactions are confirmed waits for
the next one. Else a provider that sells all the time would settle all the time, and never come to
the refunds that are due.

Source: docs/decisions/0015-netting.md.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence, Set
from dataclasses import replace

from hanse.chain import Rpc
from hanse.protocol.signatures import Address
from hanse.settlement.netting.gas import (
    GasMarket,
    SettlementRules,
    get_refund_fee_cap,
    is_refund_worth_completing,
)
from hanse.settlement.netting.payable import PayableClaim
from hanse.settlement.netting.plan import Reason, SettlementPlan, plan_settlement
from hanse.settlement.netting.round_storage import RoundStorage, RoundTimes
from hanse.settlement.netting.settled import SettlementBatch
from hanse.settlement.netting.settler import Settler

REFUNDS_PER_ROUND_MAX = 10
"""Refunds completed in one go, which takes a confirmation's time; meanwhile nobody looks for those
that draw near. Anyone can make many of them."""

FetchMarket = Callable[[], Awaitable[GasMarket]]
"""Asks the chain's node for prices and time."""

ShowPlan = Callable[[SettlementPlan, RoundTimes], None]
"""Is told each round's last plan."""


async def fetch_gas_market(rpc: Rpc) -> GasMarket:
    """Ask a node. It can make us wait by naming a high price, or plan by a low one.

    Neither makes us pay more than the rule: a planned transaction carries the price up to which it
    keeps the rule, and is not signed above it.

    Raises:
        TransientError: the node does not answer, or says what cannot be.
    """
    head = await rpc.fetch_head()
    price_wei = head.base_fee_wei + await rpc.fetch_priority_fee()
    return GasMarket(price_wei, head.gas_limit, head.timestamp_s)


class Scheduler:
    """Settles one provider's book by its rules.

    Attributes:
        rules: the provider's.
        settler: the chain's side of it.
    """

    def __init__(
        self,
        settler: Settler,
        rules: SettlementRules,
        fetch_market: FetchMarket,
        storage: RoundStorage,
        show: ShowPlan = lambda plan, times: None,
    ) -> None:
        self.settler = settler
        self.rules = rules
        self._fetch_market = fetch_market
        self._storage = storage
        self._show = show
        self._lock = asyncio.Lock()

    async def look(self) -> list[SettlementBatch]:
        """Settle if it is time, then complete the refunds of others that are due.

        Raises:
            ChainError: a settlement was refused or reverted; nothing of it was paid.
            TransientError: node or store do not answer; the next look goes on.
        """
        batches = await self.settle()
        await self.complete_due_refunds()
        return batches

    async def make_plan(
        self, *, asked: bool = False, gas_share_ppm: int | None = None
    ) -> SettlementPlan:
        """What `settle` would do now.

        Args:
            asked: as if a person asked for it.
            gas_share_ppm: instead of the rules', this once.
        """
        times = await self._storage.read()
        return plan_settlement(
            await self.settler.read_payable(),
            await self._fetch_market(),
            self._get_rules(gas_share_ppm),
            since_s=times.waiting_since_s,
            asked=asked,
        )

    async def settle(
        self, *, asked: bool = False, gas_share_ppm: int | None = None
    ) -> list[SettlementBatch]:
        """Settle what the plan says; returns the confirmed transactions, none if it is to wait.

        Raises:
            ChainError: a settlement was refused or reverted; nothing of it was paid.
            TransientError: node or store do not answer; what was enqueued goes on.
        """
        async with self._lock:
            await self.settler.finish_open()
            batches = []
            done: set[tuple[Address, Address]] = set()
            plan, waiting = await self._plan_rest(asked, gas_share_ppm, done)
            while plan.batches:
                for batch in plan.batches:
                    batches.append(await self.settler.settle(batch))
                    await self._note(last_settled_s=plan.market.time_s)
                    done |= {(item.claim.user, item.claim.signer) for item in batch.claims}
                goes_on = asked or plan.reason is not Reason.REFUND
                if goes_on:
                    await self._note(waiting_since_s=plan.market.time_s)
                plan, waiting = await self._plan_rest(goes_on, gas_share_ppm, done)
            await self._show_now(waiting, plan.market)
            return batches

    async def complete_due_refunds(self) -> int:
        """Complete refunds that have unlocked, after settling what their sub-accounts owe.

        Anyone may, and the money goes to the user's account; a broker does it so that a user who
        went away finds everything in one place. It leaves those that are not worth the gas, or
        that would take something with them that it is owed and is not worth claiming now.

        Returns:
            How many refunds were completed, the largest first; the rest is left to the next round.

        Raises:
            ChainError, TransientError: as `settle`.
        """
        view = self.settler.view
        if not any(funds.pending_refund for _, _, funds in view.list_funds()):
            return 0
        market = await self._fetch_market()
        if not any(
            funds.pending_refund and funds.refund_unlock_s <= market.time_s
            for _, _, funds in view.list_funds()
        ):
            return 0
        await self.settle()
        owed = {(c.claim.user, c.claim.signer): c for c in await self.settler.read_payable()}
        due = [
            (user, signer, funds)
            for user, signer, funds in view.list_funds()
            if funds.pending_refund
            and funds.refund_unlock_s <= market.time_s
            and is_refund_worth_completing(
                funds.pending_refund, _get_lost(owed.get((user, signer))), market, self.rules
            )
        ]
        due.sort(key=lambda entry: -entry[2].pending_refund)
        completing = []
        for user, signer, funds in due[:REFUNDS_PER_ROUND_MAX]:
            still = _get_lost(owed.get((user, signer)))
            cap_wei = get_refund_fee_cap(funds.pending_refund, still, self.rules)
            completing.append(self.settler.complete_refund(user, signer, funds, cap_wei))
        return sum(await asyncio.gather(*completing))

    async def _plan_rest(
        self, asked: bool, gas_share_ppm: int | None, done: Set[tuple[Address, Address]]
    ) -> tuple[SettlementPlan, list[PayableClaim]]:
        """The next plan of a round that settled `done`, and all that waits, theirs too."""
        times = await self._storage.read()
        waiting = await self.settler.read_payable()
        market = await self._fetch_market()
        plan = plan_settlement(
            (item for item in waiting if (item.claim.user, item.claim.signer) not in done),
            market,
            self._get_rules(gas_share_ppm),
            since_s=times.waiting_since_s,
            asked=asked,
        )
        since_s = (times.waiting_since_s or market.time_s) if waiting else 0
        await self._note(waiting_since_s=since_s)
        return plan, waiting

    async def _note(self, **changes: int) -> None:
        times = await self._storage.read()
        changed = replace(times, **changes)
        if changed != times:
            await self._storage.put(changed)

    async def _show_now(self, waiting: Sequence[PayableClaim], market: GasMarket) -> None:
        """Show the plan as nobody asked: a leftover of a round is no request of anybody's."""
        times = await self._storage.read()
        shown = plan_settlement(waiting, market, self.rules, since_s=times.waiting_since_s)
        self._show(shown, times)

    def _get_rules(self, gas_share_ppm: int | None) -> SettlementRules:
        if gas_share_ppm is None:
            return self.rules
        return replace(self.rules, gas_share_ppm=gas_share_ppm)


def _get_lost(claim: PayableClaim | None) -> int:
    return claim.at_risk if claim else 0
