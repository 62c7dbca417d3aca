"""Work of a model that blocks, off the event loop, a few at a time, stopped between two steps.

    work = ThreadedWork(parallel=1)
    parts = await work.collect(lambda: model.generate(text))     # an iterator, made in the thread

A step (a sentence, a window of audio) that is under way when its caller leaves is finished; the
next is not begun.
"""

import asyncio
import threading
from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


class ThreadedWork:
    """At most `parallel` pieces of work at once; more wait.

    Attributes:
        active: how many are under way.
    """

    def __init__(self, parallel: int) -> None:
        self._places = asyncio.Semaphore(parallel)
        self.active = 0

    async def collect(self, make: Callable[[], Iterable[T]]) -> list[T]:
        """All that the iterable gives; cancelling stops it before its next step."""
        stop = threading.Event()

        def run() -> list[T]:
            parts = []
            for part in make():
                if stop.is_set():
                    break
                parts.append(part)
            return parts

        await self._places.acquire()
        self.active += 1
        running = asyncio.get_running_loop().run_in_executor(None, run)
        running.add_done_callback(self._give_back)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            stop.set()
            raise

    def _give_back(self, ended: "asyncio.Future[list[T]]") -> None:
        self.active -= 1
        self._places.release()
        if not ended.cancelled():
            ended.exception()  # whoever waited has it; if nobody did, it is of no use
