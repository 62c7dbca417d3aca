"""The provider's book: replays, pages, kept answers, claims, owners, restarts."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest
import pytest_asyncio

from hanse.chain import Key
from hanse.protocol.errors import InvariantError, RequestError, TransientError
from hanse.protocol.limits import ANSWER_RETAINED_S, RECEIPTS_PER_PAGE_MAX
from hanse.protocol.messages import FinishReason
from hanse.protocol.wire import receipt_to_json
from hanse.settlement import ReceiptBook, SubAccountFunds, open_receipt_book
from hanse.store import open_database
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


@pytest_asyncio.fixture
async def book(database_url: str) -> AsyncIterator[ReceiptBook]:
    database = await open_database(database_url)
    yield await open_receipt_book(database, PROVIDER, DOMAIN, RECEIPT_KEY)
    await database.close()


async def admit(book, sequence_max, *, cumulative=10**6, most=100, acknowledged=0, **options):
    signed = sign_voucher(cumulative, sequence_max, most, **options)
    funds = FUNDS
    return await admit_voucher(book, signed, funds, acknowledged=acknowledged, now_s=NOW_S)


async def test_one_of_many_replays_is_admitted(book):
    signed = sign_voucher(10**6, 10, 100)
    results = await asyncio.gather(
        *(admit_voucher(book, signed, FUNDS, acknowledged=0, now_s=NOW_S) for _ in range(100)),
        return_exceptions=True,
    )
    refused = [item for item in results if isinstance(item, RequestError)]
    assert len(refused) == 99
    assert {error.code for error in refused} == {"request_replayed"}
    state = await book.find_state(USER, SIGNER)
    assert (state.book.in_flight, state.book.reserved) == (1, 100)


async def test_replay_names_the_receipt_once_there_is_one(book):
    signed = sign_voucher(10**6, 10, 100)
    admission = await admit_voucher(book, signed, FUNDS, acknowledged=0, now_s=NOW_S)
    with pytest.raises(RequestError) as at_work:
        await admit_voucher(book, signed, FUNDS, acknowledged=0, now_s=NOW_S)
    assert at_work.value.details["receipt"] is None
    finished = await book.finish(admission, outcome_of(7))
    with pytest.raises(RequestError) as done:
        await admit_voucher(book, signed, FUNDS, acknowledged=0, now_s=NOW_S)
    assert done.value.details["receipt"] == receipt_to_json(finished.signed)


async def test_request_id_is_served_once_per_signer_even_for_another_user(book):
    first = sign_voucher(10**6, 10, 100)
    await admit_voucher(book, first, FUNDS, acknowledged=0, now_s=NOW_S)
    other = sign_voucher(10**6, 10, 100, request_id=first.request.request_id, user="0x" + "a2" * 20)
    with pytest.raises(RequestError, match="already admitted"):
        await admit_voucher(book, other, FUNDS, acknowledged=0, now_s=NOW_S)
    assert await book.find_state("0x" + "a2" * 20, SIGNER) is None


async def test_refused_request_leaves_nothing_and_its_id_stays_free(book):
    low = sign_voucher(50, 1, 100)
    with pytest.raises(RequestError) as refused:
        await admit_voucher(book, low, FUNDS, acknowledged=0, now_s=NOW_S)
    assert refused.value.code == "voucher_too_low"
    assert refused.value.details["needed"] == "100"
    assert refused.value.details["available"] == "50"
    await admit(book, 1, request_id=low.request.request_id)


async def test_pages_are_in_sequence_and_say_when_there_is_more(book):
    count = RECEIPTS_PER_PAGE_MAX + 5
    admissions = [await admit(book, 10**6) for _ in range(count)]
    await asyncio.gather(*(book.finish(item, outcome_of(1)) for item in admissions))
    page = await book.find_receipts(USER, SIGNER, 0)
    assert (len(page.receipts), page.more) == (RECEIPTS_PER_PAGE_MAX, True)
    sequences = [int(msgspec.json.decode(json)["sequence"]) for _, json in page.receipts]
    assert sequences == list(range(1, RECEIPTS_PER_PAGE_MAX + 1))
    rest = await book.find_receipts(USER, SIGNER, RECEIPTS_PER_PAGE_MAX)
    assert (len(rest.receipts), rest.more) == (5, False)
    assert await book.find_receipts(USER, SIGNER, 2**64 - 1) is not None


async def test_answers_are_kept_until_acknowledged_or_old(book):
    first = await admit(book, 10)
    await book.finish(first, outcome_of(1, b"sealed one"))
    second = await admit(book, 10)
    await book.finish(second, outcome_of(1, b"sealed two"))
    assert await book.find_answer(USER, SIGNER, first.request_id, NOW_S) == b"sealed one"
    await admit(book, 10, acknowledged=1)
    assert await book.find_answer(USER, SIGNER, first.request_id, NOW_S) is None
    late = NOW_S + ANSWER_RETAINED_S
    assert await book.find_answer(USER, SIGNER, second.request_id, late - 1) == b"sealed two"
    assert await book.find_answer(USER, SIGNER, second.request_id, late) is None
    assert await book.sweep_answers(late) == 1


async def test_who_acknowledges_more_than_was_signed_is_refused_and_harms_nobody(book):
    first = await admit(book, 10)
    other_key = Key(b"\x07" * 32)
    other = await admit(book, 10, key=other_key)
    await book.finish(first, outcome_of(1, b"mine"))
    await book.finish(other, outcome_of(1, b"theirs"))
    with pytest.raises(TransientError, match="receipts up to 18446744073709551615") as caught:
        await admit(book, 2**64 - 1, acknowledged=2**64 - 1, key=other_key)
    assert caught.value.code == "book_outdated"
    assert await book.find_answer(USER, SIGNER, first.request_id, NOW_S) == b"mine"


async def test_best_voucher_is_claimed_whatever_the_order(book):
    high = await admit(book, 5, cumulative=500, most=100)
    await admit(book, 3, cumulative=300, most=100)
    await book.finish(high, outcome_of(80))
    (claim,) = await book.read_due_claims()
    assert (claim.cumulative_max, claim.sequence_max) == (500, 5)
    assert (claim.cumulative_fee, claim.sequence, claim.due) == (80, 1, 80)
    assert claim.request_hash == high.request_hash


async def test_settled_never_falls_and_clears_what_is_due(book):
    admission = await admit(book, 5)
    await book.finish(admission, outcome_of(80))
    assert await book.apply_settled(USER, SIGNER, 30) == 30
    assert await book.apply_settled(USER, SIGNER, 10) == 0
    (claim,) = await book.read_due_claims()
    assert claim.due == 50
    assert await book.apply_settled(USER, SIGNER, 80) == 50
    assert await book.read_due_claims() == []


async def test_dust_that_came_first_hides_no_claim_that_is_worth_its_gas(book):
    fees = [3, 9, 1, 10, 2]
    for number, fee in enumerate(fees):
        await book.finish(await admit(book, 5, key=Key(bytes([50 + number]) * 32)), outcome_of(fee))
    assert [claim.due for claim in await book.read_due_claims(2)] == [10, 9]


async def test_a_book_without_what_the_chain_shows_claimed_signs_nothing(book):
    """A node that lagged at the start hid it from the guard there; users hold those receipts."""
    funds = SubAccountFunds(balance=500, claimed=1_000, sequence=7)
    with pytest.raises(TransientError, match=r"claimed over 7 .* 0 over 0") as found:
        await admit_voucher(book, sign_voucher(1_100, 8, 100), funds, acknowledged=0, now_s=NOW_S)
    assert found.value.code == "book_outdated"
    assert await book.find_state(USER, SIGNER) is None


@pytest.mark.parametrize(("claimed", "sequence"), [(81, 1), (80, 2)])
async def test_a_book_that_the_chain_is_ahead_of_signs_nothing_more(book, claimed, sequence):
    await book.finish(await admit(book, 5), outcome_of(80))
    funds = SubAccountFunds(10**9, claimed, sequence)
    with pytest.raises(TransientError, match="an older copy"):
        await admit_voucher(book, sign_voucher(10**6, 5, 100), funds, acknowledged=0, now_s=NOW_S)
    covered = SubAccountFunds(10**9, 80, 1)
    await admit_voucher(book, sign_voucher(10**6, 5, 100), covered, acknowledged=0, now_s=NOW_S)


async def test_pending_refund_is_not_lent_again(book):
    funds = SubAccountFunds(balance=150, claimed=0, pending_refund=100)
    with pytest.raises(RequestError) as refused:
        await admit_voucher(book, sign_voucher(100, 1, 100), funds, acknowledged=0, now_s=NOW_S)
    assert refused.value.code == "insufficient_balance"
    assert refused.value.details["available"] == "50"


async def test_fee_above_its_maximum_is_refused_and_the_request_stays_open(book):
    admission = await admit(book, 5, most=100)
    with pytest.raises(InvariantError):
        await book.finish(admission, outcome_of(101))
    page = await book.find_receipts(USER, SIGNER, 0)
    assert page.in_flight == (admission.request_id,)


async def test_restart_receipts_what_was_at_work_with_fee_0(database_url):
    database = await open_database(database_url)
    book = await open_receipt_book(database, PROVIDER, DOMAIN, RECEIPT_KEY)
    done = await admit(book, 5)
    cut = await admit(book, 5)
    await book.finish(done, outcome_of(9))
    await database.close()
    database = await open_database(database_url)
    book = await open_receipt_book(database, PROVIDER, DOMAIN, RECEIPT_KEY)
    (receipt,) = await book.recover(NOW_S + 5)
    assert receipt.receipt.request_hash == cut.request_hash
    assert (receipt.receipt.sequence, receipt.receipt.cumulative_fee) == (2, 9)
    assert (receipt.receipt.fee, receipt.receipt.finish_reason) == (0, FinishReason.ERROR)
    assert await book.recover(NOW_S + 6) == []
    await database.close()


async def test_database_of_another_provider_is_refused(database_url):
    database = await open_database(database_url)
    await open_receipt_book(database, PROVIDER, DOMAIN, RECEIPT_KEY)
    with pytest.raises(RequestError, match="is the book of provider"):
        await open_receipt_book(database, "0x" + "b3" * 20, DOMAIN, RECEIPT_KEY)
    await database.close()


async def test_closed_store_is_a_transient_error(database_url):
    database = await open_database(database_url)
    book = await open_receipt_book(database, PROVIDER, DOMAIN, RECEIPT_KEY)
    await database.close()
    with pytest.raises(TransientError):
        await admit(book, 1)
