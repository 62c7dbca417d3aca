"""Asking somebody before each voucher is signed, and telling them what it came to.

    book = await open_guarded_book(database, domain)
    book.guard = guard                       # a `SpendingGuard`; None for nobody

One request of an application may take several vouchers: a second provider, the rest of a stream, a
repair. What they may come to together is known at one place only, where vouchers are signed; and
what each came to, where receipts are counted and vouchers released, also long after their caller
has left. So the guard stands in the book. A guard that refuses raises, and the voucher is not
signed; the buyer then tries another provider, which may be cheaper.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Protocol

from hanse.protocol.books import UserBook
from hanse.protocol.eip712 import Domain
from hanse.protocol.errors import HanseError
from hanse.protocol.messages import SignedReceipt
from hanse.protocol.pricing import get_maximum_usage
from hanse.protocol.signatures import DigestSigner, Hash32
from hanse.sdk.purchase.background import Background
from hanse.settlement.books.receipt_records import SubAccountFunds
from hanse.settlement.books.voucher_book import Purchase, VoucherBook, open_voucher_book
from hanse.settlement.books.voucher_records import IssuedVoucher, SubAccountKey, Verification
from hanse.store.database import Database

TOLD_MAX = 100_000
"""Vouchers whose end is to be told, at once: what a day of lost answers may leave behind."""


class SpendingGuard(Protocol):
    """Who is asked and told."""

    def watches(self) -> bool:
        """Whether the task that asks now works for something limited; else it is not asked."""
        ...

    async def reserve(self, request_id: Hash32, tokens: int, fee: int) -> None:
        """A voucher may come to so much at most; its end will be told.

        Raises:
            HanseError: it may not be signed.
        """
        ...

    def end(self, request_id: Hash32, tokens: int, fee: int) -> None:
        """What a voucher came to. Not called for one whose end is never known."""
        ...


class GuardedBook(VoucherBook):
    """A voucher book with a guard.

    Attributes:
        guard: who is asked; None for nobody.
    """

    def __init__(self, database: Database, domain: Domain) -> None:
        super().__init__(database, domain)
        self.guard: SpendingGuard | None = None
        self._ids: dict[Hash32, Hash32] = {}  # request ids to tell of, by request hash
        self._hashes: dict[Hash32, Hash32] = {}  # and the other way
        self._undoing = Background()

    def issue(
        self,
        key: SubAccountKey,
        purchase: Purchase,
        funds: SubAccountFunds,
        signer: DigestSigner,
        now_s: int,
    ) -> Coroutine[Any, Any, IssuedVoucher]:
        """See `VoucherBook.issue`; the guard may refuse it first."""
        guard = self.guard
        if guard is None or not guard.watches():
            return super().issue(key, purchase, funds, signer, now_s)
        return self._issue_guarded(guard, key, purchase, funds, signer, now_s)

    async def _issue_guarded(
        self,
        guard: SpendingGuard,
        key: SubAccountKey,
        purchase: Purchase,
        funds: SubAccountFunds,
        signer: DigestSigner,
        now_s: int,
    ) -> IssuedVoucher:
        request = purchase.request
        most = get_maximum_usage(
            purchase.offer.offer, purchase.body_bytes, purchase.output_tokens_max
        )
        tokens = most.input_tokens + most.output_tokens
        await guard.reserve(request.request_id, tokens, request.maximum_fee)
        writing = asyncio.ensure_future(super().issue(key, purchase, funds, signer, now_s))
        try:
            issued = await asyncio.shield(writing)
        except asyncio.CancelledError:  # the application left; it may be written all the same
            self._undoing.start(self._undo(guard, request.request_id, writing))
            raise
        except BaseException:
            guard.end(request.request_id, 0, 0)
            raise
        request_hash = issued.signed.voucher.request_hash
        if len(self._ids) >= TOLD_MAX:  # the oldest's end is never going to be known
            del self._hashes[self._ids.pop(next(iter(self._ids)))]
        self._ids[request_hash] = request.request_id
        self._hashes[request.request_id] = request_hash
        return issued

    async def _undo(
        self, guard: SpendingGuard, request_id: Hash32, writing: asyncio.Future[IssuedVoucher]
    ) -> None:
        """Take back a voucher that was never sent, however far its writing got."""
        try:
            await writing
            await super().release(request_id, "never sent")
        except HanseError:
            pass  # not written; or it stays in flight until its deadline, which costs nothing
        finally:
            guard.end(request_id, 0, 0)

    def acknowledge(
        self,
        signed: SignedReceipt,
        verification: Verification,
        *,
        reason: str = "",
        now_s: int,
    ) -> Coroutine[Any, Any, UserBook]:
        """See `VoucherBook.acknowledge`."""
        counting = super().acknowledge(signed, verification, reason=reason, now_s=now_s)
        return self._tell(signed, counting) if self._ids else counting

    async def _tell(
        self, signed: SignedReceipt, counting: Coroutine[Any, Any, UserBook]
    ) -> UserBook:
        book = await counting
        receipt = signed.receipt
        request_id = self._ids.pop(receipt.request_hash, None)
        if request_id is not None and self.guard is not None:
            del self._hashes[request_id]
            usage = receipt.usage
            tokens = usage.input_tokens + usage.cached_tokens + usage.output_tokens
            self.guard.end(request_id, tokens, receipt.fee)
        return book

    async def release(self, request_id: Hash32, reason: str) -> UserBook | None:
        """See `VoucherBook.release`."""
        book = await super().release(request_id, reason)
        if book is not None and request_id in self._hashes and self.guard is not None:
            del self._ids[self._hashes.pop(request_id)]
            self.guard.end(request_id, 0, 0)
        return book


@contextlib.asynccontextmanager
async def hold_meanwhile(
    book: VoucherBook, fee: int, random_bytes: Callable[[int], bytes]
) -> AsyncIterator[None]:
    """Reserve what a request needs while its way is made; whoever may not spend it moves nothing.

    Raises:
        HanseError: the book's guard refuses it.
    """
    guard = book.guard if isinstance(book, GuardedBook) else None
    if guard is None or not guard.watches():
        yield
        return
    name = "0x" + random_bytes(32).hex()
    await guard.reserve(name, 0, fee)
    try:
        yield
    finally:
        guard.end(name, 0, 0)


async def open_guarded_book(database: Database, domain: Domain) -> GuardedBook:
    """See `open_voucher_book`."""
    await open_voucher_book(database, domain)
    return GuardedBook(database, domain)
