"""What one request waited for: stages with their times, noted where they happen, read at its end.

Whoever serves a request sets `STAGES` for it; whoever does a part of the work, however deep, notes
it there if there is somebody to read it. Tasks that a request starts share its stages. Nothing here
holds content.

    stages = Stages(time.perf_counter)
    STAGES.set(stages)
    ...
    began_s = stages.now()
    stages.add("match", began_s)

Without a reader it costs the look at a context variable, some 40 ns.
"""

from collections.abc import Callable
from contextvars import ContextVar

STAGES_MAX = 256
"""Stages of one request: some six an attempt. What comes after them is not noted."""


Stage = tuple[str, float, float, str]
"""Its name, when it began and ended in seconds of the request's clock, and the provider that it had
to do with, if any. A plain tuple: it is made some six times a request."""


class Stages:
    """The stages of one request.

    Attributes:
        now: the request's clock, in seconds.
        taken: the stages in the order of their ends.
        traceparent: W3C header that those who are asked for a part of the work are to be given;
            empty for none.
    """

    __slots__ = ("now", "taken", "traceparent")

    def __init__(self, now: Callable[[], float]) -> None:
        self.now = now
        self.taken: list[Stage] = []
        self.traceparent = ""

    def add(self, name: str, began_s: float, provider: str = "") -> None:
        """Note a stage that ends now."""
        if len(self.taken) < STAGES_MAX:
            self.taken.append((name, began_s, self.now(), provider))


STAGES: ContextVar[Stages | None] = ContextVar("hanse_stages", default=None)
"""Of the request that this task works for."""
