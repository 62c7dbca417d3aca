"""Many are looked at in their time, by one timer."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from hanse.serving.looks import Looks
from tests.waiting import until


class Clock(asyncio.SelectorEventLoop):
    """A loop whose time is set, and that tells what its timers wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000.0
        self.timers: list[tuple[float, Callable[..., Any]]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:
        self.timers.append((when, callback))
        return super().call_soon(lambda: None)

    def advance(self, to_s: float) -> None:
        """Let the time come, and fire what is due by then."""
        while due := [timer for timer in self.timers if timer[0] <= to_s]:
            timer = min(due, key=lambda timer: timer[0])
            self.timers.remove(timer)
            self.now = max(self.now, timer[0])
            timer[1]()
        self.now = to_s


@pytest.fixture
def clock():
    loop = Clock()
    yield loop
    loop.close()


def run(clock: Clock, act: Callable[[], None]) -> None:
    async def acting() -> None:
        act()

    clock.run_until_complete(acting())


def test_each_is_looked_at_in_its_time_and_one_timer_waits(clock):
    seen: list[tuple[str, float]] = []

    def act() -> None:
        looks = Looks(10.0)
        watched = {name: (lambda n=name: seen.append((n, clock.now))) for name in "abc"}
        looks.begin(watched["a"])
        clock.advance(1_003.0)
        looks.begin(watched["b"])
        clock.advance(1_004.0)
        looks.begin(watched["c"])
        looks.end(watched["c"])
        looks.end(watched["c"])
        assert [when for when, _ in clock.timers] == [1_010.0]
        clock.advance(1_025.0)
        assert seen == [("a", 1_010.0), ("b", 1_013.0), ("a", 1_020.0), ("b", 1_023.0)]
        looks.end(watched["a"])
        looks.end(watched["b"])
        clock.advance(1_100.0)
        assert len(seen) == 4
        assert clock.timers == []  # nobody is there, so no timer is
        looks.begin(watched["c"])
        clock.advance(1_110.0)
        assert seen[4:] == [("c", 1_110.0)]

    run(clock, act)


def test_one_may_end_itself_or_another_and_a_mistake_stops_nobody(clock):
    seen: list[str] = []

    def act() -> None:
        looks = Looks(10.0)

        def first() -> None:
            seen.append("first")
            looks.end(first)
            looks.end(second)

        def second() -> None:
            seen.append("second")

        def broken() -> None:
            seen.append("broken")
            raise ZeroDivisionError

        def last() -> None:
            seen.append("last")

        for look in (first, second, broken, last):
            looks.begin(look)
        with pytest.raises(ZeroDivisionError):
            clock.advance(1_010.0)
        clock.advance(1_010.0)
        assert seen == ["first", "broken", "last"]
        looks.end(broken)
        clock.advance(1_020.0)
        assert seen == ["first", "broken", "last", "last"]

    run(clock, act)


async def test_in_a_real_loop():
    looks, seen = Looks(0.01), []
    looks.begin(lambda: seen.append(1))
    await until(lambda: len(seen) >= 3)
