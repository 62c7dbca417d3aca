"""Takes the arrivals of a fast stream together.

A model that makes a token every few milliseconds wakes everyone on the stream's way as often, which
costs far more processor time than what is then done. So once a stream is under way its connection
is left unread for `GATHER_S` after each arrival, and what has come by then is one piece. A reader
sees no difference between thirty pieces a second and a hundred.

What a person or a program waits for is not held up: the first token never is, nor anything of the
stream's first `GATHER_S`. A stream whose pieces come further apart, on average, than `SLOW` of that
is read as they come, its end too; the end of a fast one comes `GATHER_S` later at most.

    gathering = Gathering(loop, GATHER_S, pause, resume)
    gathering.note(2)       # at each arrival, of two pieces; may pause reading, and resumes it
    gathering.stop()        # reads on, whatever comes
"""

import asyncio
from collections.abc import Callable

GATHER_S = 0.03
"""How long; a picture of 33 changes a second."""

GATHER_S_MAX = 1.0
"""No operator sets more: it is a time in seconds, and nobody's stream is to stand still."""

SLOW = 0.6
"""Of it: what comes further apart gains too little."""


class Gathering:
    """Of one stream, from its first content on; see the module.

    Attributes:
        is_holding: the connection is left unread.
    """

    __slots__ = (
        *("_came_at", "_first_at", "_gather_s", "_is_released", "_loop", "_pause", "_pieces"),
        *("_resume", "_timer", "is_holding"),
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        gather_s: float,
        pause: Callable[[], object],
        resume: Callable[[], object],
    ) -> None:
        self._loop = loop
        self._gather_s = gather_s
        self._pause = pause
        self._resume = resume
        self._first_at = self._came_at = 0.0
        self._pieces = 0
        self._is_released = False
        self._timer: asyncio.TimerHandle | None = None
        self.is_holding = False

    def note(self, pieces: int) -> None:
        """Content has come: leave the next unread for a while if this stream is a fast one.

        Args:
            pieces: that this arrival brought, of what its sender sent apart.
        """
        now = self._loop.time()
        gap_s, self._came_at = now - self._came_at, now
        was_released, self._is_released = self._is_released, False
        self._pieces += pieces
        if not self._first_at:
            self._first_at = now
            return
        # what came while nobody read says how fast it is by how much it is
        is_close = pieces > 1 if was_released else gap_s < SLOW * self._gather_s
        if is_close and self._is_fast(now - self._first_at) and not self.is_holding:
            self.is_holding = True
            self._pause()
            self._timer = self._loop.call_later(self._gather_s, self._release)

    def stop(self) -> None:
        """Read on."""
        if self._timer is not None and self.is_holding:
            self._timer.cancel()
            self._release()

    def _is_fast(self, age_s: float) -> bool:
        is_young = age_s < self._gather_s
        return not is_young and age_s < self._pieces * SLOW * self._gather_s

    def _release(self) -> None:
        self.is_holding = False
        self._is_released = True
        self._resume()
