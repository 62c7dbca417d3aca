"""Leases: who is dead, who leads, and what the dead can still do, on both stores."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from hanse.protocol.errors import RequestError, TransientError
from hanse.store import Database, open_database
from hanse.store.leases import LeaseTerms, Membership, join_group
from tests.store.facts import TABLES, count, put

TERMS = LeaseTerms(beat_s=1.0, missed_max=5)


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Group:
    """Members on one database under one clock that the test moves."""

    def __init__(self, database: Database) -> None:
        self.database, self.clock = database, Clock()
        self.ended: list[str] = []

    async def join(self, name: str) -> Membership:
        return await join_group(self.database, "brokers", name, "here", TERMS, self.clock)

    def on_ended(self, tx, name) -> None:
        self.ended.append(name)
        put(f"closed {name}")(tx)

    async def beat(self, *members: Membership, times: int = 1) -> None:
        for _ in range(times):
            self.clock.now_s += TERMS.beat_s
            for member in members:
                await member.beat(self.on_ended)


@pytest_asyncio.fixture
async def group(database_url: str) -> AsyncIterator[Group]:
    database = await open_database(database_url)
    await database.migrate("test", TABLES)
    yield Group(database)
    await database.close()


async def test_the_first_leads_and_the_next_follow(group):
    first, second = await group.join("first"), await group.join("second")
    await group.beat(first, second, times=20)
    assert (first.is_leader, second.is_leader) == (True, False)
    assert (second.leader, second.term) == ("first", 1)
    assert [member.name for member in first.members] == ["first", "second"]
    assert group.ended == []


async def test_one_that_stands_still_is_ended_and_replaced_in_time(group):
    dead, second, third = [await group.join(name) for name in ("dead", "second", "third")]
    await group.beat(dead, second, third)
    before = group.clock.now_s
    while not group.ended:
        await group.beat(second, third)
        assert group.clock.now_s - before <= TERMS.ends_after_s
    assert group.ended == ["dead"]  # by one of the two
    assert await count(group.database) == 1
    await group.beat(second, third)
    assert {second.leader, third.leader} == {"second"}
    assert second.term == 2


async def test_what_was_ended_can_write_nothing_and_learns_of_it(group):
    dead, second = await group.join("dead"), await group.join("second")
    await group.beat(dead, second)
    await group.beat(second, times=7)

    def write(tx):
        dead.verify_held(tx)
        put("signed")(tx)

    with pytest.raises(TransientError, match="the lease of dead has ended"):
        await group.database.write(write)
    with pytest.raises(TransientError):
        await group.database.write(dead.verify_leads)
    with pytest.raises(RequestError, match="start this process again"):
        await dead.run(group.on_ended, lambda: None)
    assert await count(group.database) == 1  # what closed it, and nothing else


async def test_only_the_leader_is_let_through(group):
    first, second = await group.join("first"), await group.join("second")
    await group.database.write(first.verify_leads)
    with pytest.raises(TransientError, match="first leads now, not second"):
        await group.database.write(second.verify_leads)


async def test_a_database_that_was_away_ends_nobody(group):
    """For an hour nobody could beat; the first to come back must not end the other."""
    first, second = await group.join("first"), await group.join("second")
    await group.beat(first, second, times=3)
    group.clock.now_s += 3_600
    await group.beat(first, times=4)
    await group.beat(second, times=4)
    assert group.ended == []


async def test_beats_without_time_end_nobody(group):
    """A burst of beats, such as after a pause of the event loop."""
    first, _ = await group.join("first"), await group.join("second")
    for _ in range(50):
        await first.beat(group.on_ended)
    assert group.ended == []


async def test_one_that_leaves_is_followed_at_the_next_beat(group):
    first, second = await group.join("first"), await group.join("second")
    await first.leave()
    await group.beat(second)
    assert second.is_leader
    assert group.ended == []


async def test_closing_that_fails_ends_nothing(group):
    dead, second = await group.join("dead"), await group.join("second")

    def fail(tx, name):
        put("half")(tx)
        raise ValueError("on purpose")

    await group.beat(dead, second)
    for _ in range(7):
        group.clock.now_s += TERMS.beat_s
        with contextlib.suppress(ValueError):
            await second.beat(fail)
    await group.database.write(dead.verify_leads)
    assert await count(group.database) == 0
    await group.beat(second)
    assert group.ended == ["dead"]


async def test_beats_go_on_by_themselves_and_say_who_leads(database_url):
    database = await open_database(database_url)
    quick = LeaseTerms(beat_s=0.01, missed_max=20)
    members = [await join_group(database, "brokers", name, "", quick) for name in ("a", "b")]
    elected = asyncio.Event()
    tasks = [
        asyncio.create_task(member.run(lambda tx, name: None, on_lead))
        for member, on_lead in zip(members, (lambda: None, elected.set), strict=True)
    ]
    await asyncio.sleep(0)
    tasks[0].cancel()  # it dies
    async with asyncio.timeout(10):
        await elected.wait()
    assert members[1].leader == "b"
    tasks[1].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await database.close()
