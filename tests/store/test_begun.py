"""Writes that are only begun: who sees them when, what shares their commit, what a crash leaves."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from hanse.protocol.errors import TransientError
from hanse.store import SqliteDatabase, open_sqlite
from hanse.store.sqlite import HOLD_S, WRITES_PER_COMMIT_MAX
from tests.store.facts import TABLES, count, put

ALWAYS = 1_000.0
"""Commit time up to which commits run on the loop."""


@pytest_asyncio.fixture
async def database(tmp_path: Path) -> AsyncIterator[SqliteDatabase]:
    database = await open_sqlite(
        tmp_path / "store.sqlite3", loop_commit_s_max=ALWAYS, is_served=True
    )
    await database.migrate("test", TABLES)
    yield database
    await database.close()


@pytest.fixture
def commits(database: SqliteDatabase) -> list[str]:
    seen: list[str] = []
    database._loop_connection.set_trace_callback(
        lambda statement: seen.append(statement) if statement in ("COMMIT", "ROLLBACK") else None
    )
    return seen


def look(tmp_path: Path) -> int:
    """What another process finds in the file."""
    other = sqlite3.connect(tmp_path / "store.sqlite3")
    try:
        return other.execute("SELECT COUNT(*) FROM facts").fetchone()[0]
    finally:
        other.close()


async def test_a_begun_write_has_its_result_before_it_is_durable(database, commits, tmp_path):
    begun = await database.begin(put("begun"))
    assert begun.result == 1
    assert not begun.is_durable
    assert look(tmp_path) == 0
    await begun.commit()
    assert begun.is_durable
    assert look(tmp_path) == 1
    await begun.commit()
    assert commits == ["COMMIT"]


async def test_the_next_write_shares_its_commit(database, commits, tmp_path):
    begun = await database.begin(put("begun"))
    seen = await database.write(lambda tx: tx.find_one("SELECT COUNT(*) FROM facts"))
    assert seen == (1,)  # it sees what was begun
    assert begun.is_durable
    assert (commits, look(tmp_path)) == (["COMMIT"], 1)


async def test_it_is_committed_soon_though_nobody_asks(database, tmp_path):
    await database.begin(put("begun"))
    async with asyncio.timeout(10):
        while look(tmp_path) == 0:  # noqa: ASYNC110 - of a file there is no event
            await asyncio.sleep(HOLD_S / 4)


async def test_a_reader_sees_it(database):
    await database.begin(put("begun"))
    assert await count(database) == 1


async def test_closing_commits_it(tmp_path):
    database = await open_sqlite(
        tmp_path / "store.sqlite3", loop_commit_s_max=ALWAYS, is_served=True
    )
    await database.migrate("test", TABLES)
    await database.begin(put("begun"))
    await database.close()
    assert look(tmp_path) == 1


def test_closing_commits_what_a_loop_left_that_has_ended(tmp_path):
    async def leave() -> SqliteDatabase:
        database = await open_sqlite(
            tmp_path / "store.sqlite3", loop_commit_s_max=ALWAYS, is_served=True
        )
        await database.migrate("test", TABLES)
        await database.begin(put("begun"))
        return database

    asyncio.run(asyncio.wait_for(asyncio.run(leave()).close(), 10))
    assert look(tmp_path) == 1


async def test_one_that_raises_undoes_itself_and_nothing_else(database):
    def half(tx):
        put("half")(tx)
        raise ValueError("on purpose")

    first = await database.begin(put("first"))
    with pytest.raises(ValueError, match="on purpose"):
        await database.begin(half)
    with pytest.raises(ValueError, match="on purpose"):
        await database.write(half)
    assert first.is_durable  # the write that failed came with a commit
    assert await count(database) == 1


async def test_one_that_raises_alone_holds_nothing_open(database, tmp_path):
    def half(tx):
        put("half")(tx)
        raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        await database.begin(half)
    other = sqlite3.connect(tmp_path / "store.sqlite3", isolation_level=None, timeout=0)
    other.execute("BEGIN IMMEDIATE")  # nobody holds the file
    other.close()


async def test_a_commit_that_fails_loses_it_and_says_so(database):
    link = "CREATE TABLE links (name TEXT REFERENCES facts (name) DEFERRABLE INITIALLY DEFERRED)"
    await database.write(lambda tx: tx.execute(link))
    begun = await database.begin(put("begun"))
    with pytest.raises(TransientError):  # SQLite looks at such a link at the commit
        await database.write(lambda tx: tx.execute("INSERT INTO links VALUES ('nothing')"))
    assert begun.is_lost
    assert not begun.is_durable
    with pytest.raises(TransientError):
        await begun.commit()
    assert await count(database) == 0


async def test_a_transaction_that_the_engine_undoes_takes_all_with_it(database):
    begun = await database.begin(put("begun"))

    def undo(tx):
        database._loop_connection.execute("ROLLBACK")  # as SQLite does at some errors
        raise sqlite3.OperationalError("on purpose")

    with pytest.raises(TransientError):
        await database.write(undo)
    assert begun.is_lost
    assert not begun.is_durable
    with pytest.raises(TransientError):
        await begun.commit()
    assert await count(database) == 0
    assert await database.write(put("after")) == 1


async def test_more_than_one_batch_can_be_begun(database):
    names = [str(number) for number in range(2 * WRITES_PER_COMMIT_MAX + 10)]
    async with asyncio.timeout(30):
        begun = await asyncio.gather(*(database.begin(put(name)) for name in names))
        await begun[-1].commit()
    assert all(each.is_durable for each in begun)
    assert await count(database) == len(names)


async def test_another_process_waits_until_it_is_committed(database, tmp_path):
    await database.begin(put("begun"))

    def write_beside() -> None:
        other = sqlite3.connect(tmp_path / "store.sqlite3", isolation_level=None, timeout=10)
        other.execute("INSERT INTO facts VALUES ('beside', '1')")
        other.close()

    await asyncio.to_thread(write_beside)
    assert await count(database) == 2


async def test_another_process_is_not_starved_by_writes_that_are_begun(database, tmp_path):
    """Each leaves the file open for a moment; what is written in between must get through."""
    is_done = False

    async def keep_writing(name: str) -> None:
        number = 0
        while not is_done:
            number += 1
            await database.begin(put(f"{name} {number}"))
            await asyncio.sleep(0.001)
            await database.write(put(f"{name} {number} ends"))

    def write_beside() -> None:
        other = sqlite3.connect(tmp_path / "store.sqlite3", isolation_level=None, timeout=30)
        for number in range(20):
            other.execute("INSERT INTO facts VALUES (?, '1')", (f"beside {number}",))
        other.close()

    busy = [asyncio.create_task(keep_writing(name)) for name in ("one", "two", "three")]
    try:
        async with asyncio.timeout(60):
            await asyncio.to_thread(write_beside)
    finally:
        is_done = True
        await asyncio.gather(*busy)
    assert await database.read(
        lambda tx: tx.find_one("SELECT COUNT(*) FROM facts WHERE name LIKE 'beside %'")
    ) == (20,)


async def test_another_loop_writes_while_one_is_held(database):
    await database.begin(put("begun"))
    async with asyncio.timeout(10):
        await asyncio.to_thread(asyncio.run, database.write(put("elsewhere")))
    assert await count(database) == 2


async def test_outside_a_server_it_is_durable_at_once(tmp_path):
    """An application may stop its loop for as long as it likes."""
    database = await open_sqlite(tmp_path / "store.sqlite3", loop_commit_s_max=ALWAYS)
    await database.migrate("test", TABLES)
    begun = await database.begin(put("begun"))
    assert begun.is_durable
    assert look(tmp_path) == 1
    await database.close()


async def test_a_transaction_that_has_ended_takes_no_more_writes(database, tmp_path):
    begun = await database.begin(put("begun"))
    database._loop_connection.execute("ROLLBACK")
    with pytest.raises(TransientError):
        await database.write(put("behind it"))
    assert begun.is_lost
    assert look(tmp_path) == 0
    assert await database.write(put("after")) == 1


async def test_in_the_thread_it_is_durable_at_once(tmp_path):
    database = await open_sqlite(tmp_path / "store.sqlite3", loop_commit_s_max=0.0, is_served=True)
    await database.migrate("test", TABLES)
    begun = await database.begin(put("begun"))
    assert begun.is_durable
    assert look(tmp_path) == 1
    await database.close()


async def test_a_process_that_dies_leaves_nothing_of_it(database, tmp_path):
    begun = await database.begin(put("begun"))
    # What a killed process leaves: its files as they are, without its connection.
    for name in ("store.sqlite3", "store.sqlite3-wal"):
        (tmp_path / f"left-{name}").write_bytes((tmp_path / name).read_bytes())
    left = sqlite3.connect(tmp_path / "left-store.sqlite3")
    assert left.execute("SELECT COUNT(*) FROM facts").fetchone() == (0,)
    left.close()
    await begun.commit()
