"""Budgets on the paid path: one call before a request is sold, one around its sale.

    await budgets.admit(sale)             # scope, the count of requests, whose limits hold
    await budgets.run(sale, sell)         # sells; at a limit it waits, or leads down a ladder

A key without limits, on a gateway without, costs one lookup in a dict. Tokens and money are asked
for where vouchers are signed (`hanse.gateway.budgets.purse`); a refusal comes out of `sell` as
`LimitError`, before anything was sent, and outside of the line for places, so that a request which
waits for money keeps no place from others.
"""

import hashlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

import msgspec

from hanse.gateway.budgets.configuration import (
    Configuration,
    GatewayBudgets,
    open_configuration,
)
from hanse.gateway.budgets.holds import Demand, Refusal
from hanse.gateway.budgets.ledger import Ledger, open_ledger
from hanse.gateway.budgets.limits import WINDOWS, Limits
from hanse.gateway.budgets.purse import PURSE, Guard, LimitError, Purse
from hanse.gateway.client import GuardedMarket, MarketAnswer, MarketClient
from hanse.gateway.keys import ApiKey, ApiKeys, AtLimit, verify_model
from hanse.gateway.keys.records import USER_CHARS_MAX
from hanse.gateway.selling.sale import Sale
from hanse.protocol.errors import HanseError, RequestError
from hanse.store import Database

DEGRADED_HEADER = b"hanse-degraded"

PLANS_MAX = 10_000
"""Keys whose limits are kept worked out; then all are worked out anew."""

LOOK_S = 1.0
"""A request that waits looks so often for what another process has given back."""

_GATEWAY = "gateway"

ResultT = TypeVar("ResultT")

Sell = Callable[[], Awaitable[None]]

FindFree = Callable[[Sale, str], Awaitable[MarketAnswer | None]]
"""The canned text as an answer, or with an empty text the local engine's; None if there is none."""


class _User(msgspec.Struct):
    user: str | None = None


_decode_user = msgspec.json.Decoder(_User).decode


class _Plan:
    """What limits hold for a key: demands that are always the same, and those by end user."""

    __slots__ = ("budgets", "demands", "key", "owner", "parent", "user_limits")

    def __init__(self, key: ApiKey, parent: ApiKey | None, budgets: GatewayBudgets) -> None:
        self.key, self.parent, self.budgets = key, parent, budgets
        self.owner = key.parent or key.id
        above = parent.terms if parent is not None else key.terms
        self.user_limits = above.user_limits
        self.demands = make_demands(f"key:{key.id}", key.terms.limits)
        if parent is not None:
            self.demands += make_demands(f"key:{parent.id}", parent.terms.limits)
        self.demands += make_demands(_GATEWAY, budgets.limits)

    def is_of(self, key: ApiKey, parent: ApiKey | None, budgets: GatewayBudgets) -> bool:
        """Whether nothing of what it was made from has changed."""
        return self.key is key and self.parent is parent and self.budgets is budgets


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
        self._plans: dict[str, _Plan] = {}

    async def refresh(self) -> None:
        """Follow what other processes set; give up what nobody learns the end of."""
        await self.configuration.refresh()
        self.guard.give_up()

    async def admit(self, sale: Sale) -> None:
        """Check the model, and count the request; tokens and money are asked for by `buy`.

        Raises:
            RequestError: `permission_denied`.
            LimitError: requests are at their limit, and the key refuses.
        """
        verify_model(sale.key, sale.fields.model)
        plan = self._get_plan(sale.key)
        demands = plan.demands
        if not plan.user_limits.is_none:
            user = sale.key.terms.user or _read_user(sale.body)
            demands = demands + make_demands(_name_user(plan.owner, user), plan.user_limits)
        if not demands:
            if PURSE.get() is not None:  # of an earlier request in this task
                PURSE.set(None)
            return
        await self._count_request(sale, demands)
        priced = [d for d in demands if d.most[1] is not None or d.most[2] is not None]
        PURSE.set(Purse(priced) if priced else None)

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
            held = await self.ledger.reserve(demands, (1, 0, 0))
            if isinstance(held, Refusal):
                raise LimitError(held)
            self.ledger.settle(held, (1, 0, 0))

        try:
            await count()
        except LimitError as error:
            if sale.key.terms.at_limit is AtLimit.QUEUE:
                await self._wait(sale, error, count)
            elif sale.key.terms.at_limit is AtLimit.DEGRADE:
                sale.refused = error
            else:
                raise

    async def _sell_within(self, sale: Sale, sell: Sell) -> None:
        """Sell; where a dear provider is over the limit, once more by a cheaper one."""
        try:
            await sell()
        except LimitError as error:
            refusal, needs = error.refusal, sale.needs
            left = refusal.limit - refusal.spent
            if sale.exchange.status or refusal.measure != "money" or left <= 0:
                raise
            sale.needs = replace(needs, max_fee=min(left, needs.max_fee or left))
            try:
                await sell()
            except LimitError:  # it tells of the cheaper one
                raise
            except HanseError:
                if sale.exchange.status:
                    raise
                raise error from None
            finally:
                sale.needs = needs

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
                if sale.refused is not None or step.model == sale.fields.model:
                    continue
                sale.body = _rename(body, step.model)
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

    def _get_plan(self, key: ApiKey) -> _Plan:
        plan = self._plans.get(key.id)
        budgets = self.configuration.budgets
        parent = self._keys.find_by_id(key.parent) if key.parent else None
        if plan is not None and plan.is_of(key, parent, budgets):
            return plan
        if key.parent and parent is None:
            raise RequestError("api_key_invalid", "the key that minted this one was revoked")
        if len(self._plans) >= PLANS_MAX:
            self._plans.clear()
        self._plans[key.id] = plan = _Plan(key, parent, budgets)
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


def make_demands(subject: str, limits: Limits) -> list[Demand]:
    """One demand for each window that anything is limited in."""
    if limits.is_none:
        return []
    found = [Demand(subject, window, limits.get_most(window)) for window in WINDOWS]
    return [demand for demand in found if demand.most != (None, None, None)]


def _read_user(body: bytes) -> str:
    try:
        user = _decode_user(body).user or ""
    except msgspec.ValidationError:
        raise RequestError("invalid_request", "user must be a text", param="user") from None
    if len(user) > USER_CHARS_MAX:
        raise RequestError(
            "invalid_request",
            f"user has {len(user)} characters, at most {USER_CHARS_MAX}",
            param="user",
        )
    return user


def _name_user(owner: str, user: str) -> str:
    """Only a hash of an end user's name is kept; all who send none are one."""
    return f"user:{owner}:{hashlib.sha256(user.encode()).hexdigest()[:32]}"


def _rename(body: bytes, model: str) -> bytes:
    return msgspec.json.encode({**msgspec.json.decode(body), "model": model})
