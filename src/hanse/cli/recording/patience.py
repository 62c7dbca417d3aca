"""How long whoever asks for one proof after another waits for a slow recorder.

    patience = Patience()
    if patience.may_ask(url):
        with patience.asking(url):
            ...

A recorder that took longer than `SLOW_S`, whether it answered or not, is left alone for `PAUSE_S`.
With `ANSWER_S` for one answer it takes a tenth of the asker's time at most, however many answers
wait for their proofs; other recorders are asked as before.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

ANSWER_S = 3.0
"""For one answer: who asks for many can ask again, other than a person who wants this one."""

SLOW_S = 1.0
"""A recorder answers from its database, in milliseconds."""

PAUSE_S = 30.0
"""Ten times `ANSWER_S`, and well below the two minutes that a draw waits for a record."""


class Patience:
    """Which recorders were slow, and until when they are left alone."""

    def __init__(
        self,
        answer_s: float = ANSWER_S,
        slow_s: float = SLOW_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Wait `answer_s` for one answer; `clock` gives seconds that only go forward."""
        self.answer_s = answer_s
        self._slow_s, self._clock = slow_s, clock
        self._again_at: dict[str, float] = {}

    def may_ask(self, url: str) -> bool:
        """Whether it was not slow just now."""
        return self._clock() >= self._again_at.get(url, 0.0)

    @contextmanager
    def asking(self, url: str) -> Iterator[None]:
        """Note how long it takes, also where it fails."""
        began = self._clock()
        try:
            yield
        finally:
            ended = self._clock()
            if ended - began > self._slow_s:
                self._again_at[url] = ended + PAUSE_S
