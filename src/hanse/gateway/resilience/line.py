"""The line: how many requests are at work, and who is next when all places are taken.

Three classes. Places are given to the first of the highest class that waits: interactive, then
ambient, then background. Two rules keep a player from waiting behind a batch job:

- **Places are kept free.** Background has at most half of all places, background and ambient
  together at most three quarters; the rest is interactive's alone. (With one place there is nothing
  to keep: it is shared.)
- **Room in the queue is made.** In a full queue the newest of a lower class gives way, and gets the
  429 that the newcomer would have got.

A request that waited `queue_wait_s` gets 429 with `Retry-After`. With a free place nothing is
awaited and no object is made.
"""

import asyncio
from collections import deque

from hanse.gateway.resilience.figures import StayingFigures
from hanse.gateway.resilience.wishes import CLASSES
from hanse.protocol.errors import TransientError

_SHARES = {"interactive": (1, 1), "ambient": (3, 4), "background": (1, 2)}
"""Of all places, the part that a class and those below it may hold together."""

_Waiter = asyncio.Future[None]


class Line:
    """Places at work, and the queue for them.

    Attributes:
        places: requests at work at most; may be changed while requests are at work.
        queue_max: requests that wait at most, over all classes.
        wait_s: how long one waits at most.
    """

    def __init__(self, places: int, queue_max: int, wait_s: float, figures: StayingFigures) -> None:
        self.places = places
        self.queue_max = queue_max
        self.wait_s = wait_s
        self._figures = figures
        self._held = 0
        self._at_work = dict.fromkeys(CLASSES, 0)
        self._queues: dict[str, deque[_Waiter]] = {name: deque() for name in CLASSES}

    @property
    def at_work(self) -> int:
        """Requests that have a place."""
        return self._held

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return sum(map(len, self._queues.values()))

    def try_enter(self, kind: str) -> bool:
        """Take a place if one is free for this class and nobody waits for it."""
        # within the smallest share, with nobody waiting, there is nothing to weigh
        is_quiet = self._held < self.places // 2 and not any(self._queues.values())
        if is_quiet or (self._is_free(kind) and not self._has_waiters(kind)):
            self._held += 1
            self._at_work[kind] += 1
            return True
        return False

    async def enter(self, kind: str) -> None:
        """Take a place, in its turn.

        Raises:
            TransientError: `rate_limited`: the queue is full, or it waited too long.
        """
        if self.try_enter(kind):
            return
        self._make_room(kind)
        waiter: _Waiter = asyncio.get_running_loop().create_future()
        self._queues[kind].append(waiter)
        self._figures.show_waiting(kind, len(self._queues[kind]))
        try:
            async with asyncio.timeout(self.wait_s):
                await waiter
        except BaseException as error:
            self._leave_queue(kind, waiter)
            if isinstance(error, TimeoutError):
                raise self._refuse(kind, f"waited {self.wait_s:g} s in the queue") from None
            raise

    def leave(self, kind: str) -> None:
        """Give the place back, to whoever is next."""
        self._held -= 1
        self._at_work[kind] -= 1
        if any(self._queues.values()):
            self.admit()

    def admit(self) -> None:
        """Let in whoever may have a place; also after `places` was changed."""
        for kind in CLASSES:
            queue = self._queues[kind]
            while queue and self._is_free(kind):
                waiter = queue.popleft()
                self._figures.show_waiting(kind, len(queue))
                if not waiter.done():
                    self._held += 1
                    self._at_work[kind] += 1
                    waiter.set_result(None)

    def _is_free(self, kind: str) -> bool:
        held = 0
        for name in reversed(CLASSES):  # a class counts against its own share and those above it
            held += self._at_work[name]
            if CLASSES.index(name) <= CLASSES.index(kind) and held >= self._get_most(name):
                return False
        return True

    def _get_most(self, kind: str) -> int:
        part, of = _SHARES[kind]
        return max(1, self.places * part // of)

    def _has_waiters(self, kind: str) -> bool:
        return any(self._queues[name] for name in CLASSES[: CLASSES.index(kind) + 1])

    def _make_room(self, kind: str) -> None:
        if self.waiting < self.queue_max:
            return
        for name in reversed(CLASSES[CLASSES.index(kind) + 1 :]):
            queue = self._queues[name]
            if queue:
                waiter = queue.pop()
                if not waiter.done():
                    waiter.set_exception(self._refuse(name, "made room for a higher class"))
                return
        raise self._refuse(kind, f"found {self.waiting} requests waiting, as many as may")

    def _leave_queue(self, kind: str, waiter: _Waiter) -> None:
        if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
            self.leave(kind)  # its place came at the moment when it gave up
            return
        if waiter in self._queues[kind]:
            self._queues[kind].remove(waiter)
        self._figures.show_waiting(kind, len(self._queues[kind]))

    def _refuse(self, kind: str, what: str) -> TransientError:
        self._figures.count_refused(kind)
        return TransientError(
            "rate_limited",
            f"this gateway has {self.at_work} requests at work, at most {self.places}; "
            f"this {kind} one {what}: try again later",
        )
