"""A gateway and the command line keep one index in one database: both see everything, once."""

import subprocess
import sys

import pytest

from hanse.chain import Checkpoint, Event, EventBatch
from hanse.settlement.chain_state.index_storage import open_index_storage
from hanse.store import open_sqlite


def fold(event, find):
    yield "sum", str(int(find("sum") or b"0") + event.fields["amount"]).encode()
    if event.fields["amount"] == 0:
        yield "sum", None


def batch(number, *amounts):
    events = tuple(
        Event("Escrow", "Deposited", {"amount": amount}, "0x", number, "0x", 0, "0x", index)
        for index, amount in enumerate(amounts)
    )
    return EventBatch(number, Checkpoint(number, f"0x{number}"), 0, events)


@pytest.fixture
async def sides(tmp_path):
    """Two processes' storages over one file, and what each was told."""
    opened = []
    for _ in range(2):
        told = {}
        database = await open_sqlite(tmp_path / "user.db")
        storage = await open_index_storage(
            database, "user", fold, lambda changed, at, told=told: told.update(changed)
        )
        opened.append((storage, told, database))
    yield [(storage, told) for storage, told, _ in opened]
    for _, _, database in opened:
        await database.close()


async def test_a_batch_is_applied_once_by_whoever_is_first(sides):
    (first, told_first), (second, told_second) = sides
    await first.read_checkpoints()
    await second.read_checkpoints()

    await first.apply_batch(batch(1, 5))
    await second.apply_batch(batch(1, 5))

    assert (await second.read_checkpoints())[0].number == 1
    assert await second.read_documents() == {"sum": b"5"}
    assert told_first == told_second == {"sum": b"5"}


async def test_what_another_process_applied_is_seen_here(sides):
    (first, _), (second, told_second) = sides
    await second.read_checkpoints()
    await first.apply_batch(batch(1, 5))
    await first.apply_batch(batch(2, 7))

    assert (await second.read_checkpoints())[0].number == 2
    assert told_second == {"sum": b"12"}
    await second.apply_batch(batch(3, 1))
    assert await first.read_documents() == {"sum": b"13"}


async def test_what_another_process_deleted_is_gone_here(sides):
    (first, _), (second, told_second) = sides
    await first.apply_batch(batch(1, 5))
    await second.read_checkpoints()
    assert told_second == {"sum": b"5"}

    await first.apply_batch(batch(2, 0))
    await second.read_checkpoints()
    assert told_second == {"sum": None}


async def test_a_rollback_of_another_process_is_seen_here(sides):
    (first, _), (second, told_second) = sides
    await first.apply_batch(batch(1, 5))
    await first.apply_batch(batch(2, 7))
    await second.read_checkpoints()

    await first.rollback_index(Checkpoint(1, "0x1"))
    await second.read_checkpoints()
    assert told_second == {"sum": b"5"}


READ = (
    "import sqlite3, sys\n"
    "db = sqlite3.connect(sys.argv[1])\n"
    "print(db.execute('SELECT count(*) FROM facts').fetchone()[0])\n"
    "db.close()\n"
)


def count_elsewhere(path):
    """Rows as another process sees them; it opens and closes the file."""
    done = subprocess.run(
        [sys.executable, "-c", READ, str(path)], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


async def test_opening_a_database_twice_in_one_process_keeps_its_locks(tmp_path):
    """POSIX drops a process's locks on a file when any of its descriptors is closed.

    Without its lock, the next process to close the file deletes the log that this one writes to:
    what it commits then is seen by nobody, and lost when it dies.
    """
    path = tmp_path / "books.db"
    database = await open_sqlite(path)
    await database.migrate("facts", ["CREATE TABLE facts (fact TEXT)"])
    await database.write(lambda tx: tx.execute("INSERT INTO facts VALUES ('first')"))

    second = await open_sqlite(path)
    assert count_elsewhere(path) == 1
    await second.close()
    assert count_elsewhere(path) == 1

    await database.write(lambda tx: tx.execute("INSERT INTO facts VALUES ('second')"))
    assert count_elsewhere(path) == 2
    await database.close()
