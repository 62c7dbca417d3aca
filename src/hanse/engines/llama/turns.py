"""Who may ask llama.cpp next, so that a request for several slots is not passed over for ever.

llama.cpp gives a request for `n` answers its `n` slots at once or not at all, and while they are
not free together it serves whoever came later. Under steady load its turn never comes (measured: of
four requests for 4 slots none was begun in 20 s, while 150 for one slot each were answered).

So requests take turns here. As long as all are for one slot each, they go on to llama.cpp's own
queue at once. One for several waits until so many slots are free, and all that come later wait
behind it; while it is answered, no more go on than there are slots, so that none can get before it.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hanse.protocol.errors import TransientError


class Turns:
    """Counts the slots that are asked for.

    Args:
        slots: how many there are.
        wait_s: the longest that anybody waits for a turn.
    """

    def __init__(self, slots: int, wait_s: float) -> None:
        self._slots = slots
        self._wait_s = wait_s
        self._asked = 0
        self._several = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def hold(self, count: int) -> AsyncIterator[None]:
        """Wait for a turn, and count `count` slots as asked for until the block ends.

        Raises:
            TransientError: `engine_unavailable`, they did not become free in time.
        """
        await self._take(count)
        try:
            yield
        finally:
            self._give_back(count)

    async def _take(self, count: int) -> None:
        if not self._waiting and self._fits(count):
            self._count(count)
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((count, turn))
        try:
            async with asyncio.timeout(self._wait_s):
                await turn
        except (asyncio.CancelledError, TimeoutError) as error:
            if not turn.cancelled():  # its turn had come just before
                self._give_back(count)
            self._call_next()
            if isinstance(error, TimeoutError):
                raise TransientError(
                    "engine_unavailable",
                    f"{count} slots did not become free within {self._wait_s:g} s.",
                ) from error
            raise

    def _give_back(self, count: int) -> None:
        self._count(count, -1)
        self._call_next()

    def _count(self, count: int, times: int = 1) -> None:
        self._asked += times * count
        self._several += times * (count > 1)

    def _call_next(self) -> None:
        while self._waiting:
            count, turn = self._waiting[0]
            if not turn.cancelled():
                if not self._fits(count):
                    return
                self._count(count)
                turn.set_result(None)
            self._waiting.popleft()

    def _fits(self, count: int) -> bool:
        is_free_for_all = count == 1 and not self._several
        return is_free_for_all or self._asked + count <= self._slots
