"""Who is there, and how busy: heartbeats as they came, and what this gateway itself has under way.

| state of a provider | event | next |
| --- | --- | --- |
| unheard | a heartbeat | there |
| there | one that is missing, silent or not new | there, one missed |
| there, one missed | another | out |
| unheard or there | its port is closed, or it refuses | out at once |
| out | a heartbeat | there |

Out means: not asked. Where no heartbeats are fetched, everybody stays unheard, and nothing changes.
Between two heartbeats the requests that this gateway began itself count on top of what was said.
"""

from collections.abc import Callable
from dataclasses import dataclass

from hanse.market.measured import ServiceKey
from hanse.protocol.limits import HEARTBEATS_MISSED_MAX
from hanse.protocol.messages import Heartbeat
from hanse.protocol.signatures import Address


@dataclass(frozen=True, slots=True)
class Load:
    """One heartbeat of a service; `ours` were under way from here when it came."""

    heartbeat: Heartbeat
    ours: int


@dataclass(frozen=True, slots=True)
class Absence:
    """A provider that misses heartbeats: how many in a row, since when (unix seconds), and why."""

    missed: int
    since: float
    reason: str
    is_out: bool


class PresenceBook:
    """Heartbeats of every provider that is watched, in memory."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._loads: dict[ServiceKey, Load] = {}
        self._absent: dict[Address, Absence] = {}
        self._ours: dict[ServiceKey, int] = {}
        self._on_change: Callable[[Address], None] = _ignore

    def watch(self, on_change: Callable[[Address], None]) -> None:
        """Call this after each change of a provider."""
        self._on_change = on_change

    def take(self, heartbeats: list[Heartbeat]) -> bool:
        """Heartbeats of one provider that were verified; False if none of them is news."""
        is_news = False
        for heartbeat in heartbeats:
            key = (heartbeat.provider, heartbeat.service_id)
            known = self._loads.get(key)
            if known is not None and heartbeat.sent_at_ms <= known.heartbeat.sent_at_ms:
                continue
            is_news = True
            self._loads[key] = Load(heartbeat, self._ours.get(key, 0))
        if is_news:
            provider = heartbeats[0].provider
            self._absent.pop(provider, None)
            self._on_change(provider)
        return is_news

    def miss(self, provider: Address, reason: str, *, is_certain: bool = False) -> None:
        """A heartbeat did not come; `is_certain` if nothing but its return can change that."""
        known = self._absent.get(provider)
        missed = known.missed + 1 if known else 1
        since = known.since if known else self._clock()
        is_out = is_certain or missed >= HEARTBEATS_MISSED_MAX
        self._absent[provider] = Absence(missed, since, reason, is_out)
        self._on_change(provider)

    def find_absence(self, provider: Address) -> Absence | None:
        """Why a provider is out; None while it is not."""
        absence = self._absent.get(provider)
        return absence if absence is not None and absence.is_out else None

    def begin(self, key: ServiceKey) -> None:
        """A request of ours went there."""
        self._ours[key] = self._ours.get(key, 0) + 1
        free = self.get_free(key)
        if free is not None and free <= 0:  # with slots left nothing changes
            self._on_change(key[0])

    def end(self, key: ServiceKey) -> None:
        """One that went there ended."""
        left = self._ours.get(key, 0) - 1
        if left > 0:
            self._ours[key] = left
        else:
            self._ours.pop(key, None)
        free = self.get_free(key)
        if free is not None and free <= 1:
            self._on_change(key[0])

    def get_free(self, key: ServiceKey) -> int | None:
        """Slots free now, below 0 for requests that wait, by all that is known; None if unheard."""
        load = self._loads.get(key)
        if load is None:
            return None
        said = load.heartbeat
        return said.free_slots - said.queued - max(0, self._ours.get(key, 0) - load.ours)

    def is_full(self, key: ServiceKey) -> bool:
        """Whether it would refuse one more."""
        load = self._loads.get(key)
        if load is None:
            return False
        said = load.heartbeat
        return said.free_slots + said.queue_free <= max(0, self._ours.get(key, 0) - load.ours)

    def get_wait(self, key: ServiceKey) -> float:
        """Answers' lengths that a request would wait for a slot: 0 with a free one."""
        free = self.get_free(key)
        if free is None or free > 0:
            return 0.0
        load = self._loads[key]
        return (1 - free) / load.heartbeat.slots

    def is_cold(self, key: ServiceKey) -> bool:
        """Whether its model is not loaded."""
        load = self._loads.get(key)
        return load is not None and not load.heartbeat.is_warm


def _ignore(provider: Address) -> None:
    """Nobody watches."""
