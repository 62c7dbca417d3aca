"""A task that serves is cut when its caller leaves or its time is over, and then goes on."""

import asyncio

import pytest

from hanse.provider.streaming import CallerWatch
from hanse.serving import Looks
from hanse.serving.departure import LEFT
from tests.waiting import until

NEVER_S = 3_600.0


class Caller:
    """A connection as the listener shows it: it can be left."""

    def __init__(self) -> None:
        self.on_left = None
        self.scope = {"state": {LEFT: self.listen}}

    def listen(self, on_left) -> None:
        self.on_left = on_left

    async def receive(self):
        raise AssertionError("the connection tells by itself")


def watch(caller: Caller, *, limit_s: float = NEVER_S, interval_s: float = NEVER_S) -> CallerWatch:
    return CallerWatch(caller.scope, caller.receive, Looks(interval_s), limit_s)


def get_cancelling() -> int:
    task = asyncio.current_task()
    assert task is not None
    return task.cancelling()


@pytest.mark.parametrize("interval_s", [NEVER_S, 0.01], ids=["before_a_look", "after_looks"])
async def test_a_time_that_is_over_is_a_timeout(interval_s):
    caller = Caller()
    looked: list[int] = []
    watching = watch(caller, limit_s=0.1, interval_s=interval_s)
    watching.on_look = lambda: looked.append(1)
    begun = asyncio.get_running_loop().time()
    with pytest.raises(TimeoutError), watching:
        await asyncio.Event().wait()
    assert asyncio.get_running_loop().time() - begun >= 0.09
    assert bool(looked) == (interval_s != NEVER_S)
    assert (watching.left, get_cancelling(), caller.on_left) == (False, 0, None)
    await asyncio.sleep(0)  # no cancellation is left over


async def test_a_caller_that_left_is_a_cancellation_that_is_taken_back():
    caller = Caller()
    watching = watch(caller)

    async def serve() -> None:
        with watching:
            caller.on_left()
            await asyncio.Event().wait()

    with pytest.raises(asyncio.CancelledError):
        await serve()
    assert (watching.left, get_cancelling()) == (True, 0)
    await asyncio.sleep(0)


async def test_a_caller_that_leaves_while_the_late_work_ends_has_left():
    caller = Caller()
    watching = watch(caller, limit_s=0.01)

    async def serve() -> None:
        with watching:
            try:
                await asyncio.Event().wait()
            finally:
                caller.on_left()  # and the work's own end is cut too
                await asyncio.Event().wait()

    with pytest.raises(asyncio.CancelledError):
        await serve()
    assert (watching.left, get_cancelling()) == (True, 0)
    await asyncio.sleep(0)


async def test_a_stop_from_outside_is_no_timeout():
    caller = Caller()
    watching = watch(caller, limit_s=0.01)
    late = asyncio.Event()
    seen: list[int] = []

    async def serve() -> None:
        try:
            with watching:
                try:
                    await asyncio.Event().wait()
                finally:
                    late.set()
                    await asyncio.Event().wait()
        finally:
            seen.append(get_cancelling())

    serving = asyncio.create_task(serve())
    await late.wait()
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert (seen, watching.left) == ([1], False)


async def test_what_ends_in_time_is_looked_at_no_more():
    looks = Looks(0.01)
    caller, other = Caller(), []
    looked: list[int] = []
    watching = CallerWatch(caller.scope, caller.receive, looks, 0.05)
    watching.on_look = lambda: looked.append(1)
    with watching:
        await until(lambda: looked)
    looks.begin(lambda: other.append(1))
    looked.clear()
    await until(lambda: len(other) >= 6)  # by then its time would be over
    assert (looked, watching.left, get_cancelling()) == ([], False, 0)
