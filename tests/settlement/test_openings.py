"""The provider's openings: durable, for the buyer alone, gone after the window."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from hanse.protocol.commitments.fingerprints import ABSENT
from hanse.protocol.commitments.tree import (
    OPENING_RETAINED_S,
    UNKNOWN_TOKEN,
    Entry,
    decode_opening,
    get_commitment_root,
)
from hanse.settlement.openings.opening_book import SWEPT_MAX, OpeningBook, open_opening_book
from hanse.store import open_database
from hanse.store.database import Database

BUYER, STRANGER = "0x" + "a1" * 20, "0x" + "a2" * 20
SIGNER, OTHER_SIGNER = "0x" + "51" * 20, "0x" + "52" * 20
REQUEST = "0x" + "11" * 32
ENTRIES = (Entry(7, bytes(range(16))), Entry(8, ABSENT), Entry(UNKNOWN_TOKEN, ABSENT))
NOW = 1_900_000_000


@pytest_asyncio.fixture
async def database() -> AsyncIterator[Database]:
    opened = await open_database(":memory:")
    yield opened
    await opened.close()


@pytest_asyncio.fixture
async def book(database: Database) -> OpeningBook:
    return await open_opening_book(database)


async def test_an_opening_leads_to_the_root(book: OpeningBook) -> None:
    await book.keep(BUYER, SIGNER, REQUEST, ENTRIES, NOW)
    opening = await book.find(BUYER, SIGNER, REQUEST, NOW)
    assert opening is not None
    assert decode_opening(opening, get_commitment_root(ENTRIES)) == ENTRIES


@pytest.mark.parametrize(
    ("user", "signer", "request_id"),
    [
        (STRANGER, SIGNER, REQUEST),
        (BUYER, OTHER_SIGNER, REQUEST),
        (BUYER, SIGNER, "0x" + "12" * 32),
    ],
)
async def test_nobody_else_finds_it(
    book: OpeningBook, user: str, signer: str, request_id: str
) -> None:
    await book.keep(BUYER, SIGNER, REQUEST, ENTRIES, NOW)
    assert await book.find(user, signer, request_id, NOW) is None


async def test_the_first_opening_of_a_request_stands(book: OpeningBook) -> None:
    """A second one would answer to another root than the receipt's."""
    await book.keep(BUYER, SIGNER, REQUEST, ENTRIES, NOW)
    await book.keep(BUYER, SIGNER, REQUEST, ENTRIES[:1], NOW + 1)
    opening = await book.find(BUYER, SIGNER, REQUEST, NOW + 1)
    assert opening is not None
    assert decode_opening(opening, get_commitment_root(ENTRIES)) == ENTRIES


async def test_openings_go_after_the_window_a_thousand_at_a_time(
    book: OpeningBook, database: Database
) -> None:
    await book.keep(BUYER, SIGNER, REQUEST, ENTRIES, NOW)
    end = NOW + OPENING_RETAINED_S
    assert await book.find(BUYER, SIGNER, REQUEST, end - 1) is not None
    assert await book.find(BUYER, SIGNER, REQUEST, end) is None
    assert await book.sweep(end - 1) == 0
    assert await book.sweep(end) == 1

    def fill(tx) -> None:
        for number in range(SWEPT_MAX + 5):
            row = (f"0x{number:064x}", SIGNER, BUYER, NOW, b"x")
            tx.execute("INSERT INTO receipt_openings VALUES (?, ?, ?, ?, ?)", row)

    await database.write(fill)
    assert await book.sweep(NOW) == SWEPT_MAX
    assert await book.sweep(NOW) == 5
