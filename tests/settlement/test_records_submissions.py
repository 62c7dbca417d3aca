"""What one side has submitted: durable, idempotent, and on both stores alike."""

import pytest

from hanse.protocol.messages import FinishReason, Receipt, SignedReceipt, Usage
from hanse.protocol.records import Promise, PromiseKind, RecordEntry, SignedPromise
from hanse.protocol.signatures import ZERO_HASH
from hanse.settlement.records.submission_book import (
    HEADS_KEPT,
    RETRY_S_MAX,
    EntryAnswer,
    open_submission_book,
)
from hanse.store import open_database

USER, PROVIDER, SIGNER = "0x" + "a1" * 20, "0x" + "b2" * 20, "0x" + "c3" * 20
URL, OTHER = "http://one.test", "http://two.test"
NOW_S = 1_900_000_000


def make_receipt(sequence: int) -> SignedReceipt:
    hash32 = "0x" + f"{sequence:064x}"
    receipt = Receipt(
        *(USER, PROVIDER, SIGNER, sequence, hash32, hash32, Usage(), 3, 3 * sequence),
        *(FinishReason.STOP, NOW_S, ZERO_HASH),
    )
    return SignedReceipt(receipt, "0x00")


class Source:
    """Receipts from a list, by the cursor that the book keeps."""

    def __init__(self, count: int, passed: int = 0) -> None:
        self.count, self.passed = count, passed

    def find_new(self, tx):
        row = tx.find_one("SELECT MAX(sequence) FROM record_cursors")
        after = row[0] or 0
        found = tuple(make_receipt(n) for n in range(after + 1, self.count + 1))
        return [found] if found else []

    def list_passed(self, tx):
        return [(USER, PROVIDER, SIGNER, self.passed)] if self.passed else []


async def to_entry(signed: SignedReceipt) -> RecordEntry:
    r = signed.receipt
    return RecordEntry(r.user, r.provider, r.signer, r.sequence, r.request_hash, r.fee)


def make_promise(kind=PromiseKind.MATCHED, block=50) -> SignedPromise:
    return SignedPromise(Promise("0x" + "dd" * 20, kind, "0x" + "11" * 32, block), "0x" + "22" * 65)


@pytest.fixture
async def book(database_url):
    database = await open_database(database_url)
    yield await open_submission_book(database)
    await database.close()


async def answer(book, url, state, commit_by=0, reason="", now_s=NOW_S, promise=None):
    due = await book.list_due(2**40, 500)
    answers = [EntryAnswer(known.entry, state, reason, commit_by) for known in due]
    promises = [(promise, [known.entry for known in due])] if promise else []
    await book.note_answer(url, due, answers, promises, now_s)


async def test_a_receipt_is_collected_once(book):
    assert await book.collect(Source(3), to_entry, NOW_S) == 3
    assert await book.collect(Source(3), to_entry, NOW_S) == 0
    assert await book.collect(Source(5), to_entry, NOW_S) == 2
    assert [known.entry.sequence for known in await book.list_due(NOW_S, 500)] == [1, 2, 3, 4, 5]


async def test_a_cursor_passes_what_another_book_had_and_never_falls(book):
    await book.collect(Source(0, passed=7), to_entry, NOW_S)
    assert await book.collect(Source(7), to_entry, NOW_S) == 0
    await book.collect(Source(9, passed=3), to_entry, NOW_S)
    assert [known.entry.sequence for known in await book.list_due(NOW_S, 500)] == [8, 9]


async def test_an_unmatched_entry_is_tried_less_and_less_often(book):
    await book.collect(Source(1), to_entry, NOW_S)
    now_s = NOW_S
    for pause_s in (5, 10, 20, 40):
        await answer(book, URL, "waiting", reason="missing_at_user", now_s=now_s)
        assert await book.list_due(now_s + pause_s - 1, 1) == []
        now_s += pause_s
        assert len(await book.list_due(now_s, 1)) == 1
    for _ in range(20):
        await answer(book, URL, "waiting", reason="missing_at_user", now_s=now_s)
    assert len(await book.list_due(now_s + RETRY_S_MAX, 1)) == 1


async def test_a_promise_stays_until_all_its_entries_are_recorded_or_freed(book):
    await book.collect(Source(2), to_entry, NOW_S)
    await answer(book, URL, "matched", 50, promise=make_promise())
    matched = await book.list_matched(URL, 2**40, 500)
    assert {known.commit_by for known in matched} == {50}
    promise, entries = await book.find_promise(matched[0].promise)
    assert promise["block"] == 50
    assert len(entries) == 2
    assert [known.entry.sequence for known in await book.list_late(URL, 51)] == [1, 2]
    assert await book.list_late(URL, 50) == []
    await book.note_fault(URL, "stall", "late", {"promise": promise}, NOW_S)
    assert await book.find_promise(matched[0].promise) is None
    assert await book.count_states() == {"new": 2}


async def test_the_first_evidence_stays(book):
    await book.add_recorder(URL, PROVIDER, 4, "0x" + "44" * 32)
    await book.add_recorder(URL, USER, 9, ZERO_HASH)
    await book.note_fault(URL, "fork", "two histories", {"n": 1}, NOW_S)
    await book.note_fault(URL, "lie", "later", {"n": 2}, NOW_S + 1)
    (known,) = await book.list_recorders()
    assert (known.address, known.number) == (PROVIDER, 4)
    assert (known.fault, known.reason, known.evidence) == ("fork", "two histories", '{"n":1}')
    assert await book.clear_fault(URL)
    assert (await book.find_recorder(URL)).fault == ""
    assert not await book.clear_fault(OTHER)


async def test_heads_are_kept_bounded_and_never_fall(book):
    await book.add_recorder(URL, PROVIDER, 0, ZERO_HASH)
    await book.note_heads(URL, [(n, "0x" + f"{n:064x}") for n in range(1, 4)])
    await book.note_heads(URL, [(2, "0x" + "ff" * 32)])
    assert (await book.find_recorder(URL)).number == 3
    assert await book.find_head(URL, 2) == "0x" + f"{2:064x}", "a verified head is never replaced"
    await book.note_heads(URL, [(HEADS_KEPT + 3, "0x" + "ee" * 32)])
    assert await book.find_head(URL, 2) is None
    assert await book.find_head(URL, 3) is not None
