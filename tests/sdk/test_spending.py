"""The guard of vouchers: what it reserved ends, also where the application leaves."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from hanse.sdk.purchase.spending import GuardedBook, open_guarded_book
from hanse.store import Database, open_memory
from tests.sdk.test_voucher_book import DOMAIN, FUNDS, KEY, NOW_S, SIGNER, make_purchase


@dataclass
class Guard:
    """Holds what was reserved and did not end."""

    open: set[str] = field(default_factory=set)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def watches(self) -> bool:
        return True

    async def reserve(self, request_id: str, tokens: int, fee: int) -> None:
        self.open.add(request_id)

    def end(self, request_id: str, tokens: int, fee: int) -> None:
        self.open.remove(request_id)
        self.ended.set()


class SlowDatabase:
    """Writes when it may, as under load."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.begun, self.may = asyncio.Event(), asyncio.Event()

    async def write(self, function: Callable[..., Any]) -> Any:
        self.begun.set()
        await self.may.wait()
        return await self._database.write(function)

    async def read(self, function: Callable[..., Any]) -> Any:
        return await self._database.read(function)


@pytest.fixture
async def database() -> AsyncIterator[Database]:
    opened = await open_memory()
    yield opened
    await opened.close()


async def test_a_voucher_whose_application_leaves_while_it_is_written_holds_nothing(
    database: Database,
) -> None:
    await open_guarded_book(database, DOMAIN)
    slow = SlowDatabase(database)
    book = GuardedBook(slow, DOMAIN)  # type: ignore[arg-type]
    book.guard = guard = Guard()
    asked = asyncio.create_task(book.issue(KEY, make_purchase(1, 900), FUNDS, SIGNER, NOW_S))
    await slow.begun.wait()
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    slow.may.set()
    async with asyncio.timeout(10):
        await guard.ended.wait()
    assert guard.open == set()
    assert await book.list_open_vouchers() == []
