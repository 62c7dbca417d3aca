"""Budgets on the paid path: one call before a request is sold, one around its sale.

    is_limited = await budgets.admit(sale)    # scope, the count of requests, whose limits hold
    await budgets.run(sale, sell, find_free)  # sells; at a limit it waits, or goes down a ladder

A key without limits, on a gateway without, costs one lookup in a dict. Tokens and money are asked
for where vouchers are signed (`hanse.gateway.budgets.purse`); a refusal comes out of `sell` as
`LimitError`, before anything was sent, and outside of the line for places, so that a request which
waits for money keeps no place from others.
"""

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

from hanse.gateway.bodies import rename_model
from hanse.gateway.budgets.configuration import (
    Configuration,
    open_configuration,
)
from hanse.gateway.budgets.holds import Demand, Refusal
from hanse.gateway.budgets.ledger import Ledger, open_ledger
from hanse.gateway.budgets.plans import Plan, is_priced
from hanse.gateway.budgets.purse import PURSE, Guard, LimitError, Purse
from hanse.gateway.client import GuardedMarket, MarketAnswer, MarketClient
from hanse.gateway.keys import ApiKey, ApiKeys, AtLimit, verify_model
from hanse.gateway.selling.sale import Sale
from hanse.protocol.errors import HanseError, RequestError
from hanse.store import Database

DEGRADED_HEADER = b"hanse-degraded"

PLANS_MAX = 10_000
"""Keys whose limits are kept worked out; then all are worked out anew."""

LOOK_S = 1.0
"""A request that waits looks so often for what another process has given back."""

ResultT = TypeVar("ResultT")

Sell = Callable[[], Awaitable[None]]

FindFree = Callable[[Sale, str], Awaitable[MarketAnswer | None]]
"""The canned text as an answer, or with an empty text the local engine's; None if there is none."""


class Budgets:
    """The limits of one gateway.

    Attributes:
        guard: asked before each voucher; whoever signs them is given it.
        ledger: the owner of the budgets runs and closes it.
        market: whose vouchers are guarded and whose prices told; None if it signs nothing.
        configuration: limits of the whole gateway, and ladders.
    """

    def __init__(
        self,
        keys: ApiKeys,
        configuration: Configuration,
        ledger: Ledger,
        market: GuardedMarket | None,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.guard = Guard(ledger, clock_s)
        self.ledger = ledger
        self.market = market
        self._keys = keys
        self.configuration = configuration
        self._clock_s = clock_s
        self._plans: dict[str, Plan] = {}

    async def refresh(self) -> None:
        """Follow what other processes set; give up what nobody learns the end of."""
        await self.configuration.refresh()
        self.guard.give_up()

    async def admit(self, sale: Sale) -> bool:
        """Check the model, and count the request; tokens and money are asked for by `buy`.

        Returns:
            Whether something limits its sale, which then goes through `run`.

        Raises:
            RequestError: `permission_denied`.
            LimitError: requests are at their limit, and the key refuses.
        """
        key = sale.key
        if key.terms.models:
            verify_model(key, sale.fields.model)
        plan = self._get_plan(key)
        demands = plan.get_demands(sale.body) if plan.is_by_user else plan.demands
        if not demands:
            if PURSE.get() is not None:  # of an earlier request in this task
                PURSE.set(None)
            return False
        counted = [demand for demand in demands if demand.most[0] is not None]
        if counted:
            await self._count_request(sale, counted)
        priced = list(filter(is_priced, demands))
        PURSE.set(Purse(priced) if priced else None)
        return bool(priced) or sale.refused is not None

    async def count_question(self, key: ApiKey, body: bytes) -> None:
        """Count a request that buys nothing; at a limit it is refused, whatever the key's terms.

        Raises:
            LimitError: requests are at their limit.
        """
        demands = self._get_plan(key).get_demands(body)
        counted = [demand for demand in demands if demand.most[0] is not None]
        if counted:
            await self._count(counted)

    async def run(self, sale: Sale, sell: Sell, find_free: FindFree) -> None:
        """Run `sell`; at a limit do what the key's terms say.

        Args:
            sale: `body` is replaced where another model is asked, `own` set for a free answer.
            sell: sells `sale.body` or `sale.own`, as often as it is called.
            find_free: finds an answer that costs nothing.

        Raises:
            HanseError: what `sell` raises.
            LimitError: a limit is in the way, and nothing that the key's terms name helps.
        """
        if sale.refused is not None:  # requests are at their limit, and the key degrades
            await self._degrade(sale, sale.refused, sell, find_free)
            return
        if PURSE.get() is None:
            await sell()
            return
        try:
            await self._sell_within(sale, sell)
        except LimitError as error:
            at_limit = sale.key.terms.at_limit
            if sale.exchange.status or at_limit is AtLimit.REFUSE:
                raise
            if at_limit is AtLimit.QUEUE:
                await self._wait(sale, error, lambda: self._sell_within(sale, sell))
            else:
                await self._degrade(sale, error, sell, find_free)

    async def _count_request(self, sale: Sale, demands: list[Demand]) -> None:
        async def count() -> None:
            await self._count(demands)

        try:
            await count()
        except LimitError as error:
            if sale.key.terms.at_limit is AtLimit.QUEUE:
                await self._wait(sale, error, count)
            elif sale.key.terms.at_limit is AtLimit.DEGRADE:
                sale.refused = error
            else:
                raise

    async def _count(self, demands: list[Demand]) -> None:
        held = await self.ledger.reserve(demands, (1, 0, 0))
        if isinstance(held, Refusal):
            raise LimitError(held)
        self.ledger.settle(held, (1, 0, 0))

    async def _sell_within(self, sale: Sale, sell: Sell) -> None:
        """Sell; where a dear provider is over the limit, once more by a cheaper one.

        If none of them is within it, the limit is told by what the cheapest would need.
        """
        try:
            await sell()
        except LimitError as error:
            refusal, needs = error.refusal, sale.needs
            left = refusal.limit - refusal.spent
            if sale.exchange.status or refusal.measure != "money" or left <= 0:
                raise
            try:
                most = left if needs.max_fee is None else min(left, needs.max_fee)
                await self._sell_for(most, sale, sell, error)
            finally:
                sale.needs = needs

    async def _sell_for(self, most: int, sale: Sale, sell: Sell, error: LimitError) -> None:
        sale.needs = replace(sale.needs, max_fee=most)
        try:
            await sell()
        except LimitError:  # it tells of the cheaper one
            raise
        except HanseError as nobody:
            if sale.exchange.status:
                raise
            least = int(nobody.details.get("maximum_fee_least", 0))
            if most < least < error.refusal.needed:
                await self._sell_for(least, sale, sell, error)
                return
            raise error from None

    async def _wait(
        self, sale: Sale, error: LimitError, attempt: Callable[[], Awaitable[ResultT]]
    ) -> ResultT:
        """Try again whenever something came free, for as long as the key's terms allow."""
        ends_s = self._clock_s() + sale.key.terms.queue_s
        while error.refusal.retry_after_s is not None:
            rest_s = ends_s - self._clock_s()
            if rest_s <= 0:
                break
            await self.ledger.wait_freed(min(rest_s, error.refusal.retry_after_s, LOOK_S))
            try:
                return await attempt()
            except LimitError as again:
                error = again
        raise error

    async def _degrade(
        self, sale: Sale, error: LimitError, sell: Sell, find_free: FindFree
    ) -> None:
        """Down the key's ladder to the first step that is within the limits."""
        body, headers = sale.body, sale.exchange.extra_headers
        for step in self.configuration.budgets.ladders.get(sale.key.terms.ladder, ()):
            if step.model:
                is_form = sale.operation.takes_form  # whose bytes are bought as they are
                if sale.refused is not None or is_form or step.model == sale.fields.model:
                    continue
                sale.body = rename_model(body, step.model)
            else:
                sale.own = await find_free(sale, step.canned)
                if sale.own is None:
                    continue
            mark = (DEGRADED_HEADER, step.name.encode())
            headers.append(mark)
            try:
                await self._sell_within(sale, sell)
                return
            except HanseError:  # the next step may do
                if sale.exchange.status:
                    raise
                headers.remove(mark)
                sale.body, sale.own = body, None
        raise error

    def _get_plan(self, key: ApiKey) -> Plan:
        plan = self._plans.get(key.id)
        budgets = self.configuration.budgets
        parent = self._keys.find_by_id(key.parent) if key.parent else None
        if (
            plan is not None
            and plan.key is key
            and plan.parent is parent
            and plan.budgets is budgets
        ):
            return plan
        if key.parent and parent is None:
            raise RequestError("api_key_invalid", "the key that minted this one was revoked")
        if len(self._plans) >= PLANS_MAX:
            self._plans.clear()
        self._plans[key.id] = plan = Plan(key, parent, budgets)
        return plan


async def open_budgets(
    database: Database, keys: ApiKeys, market: MarketClient, now_s: Callable[[], float]
) -> Budgets:
    """The budgets of a gateway, which guard what `market` signs from now on.

    A market that signs nothing is not asked for money: there only requests are limited.
    """
    configuration = await open_configuration(database)
    guarded = market if isinstance(market, GuardedMarket) else None
    budgets = Budgets(keys, configuration, await open_ledger(database, now_s), guarded)
    if guarded is not None:
        guarded.guard_spending(budgets.guard)
    return budgets
