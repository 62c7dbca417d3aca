"""Cut streams, crashes on both sides, and what resume makes of them."""

import asyncio
import json
from typing import Any

import pytest

from hanse.protocol.eip712 import Domain
from hanse.protocol.errors import RequestError, TransientError, VerificationError
from hanse.sdk import Hanse, Verification
from hanse.settlement.books.voucher_book import VoucherBook, open_voucher_book
from hanse.store import Database
from tests.sdk.conftest import World

MESSAGES = [{"role": "user", "content": "What is the answer?"}]
BODY = json.dumps({"model": "echo", "messages": MESSAGES, "max_tokens": 50}).encode()
STREAM = BODY.replace(b'{"model"', b'{"stream": true, "model"')


async def read_cut(hanse: Hanse) -> int:
    """Read a stream that breaks off; returns how many frames came."""
    answer = await hanse.request("/v1/chat/completions", STREAM)
    count = 0
    with pytest.raises(TransientError, match="broke off"):  # noqa: PT012 - the loop is the call
        async for _ in answer.frames():
            count += 1
    return count


async def test_leaving_a_stream_pays_the_prefix(world: World) -> None:
    world.only(world.cheap)
    left = asyncio.Event()

    async def wait(number: int) -> None:
        if number == 3:
            await left.wait()

    world.cheap.at_frame = wait
    async with world.open() as hanse:
        answer = await hanse.request("/v1/chat/completions", STREAM)
        async with answer:
            async for frame in answer.frames():
                if b"is" in frame:
                    break
        left.set()
        await hanse.wait_idle()
        (receipt,) = await hanse.get_receipts()
        assert receipt.signed.receipt.finish_reason.name == "CANCELLED"
        assert receipt.signed.receipt.usage.output_tokens == 3
        assert receipt.verification is Verification.VERIFIED
        assert hanse.get_offers()[0].health.failures == 0, "leaving is no fault of the provider's"
        await world.assert_books_agree(world.cheap)


async def test_a_task_that_is_cancelled_hangs_up(world: World) -> None:
    world.only(world.cheap)
    reached, left = asyncio.Event(), asyncio.Event()

    async def wait(number: int) -> None:
        if number == 2:
            reached.set()
            await left.wait()

    world.cheap.at_frame = wait
    async with world.open() as hanse:

        async def read() -> None:
            answer = await hanse.request("/v1/chat/completions", STREAM)
            async for _ in answer.frames():
                pass

        task = asyncio.create_task(read())
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        left.set()
        await hanse.wait_idle()
        await world.assert_books_agree(world.cheap)
        (receipt,) = await hanse.get_receipts()
        assert receipt.verification is Verification.VERIFIED


class FullBook(VoucherBook):
    """On a disk that is full while `is_full`, for what came of a cut answer."""

    is_full = True

    async def note_response(self, *args: Any, **kwargs: Any) -> None:
        if self.is_full:
            raise TransientError("store_unavailable", "the disk is full")
        await super().note_response(*args, **kwargs)


async def test_a_full_disk_does_not_keep_a_left_request_open(world: World) -> None:
    """It counted as still being read for ever, so that nobody resumed it (found by chaos)."""

    async def open_full(database: Database, domain: Domain) -> VoucherBook:
        await open_voucher_book(database, domain)
        return FullBook(database, domain)

    world.only(world.cheap)
    world.open_book = open_full
    async with world.open() as hanse:
        answer = await hanse.request("/v1/chat/completions", STREAM)
        async with answer:
            async for _ in answer.frames():
                break
        await hanse.wait_idle()
        assert len(await hanse.get_receipts()) == 1
        await world.assert_books_agree(world.cheap)


async def test_a_broker_that_died_in_mid_stream_is_paid_nothing(world: World) -> None:
    world.only(world.cheap)
    world.cheap.lie = "cut"
    async with world.open() as hanse:
        assert await read_cut(hanse) == 2
        world.cheap.restart()
        await hanse.wait_idle()
        await world.assert_books_agree(world.cheap)
        assert world.cheap.book.cumulative_fee == 0


async def test_a_broker_that_died_after_the_receipt_is_paid_and_the_answer_proves_it(
    world: World,
) -> None:
    world.only(world.cheap)
    world.cheap.lie = "cut-before-receipt"
    async with world.open() as hanse:
        assert await read_cut(hanse) == 6
        await hanse.wait_idle()
        (receipt,) = await hanse.get_receipts()
        assert receipt.verification is Verification.VERIFIED, "by the answer that was kept"
        assert receipt.signed.receipt.fee == 22
        fetched = await hanse.fetch_answer(receipt.request_id or "")
        assert fetched.is_verified
        assert fetched.body.endswith(b"data: [DONE]\n\n")
        await world.assert_books_agree(world.cheap)


async def test_a_longer_prefix_than_came_is_counted_but_shown_as_unverified(world: World) -> None:
    world.only(world.cheap)
    world.cheap.lie = "cut-before-receipt"
    async with world.open() as hanse:
        await read_cut(hanse)
        world.cheap.answers.clear()  # the broker keeps nothing, or says so
        await hanse.wait_idle()
        (receipt,) = await hanse.get_receipts()
        assert receipt.verification is Verification.UNVERIFIED
        assert "cannot be compared" in receipt.reason
        await world.assert_books_agree(world.cheap)


async def test_an_answer_that_begins_otherwise_is_held_against_the_provider(world: World) -> None:
    world.only(world.cheap)
    world.cheap.lie = "cut-before-receipt"
    async with world.open() as hanse:
        await read_cut(hanse)
        (request_id,) = world.cheap.answers
        world.cheap.keep(request_id, b"data: another answer\n\n" * 100)
        await hanse.wait_idle()
        (receipt,) = await hanse.get_receipts()
        assert receipt.verification is Verification.MISMATCHED
        assert hanse.get_offers()[0].health.is_down(world.clock())


async def test_a_user_that_died_resumes_at_its_next_start(world: World) -> None:
    world.only(world.cheap)
    async with world.open() as hanse:
        answer = await hanse.request("/v1/chat/completions", BODY)
        request_id = answer.request_id
        # The process ends here: nothing was read, nothing counted, the voucher is on disk.
    assert world.cheap.book.sequence == 1
    async with world.open() as hanse:
        (receipt,) = await hanse.get_receipts()
        assert receipt.request_id == request_id
        assert receipt.verification is Verification.VERIFIED
        fetched = await hanse.fetch_answer(request_id)
        assert b"forty" in fetched.body
        assert fetched.is_verified
        await world.assert_books_agree(world.cheap)


async def test_more_receipts_than_one_page(world: World) -> None:
    world.only(world.cheap)
    async with world.open() as hanse:
        answers = [await hanse.request("/v1/chat/completions", BODY) for _ in range(7)]
        assert len(answers) == 7
    async with world.open() as hanse:
        await world.assert_books_agree(world.cheap)
        assert len(await hanse.get_receipts()) == 7


async def test_what_is_at_work_is_not_released(world: World) -> None:
    world.only(world.cheap)
    world.cheap.lie = "crash-admitted"
    async with world.open() as hanse:
        with pytest.raises(TransientError):
            await hanse.request("/v1/chat/completions", BODY)
        world.clock.now += 300
        (report,) = await hanse.resume()
        assert (report.released, report.still_open) == (0, 1), "the broker says it is at work"
        world.cheap.restart()
        (report,) = await hanse.resume()
        assert (report.counted, report.still_open) == (1, 0)
        await world.assert_books_agree(world.cheap)


async def test_nothing_is_released_before_its_deadline(world: World) -> None:
    world.only(world.cheap)
    world.cheap.lie = "crash"
    async with world.open() as hanse:
        with pytest.raises(TransientError):
            await hanse.request("/v1/chat/completions", BODY)
        for later, released in ((120, 0), (119, 0), (2, 1)):
            world.clock.now += later
            (report,) = await hanse.resume()
            assert report.released == released


async def test_a_lost_database_is_adopted_only_on_wish(world: World) -> None:
    world.only(world.cheap)
    async with world.open() as hanse:
        for _ in range(3):
            await (await hanse.request("/v1/chat/completions", BODY)).read()
    (world.folder / "user.db").unlink()
    for leftover in world.folder.glob("user.db-*"):
        leftover.unlink()
    async with world.open() as hanse:
        world.cheap.refuse = (402, "voucher_too_low")
        with pytest.raises(VerificationError, match="resume with adopt"):
            await hanse.request("/v1/chat/completions", BODY)
        (report,) = await hanse.resume(adopt=True)
        assert report.counted == 3
        receipts = await hanse.get_receipts()
        assert {r.verification for r in receipts} == {Verification.ADOPTED}
        world.clock.now += 4_000  # the provider is trusted again
        await (await hanse.request("/v1/chat/completions", BODY)).read()


async def test_asking_for_an_unknown_answer_is_refused(world: World) -> None:
    async with world.open() as hanse:
        with pytest.raises(RequestError, match="no request"):
            await hanse.fetch_answer("0x" + "00" * 32)


async def test_a_broker_that_is_gone_does_not_stop_a_start(world: World) -> None:
    world.only(world.cheap)
    async with world.open() as hanse:
        await hanse.request("/v1/chat/completions", BODY)  # and its answer is never read
    del world.transport.apps["http://cheap"]
    async with world.open() as hanse:
        (sub_account,) = await hanse.get_exposures()
        assert sub_account.book.in_flight == 1, "nothing is known, so nothing is released"
        (report,) = await hanse.resume()
        assert report.errors
        world.transport.apps["http://cheap"] = world.cheap
        (report,) = await hanse.resume()
        assert (report.counted, report.still_open) == (1, 0)
        await world.assert_books_agree(world.cheap)


async def test_many_streams_cut_at_once_are_resumed_together(world: World) -> None:
    """Many streams cut at once are resumed together, in one round of one provider."""
    world.only(world.cheap)
    world.cheap.lie = "cut-before-receipt"
    async with world.open() as hanse:
        await asyncio.gather(*(read_cut(hanse) for _ in range(20)))
        await hanse.wait_idle()
        await world.assert_books_agree(world.cheap)
        receipts = await hanse.get_receipts()
        assert len(receipts) == 20
        assert {r.verification for r in receipts} == {Verification.VERIFIED}
