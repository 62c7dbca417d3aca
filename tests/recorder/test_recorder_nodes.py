"""A proof out of a stored tree: the same as out of the whole tree, and read in few rows."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hanse.protocol.merkle import find_proof, get_levels
from hanse.protocol.records import Side, verify_record
from hanse.protocol.signatures import keccak
from hanse.recorder.book import open_recorder_book
from hanse.recorder.nodes import pack_tree, read_siblings
from hanse.store import open_database
from tests.recorder.test_recorder_book import (
    DOMAIN,
    RECORDER,
    RECORDS,
    commit_all,
    make_entry,
    take,
)

ROWS_PER_PROOF_MAX = 5
"""One leaf with its commit, a part for each eight levels, and what a later version may add."""


class CountedDatabase:
    """A database that counts the rows that reads are given."""

    def __init__(self, inner) -> None:
        self._inner, self.rows = inner, 0

    def __getattr__(self, name):
        return getattr(self._inner, name)

    async def read(self, function):
        return await self._inner.read(lambda tx: function(_CountedTransaction(self, tx)))


class _CountedTransaction:
    def __init__(self, counter, tx) -> None:
        self._counter, self._tx = counter, tx

    def find_one(self, sql, parameters=()):
        self._counter.rows += 1
        return self._tx.find_one(sql, parameters)

    def find_all(self, sql, parameters=()):
        found = self._tx.find_all(sql, parameters)
        self._counter.rows += len(found)
        return found


@pytest.fixture
async def database(database_url):
    opened = await open_database(database_url)
    yield CountedDatabase(opened)
    await opened.close()


async def commit_leaves(book, first: int, count: int):
    entries = [make_entry(n, digest="0x" + f"{n:064x}") for n in range(first, first + count)]
    for side in Side:
        for at in range(0, count, 500):
            await take(book, side, *entries[at : at + 500])
    await commit_all(book)
    return entries


async def test_a_proof_costs_a_few_rows_however_many_trees_are_asked_for(database):
    """One receipt in each of many commits was a whole tree a receipt for an unknown caller."""
    book = await open_recorder_book(database, RECORDER, DOMAIN, RECORDS)
    asked = []
    for number in range(10):
        asked.append((await commit_leaves(book, 1 + 300 * number, 300))[17 * number])
    for _ in range(2):
        database.rows = 0
        proofs = await book.find_proofs(asked)
        assert database.rows <= ROWS_PER_PROOF_MAX * len(asked)
    for entry, proof in zip(asked, proofs, strict=True):
        verify_record(proof, entry.receipt_digest)


async def test_commits_of_an_older_version_get_their_trees_at_the_start(database):
    book = await open_recorder_book(database, RECORDER, DOMAIN, RECORDS)
    entries = await commit_leaves(book, 1, 300)
    before = await book.find_proofs(entries)

    def forget(tx) -> None:
        tx.execute("DELETE FROM record_nodes")
        tx.execute("UPDATE record_leaves SET place = NULL")

    await database.write(forget)
    book = await open_recorder_book(database, RECORDER, DOMAIN, RECORDS)
    assert await book.find_proofs(entries) == before
    assert None not in before


@pytest.mark.parametrize("count", [1, 2, 3, 255, 256, 257, 511, 513, 1_023, 65_536])
def test_siblings_of_stored_parts_are_the_trees(count):
    check_tree(count, {0, 1, count // 2, count - 2, count - 1} & set(range(count)))


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 3_000), st.data())
def test_siblings_of_any_tree(count, data):
    check_tree(count, {data.draw(st.integers(0, count - 1))})


def check_tree(count: int, places: set[int]) -> None:
    values = [keccak(number.to_bytes(8, "big")) for number in range(count)]
    levels = get_levels(values)
    parts = {(level, place): hashes for level, place, hashes in pack_tree(values)}
    assert sum(map(len, parts.values())) == 32 * sum(map(len, levels[:-1]))
    for place in places:
        siblings = read_siblings(lambda *at: parts[at], count, place)
        assert siblings == find_proof(levels, place).siblings
