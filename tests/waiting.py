"""Waiting until something has come about: by looking again and again, never by sleeping once."""

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any

LIMIT_S = 60.0
"""For what promises no time of its own: mostly there within a second, far later on a machine that
is busy with others. A test that asserts a time names it.
"""

LOOK_S = 0.02
"""Between two looks; each may ask a node or a database."""


async def until(
    condition: Callable[[], Any], limit_s: float = LIMIT_S, what: str = "the condition"
) -> Any:
    """Wait for a condition (plain or async) to hold; its value."""
    deadline_s = time.monotonic() + limit_s
    while True:
        found = condition()
        if inspect.isawaitable(found):
            found = await found
        if found:
            return found
        assert time.monotonic() < deadline_s, f"{what} did not come true within {limit_s} s"
        await asyncio.sleep(LOOK_S)
