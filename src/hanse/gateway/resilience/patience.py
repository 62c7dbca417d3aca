"""Noticing that a provider sends nothing any more, though its connection is alive.

A broker keeps a connection open with comments while its engine hangs, so silence on the wire says
nothing. One timer a stream looks whether frames came since it last looked; per frame nothing is
done but a flag. It cancels the task that waits, and only while it waits for the provider: an
application that reads slowly is no fault of the provider's.
"""

import asyncio

LOOKS = 4
"""Looks in the time of patience: silence is noticed after one to one and a quarter of it."""


class Patience:
    """For one stream, in the task that reads it.

    Attributes:
        waiting: whether the task waits for the provider now; whoever reads sets it.
        frames: those that came; whoever reads counts them.
        is_over: whether the task was cancelled because nothing came.
    """

    def __init__(self, patience_s: float) -> None:
        self.waiting = True
        self.frames = 0
        self.is_over = False
        self._patience_s = patience_s
        self._task = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(patience_s / LOOKS, self._look, 0, 0)

    def end(self) -> None:
        """Look no more."""
        self._timer.cancel()

    def take_back(self) -> bool:
        """Take back the cancellation that this made; False if somebody else's is there too."""
        return self.is_over and (self._task is None or self._task.uncancel() == 0)

    def _look(self, frames_before: int, silent_looks: int) -> None:
        is_silent = self.waiting and self.frames == frames_before
        silent_looks = silent_looks + 1 if is_silent else 0
        if silent_looks >= LOOKS and self._task is not None:
            self.is_over = True
            self._task.cancel()
            return
        self._timer = self._loop.call_later(
            self._patience_s / LOOKS, self._look, self.frames, silent_looks
        )
