"""The provider's book to the last column: what it stores, answers, refuses and leaves alone.

`test_receipt_book` holds it to what it is for, `test_receipt_book_rules` to the pure book; these
hold each value that goes in or comes out to its place.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from hanse.chain import Key
from hanse.protocol.books import ProviderBook
from hanse.protocol.errors import HanseError, InvariantError
from hanse.protocol.hashing import EMPTY_RESPONSE_HASH
from hanse.protocol.limits import ANSWER_RETAINED_S
from hanse.protocol.messages import FinishReason, Receipt, Usage
from hanse.protocol.signatures import recover_signer, to_hex
from hanse.protocol.wire import receipt_to_json
from hanse.settlement import Admission, ReceiptBook, SubAccountFunds, open_receipt_book
from hanse.settlement.books.book_guard import (
    MARK_NAME,
    WHAT_TO_DO,
    ReceiptMark,
    verify_acknowledged,
)
from hanse.settlement.books.receipt_book import ANSWERS_PER_SUB_ACCOUNT_MAX
from hanse.settlement.books.receipt_tables import COMPONENT, STEPS, get_place
from hanse.settlement.books.receipt_totals import ReceiptTotals, read_totals
from hanse.store import open_database
from hanse.store.database import Database, Transaction
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

FUNDS = SubAccountFunds(10**9, 0)
SIGNER = SIGNER_KEY.address
OTHER_KEY = Key(b"\x07" * 32)
ROOT = "0x" + "0d" * 32


@dataclass
class Lease:
    """The lease of one process, which the test may take away."""

    name: str
    living: set[str]

    def verify_held(self, tx: Transaction) -> None:
        assert tx.find_one("SELECT 1") is not None
        if self.name not in self.living:
            raise InvariantError("invariant_broken", f"the lease of {self.name} has ended")

    def list_names(self, tx: Transaction) -> set[str]:
        assert tx.find_one("SELECT 1") is not None
        return self.living


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = await open_database(database_url)
    yield opened
    await opened.close()


async def open_book(database: Database, lease: Any = None) -> ReceiptBook:
    return await open_receipt_book(database, PROVIDER, DOMAIN, RECEIPT_KEY, lease)


@pytest.fixture
async def book(database: Database) -> ReceiptBook:
    return await open_book(database)


async def admit(
    book: ReceiptBook,
    sequence_max: int = 10,
    *,
    cumulative: int = 10**6,
    most: int = 100,
    funds: SubAccountFunds = FUNDS,
    acknowledged: int = 0,
    at: int = NOW_S,
    **options: Any,
) -> Admission:
    signed = sign_voucher(cumulative, sequence_max, most, **options)
    return await admit_voucher(book, signed, funds, acknowledged=acknowledged, now_s=at)


async def select(database: Database, sql: str) -> list[Any]:
    return await database.read(lambda tx: tx.find_all(sql))


def number(value: int) -> str:
    return to_hex(value.to_bytes(32, "big"))


# ---------------------------------------------------------------- what is stored


async def test_an_admitted_request_is_stored_with_all_that_was_signed(database):
    book = await open_book(database, Lease("first", {"first"}))
    signed = sign_voucher(500, 3, 100)
    admission = await admit_voucher(book, signed, FUNDS, acknowledged=0, now_s=NOW_S + 7)
    request = signed.request
    assert admission == Admission(
        1, USER, SIGNER, request.request_id, signed.voucher.request_hash, 100
    )
    assert await select(
        database,
        "SELECT request_id, signer, sub_account, request_hash, offer_hash, body_hash, maximum_fee, "
        "deadline, cumulative_max, sequence_max, signature, admitted_at, instance, sequence, "
        "receipt FROM receipt_requests",
    ) == [
        (
            request.request_id,
            SIGNER,
            1,
            signed.voucher.request_hash,
            request.offer_hash,
            request.body_hash,
            "100",
            request.deadline,
            "500",
            "3",
            signed.signature,
            NOW_S + 7,
            "first",
            None,
            None,
        )
    ]


async def test_one_that_has_the_database_to_itself_names_no_process(database, book):
    await admit(book)
    assert await select(database, "SELECT instance FROM receipt_requests") == [("",)]


async def test_a_receipt_carries_everything_of_its_outcome(database, book):
    admission = await admit(book)
    outcome = msgspec.structs.replace(
        outcome_of(7, b"sealed", NOW_S + 3), usage=Usage(5, 2, 9), commitment_root=ROOT
    )
    finished = await book.finish(admission, outcome)
    receipt = Receipt(
        USER,
        PROVIDER,
        SIGNER,
        1,
        admission.request_hash,
        "0x" + "0c" * 32,
        Usage(5, 2, 9),
        7,
        7,
        FinishReason.STOP,
        NOW_S + 3,
        ROOT,
    )
    assert finished.signed.receipt == receipt
    digest = DOMAIN.digest(receipt.struct_hash())
    assert recover_signer(digest, finished.signed.signature) == RECEIPT_KEY.address
    assert msgspec.json.decode(finished.json) == receipt_to_json(finished.signed)
    assert await select(database, "SELECT * FROM receipt_answers") == [
        (get_place(1, 1), NOW_S + 3 + ANSWER_RETAINED_S, b"sealed")
    ]
    rows = await select(database, "SELECT sequence, receipt FROM receipt_requests")
    assert rows == [(1, finished.json.decode())]


async def test_a_state_names_its_sub_account_and_what_is_settled(book):
    funds = SubAccountFunds(500, 0)
    for fee in (15, 25, 60):
        admission = await admit(book, 5, cumulative=300, funds=funds)
        await book.finish(admission, outcome_of(fee))
    await book.apply_settled(USER, SIGNER, 40)
    await admit(book, 4, cumulative=200, most=9, funds=SubAccountFunds(460, 40, 2))
    assert await book.apply_settled(USER, SIGNER, 70) == 30
    state = await book.find_state(USER, SIGNER)
    assert (state.user, state.signer, state.settled_fee) == (USER, SIGNER, 70)
    assert state.book == ProviderBook(3, 100, 9, 1, 300, 5)
    assert await book.find_state(USER, OTHER_KEY.address) is None
    page = await book.find_receipts(USER, SIGNER, 0)
    assert page.state == state


# ---------------------------------------------------------------- pages


async def test_a_page_holds_each_requests_receipt_and_what_is_at_work(book):
    done = [await admit(book) for _ in range(3)]
    open_one = await admit(book)
    finished = [await book.finish(item, outcome_of(1)) for item in done]
    rows = [(a.request_id, f.json) for a, f in zip(done, finished, strict=True)]
    page = await book.find_receipts(USER, SIGNER, 0, 3)
    assert (list(page.receipts), page.in_flight, page.more) == (rows, (open_one.request_id,), False)
    page = await book.find_receipts(USER, SIGNER, 0, 2)
    assert (list(page.receipts), page.more) == (rows[:2], True)
    page = await book.find_receipts(USER, SIGNER, 1, 1)
    assert (list(page.receipts), page.more) == (rows[1:2], True)
    page = await book.find_receipts(USER, SIGNER, 3, 1)
    assert (page.receipts, page.more) == ((), False)
    assert await book.find_receipts(USER, OTHER_KEY.address, 0) is None


# ---------------------------------------------------------------- replays and second ends


async def test_a_replay_says_whether_the_request_is_at_work_or_finished(book):
    signed = sign_voucher(10**6, 10, 100)
    admission = await admit_voucher(book, signed, FUNDS, acknowledged=0, now_s=NOW_S)
    for word in ("at work", "finished"):
        with pytest.raises(HanseError) as caught:
            await admit_voucher(book, signed, FUNDS, acknowledged=0, now_s=NOW_S)
        assert caught.value.code == "request_replayed"
        assert caught.value.message == (
            f"request {signed.request.request_id} was already admitted and is {word}: "
            "sign a new request with a new id"
        )
        assert caught.value.details["request_id"] == signed.request.request_id
        await book.finish(admission, outcome_of(1))


async def test_a_second_end_while_another_is_at_work_returns_the_first_receipt(book):
    first, _ = await admit(book), await admit(book)
    finished = await book.finish(first, outcome_of(7))
    assert await book.finish(first, outcome_of(50)) == finished
    state = await book.find_state(USER, SIGNER)
    assert (state.book.sequence, state.book.cumulative_fee, state.book.in_flight) == (1, 7, 1)


async def test_what_was_never_admitted_cannot_be_finished(book):
    admission = await admit(book)
    strange = msgspec.structs.replace(admission, request_id=number(5))
    with pytest.raises(InvariantError) as caught:
        await book.finish(strange, outcome_of(1))
    assert caught.value.code == "invariant_broken"
    assert caught.value.message == f"request {number(5)} was never admitted"
    with pytest.raises(InvariantError) as caught:
        await book.finish(msgspec.structs.replace(admission, sub_account=9), outcome_of(1))
    assert caught.value.code == "invariant_broken"
    assert caught.value.message == "sub-account 9 is not in the book"


# ---------------------------------------------------------------- claims


async def test_a_better_voucher_is_kept_and_an_equal_one_is_not(database, book):
    async def best() -> list[Any]:
        sql = "SELECT best_request_id, cumulative_max, sequence_max FROM receipt_sub_accounts"
        return await select(database, sql)

    first = await admit(book, 5, cumulative=500)
    assert await best() == [(first.request_id, "500", "5")]
    await admit(book, 5, cumulative=500)
    assert await best() == [(first.request_id, "500", "5")]
    longer = await admit(book, 6, cumulative=500)
    assert await best() == [(longer.request_id, "500", "6")]
    higher = await admit(book, 6, cumulative=501)
    assert await best() == [(higher.request_id, "501", "6")]


async def test_claims_are_named_whole_and_ordered_by_what_they_bring(database, book):
    vouchers = {}
    fees = [("a3", 20), ("a1", 20), ("a2", 30), ("a4", 10)]
    for digits, fee in fees:
        user = "0x" + digits * 20
        for early in (2, 3):
            signed = sign_voucher(200, 3, 100, user=user)
            admission = await admit_voucher(book, signed, FUNDS, acknowledged=0, now_s=NOW_S)
            await book.finish(admission, outcome_of(early))
        await book.apply_settled(user, SIGNER, 5)
        funds = SubAccountFunds(10**6, 5, 2)
        signed = vouchers[user] = sign_voucher(400, 4, 100, user=user)
        admission = await admit_voucher(book, signed, funds, acknowledged=0, now_s=NOW_S)
        await book.finish(admission, outcome_of(fee))
    signed = sign_voucher(400, 4, 100, user="0x" + "a1" * 20, key=OTHER_KEY)
    vouchers["other"] = signed
    admission = await admit_voucher(book, signed, FUNDS, acknowledged=0, now_s=NOW_S)
    await book.finish(admission, outcome_of(20))
    claims = await book.read_due_claims()
    signers = sorted([SIGNER, OTHER_KEY.address])
    assert [(c.user[2:4], c.signer, c.due) for c in claims] == [
        ("a2", SIGNER, 30),
        ("a1", signers[0], 20),
        ("a1", signers[1], 20),
        ("a3", SIGNER, 20),
        ("a4", SIGNER, 10),
    ]
    last = claims[-1]
    signed = vouchers[last.user]
    assert (last.cumulative_fee, last.sequence, last.settled_fee) == (15, 3, 5)
    assert (last.cumulative_max, last.sequence_max) == (400, 4)
    assert (last.request_hash, last.signature) == (signed.voucher.request_hash, signed.signature)


async def test_what_the_chain_shows_twice_or_for_strangers_settles_nothing(database, book):
    admission = await admit(book)
    await book.finish(admission, outcome_of(80))
    assert await book.apply_settled(USER, OTHER_KEY.address, 30) == 0
    assert await book.apply_settled(USER, SIGNER, 80) == 80
    assert await book.apply_settled(USER, SIGNER, 80) == 0
    assert await select(database, "SELECT settled_fee, due FROM receipt_sub_accounts") == [
        ("80", 0)
    ]
    assert await book.apply_settled(USER, SIGNER, 90) == 0
    assert await book.apply_settled(USER, SIGNER, 91) == 0
    assert await select(database, "SELECT settled_fee, due FROM receipt_sub_accounts") == [
        ("91", 0)
    ]
    again = await admit(book)
    await book.finish(again, outcome_of(11))
    assert await book.read_due_claims() == []
    third = await admit(book)
    await book.finish(third, outcome_of(1))
    assert [claim.due for claim in await book.read_due_claims()] == [1]
    assert await book.apply_settled(USER, SIGNER, 1_000) == 1


# ---------------------------------------------------------------- kept answers


async def test_answers_go_when_acknowledged_and_not_before(database, book):
    for _ in range(3):
        await book.finish(await admit(book), outcome_of(1, b"sealed"))
    sql = "SELECT place FROM receipt_answers ORDER BY place"
    await admit(book, acknowledged=0)
    assert await select(database, sql) == [(get_place(1, sequence),) for sequence in (1, 2, 3)]
    await admit(book, acknowledged=2)
    assert await select(database, sql) == [(get_place(1, 3),)]
    assert await book.find_answer(USER, OTHER_KEY.address, number(1), NOW_S) is None


async def test_an_answer_that_an_older_program_kept_is_found(database):
    await database.migrate(COMPONENT, STEPS[:3])
    book = ReceiptBook(database, PROVIDER, DOMAIN, RECEIPT_KEY)
    admission = await admit(book)
    insert = "INSERT INTO receipt_answers VALUES (1, 1, ?, ?, ?)"
    kept = (admission.request_id, NOW_S + 9, b"sealed")
    await database.write(lambda tx: tx.execute(insert, kept))
    await book.finish(admission, outcome_of(1))

    again = await open_book(database)
    for at_s, answer in ((NOW_S + 8, b"sealed"), (NOW_S + 9, None)):
        assert await again.find_answer(USER, SIGNER, admission.request_id, at_s) == answer


async def test_answers_that_are_too_old_or_too_many_go(database, book):
    for at in (NOW_S + 9, NOW_S + 9, NOW_S, NOW_S + 9):
        await book.finish(await admit(book), outcome_of(1, b"sealed", at))
    sequence = ANSWERS_PER_SUB_ACCOUNT_MAX + 2  # as if so many receipts had followed
    sql = f"UPDATE receipt_sub_accounts SET sequence = {sequence}"
    await database.write(lambda tx: tx.execute(sql))
    assert await book.sweep_answers(NOW_S + ANSWER_RETAINED_S) == 3
    assert await select(database, "SELECT place FROM receipt_answers") == [(get_place(1, 4),)]


# ---------------------------------------------------------------- processes and their leases


async def test_only_the_dead_ones_requests_are_recovered(database):
    living = {"first", "second"}
    first = await open_book(database, Lease("first", living))
    second = await open_book(database, Lease("second", living))
    ours, theirs = await admit(first), await admit(second)
    assert await first.recover(NOW_S) == []
    living.remove("second")
    (receipt,) = await first.recover(NOW_S + 4)
    assert receipt.receipt == Receipt(
        USER,
        PROVIDER,
        SIGNER,
        1,
        theirs.request_hash,
        EMPTY_RESPONSE_HASH,
        Usage(),
        0,
        0,
        FinishReason.ERROR,
        NOW_S + 4,
        "0x" + "00" * 32,
    )
    page = await first.find_receipts(USER, SIGNER, 0)
    assert page.in_flight == (ours.request_id,)


async def test_whose_lease_has_ended_signs_and_admits_nothing(database):
    living = {"first"}
    book = await open_book(database, Lease("first", living))
    admission = await admit(book)
    living.clear()
    for act in (
        lambda: book.finish(admission, outcome_of(1)),
        lambda: admit(book),
        lambda: book.close_lost(lambda *_: False, NOW_S),
    ):
        with pytest.raises(InvariantError, match="the lease of first has ended"):
            await act()
    state = await book.find_state(USER, SIGNER)
    assert (state.book.sequence, state.book.in_flight) == (0, 1)


async def test_what_this_process_lost_is_closed_and_nothing_else(database):
    living = {"first", "second"}
    first = await open_book(database, Lease("first", living))
    second = await open_book(database, Lease("second", living))
    working, lost, theirs = await admit(first), await admit(first), await admit(second)
    at_work = {(working.request_id, SIGNER)}
    (receipt,) = await first.close_lost(lambda *names: names in at_work, NOW_S + 2)
    assert (receipt.receipt.request_hash, receipt.receipt.fee) == (lost.request_hash, 0)
    assert receipt.receipt.finished_at == NOW_S + 2
    page = await first.find_receipts(USER, SIGNER, 0)
    assert set(page.in_flight) == {working.request_id, theirs.request_id}


async def test_requests_are_closed_in_the_order_of_their_admission(book):
    late = await admit(book, at=NOW_S + 1, request_id=number(1))
    early = await admit(book, at=NOW_S, request_id=number(2))
    receipts = await book.recover(NOW_S + 5)
    found = [item.receipt.request_hash for item in receipts]
    assert found == [early.request_hash, late.request_hash]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("in_flight = 3", "reserves 110 for 3 requests, its requests at work are 2 with 110"),
        ("reserved = '111'", "reserves 111 for 2 requests, its requests at work are 2 with 110"),
    ],
)
async def test_a_row_that_its_requests_do_not_bear_out_is_an_error(database, book, damage, said):
    await admit(book, most=100)
    await admit(book, most=10)
    await database.write(lambda tx: tx.execute(f"UPDATE receipt_sub_accounts SET {damage}"))
    with pytest.raises(InvariantError) as caught:
        await book.recover(NOW_S)
    assert caught.value.code == "invariant_broken"
    assert caught.value.message == f"sub-account {USER} / {SIGNER} {said}"


async def test_a_book_of_another_escrow_is_refused_and_both_are_named(database, book):
    other = replace(DOMAIN, escrow="0x" + "e6" * 20, chain_id=5)
    with pytest.raises(HanseError) as caught:
        await open_receipt_book(database, PROVIDER, other, RECEIPT_KEY)
    assert caught.value.code == "configuration_invalid"
    assert caught.value.message == (
        f"this database is the book of provider {PROVIDER} on chain 31337, Escrow {DOMAIN.escrow}, "
        f"not of {PROVIDER} on chain 5, Escrow {other.escrow}: give each its own"
    )


# ---------------------------------------------------------------- sums


async def test_totals_are_of_the_whole_book(database, book):
    assert await read_totals(database) == ReceiptTotals(0, 0, 0, 0, 0, 0, 0)
    await book.finish(await admit(book, at=NOW_S), outcome_of(65))
    await book.apply_settled(USER, SIGNER, 5)
    await admit(book, most=33, at=NOW_S + 8, funds=SubAccountFunds(10**6, 5, 1))
    await admit(book, most=44, at=NOW_S + 2, key=OTHER_KEY)
    await book.apply_settled(USER, SIGNER, 25)
    totals = await read_totals(database)
    assert totals == ReceiptTotals(2, 3, 2, NOW_S + 8, 65, 25, 77)
    assert totals.due == 40


# ---------------------------------------------------------------- the mark beside it


async def test_the_mark_is_its_owners_alone_and_is_written_when_something_was_signed(
    database, book, tmp_path: Path
):
    folder = tmp_path / "marks"
    folder.mkdir()
    guard = ReceiptMark(folder, database)
    await guard.write()
    file = folder / MARK_NAME
    assert file.read_text() == "0\n"
    assert file.stat().st_mode & 0o777 == 0o600
    file.write_text("9\n")
    await guard.write()
    assert file.read_text() == "9\n", "nothing new was signed"
    await book.finish(await admit(book), outcome_of(1))
    await guard.write()
    assert file.read_text() == "1\n"
    file.write_text("9\n")
    await guard.write()
    assert file.read_text() == "9\n"
    assert [path.name for path in folder.iterdir()] == [MARK_NAME]


async def test_an_empty_book_stands_behind_a_mark_of_one_and_not_of_none(database, book, tmp_path):
    guard = ReceiptMark(tmp_path, database)
    await guard.verify()
    (tmp_path / MARK_NAME).write_text("1\n")
    with pytest.raises(HanseError) as caught:
        await guard.verify()
    assert caught.value.code == "configuration_invalid"
    assert caught.value.message == (
        f"{tmp_path / MARK_NAME} says that 1 receipts were signed, the book holds 0. {WHAT_TO_DO}"
    )


async def test_the_first_mark_of_a_book_of_one_receipt_is_written(database, book, tmp_path):
    await book.finish(await admit(book), outcome_of(1))
    await ReceiptMark(tmp_path, database).write()
    assert (tmp_path / MARK_NAME).read_text() == "1\n"


def test_who_holds_more_than_was_signed_reads_both_numbers():
    with pytest.raises(HanseError) as caught:
        verify_acknowledged(3, 4)
    assert caught.value.code == "book_outdated"
    assert caught.value.message == (
        "you hold receipts up to 4, this broker's book ends at 3: one of us goes on with an older "
        "copy; buy elsewhere"
    )
