"""Noticing that a provider sends nothing any more, though its connection is alive.

A broker keeps a connection open with comments while its engine hangs, so silence on the wire says
nothing. A look every so often sees whether frames came since the last one; per frame nothing is
done but setting a state. It cancels the task that waits, and only while it waits for the provider:
an application that reads slowly is no fault of the provider's. All streams share one timer.
"""

import asyncio

from hanse.serving import Looks

LOOKS = 4
"""Looks in the time of patience: silence is noticed after one to one and a quarter of it."""


WITH_APPLICATION, WAITING, SEEN_WAITING = 0, 1, 2
"""Where a stream is: a frame is being handed on, the next one is waited for, and that was seen."""


class Patience:
    """For one stream, in the task that reads it.

    Attributes:
        state: `WITH_APPLICATION` while a frame is handed on, `WAITING` after it; whoever reads the
            stream sets it.
        is_first: whether no frame has been noticed yet.
        is_over: whether the task was cancelled because nothing came.
    """

    __slots__ = (
        *("state", "is_first", "is_over"),
        *("_silence_s", "_first_s", "_task", "_looks", "_silent_looks"),
    )

    def __init__(self, silence_s: float, first_s: float, looks: Looks) -> None:
        """Begin to look.

        Args:
            looks: `LOOKS` in the time of `silence_s`.
            silence_s: patience between two frames.
            first_s: patience until the first one, while a prompt is read or a model loads.
        """
        self.state = SEEN_WAITING
        self.is_first = True
        self.is_over = False
        self._silence_s = silence_s
        self._first_s = max(first_s, silence_s)
        self._task = asyncio.current_task()
        self._silent_looks = 0
        self._looks = looks
        looks.begin(self._look)

    def end(self) -> None:
        """Look no more."""
        self._looks.end(self._look)

    def take_back(self) -> bool:
        """Take back the cancellation that this made; False if somebody else's is there too."""
        return self.is_over and (self._task is None or self._task.uncancel() == 0)

    def _look(self) -> None:
        if self.state == SEEN_WAITING:
            self._silent_looks += 1
        else:
            self._silent_looks, self.is_first = 0, False
            if self.state == WAITING:
                self.state = SEEN_WAITING
        patience_s = self._first_s if self.is_first else self._silence_s
        if self._silent_looks * self._looks.interval_s >= patience_s and self._task is not None:
            self.is_over = True
            self.end()
            self._task.cancel()
