"""The SQLite store: group commit, writes that fail alone, a full disk, a process that dies."""

import asyncio
import sqlite3
import stat
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from hanse.protocol.errors import RequestError, TransientError
from hanse.store import SqliteDatabase, hold_folder, open_sqlite
from hanse.store.group_commit import SharedTransaction, Write
from hanse.store.sqlite import COMMITS_PER_CHECKPOINT
from tests.store.facts import TABLES, Gate, count, put

ROOT = Path(__file__).parents[2]


NEVER, ALWAYS = 0.0, 1_000.0
"""Commit times up to which commits run on the loop."""


@pytest_asyncio.fixture
async def database(tmp_path: Path) -> AsyncIterator[SqliteDatabase]:
    """With a writer thread, so that a test can hold a write without holding its own loop."""
    database = await open_sqlite(tmp_path / "store.sqlite3", loop_commit_s_max=NEVER)
    await database.migrate("test", TABLES)
    yield database
    await database.close()


@pytest_asyncio.fixture
async def on_loop(tmp_path: Path) -> AsyncIterator[SqliteDatabase]:
    database = await open_sqlite(tmp_path / "store.sqlite3", loop_commit_s_max=ALWAYS)
    await database.migrate("test", TABLES)
    yield database
    await database.close()


def interrupt(_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("others", [0, 2])
def test_an_interruption_within_a_write_leaves_nobody_waiting(tmp_path, others):
    opened, tasks = [], []

    async def write_all() -> None:
        database = await open_sqlite(tmp_path / "store.sqlite3", loop_commit_s_max=ALWAYS)
        await database.migrate("test", TABLES)
        opened.append(database)
        writes = [*(put(str(number)) for number in range(others)), interrupt]
        tasks.extend(asyncio.ensure_future(database.write(write)) for write in writes)
        await asyncio.wait(tasks)

    async def look() -> None:
        async with asyncio.timeout(5):
            done = await asyncio.gather(*tasks, return_exceptions=True)
        assert [getattr(one, "code", one) for one in done] == ["store_unavailable"] * len(tasks)
        (database,) = opened
        assert await count(database) == 0
        await database.write(put("after"))
        assert await count(database) == 1
        await database.close()

    with asyncio.Runner() as runner:
        with pytest.raises(KeyboardInterrupt):
            runner.get_loop().run_until_complete(write_all())
        runner.run(look())


class Interrupted:
    """A connection whose commit is interrupted, before it or after it."""

    def __init__(self, connection: sqlite3.Connection, *, is_after: bool) -> None:
        self._connection, self._is_after = connection, is_after

    def execute(self, sql: str, parameters: tuple = ()) -> sqlite3.Cursor:
        if sql == "COMMIT" and not self._is_after:
            raise KeyboardInterrupt
        done = self._connection.execute(sql, parameters)
        if sql == "COMMIT":
            raise KeyboardInterrupt
        return done

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction


@pytest.mark.parametrize("is_after", [False, True])
async def test_an_interrupted_commit_tells_what_became_of_it(is_after):
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("CREATE TABLE facts (key TEXT)")
    loop = asyncio.get_running_loop()
    transaction = SharedTransaction(Interrupted(connection, is_after=is_after))
    batch = [
        Write(lambda tx: tx.execute("INSERT INTO facts VALUES ('a')"), loop, loop.create_future())
    ]
    with pytest.raises(KeyboardInterrupt):
        transaction.commit(batch, transaction.run(batch))
    (told,) = await asyncio.gather(batch[0].future, return_exceptions=True)
    assert (told == 1) is is_after
    assert (connection.execute("SELECT count(*) FROM facts").fetchone() == (1,)) is is_after
    assert not transaction.is_open
    connection.close()


async def test_writes_that_wait_share_one_commit(database):
    commits = []
    database._connection.set_trace_callback(
        lambda statement: commits.append(statement) if statement == "COMMIT" else None
    )
    gate = Gate()
    first = await gate.hold(database)
    waiting = [asyncio.create_task(database.write(put(str(i)))) for i in range(100)]
    await asyncio.sleep(0)  # all are queued
    gate.opened.set()
    await asyncio.gather(first, *waiting)
    assert await count(database) == 100
    assert len(commits) == 2


async def test_on_the_loop_writes_of_one_turn_share_one_commit_without_the_thread(on_loop):
    commits, threads = [], set()
    on_loop._loop_connection.set_trace_callback(
        lambda statement: commits.append(statement) if statement == "COMMIT" else None
    )

    def put_here(name):
        threads.add(threading.get_ident())
        return put(name)

    await asyncio.gather(*(on_loop.write(put_here(str(i))) for i in range(100)))
    assert len(commits) == 1
    assert threads == {threading.get_ident()}
    assert await count(on_loop) == 100


async def test_on_the_loop_a_write_that_raises_fails_alone(on_loop):
    def half(tx):
        put("half")(tx)
        raise ValueError("on purpose")

    before, failed, after, twice = await asyncio.gather(
        *(on_loop.write(f) for f in (put("before"), half, put("after"), put("before"))),
        return_exceptions=True,
    )
    assert (before, after) == (1, 1)
    assert isinstance(failed, ValueError)
    assert isinstance(twice, sqlite3.IntegrityError)
    assert await count(on_loop) == 2


async def test_a_write_alone_that_raises_leaves_nothing_of_itself(on_loop):
    def half(tx):
        put("half")(tx)
        raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        await on_loop.write(half)
    with pytest.raises(sqlite3.IntegrityError):
        await on_loop.write(lambda tx: (put("once")(tx), put("once")(tx)))
    assert await count(on_loop) == 0
    assert await on_loop.write(put("after")) == 1  # the connection is in no transaction still
    assert await count(on_loop) == 1


async def test_a_file_that_another_process_holds_is_waited_for_in_the_thread(on_loop, tmp_path):
    other = sqlite3.connect(tmp_path / "store.sqlite3", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waiting = asyncio.create_task(on_loop.write(put("waits")))
    for _ in range(100):
        await asyncio.sleep(0)  # the loop turns while the thread waits
    assert not waiting.done()
    other.execute("COMMIT")
    other.close()
    async with asyncio.timeout(10):
        assert await waiting == 1
    assert await count(on_loop) == 1


async def test_slow_commits_go_to_the_thread(tmp_path):
    database = await open_sqlite(tmp_path / "slow.sqlite3", loop_commit_s_max=1e-9)
    await database.migrate("test", TABLES)  # on the loop, and found to be too slow
    threads = []
    await database.write(lambda tx: threads.append(threading.get_ident()))
    assert threads != [threading.get_ident()]
    await database.close()


async def test_a_loop_that_ended_does_not_hold_up_another(on_loop):
    async def leave():
        task = asyncio.ensure_future(on_loop.write(put("left")))
        await asyncio.sleep(0)
        task.cancel()

    def run_and_end():
        loop = asyncio.new_event_loop()
        loop.run_until_complete(leave())
        loop.close()

    await asyncio.get_running_loop().run_in_executor(None, run_and_end)
    async with asyncio.timeout(10):
        await on_loop.write(put("next"))
        await on_loop.write(put("last"))
    assert await count(on_loop) >= 2


async def test_the_wal_is_moved_into_the_file_behind_the_loop(on_loop, tmp_path):
    for i in range(2 * COMMITS_PER_CHECKPOINT):
        await on_loop.write(put(str(i), "x" * 1_000))
    size_bytes = (tmp_path / "store.sqlite3").stat().st_size
    assert size_bytes > COMMITS_PER_CHECKPOINT * 1_000


async def test_result_comes_after_the_commit(database, tmp_path):
    await database.write(put("durable"))
    other = sqlite3.connect(tmp_path / "store.sqlite3")
    assert other.execute("SELECT name FROM facts").fetchall() == [("durable",)]
    other.close()


async def test_full_disk_is_transient_nothing_happened_and_it_heals(database):
    await database.write(put("before"))
    pages = database._connection.execute("PRAGMA page_count").fetchone()[0]
    database._connection.execute(f"PRAGMA max_page_count={pages}")
    large = "x" * 100_000
    results = await asyncio.gather(
        database.write(put("a", large)), database.write(put("b", large)), return_exceptions=True
    )
    assert [type(result) for result in results] == [TransientError, TransientError]
    assert await count(database) == 1
    database._connection.execute(f"PRAGMA max_page_count={pages + 1_000}")
    await database.write(put("a", large))
    assert await count(database) == 2


async def test_a_statement_that_alone_finds_no_room_is_transient_too(database):
    """SQLite takes back a statement over many rows by itself and keeps the transaction (chaos)."""
    await asyncio.gather(*(database.write(put(f"fact {number}")) for number in range(40)))
    pages = database._connection.execute("PRAGMA page_count").fetchone()[0]
    database._connection.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(TransientError) as caught:
        await database.write(
            lambda tx: tx.execute("UPDATE facts SET name = name || hex(zeroblob(2000))")
        )
    assert caught.value.code == "store_unavailable"
    assert await count(database) == 40


async def test_full_disk_fails_every_write_of_the_shared_commit_the_same_way(database):
    """A write cannot be told `done` when the commit it shares was lost."""
    gate = Gate()
    first = await gate.hold(database)
    small = asyncio.create_task(database.write(put("small")))
    pages = database._connection.execute("PRAGMA page_count").fetchone()[0]
    large = asyncio.create_task(database.write(put("large", "x" * 500_000)))
    await asyncio.sleep(0)
    database._connection.execute(f"PRAGMA max_page_count={pages + 1}")
    gate.opened.set()
    await first
    results = await asyncio.gather(small, large, return_exceptions=True)
    stored = await database.read(lambda tx: tx.find_all("SELECT name FROM facts"))
    told = [name for name, result in zip(("small", "large"), results, strict=True) if result == 1]
    assert [(name,) for name in told] == stored
    assert "large" not in told


async def test_file_is_private_and_migrations_run_once(database, tmp_path):
    mode = stat.S_IMODE((tmp_path / "store.sqlite3").stat().st_mode)
    assert mode == 0o600
    steps = [
        "CREATE TABLE facts (name TEXT PRIMARY KEY, amount TEXT)",
        "CREATE TABLE more (a TEXT)",
    ]
    await database.migrate("test", steps)
    await database.migrate("test", steps)
    with pytest.raises(TransientError, match="use a newer one"):
        await database.migrate("test", steps[:1])


async def test_file_that_cannot_be_opened_says_so(tmp_path):
    with pytest.raises(TransientError, match="cannot open"):
        await open_sqlite(tmp_path / "no" / "such" / "folder.sqlite3")
    (tmp_path / "not-a-database").write_bytes(b"something else" * 1_000)
    with pytest.raises(TransientError, match="cannot open"):
        await open_sqlite(tmp_path / "not-a-database")


_HOLDER = """
import sys, time
from pathlib import Path
from hanse.store import hold_folder
with hold_folder(Path(sys.argv[1]), "broker"):
    print("held", flush=True)
    time.sleep(60)
"""


async def test_folder_is_held_until_its_process_is_killed(tmp_path):
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _HOLDER, str(tmp_path)), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert await child.stdout.readline() == b"held\n"
    with (
        pytest.raises(RequestError, match="another broker runs with"),
        hold_folder(tmp_path, "broker"),
    ):
        pass
    child.kill()
    await child.wait()
    with hold_folder(tmp_path, "broker"):
        pass
