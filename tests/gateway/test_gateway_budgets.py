"""Reservations: never above a limit, never lost, whoever asks at once, dies or fails to write."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
)

from hanse.gateway.budgets.holds import Demand, Hold, Refusal
from hanse.gateway.budgets.ledger import Ledger, open_ledger
from hanse.gateway.budgets.limits import DAY, MINUTE, NO_LIMITS, Limits, Window
from hanse.protocol.errors import TransientError
from hanse.store import Database, open_database, open_memory

START_S = 1_900_000_000.0
SUBJECTS = ("key", "gateway")
WINDOWS = {"minute": MINUTE, "day": DAY}


class Clock:
    """Unix seconds that only a test moves."""

    def __init__(self) -> None:
        self.now = START_S

    def __call__(self) -> float:
        return self.now


class FailingDatabase:
    """Fails the writes that it is told to, before or after they were committed."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.fails = ""

    async def write(self, function: Callable[..., object]) -> object:
        fails, self.fails = self.fails, ""
        if fails == "before":
            raise TransientError("store_unavailable", "the disk is full")
        found = await self._database.write(function)
        if fails == "after":
            raise TransientError("store_unavailable", "the connection broke")
        return found

    async def migrate(self, component: str, steps: tuple[str, ...]) -> None:
        await self._database.migrate(component, steps)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = await open_database(database_url)
    yield opened
    await opened.close()


def demand(most: int, window: Window = MINUTE, subject: str = "key") -> Demand:
    return Demand(subject, window, (most, most * 10, None))


async def test_a_limit_admits_exactly_its_number(database: Database) -> None:
    ledger = await open_ledger(database, Clock())
    found = [await ledger.reserve([demand(7)], (1, 1, 0)) for _ in range(9)]
    assert [isinstance(one, Hold) for one in found] == [True] * 7 + [False] * 2


async def test_a_limit_admits_exactly_its_number_of_those_who_ask_at_once(
    database: Database,
) -> None:
    ledgers = [await open_ledger(database, Clock()) for _ in range(3)]
    asked = [ledger.reserve([demand(50)], (1, 1, 0)) for ledger in ledgers for _ in range(40)]
    found = await asyncio.gather(*asked)
    admitted = sum(isinstance(one, Hold) for one in found)
    # what one process took in advance and does not use, others cannot have before it is given back
    assert 50 - 3 * 2 <= admitted <= 50
    for _ in range(2):
        for ledger in ledgers:
            await ledger.flush()
    late = [await ledgers[0].reserve([demand(50)], (1, 1, 0)) for _ in range(8)]
    assert admitted + sum(isinstance(one, Hold) for one in late) == 50


async def test_what_is_settled_for_less_is_free_at_once(database: Database) -> None:
    ledger = await open_ledger(database, Clock())
    most = demand(10)
    first = await ledger.reserve([most], (1, 90, 0))
    assert isinstance(await ledger.reserve([most], (1, 20, 0)), Refusal)
    assert isinstance(first, Hold)
    ledger.settle(first, (1, 5, 0))
    ledger.settle(first, (1, 5, 0))
    assert isinstance(await ledger.reserve([most], (1, 95, 0)), Hold)
    assert isinstance(await ledger.reserve([most], (1, 1, 0)), Refusal)


async def test_a_refusal_says_what_is_there_and_when_it_comes_free(database: Database) -> None:
    clock = Clock()
    ledger = await open_ledger(database, clock)
    await ledger.reserve([demand(2)], (1, 15, 0))
    clock.now += 30
    await ledger.reserve([demand(2)], (1, 5, 0))
    refusal = await ledger.reserve([demand(2)], (1, 1, 0))
    assert isinstance(refusal, Refusal)
    assert (refusal.measure, refusal.limit, refusal.spent, refusal.needed) == ("requests", 2, 2, 1)
    assert refusal.retry_after_s is not None
    assert 30 <= refusal.retry_after_s <= 33
    clock.now += refusal.retry_after_s
    assert isinstance(await ledger.reserve([demand(2)], (1, 1, 0)), Hold)


async def test_a_request_above_the_limit_itself_is_told_so(database: Database) -> None:
    ledger = await open_ledger(database, Clock())
    refusal = await ledger.reserve([demand(2)], (1, 21, 0))
    assert isinstance(refusal, Refusal)
    assert (refusal.measure, refusal.retry_after_s) == ("tokens", None)


async def test_either_all_limits_are_charged_or_none(database: Database) -> None:
    ledger = await open_ledger(database, Clock())
    wide, narrow = demand(100), demand(1, subject="gateway")
    assert isinstance(await ledger.reserve([wide, narrow], (1, 1, 0)), Hold)
    for _ in range(200):
        assert isinstance(await ledger.reserve([wide, narrow], (1, 1, 0)), Refusal)
    rest = [await ledger.reserve([wide], (1, 1, 0)) for _ in range(100)]
    assert [isinstance(one, Hold) for one in rest] == [True] * 99 + [False]


async def test_what_was_spent_survives_a_restart(database: Database) -> None:
    clock = Clock()
    most = demand(10, DAY)
    before = await open_ledger(database, clock)
    holds = [await before.reserve([most], (1, 1, 0)) for _ in range(4)]
    for hold in holds:
        assert isinstance(hold, Hold)
        before.settle(hold, (1, 1, 0))
    await before.close()
    after = await open_ledger(database, clock)
    found = [await after.reserve([most], (1, 1, 0)) for _ in range(8)]
    assert sum(isinstance(one, Hold) for one in found) == 6


async def test_reservations_of_a_dead_process_end_with_the_window(database: Database) -> None:
    clock = Clock()
    dead = await open_ledger(database, clock)
    for _ in range(10):
        assert isinstance(await dead.reserve([demand(10)], (1, 1, 0)), Hold)
    alive = await open_ledger(database, clock)
    assert isinstance(await alive.reserve([demand(10)], (1, 1, 0)), Refusal)
    clock.now += 59
    assert isinstance(await alive.reserve([demand(10)], (1, 1, 0)), Refusal)
    clock.now += 4
    assert isinstance(await alive.reserve([demand(10)], (10, 1, 0)), Hold)


async def test_a_caller_that_leaves_while_it_waits_holds_nothing(database: Database) -> None:
    ledger = await open_ledger(database, Clock())
    asked = [asyncio.create_task(ledger.reserve([demand(3)], (1, 1, 0))) for _ in range(3)]
    await asyncio.sleep(0)
    asked[0].cancel()
    await asyncio.gather(*asked, return_exceptions=True)
    found = [await ledger.reserve([demand(3)], (1, 1, 0)) for _ in range(2)]
    assert [isinstance(one, Hold) for one in found] == [True, False]


async def test_most_reservations_cost_no_write_and_refusals_few(database: Database) -> None:
    writes = []
    ledger = await open_ledger(database, Clock())
    original = database.write
    database.write = lambda function: writes.append(1) or original(function)  # type: ignore[method-assign]
    for _ in range(1_000):
        assert isinstance(await ledger.reserve([demand(1_000)], (1, 1, 0)), Hold)
    assert len(writes) <= 40
    writes.clear()
    for _ in range(500):
        assert isinstance(await ledger.reserve([demand(1_000)], (1, 1, 0)), Refusal)
    assert len(writes) <= 1


async def test_old_rows_leave_the_store(database: Database) -> None:
    clock = Clock()
    ledger = await open_ledger(database, clock)
    await ledger.reserve([demand(5), demand(5, DAY)], (1, 1, 0))
    await ledger.close()
    for _ in range(2):
        clock.now += 3 * 86_400
        await ledger.flush()
    rows = await database.read(lambda tx: tx.find_all("SELECT slot FROM gateway_budget_rows"))
    assert len(rows) <= 1  # what is still reserved is known here


def test_a_windows_slots_reach_over_all_of_it() -> None:
    for window in (MINUTE, DAY):
        slot = window.get_slot(START_S)
        assert window.get_end_s(slot) >= START_S + window.span_s
        assert window.get_end_s(slot) <= START_S + window.span_s + window.slot_s


def test_limits_within_others_are_the_lower_ones() -> None:
    parent = Limits(requests_per_day=5, money_per_day=100)
    assert parent.within(Limits(money_per_day=7, tokens_per_minute=3)) == Limits(
        requests_per_day=5, money_per_day=7, tokens_per_minute=3
    )
    assert NO_LIMITS.is_none
    assert not parent.is_none
    assert parent.to_document() == {"requests_per_day": 5, "money_per_day": "100"}


class Spending(RuleBasedStateMachine):
    """Processes on one store: whatever they do, in whatever order, no limit is exceeded."""

    holds = Bundle("holds")
    limits: ClassVar = {"minute": (6, 60, 600), "day": (40, 300, 2_000)}

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = Clock()
        self.store = self.runner.run(open_memory())
        self.processes = [self.open() for _ in range(2)]
        self.admitted: list[dict[str, object]] = []

    def open(self) -> tuple[Ledger, FailingDatabase]:
        database = FailingDatabase(self.store)
        return self.runner.run(open_ledger(database, self.clock)), database  # type: ignore[arg-type]

    def demands(self, subjects: tuple[str, ...]) -> list[Demand]:
        return [Demand(s, WINDOWS[w], most) for s in subjects for w, most in self.limits.items()]

    @rule(
        target=holds,
        number=st.integers(0, 1),
        asks=st.lists(
            st.tuples(
                st.sampled_from([SUBJECTS, SUBJECTS[:1], SUBJECTS[1:]]),
                st.tuples(st.just(1), st.integers(0, 60), st.integers(0, 600)),
            ),
            min_size=1,
            max_size=6,
        ),
        leaves=st.booleans(),
    )
    def ask_at_once(self, number, asks, leaves):
        ledger = self.processes[number][0]

        async def ask():
            tasks = [asyncio.create_task(ledger.reserve(self.demands(s), a)) for s, a in asks]
            if leaves:
                await asyncio.sleep(0)
                tasks[0].cancel()
            return await asyncio.gather(*tasks, return_exceptions=True)

        found = []
        for (subjects, amounts), answer in zip(asks, self.runner.run(ask()), strict=True):
            if isinstance(answer, Hold):
                entry = {"at": self.clock.now, "subjects": subjects, "amounts": amounts}
                self.admitted.append(entry)
                found.append((ledger, answer, entry))
        return multiple(*found)

    @rule(given=consumes(holds), part=st.floats(0, 1))
    def settle(self, given, part):
        ledger, hold, entry = given
        if any(ledger is process for process, _ in self.processes):
            took = (1, int(entry["amounts"][1] * part), int(entry["amounts"][2] * part))
            ledger.settle(hold, took)
            entry["amounts"] = took

    @rule(seconds=st.sampled_from([0.5, 2.0, 20.0, 61.0, 900.0, 40_000.0]))
    def wait(self, seconds):
        self.clock.now += seconds

    @rule(number=st.integers(0, 1))
    def flush(self, number):
        with contextlib.suppress(TransientError):  # told to fail; the next one repeats it
            self.runner.run(self.processes[number][0].flush())

    @rule(number=st.integers(0, 1), when=st.sampled_from(["before", "after"]))
    def fail_the_next_write(self, number, when):
        self.processes[number][1].fails = when

    @rule(number=st.integers(0, 1))
    def crash(self, number):
        self.processes[number] = self.open()

    @invariant()
    def no_window_is_above_its_limit(self):
        for subject in SUBJECTS:
            for name, limit in self.limits.items():
                since = self.clock.now - WINDOWS[name].span_s
                spent = [
                    entry["amounts"]
                    for entry in self.admitted
                    if subject in entry["subjects"] and entry["at"] > since
                ]
                for index, most in enumerate(limit):
                    assert sum(amounts[index] for amounts in spent) <= most

    def teardown(self):
        # nothing is lost: once all windows have passed, each limit is there in full
        self.clock.now += DAY.span_s + DAY.slot_s
        ledger = self.processes[0][0]
        self.processes[0][1].fails = ""
        full = self.runner.run(ledger.reserve(self.demands(SUBJECTS), self.limits["minute"]))
        self.runner.run(self.store.close())
        self.runner.close()
        assert isinstance(full, Hold)


TestSpending = Spending.TestCase
TestSpending.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


async def test_a_reservation_takes_microseconds(database: Database) -> None:
    """A bound that only a write on each request, or worse, would break."""
    ledger = await open_ledger(database, time.time)
    most = [demand(10**9), demand(10**9, DAY)]
    await ledger.reserve(most, (1, 1, 0))
    started = time.process_time()
    for _ in range(2_000):
        hold = await ledger.reserve(most, (1, 1, 0))
        assert isinstance(hold, Hold)
        ledger.settle(hold, (1, 1, 0))
    assert (time.process_time() - started) / 2_000 < 100e-6
