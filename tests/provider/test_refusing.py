"""Everything that is refused before it is admitted: its status, its facts, and no trace of it."""

import asyncio
import json
import time
from collections import Counter

import pytest

from hanse.protocol.errors import HanseError, TransientError
from hanse.protocol.limits import REQUEST_BODY_BYTES_MAX
from hanse.provider import ServingLimits
from hanse.settlement import SubAccountFunds
from tests.provider.broker_parts import (
    CHAT,
    FUNDS,
    SIGNER_KEY,
    STRANGER_KEY,
    USER,
    Caller,
    chat_body,
    selling,
    until,
)


async def refused(caller, signed, status, code):
    reply = await caller.send(signed)
    assert (reply.status, reply.error["code"]) == (status, code), reply.body
    assert reply.receipt is None
    return reply.error


async def no_trace(here):
    assert await here.book.find_state(USER, SIGNER_KEY.address) is None


async def test_unsigned_or_foreign_headers_are_401():
    async with selling() as (here, caller):
        signed = caller.sign()
        for header in (
            "",
            "Bearer sk-1",
            "Hanse",
            "Hanse !!!",
            "Hanse e30",
            "Hanse " + "A" * 9_000,
        ):
            signed.header = header
            await refused(caller, signed, 401, "header_malformed")
        await refused(caller, caller.sign(key=STRANGER_KEY), 401, "signature_invalid")
        await refused(caller, caller.sign(provider="0x" + "b3" * 20), 401, "wrong_provider")
        await refused(caller, caller.sign(deadline=int(time.time()) - 120), 401, "voucher_expired")
        late = caller.sign(deadline=int(time.time()) + 10_000)
        await refused(caller, late, 401, "voucher_expired")
        await no_trace(here)


async def test_stolen_header_buys_no_other_body_and_no_other_path():
    async with selling() as (here, caller):
        signed = caller.sign()
        body = signed.body
        signed.body = body.replace(b"three", b"four!")
        await refused(caller, signed, 401, "signature_invalid")
        signed.body, signed.path = body, "/v1/completions"
        await refused(caller, signed, 401, "signature_invalid")
        await no_trace(here)


async def test_money_that_is_missing_is_402_with_the_amounts():
    async with selling(funds=1_000) as (here, caller):
        fee = caller.sign().voucher.request.maximum_fee
        low = await refused(caller, caller.sign(maximum_fee=fee - 1), 402, "fee_too_low")
        assert (low["hanse"]["needed"], low["hanse"]["available"]) == (str(fee), str(fee - 1))
        short = caller.sign(committed=fee + 4, sequence_max=9)
        here.view.set_funds(USER, SIGNER_KEY.address, SubAccountFunds(fee - 5, 0))
        error = await refused(caller, short, 402, "insufficient_balance")
        assert error["hanse"]["missing"] == "5"
        async with Caller(caller.url, caller.offer, STRANGER_KEY) as stranger:
            unknown = await refused(stranger, stranger.sign(), 402, "sub_account_unknown")
            assert int(unknown["hanse"]["needed"]) > 0
        await no_trace(here)


async def test_voucher_that_is_behind_gets_the_receipts_it_misses():
    async with selling() as (_here, caller):
        first = await caller.buy()
        second = await caller.buy()
        caller.acknowledge(first.receipt)  # as if the second receipt had been lost
        error = await refused(caller, caller.sign(), 402, "voucher_too_low")
        facts = error["hanse"]
        assert facts["more"] is False
        (missed,) = facts["receipts"]
        assert missed["receipt"]["signature"] == second.receipt.signature
        assert int(facts["needed"]) > int(facts["available"])


async def test_bodies_that_the_money_cannot_be_read_from_are_400():
    bodies = [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b"[" * 200_000,
        json.dumps(chat_body(n=0)).encode(),
        json.dumps(chat_body(n=10_000)).encode(),
        json.dumps(chat_body(n=True)).encode(),
        json.dumps(chat_body(max_tokens=-1)).encode(),
        json.dumps(chat_body(max_tokens=10**40)).encode(),
        json.dumps(chat_body(max_tokens=1.5)).encode(),
        json.dumps(chat_body(max_completion_tokens="9")).encode(),
        json.dumps({**chat_body(), "stream": "yes"}).encode(),
        json.dumps(chat_body(best_of=4)).encode(),
        json.dumps({"messages": []}).encode(),
        json.dumps({"model": 7}).encode(),
    ]
    async with selling() as (here, caller):
        for body in bodies:
            reply = await caller.send(caller.sign(body, maximum_fee=10**6))
            assert reply.status == 400, (body[:60], reply.body)
        prompts = {"model": "echo-fake", "prompt": ["a", "b"], "max_tokens": 2}
        signed = caller.sign(prompts, path="/v1/completions", maximum_fee=10**6)
        await refused(caller, signed, 400, "unsupported_parameter")
        await no_trace(here)


async def test_unknown_model_offer_path_and_method():
    async with selling() as (here, caller):
        other = {**chat_body(), "model": "another"}
        await refused(caller, caller.sign(other, maximum_fee=10**6), 404, "model_not_found")
        gone = caller.sign(offer_hash="0x" + "77" * 32)
        await refused(caller, gone, 422, "offer_changed")
        nowhere = caller.sign(path="/v1/images/generations")
        await refused(caller, nowhere, 404, "not_found")
        reply = await caller.get(CHAT)
        assert (reply.status, reply.headers["Allow"]) == (405, "POST")
        await no_trace(here)


async def test_body_that_is_too_large_or_too_slow():
    limits = ServingLimits(body_time_s=0.2)
    async with selling(limits=limits) as (here, caller):
        large = caller.sign(b"x" * (REQUEST_BODY_BYTES_MAX + 1), maximum_fee=1)
        await refused(caller, large, 413, "request_too_large")
        host, port = here.url.removeprefix("http://").split(":")
        for head in ("Content-Length: 100", "Transfer-Encoding: chunked"):
            reader, writer = await asyncio.open_connection(host, int(port))
            signed = caller.sign()
            writer.write(
                f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nAuthorization: {signed.header}\r\n"
                f"{head}\r\n\r\n".encode()
            )
            answer = await asyncio.wait_for(reader.read(), 5)  # also says that it was closed
            assert answer.startswith(b"HTTP/1.1 408")
            writer.close()
        chunks = Caller(here.url, here.offer)

        async def endless():
            for _ in range(100):
                yield b"x" * 100_000

        async with (
            chunks,
            chunks.session.post(
                here.url + CHAT, data=endless(), headers={"Authorization": caller.sign().header}
            ) as response,
        ):
            assert response.status == 413
        await no_trace(here)


async def test_bodies_in_flight_are_bounded_over_all_callers():
    limits = ServingLimits(body_bytes_in_flight_max=1_000)
    async with selling(limits=limits) as (here, caller):
        reply = await caller.send(caller.sign(chat_body("w " * 2_000), maximum_fee=10**7))
        assert (reply.status, reply.error["code"]) == (503, "overloaded")
        await caller.buy()  # the budget was given back
        assert here.broker.in_flight == 0


@pytest.mark.parametrize(
    "limits",
    [ServingLimits(queue_max=0), ServingLimits(sub_account_in_flight_max=2)],
    ids=["service", "sub_account"],
)
async def test_full_engine_is_429_with_retry_after(limits):
    async with selling(limits=limits, parallel=2, first_token_delay_s=30) as (here, caller):
        signed = [caller.sign(committed=10**9, sequence_max=99) for _ in range(3)]
        tasks = [asyncio.create_task(caller.send(item)) for item in signed[:2]]
        await until(lambda: here.broker.in_flight == 2)
        reply = await caller.send(signed[2])
        assert (reply.status, reply.error["code"]) == (429, "rate_limited")
        assert int(reply.headers["retry-after"]) >= 1
        for task in tasks:
            task.cancel()
        await until(lambda: here.broker.in_flight == 0)


async def test_1000_replays_of_one_request_are_served_once():
    limits = ServingLimits(sub_account_in_flight_max=2_000, requests_max=2_000)
    async with selling(limits=limits) as (here, caller):
        signed = caller.sign(stream=True)
        replies = await asyncio.gather(*(caller.send(signed) for _ in range(1_000)))
        statuses = Counter(reply.status for reply in replies)
        assert statuses == {200: 1, 409: 999}
        (served,) = [reply for reply in replies if reply.status == 200]
        caller.check(signed, served)
        state = await here.book.find_state(USER, SIGNER_KEY.address)
        assert state.book.sequence == 1
        assert state.book.cumulative_fee == served.receipt.receipt.fee


async def test_200_requests_on_a_sub_account_that_affords_50():
    limits = ServingLimits(sub_account_in_flight_max=1_000, queue_max=1_000)
    async with selling(limits=limits, first_token_delay_s=3) as (here, caller):
        fee = caller.sign().voucher.request.maximum_fee
        here.view.set_funds(USER, SIGNER_KEY.address, SubAccountFunds(50 * fee + fee - 1, 0))
        signed = [caller.sign(committed=10**9, sequence_max=1_000) for _ in range(200)]
        replies = await asyncio.gather(*(caller.send(item) for item in signed))
        statuses = Counter(reply.status for reply in replies)
        assert statuses == {200: 50, 402: 150}
        state = await here.book.find_state(USER, SIGNER_KEY.address)
        assert state.book.cumulative_fee == sum(
            reply.receipt.receipt.fee for reply in replies if reply.receipt
        )
        assert state.book.reserved == 0
        assert state.book.cumulative_fee <= 51 * fee < FUNDS


async def test_queries_open_only_to_the_signer_and_for_two_minutes():
    async with selling() as (_here, caller):
        path = "/hanse/v1/receipts"
        foreign = await caller.get(path, caller.sign_query(key=STRANGER_KEY))
        assert (foreign.status, foreign.error["code"]) == (401, "signature_invalid")
        later = await caller.get(path, caller.sign_query(deadline=int(time.time()) + 600))
        assert later.error["code"] == "voucher_expired"
        elsewhere = await caller.get(path, caller.sign_query(provider="0x" + "b3" * 20))
        assert elsewhere.error["code"] == "wrong_provider"
        assert (await caller.get(path)).status == 401
        odd = await caller.get("/hanse/v1/answers/0x12", caller.sign_query())
        assert odd.status == 400


async def test_store_that_refuses_is_503_and_heals():
    async with selling() as (here, caller):
        signed = caller.sign()
        book = here.book
        failing = _FailingDatabase(book._database)
        book._database = failing
        failing.admit = False
        await refused(caller, signed, 503, "store_unavailable")
        failing.admit, failing.finish = True, False
        reply = await caller.send(caller.sign())
        assert reply.status == 503
        cut = await caller.send(caller.sign(stream=True, committed=10**6, sequence_max=9))
        assert not cut.ended
        assert cut.receipt is None
        with pytest.raises(TransientError):
            await here.broker.maintain()
        failing.finish = True
        await here.broker.maintain()
        state = await book.find_state(USER, SIGNER_KEY.address)
        assert (state.book.in_flight, state.book.cumulative_fee) == (0, 0)
        _, receipts = await caller.fetch_receipts()
        caller.acknowledge(receipts[-1])
        await caller.buy()


class _FailingDatabase:
    """A store whose disk is full for admissions or for receipts."""

    def __init__(self, inner):
        self.inner = inner
        self.admit = self.finish = True

    async def write(self, function):
        self._fill(function)
        return await self.inner.write(function)

    async def begin(self, function):
        self._fill(function)
        return await self.inner.begin(function)

    def _fill(self, function):
        name = function.__qualname__
        if not (self.finish if "finish" in name else self.admit or "admi" not in name):
            raise TransientError("store_unavailable", "the disk is full")

    async def read(self, function):
        return await self.inner.read(function)


async def test_unexpected_exception_is_500_without_its_text(caplog):
    async with selling() as (here, caller):

        async def broken(request):
            raise ValueError("the secret prompt")

        here.engine.answer = broken
        signed = caller.sign()
        reply = await caller.send(signed)
        assert (reply.status, reply.error["code"]) == (500, "internal_error")
        assert b"secret" not in reply.body
        assert "secret prompt" not in caplog.text
        caller.check(signed, reply)  # admitted, so receipted, with fee 0
        assert reply.receipt.receipt.fee == 0
        assert issubclass(TransientError, HanseError)
