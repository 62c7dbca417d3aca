"""`GET /hanse/v1/status`: what a gateway is doing, for `hanse top` and other eyes.

Sums since its start, not yet what other processes on the same database do, but for the limits,
which hold across them. No content, no key's text.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from hanse.gateway.budgets.admission import Budgets
from hanse.gateway.budgets.standing import read_standings
from hanse.gateway.exchange import Exchange
from hanse.gateway.keys import ApiKeys
from hanse.gateway.money import MoneyWatch
from hanse.gateway.selling.path import PaidPath
from hanse.gateway.telemetry.observer import Observer
from hanse.gateway.telemetry.times import Times
from hanse.protocol.errors import HanseError


@dataclass(frozen=True)
class StatusDesk:
    """Answers what the gateway is doing.

    Attributes:
        observer, paid, money, keys, budgets: what is looked at.
        now_s: unix seconds.
    """

    observer: Observer
    paid: PaidPath
    money: MoneyWatch
    keys: ApiKeys
    budgets: Budgets | None
    now_s: Callable[[], float] = time.time

    async def answer(self, exchange: Exchange) -> None:
        """Send the document; who may have it, `hanse.gateway.keys.scope` says."""
        await exchange.send_json(200, await self.read_document())

    async def read_document(self) -> dict[str, Any]:
        """The whole of it; amounts of money as text in base units."""
        observer, now_s = self.observer, self.now_s()
        recent = list(reversed(observer.tally.recent))
        return {
            "at": round(now_s, 3),
            "uptime_s": round(now_s - observer.began_at, 1),
            "in_flight": self.paid.in_flight,
            "waiting": self.paid.waiting,
            "draining": self.paid.draining,
            **observer.tally.to_document(),
            "stages": _describe_times(observer.times),
            "recent": msgspec.to_builtins(recent),
            "limits": msgspec.to_builtins(await self._read_limits(now_s)),
            "money": self._describe_money(),
        }

    async def _read_limits(self, now_s: float) -> list[Any]:
        if self.budgets is None:
            return []
        try:
            keys = self.keys.list_working()
            return list(await read_standings(self.budgets.configuration, keys, now_s))
        except HanseError:  # the rest is worth seeing while the store is away
            return []

    def _describe_money(self) -> dict[str, Any] | None:
        money = self.money.last
        if money is None:
            return None
        places: dict[str, int] = {}
        for place in money.places:
            places[place.place] = places.get(place.place, 0) + place.amount
        return {
            "symbol": money.symbol,
            "decimals": money.decimals,
            "places": {name: str(amount) for name, amount in places.items()},
            "alarms": list(self.money.alarms),
        }


def _describe_times(times: Times) -> dict[str, Any]:
    return {
        stage: {
            "count": times.get_count(stage),
            "ms_p50": _to_ms(times.find_quantile_s(stage, 0.5)),
            "ms_p99": _to_ms(times.find_quantile_s(stage, 0.99)),
        }
        for stage in times.list_stages()
    }


def _to_ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
