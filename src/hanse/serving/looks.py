"""One timer for all that is to be looked at every so often.

A request at work wants a look now and then: is it silent, does its caller still read, is its time
nearly over? A timer of its own costs 3 us to set and cancel, and nearly every request ends before
it fires. Here they stand in a line, the next one due in front, and one timer waits for that one.

    looks = Looks(10.0)
    looks.begin(look)       # called in 10 s, and every 10 s from then on
    looks.end(look)
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from itertools import takewhile

Look = Callable[[], None]

CLOCK_STEP_S = 0.001
"""Of uvloop's clock. What is due within a step is due now; else the timer would fire twice."""


class Looks:
    """Those at work in one event loop: the one in which it is used first."""

    def __init__(self, interval_s: float) -> None:
        self.interval_s = interval_s
        self._due: OrderedDict[Look, float] = OrderedDict()
        self._is_armed = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def begin(self, look: Look) -> None:
        """Call it every `interval_s` from now on."""
        loop = self._loop = self._loop or asyncio.get_running_loop()
        self._due[look] = due = loop.time() + self.interval_s
        if not self._is_armed:
            self._is_armed = True
            loop.call_at(due, self._go_round)

    def end(self, look: Look) -> None:
        """Call it no more; it may have ended already."""
        self._due.pop(look, None)

    def _go_round(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        latest = now + CLOCK_STEP_S
        try:
            for look, _ in list(takewhile(lambda entry: entry[1] <= latest, self._due.items())):
                if look in self._due:  # none of those before it has ended it
                    self._due[look] = now + self.interval_s
                    self._due.move_to_end(look)
                    look()
        finally:
            self._is_armed = bool(self._due)
            if self._is_armed:
                loop.call_at(next(iter(self._due.values())), self._go_round)
