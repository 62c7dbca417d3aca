"""Takes the arrivals of a fast stream together.

A model that makes a token every few milliseconds wakes everyone on the stream's way as often, which
costs far more processor time than what is then done. So once a stream is under way its connection
is left unread for `GATHER_S` after each arrival, and what has come by then is one piece. A reader
sees no difference between thirty pieces a second and a hundred.

What a person or a program waits for is not held up: the first token never is, nor anything of the
stream's first `GATHER_S`; a stream whose pieces come further apart than they would be gathered is
read as it comes; and the end of a fast one comes that much later at most.

    gathering = Gathering(loop, GATHER_S, pause, resume)
    gathering.note()        # at each arrival; may pause reading, and resumes it by itself
    gathering.stop()        # reads on, whatever comes
"""

import asyncio
from collections.abc import Callable

GATHER_S = 0.03
"""How long; a picture of 33 changes a second."""

SLOW = 0.6
"""Of it: what comes further apart gains too little."""


class Gathering:
    """Of one stream, from its first content on; see the module.

    Attributes:
        is_holding: the connection is left unread.
    """

    __slots__ = (
        *("_gather_s", "_loop", "_pause", "_quiet_since", "_resume", "_timer", "_young_until"),
        "is_holding",
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
        self._young_until = 0.0
        self._quiet_since = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.is_holding = False

    def note(self) -> None:
        """Content has come: leave the next unread for a while if this stream is a fast one."""
        if self.is_holding:  # what had been read already
            return
        now = self._loop.time()
        gap_s, self._quiet_since = now - self._quiet_since, now
        if not self._young_until:
            self._young_until = now + self._gather_s
        elif now >= self._young_until and gap_s < SLOW * self._gather_s:
            self.is_holding = True
            self._pause()
            self._timer = self._loop.call_later(self._gather_s, self._release)

    def stop(self) -> None:
        """Read on."""
        if self._timer is not None and self.is_holding:
            self._timer.cancel()
            self._release()

    def _release(self) -> None:
        self.is_holding = False
        self._quiet_since = self._loop.time()
        self._resume()
