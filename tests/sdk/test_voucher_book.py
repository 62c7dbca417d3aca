"""The user's durable book beside the pure one, and against an honest provider's book.

Messages are lost, reordered and repeated; brokers refuse; users crash (all that a crash can lose
is messages, since every change is durable before it counts).
"""

import asyncio
import re
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from hanse.chain import Key
from hanse.protocol.books import (
    ProviderBook,
    UserBook,
    apply_acknowledgement,
    apply_admission,
    apply_finish,
    apply_issue,
    apply_release,
)
from hanse.protocol.eip712 import Domain
from hanse.protocol.errors import RequestError, VerificationError
from hanse.protocol.messages import (
    FinishReason,
    Offer,
    Prices,
    Receipt,
    Request,
    SignedOffer,
    SignedReceipt,
    SignedVoucher,
    Usage,
)
from hanse.protocol.signatures import ZERO_HASH, verify_signature
from hanse.protocol.wire import encode_receipt_json
from hanse.settlement.books.receipt_records import SubAccountFunds
from hanse.settlement.books.voucher_book import Purchase, VoucherBook, open_voucher_book
from hanse.settlement.books.voucher_records import SubAccountKey, Verification, VoucherState
from hanse.settlement.books.voucher_tables import COMPONENT, INSERT_RECEIPT, STEPS
from hanse.store import Database, Transaction, open_database
from tests.store.postgres_server import PostgresServer

DOMAIN = Domain(31337, "0x" + "e5" * 20)
SIGNER = Key(b"\x05" * 32)
PROVIDER = "0x" + "b0" * 20
KEY = SubAccountKey(SIGNER.address, PROVIDER, SIGNER.address)
FUNDS = SubAccountFunds(10_000, 0)
NOW_S = 1_900_000_000
SIGNATURE = "0x" + "00" * 65
OFFER = SignedOffer(
    Offer(
        PROVIDER,
        1,
        "chat",
        "echo",
        ZERO_HASH,
        "none",
        "echo",
        4_096,
        1_000,
        Prices(1, 1, 1),
        "reputation",
        ("http://provider-1",),
        ZERO_HASH,
        NOW_S + 1_000,
        1,
    ),
    SIGNATURE,
)
OFFER_HASH = "0x" + OFFER.offer.struct_hash().hex()


def make_purchase(number: int, maximum_fee: int) -> Purchase:
    request = Request(OFFER_HASH, ZERO_HASH, maximum_fee, f"0x{number:064x}", NOW_S + 60)
    return Purchase(request, "/v1/chat/completions", OFFER, PROVIDER, bytes(32), 10, 10)


def make_receipt(voucher: SignedVoucher, sequence: int, fee: int, total: int) -> SignedReceipt:
    receipt = Receipt(
        KEY.user,
        PROVIDER,
        KEY.signer,
        sequence,
        voucher.voucher.request_hash,
        ZERO_HASH,
        Usage(1, 0, 1),
        fee,
        total,
        FinishReason.STOP,
        NOW_S,
        ZERO_HASH,
    )
    return SignedReceipt(receipt, SIGNATURE)


@dataclass
class Asked:
    """One request as the test sees it."""

    voucher: SignedVoucher
    is_admitted: bool = False
    is_gone: bool = False
    receipt: SignedReceipt | None = None
    is_known: bool = False
    reserved: int | None = field(default=None)


class BookBesideBook(RuleBasedStateMachine):
    """SQL and pure book of the user, and the pure book of an honest provider."""

    url = ":memory:"

    @initialize()
    def open(self) -> None:
        self.runner = asyncio.Runner()
        self.database: Database = self.runner.run(open_database(self.url))
        self.book: VoucherBook = self.runner.run(open_voucher_book(self.database, DOMAIN))
        self.pure = UserBook()
        self.provider = ProviderBook()
        self.asked: list[Asked] = []
        self.signed_max = 0

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            for asked in self.asked:
                if asked.is_admitted and asked.receipt is None:
                    self._finish(asked, 0)
            self._resume()
            assert self.pure.acknowledged_fee == self.provider.cumulative_fee
            assert self.pure.acknowledged == self.provider.sequence
            assert (self.pure.in_flight, self.pure.in_flight_fee) == (0, 0)
            self.runner.run(self.database.close())
            self.runner.close()

    @rule(maximum_fee=st.integers(0, 3_000))
    def issue(self, maximum_fee: int) -> None:
        purchase = make_purchase(len(self.asked) + 1, maximum_fee)
        try:
            expected = apply_issue(self.pure, maximum_fee=maximum_fee, funded=FUNDS.funded)
        except RequestError as refused:
            with pytest.raises(RequestError, match=re.escape(refused.message)):
                self.runner.run(self.book.issue(KEY, purchase, FUNDS, SIGNER, NOW_S))
            return
        issued = self.runner.run(self.book.issue(KEY, purchase, FUNDS, SIGNER, NOW_S))
        self.pure = expected
        voucher = issued.signed.voucher
        assert voucher.cumulative_max == expected.committed
        assert voucher.sequence_max == expected.highest_sequence_max
        verify_signature(
            DOMAIN.digest(voucher.struct_hash()), issued.signed.signature, SIGNER.address, "it"
        )
        self.signed_max = max(self.signed_max, voucher.cumulative_max)
        self.asked.append(Asked(issued.signed, reserved=maximum_fee))

    def _pick(self, pick: int, found: list[Asked]) -> Asked:
        return found[pick % len(found)]

    def _list_sent(self) -> list[Asked]:
        return [a for a in self.asked if not a.is_admitted and not a.is_gone]

    def _list_at_work(self) -> list[Asked]:
        return [a for a in self.asked if a.is_admitted and a.receipt is None]

    @precondition(lambda self: self._list_sent())
    @rule(pick=st.integers(0, 99))
    def admit(self, pick: int) -> None:
        """A voucher arrives, in whatever order: an honest provider never has to refuse it."""
        asked = self._pick(pick, self._list_sent())
        voucher = asked.voucher.voucher
        self.provider = apply_admission(
            self.provider,
            cumulative_max=voucher.cumulative_max,
            sequence_max=voucher.sequence_max,
            maximum_fee=asked.voucher.request.maximum_fee,
            funded=FUNDS.funded,
        )
        asked.is_admitted = True

    @precondition(lambda self: self._list_sent())
    @rule(pick=st.integers(0, 99))
    def refuse(self, pick: int) -> None:
        """The broker is full and says so."""
        asked = self._pick(pick, self._list_sent())
        asked.is_gone = True
        self._release(asked)

    @precondition(lambda self: self._list_sent())
    @rule(pick=st.integers(0, 99))
    def lose(self, pick: int) -> None:
        """The request never arrives; nobody knows yet."""
        self._pick(pick, self._list_sent()).is_gone = True

    @precondition(lambda self: self._list_at_work())
    @rule(pick=st.integers(0, 99), share=st.integers(0, 100))
    def finish(self, pick: int, share: int) -> None:
        """The broker signs a receipt, for all of the maximum or a part."""
        self._finish(self._pick(pick, self._list_at_work()), share)

    @precondition(lambda self: any(a.receipt for a in self.asked))
    @rule(pick=st.integers(0, 99))
    def receive(self, pick: int) -> None:
        """A receipt arrives, in whatever order, perhaps again."""
        self._acknowledge(self._pick(pick, [a for a in self.asked if a.receipt]))

    @rule()
    def resume(self) -> None:
        """After the deadlines: all receipts in order, and the rest is released."""
        self._resume()

    @rule()
    def crash(self) -> None:
        """The process dies; another opens the same database."""
        self.book = self.runner.run(open_voucher_book(self.database, DOMAIN))

    @invariant()
    def books_agree(self) -> None:
        if not hasattr(self, "book"):
            return
        found = self.runner.run(self.book.find_sub_account(KEY))
        if found is None:
            assert not self.asked
            return
        assert found.book == self.pure
        assert found.disputed == ""
        assert self.pure.highest_cumulative_max == self.signed_max

    @invariant()
    def nothing_owed_was_not_signed(self) -> None:
        if not hasattr(self, "book"):
            return
        assert self.provider.owed_max <= self.provider.cumulative_max <= self.signed_max
        assert self.signed_max <= FUNDS.funded
        assert self.pure.acknowledged_fee <= self.provider.cumulative_fee

    def _finish(self, asked: Asked, share: int) -> None:
        maximum_fee = asked.voucher.request.maximum_fee
        fee = maximum_fee * share // 100
        self.provider = apply_finish(self.provider, maximum_fee=maximum_fee, fee=fee)
        asked.receipt = make_receipt(
            asked.voucher, self.provider.sequence, fee, self.provider.cumulative_fee
        )

    def _acknowledge(self, asked: Asked) -> None:
        assert asked.receipt is not None
        book = self.runner.run(
            self.book.acknowledge(asked.receipt, Verification.VERIFIED, now_s=NOW_S)
        )
        asked.is_known = True
        while following := next(
            (
                a
                for a in self.asked
                if a.is_known
                and a.receipt is not None
                and a.receipt.receipt.sequence == self.pure.acknowledged + 1
            ),
            None,
        ):
            assert following.receipt is not None
            self.pure = apply_acknowledgement(
                self.pure, maximum_fee=following.reserved, fee=following.receipt.receipt.fee
            )
        assert book == self.pure

    def _release(self, asked: Asked) -> None:
        maximum_fee = asked.voucher.request.maximum_fee
        after = self.runner.run(self.book.release(asked.voucher.request.request_id, "refused"))
        self.pure = apply_release(self.pure, maximum_fee=maximum_fee)
        asked.reserved = None
        assert after == self.pure

    def _resume(self) -> None:
        receipted = [a for a in self.asked if a.receipt is not None]
        for asked in sorted(receipted, key=lambda a: a.receipt.receipt.sequence):  # type: ignore[union-attr]
            self._acknowledge(asked)
        for asked in self.asked:
            if asked.receipt is None and not asked.is_admitted and asked.reserved is not None:
                asked.is_gone = True  # its deadline has passed
                self._release(asked)


BookBesideBook.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestBookBesideBook = BookBesideBook.TestCase


def test_book_beside_book_on_postgresql(postgres_server: PostgresServer) -> None:
    def make() -> BookBesideBook:
        machine = BookBesideBook()
        machine.url = postgres_server.create_database()
        return machine

    run_state_machine_as_test(make, settings=settings(max_examples=6, deadline=None))


async def issue(book: VoucherBook, number: int, maximum_fee: int = 100) -> SignedVoucher:
    issued = await book.issue(KEY, make_purchase(number, maximum_fee), FUNDS, SIGNER, NOW_S)
    return issued.signed


async def acknowledge(book: VoucherBook, receipt: SignedReceipt) -> UserBook:
    return await book.acknowledge(receipt, Verification.VERIFIED, now_s=NOW_S)


@pytest.fixture
async def book(database: Database) -> VoucherBook:
    return await open_voucher_book(database, DOMAIN)


async def test_a_voucher_is_on_disk_before_it_can_be_sent(database_url: str) -> None:
    first = await open_database(database_url)
    signed = await issue(await open_voucher_book(first, DOMAIN), 1)
    second = await open_database(database_url)  # another process, while the first lives
    (stored,) = await (await open_voucher_book(second, DOMAIN)).list_open_vouchers()
    assert stored.signed == signed
    assert stored.state is VoucherState.ISSUED
    assert stored.offer == OFFER
    await first.close()
    await second.close()


async def test_two_processes_never_sign_the_same_maxima(database_url: str) -> None:
    databases = [await open_database(database_url) for _ in range(2)]
    books = [await open_voucher_book(database, DOMAIN) for database in databases]
    vouchers = await asyncio.gather(*(issue(books[number % 2], number, 10) for number in range(40)))
    assert sorted(v.voucher.sequence_max for v in vouchers) == list(range(1, 41))
    assert sorted(v.voucher.cumulative_max for v in vouchers) == list(range(10, 401, 10))
    for database in databases:
        await database.close()


async def test_a_receipt_after_a_release_is_counted(book: VoucherBook) -> None:
    signed = await issue(book, 1)
    assert await book.release(signed.request.request_id, "gone") is not None
    after = await acknowledge(book, make_receipt(signed, 1, 60, 60))
    assert (after.acknowledged, after.acknowledged_fee, after.in_flight) == (1, 60, 0)


async def test_a_request_is_never_receipted_twice(book: VoucherBook) -> None:
    signed = await issue(book, 1)
    await issue(book, 2)
    await acknowledge(book, make_receipt(signed, 1, 60, 60))
    with pytest.raises(VerificationError, match="a second receipt"):
        await acknowledge(book, make_receipt(signed, 2, 60, 120))
    assert len(await book.list_conflicts()) == 1


@pytest.mark.parametrize(
    ("sequence", "total", "message"),
    [(3, 60, "signed were 1 requests"), (1, 61, "its fee make 60")],
)
async def test_impossible_sequences_and_sums_are_refused(
    book: VoucherBook, sequence: int, total: int, message: str
) -> None:
    signed = await issue(book, 1)
    with pytest.raises(VerificationError, match=message):
        await acknowledge(book, make_receipt(signed, sequence, 60, total))
    found = await book.find_sub_account(KEY)
    assert found is not None
    assert found.book.acknowledged == 0


async def test_released_requests_cannot_be_charged_beyond_what_was_signed(
    book: VoucherBook,
) -> None:
    """A broker that refuses again and again and later charges for all of it is found out."""
    refused = []
    for number in range(3):
        refused.append(await issue(book, number, 100))
        await book.release(refused[-1].request.request_id, "overloaded")
    await acknowledge(book, make_receipt(refused[0], 1, 100, 100))
    with pytest.raises(VerificationError, match="signed were 1 requests"):
        await acknowledge(book, make_receipt(refused[1], 2, 100, 200))


async def test_a_book_belongs_to_one_escrow(database: Database) -> None:
    await open_voucher_book(database, DOMAIN)
    with pytest.raises(RequestError, match="give each its own"):
        await open_voucher_book(database, Domain(1, DOMAIN.escrow))


async def test_a_receipt_that_an_older_program_stored_is_found_by_its_request(database_url):
    database = await open_database(database_url)
    await database.migrate(COMPONENT, STEPS[:2])
    book = VoucherBook(database, DOMAIN)
    issued = [await book.issue(KEY, make_purchase(n, 10), FUNDS, SIGNER, NOW_S) for n in (1, 2)]
    receipt = make_receipt(issued[1].signed, 1, 7, 7)
    row = (1, 1, f"0x{2:064x}", ZERO_HASH, encode_receipt_json(receipt).decode(), "7", "7", "10")

    def store(tx: Transaction) -> None:
        tx.execute(INSERT_RECEIPT, (*row, "verified", "", 1, NOW_S))
        tx.execute("UPDATE vouchers SET state = 'receipted' WHERE request_id = ?", row[2:3])

    await database.write(store)
    book = await open_voucher_book(database, DOMAIN)
    assert (await book.find_receipt(f"0x{2:064x}")).signed == receipt
    assert await book.find_receipt(f"0x{1:064x}") is None
    await database.close()
