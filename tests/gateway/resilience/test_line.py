"""The line: who gets a place, who waits, who is refused."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from hanse.gateway.resilience.figures import StayingFigures
from hanse.gateway.resilience.line import Line
from hanse.protocol.errors import TransientError


def make_line(places: int, queue_max: int = 8, wait_s: float = 5.0) -> Line:
    return Line(places, queue_max, wait_s, StayingFigures(CollectorRegistry()))


async def wait_in(line: Line, kind: str) -> "asyncio.Task[None]":
    """Somebody who asks for a place, once it waits or has one."""
    task = asyncio.create_task(line.enter(kind))
    await is_in(task)
    return task


async def is_in(*tasks: "asyncio.Task[None]") -> list[bool]:
    for _ in range(5):
        await asyncio.sleep(0)
    return [task.done() for task in tasks]


async def test_interactive_goes_before_ambient_before_background():
    line = make_line(1)
    await line.enter("interactive")
    background = await wait_in(line, "background")
    ambient = await wait_in(line, "ambient")
    interactive = await wait_in(line, "interactive")
    line.leave("interactive")
    assert await is_in(interactive, ambient, background) == [True, False, False]
    line.leave("interactive")
    assert await is_in(ambient, background) == [True, False]
    line.leave("ambient")
    assert await is_in(background) == [True]
    line.leave("background")
    assert (line.at_work, line.waiting) == (0, 0)


@pytest.mark.parametrize("places", [2, 3, 4, 8, 100])
async def test_interactive_finds_a_place_whatever_background_does(places):
    line = make_line(places, queue_max=500)
    others = [await wait_in(line, "background") for _ in range(places + 5)]
    assert sum(await is_in(*others)) == places // 2
    assert line.try_enter("interactive")
    line.leave("interactive")
    for task in others:
        task.cancel()


async def test_ambient_and_background_leave_a_quarter_for_interactive():
    line = make_line(8, queue_max=100)
    background = [await wait_in(line, "background") for _ in range(9)]
    ambient = [await wait_in(line, "ambient") for _ in range(9)]
    assert sum(await is_in(*background, *ambient)) == 6
    assert line.try_enter("interactive")
    assert line.try_enter("interactive")
    assert not line.try_enter("interactive")
    for task in [*background, *ambient]:
        task.cancel()


async def test_background_does_not_overtake_ambient_that_waits():
    line = make_line(4, queue_max=100)
    ambient = [await wait_in(line, "ambient") for _ in range(4)]
    assert sum(await is_in(*ambient)) == 3
    assert not line.try_enter("background")
    ambient[-1].cancel()
    await asyncio.gather(ambient[-1], return_exceptions=True)
    assert not line.try_enter("background")  # three places of four are all that it shares
    line.leave("ambient")
    assert line.try_enter("background")


async def test_a_full_queue_makes_room_for_a_higher_class_and_refuses_an_equal_one():
    line = make_line(1, queue_max=2)
    await line.enter("interactive")
    first = await wait_in(line, "background")
    second = await wait_in(line, "background")
    with pytest.raises(TransientError) as refused:
        await line.enter("background")
    assert refused.value.code == "rate_limited"
    interactive = await wait_in(line, "interactive")
    with pytest.raises(TransientError, match="made room"):
        await second
    assert line.waiting == 2
    line.leave("interactive")
    assert await is_in(interactive, first) == [True, False]
    first.cancel()


async def test_who_waits_too_long_is_refused_and_leaves_nothing():
    line = make_line(1, wait_s=0.05)
    await line.enter("interactive")
    with pytest.raises(TransientError, match=r"waited 0\.05 s"):
        await line.enter("interactive")
    assert line.waiting == 0
    line.leave("interactive")
    assert line.try_enter("interactive")


async def test_a_place_that_comes_when_its_waiter_leaves_goes_to_the_next():
    line = make_line(1)
    await line.enter("interactive")
    leaving = await wait_in(line, "interactive")
    staying = await wait_in(line, "interactive")
    line.leave("interactive")  # gives it to the first, who has not run yet
    leaving.cancel()
    assert await is_in(leaving, staying) == [True, True]
    assert leaving.cancelled()
    assert line.at_work == 1


async def test_more_places_let_in_who_waits():
    line = make_line(1)
    await line.enter("interactive")
    waiting = await wait_in(line, "interactive")
    line.places = 2
    line.admit()
    assert await is_in(waiting) == [True]
