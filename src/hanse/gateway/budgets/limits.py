"""What may be spent within a minute and a day, in requests, tokens and money.

    Limits(requests_per_minute=60, money_per_day=5_000_000)

**The rule.** Time is cut into slots: of 3 s for the minute, of 15 min for the day. A request counts
in the slot of its admission: with its maximum while it is at work, with what it took afterwards. It
is admitted if, for each limit, the current slot and all slots before it that a window can reach sum
up to no more than the limit, this request's maximum included. So within *any* 60 s, or any 24 h, no
more than the limit was ever admitted; what was spent comes free 60 to 63 s later, or 24 h to 24 h
15 min later.

A token bucket was not taken: one that refills at the limit's pace admits up to twice the limit
within one window, and a budget is a promise.

Source: docs/decisions/0025-keys-and-budgets.md.
"""

from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

LIMIT_MAX = 2**62
"""Highest limit: sums of a few windows stay inside a store's 64-bit INTEGER."""

_Limit = Annotated[int, Meta(ge=0, le=LIMIT_MAX)] | None

MEASURES = ("requests", "tokens", "money")
"""What is limited, in the order of every triple of numbers here."""

Triple = tuple[int, int, int]
"""Requests, tokens, base units of money."""

Most = tuple[int | None, int | None, int | None]
"""The limits of one window, None for none."""


class Window(NamedTuple):
    """A span over which a limit holds.

    Attributes:
        name: what the store and people call it.
        span_s: how long it is.
        slot_s: how finely it slides.
    """

    name: str
    span_s: int
    slot_s: int

    def get_slot(self, now_s: float) -> int:
        """Number of the slot that this second is in."""
        return int(now_s // self.slot_s)

    def get_first(self, slot: int) -> int:
        """The oldest slot that a window ending in `slot` can still reach."""
        return slot - self.span_s // self.slot_s

    def get_end_s(self, slot: int) -> int:
        """The second from which a slot counts no more."""
        return (slot + self.span_s // self.slot_s + 1) * self.slot_s


MINUTE = Window("minute", 60, 3)
DAY = Window("day", 86_400, 900)
WINDOWS = (MINUTE, DAY)


class Limits(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Limits of one subject; None is no limit, 0 is nothing at all.

    Attributes:
        requests_per_minute, requests_per_day: paid requests.
        tokens_per_minute, tokens_per_day: input, cached and output tokens together.
        money_per_minute, money_per_day: fees, base units.
    """

    requests_per_minute: _Limit = None
    requests_per_day: _Limit = None
    tokens_per_minute: _Limit = None
    tokens_per_day: _Limit = None
    money_per_minute: _Limit = None
    money_per_day: _Limit = None

    def get_most(self, window: Window) -> Most:
        """The limits of one window."""
        if window is MINUTE:
            return self.requests_per_minute, self.tokens_per_minute, self.money_per_minute
        return self.requests_per_day, self.tokens_per_day, self.money_per_day

    @property
    def is_none(self) -> bool:
        """Whether nothing is limited."""
        return self == NO_LIMITS

    def within(self, other: "Limits") -> "Limits":
        """The lower of both, limit by limit."""
        lower = {}
        for name in self.__struct_fields__:
            given = [n for n in (getattr(self, name), getattr(other, name)) if n is not None]
            lower[name] = min(given, default=None)
        return Limits(**lower)

    def to_document(self) -> dict[str, int | str]:
        """JSON-ready: only what is limited, money as decimal strings."""
        found = {name: getattr(self, name) for name in self.__struct_fields__}
        return {
            name: str(most) if name.startswith("money") else most
            for name, most in found.items()
            if most is not None
        }


NO_LIMITS = Limits()
