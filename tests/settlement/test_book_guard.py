"""A provider's book that is older than what it signed is noticed before it signs again."""

from pathlib import Path

import pytest

from hanse.protocol.errors import InvariantError, RequestError, TransientError
from hanse.settlement import ReceiptBook, SubAccountFunds, open_receipt_book
from hanse.settlement.books.book_guard import (
    MARK_NAME,
    ReceiptMark,
    SignedSequences,
    verify_acknowledged,
    verify_book_covers_chain,
    verify_book_is_newest,
)
from hanse.store.sqlite import SqliteDatabase, open_sqlite
from tests.settlement.book_parts import (
    DOMAIN,
    NOW_S,
    PROVIDER,
    RECEIPT_KEY,
    SIGNER_KEY,
    USER,
    admit_voucher,
    outcome_of,
    sign_voucher,
)

FUNDS = SubAccountFunds(1_000, 0)
SIGNER = SIGNER_KEY.address


async def open_book(database: SqliteDatabase) -> ReceiptBook:
    return await open_receipt_book(database, PROVIDER, DOMAIN, RECEIPT_KEY)


async def serve(book: ReceiptBook, sequence: int, fee: int = 10) -> None:
    voucher = sign_voucher(sequence * 10, sequence, 10)
    admission = await admit_voucher(book, voucher, FUNDS, acknowledged=sequence - 1, now_s=NOW_S)
    await book.finish(admission, outcome_of(fee))


@pytest.fixture
async def database(tmp_path: Path):
    opened = await open_sqlite(tmp_path / "broker.sqlite3")
    book = await open_book(opened)
    for sequence in (1, 2, 3):
        await serve(book, sequence)
    yield opened
    await opened.close()


@pytest.mark.parametrize(
    ("claimed", "sequence"), [(0, 0), (10, 1), (30, 3), (12, 2)], ids=lambda value: str(value)
)
async def test_what_the_book_holds_may_be_claimed(database, claimed, sequence):
    await verify_book_covers_chain(
        database, [(USER, SIGNER, SubAccountFunds(900, claimed, sequence))]
    )


@pytest.mark.parametrize(("claimed", "sequence"), [(31, 3), (30, 4), (40, 4)])
async def test_a_chain_that_is_ahead_names_both_values(database, claimed, sequence):
    with pytest.raises(RequestError) as caught:
        await verify_book_covers_chain(
            database, [(USER, SIGNER, SubAccountFunds(900, claimed, sequence))]
        )
    assert caught.value.code == "configuration_invalid"
    for said in (
        USER,
        f"{claimed} base units",
        f"over {sequence} requests",
        "30 over 3",
        "Restore",
    ):
        assert said in caught.value.message


async def test_a_sub_account_that_the_book_never_saw_is_a_lost_database(database):
    stranger = "0x" + "5a" * 20
    await verify_book_covers_chain(database, [(USER, stranger, SubAccountFunds(900, 0))])
    with pytest.raises(RequestError, match="0 over 0"):
        await verify_book_covers_chain(database, [(USER, stranger, SubAccountFunds(900, 1, 1))])


async def test_a_copy_from_before_the_mark_is_refused(database, tmp_path):
    mark = ReceiptMark(tmp_path, database)
    await mark.verify()
    await mark.write()
    assert (tmp_path / MARK_NAME).read_text() == "3\n"
    copy = await open_sqlite(tmp_path / "copy.sqlite3")
    await serve(await open_book(copy), 1)
    with pytest.raises(RequestError, match=r"3 receipts were signed, the book holds 1"):
        await verify_book_is_newest(tmp_path, copy, [])
    await copy.close()
    await verify_book_is_newest(tmp_path, database, [])


@pytest.mark.parametrize("content", [None, "", "\x00\x00", "many"])
async def test_a_mark_that_is_not_there_or_was_cut_by_a_crash_says_nothing(
    database, tmp_path, content
):
    if content is not None:
        (tmp_path / MARK_NAME).write_text(content)
    await verify_book_is_newest(tmp_path, database, [])


async def test_a_mark_that_cannot_be_written_is_said_and_does_not_stop_the_end(database, tmp_path):
    mark = ReceiptMark(tmp_path / "nowhere", database)
    with pytest.raises(TransientError, match=r"cannot write .*receipts\.mark"):
        await mark.write()
    await mark.close()


def test_a_caller_that_holds_more_than_was_signed():
    verify_acknowledged(3, 3)
    with pytest.raises(TransientError, match="up to 4, this broker's book ends at 3"):
        verify_acknowledged(3, 4)


class FailedOver:
    """A store whose server was replaced by a copy while the broker ran."""

    def __init__(self, first: SqliteDatabase) -> None:
        self.present = first

    def __getattr__(self, name: str):
        return getattr(self.present, name)


@pytest.fixture
async def copy(tmp_path):
    opened = await open_sqlite(tmp_path / "copy.sqlite3")
    await serve(await open_book(opened), 1)
    yield opened
    await opened.close()


async def test_a_store_that_loses_receipts_under_a_running_broker_ends_it(database, copy, tmp_path):
    store = FailedOver(database)
    mark = await verify_book_is_newest(tmp_path, store, [])
    store.present = copy
    with pytest.raises(InvariantError, match="3 receipts were signed, the book holds 1"):
        await mark.write()
    store.present = database
    await mark.write()
    store.present = copy
    with pytest.raises(InvariantError):
        await mark.write()
    await mark.close()
    assert (tmp_path / MARK_NAME).read_text() == "3\n", "what the next start must know"


async def test_no_sequence_is_signed_twice_before_the_broker_notices(database, copy):
    store = FailedOver(database)
    book = await open_book(store)
    await serve(book, 4)
    store.present = copy
    with pytest.raises(TransientError, match=r"up to 4, .* ends at 1") as caught:
        await admit_voucher(book, sign_voucher(100, 10, 10), FUNDS, acknowledged=0, now_s=NOW_S)
    assert caught.value.code == "book_outdated"
    store.present = database
    await serve(book, 5)


def test_what_was_signed_here_is_remembered_of_a_bounded_number_of_sub_accounts():
    signed = SignedSequences(kept_max=2)
    for user in ("a", "b"):
        signed.note(user, SIGNER, 7)
    signed.note("a", SIGNER, 6)  # another's commit was first
    signed.note("c", SIGNER, 1)
    signed.verify("b", SIGNER, 0)
    for user, sequence in (("a", 7), ("c", 1)):
        signed.verify(user, SIGNER, sequence)
        with pytest.raises(TransientError) as caught:
            signed.verify(user, SIGNER, sequence - 1)
        assert caught.value.code == "book_outdated"
        assert caught.value.message == (
            f"this broker signed receipts up to {sequence}, its book ends at {sequence - 1}: the "
            "database was replaced by an older copy; buy elsewhere"
        )
