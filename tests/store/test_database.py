"""What every store promises, on SQLite and on PostgreSQL alike."""

import asyncio
import contextlib
import gc
import os
import signal
import sqlite3
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest
import pytest_asyncio

from hanse.protocol.errors import TransientError
from hanse.store import Database, is_shared, open_database, open_sqlite
from hanse.store.opening import get_sqlite_path
from tests.store.facts import TABLES, Gate, count, put

ROOT = Path(__file__).parents[2]
TAKEN = (sqlite3.IntegrityError, psycopg.IntegrityError)
REFUSED = (sqlite3.Error, psycopg.Error)


@pytest_asyncio.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = await open_threaded(database_url)
    await database.migrate("test", TABLES)
    yield database
    await database.close()


async def open_threaded(url: str, loop_commit_s_max: float = 0.0) -> Database:
    """With a writer thread, so that a test can hold a write without holding its own loop."""
    if is_shared(url):
        return await open_database(url)
    return await open_sqlite(get_sqlite_path(url), loop_commit_s_max=loop_commit_s_max)


async def test_write_that_raises_undoes_its_own_statements_and_no_one_elses(database):
    gate = Gate()
    first = await gate.hold(database)

    def half(tx):
        put("half")(tx)
        raise ValueError("on purpose")

    results = asyncio.gather(
        database.write(put("before")),
        database.write(half),
        database.write(put("after")),
        database.write(put("before")),  # the same key again
        return_exceptions=True,
    )
    await asyncio.sleep(0)
    gate.opened.set()
    await first
    before, failed, after, twice = await results
    assert (before, after) == (1, 1)
    assert isinstance(failed, ValueError)
    assert isinstance(twice, TAKEN)
    rows = await database.read(lambda tx: tx.find_all("SELECT name FROM facts ORDER BY name"))
    assert rows == [("after",), ("before",)]


async def test_caller_that_is_cancelled_leaves_a_whole_write(database):
    gate = Gate()
    first = await gate.hold(database)
    left = asyncio.create_task(database.write(put("left")))
    await asyncio.sleep(0)
    left.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await left
    gate.opened.set()
    await first
    await database.write(put("next"))
    assert await count(database) == 2


@pytest.mark.parametrize("ends_by", ["cancellation", "its coroutine's end"])
async def test_failure_that_nobody_waits_for_is_not_logged(database, caplog, ends_by):
    def fail(tx):
        raise ValueError("what a user sent")

    gate = Gate()
    first = await gate.hold(database)
    if ends_by == "cancellation":
        task = asyncio.create_task(database.write(fail))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        del task
    else:  # as when a loop ends and what waits on it is thrown away
        waiting = database.write(fail)
        waiting.send(None)
        waiting.close()
        del waiting
    gate.opened.set()
    await first
    await database.write(put("next"))
    gc.collect()
    assert "what a user sent" not in caplog.text
    assert await count(database) == 1


async def test_reads_see_the_last_commit_and_cannot_write(database):
    await database.write(put("one"))
    gate = Gate()
    first = await gate.hold(database)
    assert await count(database) == 1  # while the writer is busy
    with pytest.raises(REFUSED):
        await database.read(put("two"))
    gate.opened.set()
    await first


async def test_migration_that_fails_leaves_nothing(database):
    broken = ["CREATE TABLE half (a TEXT); CREATE TABLE oops (", "CREATE TABLE more (a TEXT)"]
    with pytest.raises(REFUSED):
        await database.migrate("other", broken)
    await database.migrate("other", ["CREATE TABLE half (a TEXT); CREATE TABLE more (a TEXT)"])


async def test_close_finishes_what_waits_and_refuses_what_comes(database, database_url):
    gate = Gate()
    first = await gate.hold(database)
    waiting = [asyncio.create_task(database.write(put(str(i)))) for i in range(10)]
    await asyncio.sleep(0)
    closing = asyncio.create_task(database.close())
    await asyncio.sleep(0)
    with pytest.raises(TransientError):
        await database.write(put("late"))
    gate.opened.set()
    await asyncio.gather(first, *waiting, closing)
    again = await open_database(database_url)
    assert await count(again) == 10
    await again.close()


_CHILD = """
import asyncio, os
from tests.store.test_database import open_threaded

async def main():
    database = await open_threaded(os.environ["DATABASE"], float(os.environ["LOOP_COMMIT_S_MAX"]))
    await database.migrate("test", ["CREATE TABLE facts (name TEXT PRIMARY KEY, amount TEXT)"])
    async def write(i):
        await database.write(lambda tx: (
            tx.execute("INSERT INTO facts VALUES (?, '1')", (f"{i}-a",)),
            tx.execute("INSERT INTO facts VALUES (?, '1')", (f"{i}-b",)),
        ))
        print(i, flush=True)
    i = 0
    while True:
        await asyncio.gather(*(write(j) for j in range(i, i + 7)))
        i += 7

asyncio.run(main())
"""


@pytest.mark.parametrize("loop_commit_s_max", [0.0, 1_000.0])
@pytest.mark.parametrize("lines", [1, 50, 333])
async def test_kill_9_keeps_what_was_awaited_and_no_half(database_url, lines, loop_commit_s_max):
    if is_shared(database_url) and loop_commit_s_max:
        pytest.skip("only SQLite commits on the loop")
    environment = {"DATABASE": database_url, "LOOP_COMMIT_S_MAX": str(loop_commit_s_max)}
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _CHILD),
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
    )
    told = [int(await child.stdout.readline()) for _ in range(lines)]
    os.kill(child.pid, signal.SIGKILL)
    rest = await child.stdout.read()
    await child.wait()
    told += [int(line) for line in rest.split(b"\n")[:-1]]
    database = await open_database(database_url)
    rows = await database.read(lambda tx: tx.find_all("SELECT name FROM facts"))
    names = {row[0] for row in rows}
    assert all(f"{i}-a" in names and f"{i}-b" in names for i in told)
    first = {name[:-2] for name in names if name.endswith("a")}
    assert first == {name[:-2] for name in names if name.endswith("b")}
    await database.close()


async def test_values_come_back_as_they_went_in(database):
    await database.migrate(
        "values", ["CREATE TABLE kept (number INTEGER PRIMARY KEY, words TEXT, bytes BLOB)"]
    )
    rows = [(2**63 - 1, "'?' and $1 and %s", b"\0\xff"), (-(2**63), "", b""), (0, None, None)]

    def insert(tx):
        for row in rows:
            assert tx.execute("INSERT INTO kept VALUES (?, ?, ?)", row) == 1

    await database.write(insert)
    found = await database.read(lambda tx: tx.find_all("SELECT * FROM kept ORDER BY number DESC"))
    assert found == [rows[0], rows[2], rows[1]]
    total = await database.read(
        lambda tx: tx.find_one("SELECT SUM(number), COUNT(*), '?' FROM kept WHERE number < ?", (9,))
    )
    assert total == (-(2**63), 2, "?")


async def test_texts_compare_by_their_bytes(database):
    names = ["b", "B", "a", "_", "A", "\u00e4", "Z"]
    await database.write(lambda tx: [put(name)(tx) for name in names])
    rows = await database.read(lambda tx: tx.find_all("SELECT name FROM facts ORDER BY name"))
    assert [row[0] for row in rows] == sorted(names)


async def test_a_text_with_nul_is_stored(database):
    """Providers choose some of the texts that are stored; PostgreSQL has no NUL."""
    await database.write(put("nul", "a\0b"))
    (row,) = await database.read(lambda tx: tx.find_all("SELECT amount FROM facts"))
    assert row[0] in ("a\0b", "a\ufffdb")


async def test_two_that_hold_one_database_write_in_turn(database, database_url):
    """Each adds one to what it reads; nothing is lost, and nothing has to be tried again."""
    other = await open_database(database_url)
    await database.write(put("sum", "0"))

    def add(tx):
        (amount,) = tx.find_one("SELECT amount FROM facts WHERE name = 'sum'")
        tx.execute("UPDATE facts SET amount = ? WHERE name = 'sum'", (str(int(amount) + 1),))

    await asyncio.gather(*(one.write(add) for one in (database, other) for _ in range(200)))
    (row,) = await other.read(lambda tx: tx.find_all("SELECT amount FROM facts"))
    assert row == ("400",)
    await other.close()


async def test_a_read_sees_one_moment(database):
    await database.write(put("one"))
    began, go_on = threading.Event(), threading.Event()

    def look_twice(tx):
        first = tx.find_one("SELECT COUNT(*) FROM facts")
        began.set()
        assert go_on.wait(10)
        return first, tx.find_one("SELECT COUNT(*) FROM facts")

    looking = asyncio.create_task(database.read(look_twice))
    await asyncio.get_running_loop().run_in_executor(None, began.wait, 10)
    await database.write(put("two"))
    go_on.set()
    assert await looking == ((1,), (1,))
