"""One paid request, each way, and what it leaves in the books."""

import asyncio
import dataclasses
import json

import pytest

from hanse.engines.echo_engine import Fault
from hanse.protocol.messages import FinishReason
from hanse.provider import ServingLimits
from tests.provider.broker_parts import (
    FUNDS,
    RECEIPT_KEY,
    SIGNER_KEY,
    USER,
    chat_body,
    selling,
    until,
)


async def test_whole_answer_is_receipted_and_priced():
    async with selling() as (_here, caller):
        reply = await caller.buy()
        receipt = reply.receipt.receipt
        usage = json.loads(reply.body)["usage"]
        assert receipt.usage.output_tokens == usage["completion_tokens"] == 8
        expected = -(-(receipt.usage.input_tokens * 100_000 + 8 * 300_000) // 1_000_000)
        assert receipt.fee == receipt.cumulative_fee == expected
        assert receipt.sequence == 1


async def test_stream_carries_the_receipt_before_done_and_hashes_the_data_frames():
    async with selling() as (_here, caller):
        reply = await caller.buy(stream=True)
        assert reply.ended
        assert reply.headers["content-type"].startswith("text/event-stream")
        assert reply.receipt.receipt.finish_reason is FinishReason.LENGTH
        assert len(reply.frames) == 8 + 1 + 1


async def test_completions_and_embeddings_are_sold_too():
    async with selling() as (_here, caller):
        completion = await caller.buy(
            {"model": "echo-fake", "prompt": "a b c", "max_tokens": 4}, path="/v1/completions"
        )
        assert json.loads(completion.body)["choices"][0]["text"]
        embedding = await caller.buy(
            {"model": "echo-fake", "input": "a b c"}, path="/v1/embeddings"
        )
        assert embedding.receipt.receipt.fee > 0
        assert embedding.receipt.receipt.sequence == 2


async def test_books_add_up_over_many_requests():
    async with selling() as (here, caller):
        fees = [(await caller.buy(stream=i % 2 == 0)).receipt.receipt.fee for i in range(10)]
        state = await here.book.find_state(USER, SIGNER_KEY.address)
        assert state.book.cumulative_fee == sum(fees)
        assert state.book.sequence == 10
        assert (state.book.reserved, state.book.in_flight) == (0, 0)


async def test_engine_that_refuses_costs_nothing_and_says_why():
    async with selling(fault=Fault(kind="refuse")) as (_here, caller):
        for stream in (False, True):
            signed = caller.sign(stream=stream)
            reply = await caller.send(signed)
            assert reply.status == 503
            assert reply.error["code"] == "engine_unavailable"
            caller.check(signed, reply)
            assert reply.receipt.receipt.fee == 0
            assert reply.receipt.receipt.finish_reason is FinishReason.ERROR
            caller.acknowledge(reply.receipt)


async def test_engine_that_breaks_in_mid_stream_costs_the_prefix():
    async with selling(fault=Fault(kind="break", after_tokens=3)) as (_here, caller):
        signed = caller.sign(stream=True)
        reply = await caller.send(signed)
        assert not reply.ended
        assert b'"error"' in reply.frames[-1]
        caller.check(signed, reply)
        receipt = reply.receipt.receipt
        assert receipt.usage.output_tokens == 3
        assert receipt.finish_reason is FinishReason.ERROR
        assert 0 < receipt.fee < signed.voucher.request.maximum_fee


async def test_empty_answer_costs_nothing():
    async with selling(fault=Fault(kind="empty")) as (_here, caller):
        assert (await caller.buy()).receipt.receipt.fee == 0
        assert (await caller.buy(stream=True)).receipt.receipt.fee == 0


async def test_fee_is_held_to_the_maximum_when_the_engine_overstates():
    async with selling(fault=Fault(kind="overstate")) as (_here, caller):
        words = "w " * 300
        signed = caller.sign(chat_body(words, max_tokens=1_000))
        reply = await caller.send(signed)
        assert reply.receipt.receipt.fee <= signed.voucher.request.maximum_fee


async def test_caller_that_hangs_up_owes_the_prefix_it_was_sent():
    async with selling(token_delay_s=0.02, answer_tokens=500) as (here, caller):
        signed = caller.sign(chat_body(stream=True, max_tokens=500))
        reply = await caller.send(signed, stop_after=3)
        await until(lambda: here.broker.in_flight == 0 and here.engine.active == 0)
        _, receipts = await caller.fetch_receipts()
        receipt = receipts[0].receipt
        assert receipt.finish_reason is FinishReason.CANCELLED
        assert 3 <= receipt.usage.output_tokens < 100
        sent = await caller.fetch_answer(signed)
        assert sent.startswith(b"".join(reply.frames))
        reply.frames = [sent]
        reply.receipt = receipts[0]
        caller.check(signed, reply)


async def test_caller_that_hangs_up_before_a_whole_answer_owes_nothing():
    async with selling(first_token_delay_s=30) as (here, caller):
        task = asyncio.create_task(caller.send(caller.sign()))
        await until(lambda: here.engine.active == 1)
        task.cancel()
        await until(lambda: here.broker.in_flight == 0 and here.engine.active == 0)
        _, receipts = await caller.fetch_receipts()
        assert receipts[0].receipt.fee == 0
        assert receipts[0].receipt.finish_reason is FinishReason.CANCELLED


@pytest.mark.parametrize("after_tokens", [0, 2])
async def test_hung_engine_is_cut_off_and_the_reservation_freed(after_tokens):
    limits = ServingLimits(request_time_s=0.3)
    fault = Fault(kind="hang", after_tokens=after_tokens)
    async with selling(limits=limits, fault=fault) as (here, caller):
        signed = caller.sign(stream=True)
        reply = await caller.send(signed)
        if after_tokens:
            assert b"request_timeout" in reply.frames[-1]
            assert reply.receipt.receipt.usage.output_tokens == after_tokens
        else:
            assert (reply.status, reply.error["code"]) == (408, "request_timeout")
        caller.check(signed, reply)
        state = await here.book.find_state(USER, SIGNER_KEY.address)
        assert state.book.reserved == 0


async def test_hung_engine_is_cut_off_after_it_was_looked_at():
    limits = ServingLimits(request_time_s=0.3, keep_alive_s=0.05)
    fault = Fault(kind="hang", after_tokens=2)
    async with selling(limits=limits, fault=fault) as (_here, caller):
        for stream in (True, False):
            signed = caller.sign(stream=stream)
            reply = await caller.send(signed)
            assert b"request_timeout" in (reply.frames[-1] if stream else reply.body)
            caller.check(signed, reply)
            assert reply.receipt.receipt.usage.output_tokens == (2 if stream else 0)
            caller.acknowledge(reply.receipt)


async def test_slow_first_token_is_bridged_by_comments_outside_the_hash():
    limits = ServingLimits(keep_alive_s=0.05)
    async with selling(limits=limits, first_token_delay_s=0.3) as (_here, caller):
        reply = await caller.buy(stream=True)  # checks the hash over data frames only
        assert reply.ended


async def test_answer_can_be_fetched_until_it_is_acknowledged():
    async with selling() as (_here, caller):
        for stream in (False, True):
            signed = caller.sign(stream=stream)
            reply = await caller.send(signed)
            kept = await caller.fetch_answer(signed)
            assert kept == (b"".join(reply.frames) if stream else reply.body)
            caller.acknowledge(reply.receipt)
            await caller.buy()
            assert await caller.fetch_answer(signed) is None


async def test_kept_answers_are_unreadable_without_the_callers_key(tmp_path):
    path = tmp_path / "broker.sqlite3"
    async with selling(path) as (_here, caller):
        await caller.send(caller.sign(chat_body("marzipan nougat praline")))
    stored = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"marzipan" not in stored
    assert b"request_hash" in stored


async def test_price_change_does_not_touch_what_is_signed():
    async with selling() as (here, caller):
        import msgspec

        from hanse.protocol.messages import Prices
        from hanse.provider import sign_offer
        from tests.provider.broker_parts import DOMAIN

        signed = caller.sign()
        in_force = here.broker.parts.offers.list_current()[0]
        dearer = msgspec.structs.replace(here.offer, prices=Prices(10**6, 10**6, 10**6), revision=2)
        here.broker.parts.offers.put(sign_offer(dearer, DOMAIN, RECEIPT_KEY), in_force.service)
        reply = await caller.send(signed)
        assert reply.status == 200
        caller.check(signed, reply)


async def test_reads_are_open_and_health_follows_the_state():
    async with selling() as (here, caller):
        models = json.loads((await caller.get("/v1/models")).body)
        assert [model["id"] for model in models["data"]] == ["echo-fake"]
        offers = json.loads((await caller.get("/hanse/v1/offers")).body)["offers"]
        assert offers[0]["model"] == "echo-fake"
        assert (await caller.get("/health")).status == 200
        await caller.buy()
        metrics = (await caller.get("/metrics")).body.decode()
        assert 'hanse_broker_requests_total{finish_reason="length"' in metrics
        here.broker.begin_draining()
        assert (await caller.get("/health")).status == 503
        refused = await caller.send(caller.sign())
        assert (refused.status, refused.error["code"]) == (503, "draining")
        assert int(refused.headers["retry-after"]) > 0
        assert (await caller.get("/hanse/v1/receipts", caller.sign_query())).status == 200


async def test_health_is_503_while_no_engine_is_ready():
    now = [0.0]
    async with selling() as (here, caller):
        here.broker.parts = dataclasses.replace(here.broker.parts, monotonic=lambda: now[0])
        assert (await caller.get("/health")).status == 200
        here.engine.fault = Fault(kind="refuse")
        assert (await caller.get("/health")).status == 200  # asked a moment ago
        now[0] += 2
        refused = await caller.get("/health")
        assert (refused.status, refused.error["code"]) == (503, "engine_unavailable")


async def test_state_and_receipts_are_as_the_protocol_says():
    async with selling() as (_here, caller):
        empty, none = await caller.fetch_receipts()
        assert (none, empty["in_flight"], empty["more"]) == ([], [], False)
        first = await caller.buy()
        data, receipts = await caller.fetch_receipts()
        assert receipts == [first.receipt]
        assert data["state"]["cumulative_fee"] == str(first.receipt.receipt.fee)
        state = json.loads((await caller.get("/hanse/v1/sub-account", caller.sign_query())).body)
        assert state == data["state"]
        assert state["funded"] == str(FUNDS)
        assert set(state) == {
            *("user", "provider", "signer", "sequence", "cumulative_fee", "reserved"),
            *("in_flight", "cumulative_max", "sequence_max", "funded", "claimed", "chain_block"),
        }
        assert (await caller.fetch_receipts(after=1))[1] == []


async def test_caller_that_stops_reading_frees_the_engine_and_owes_what_was_sent():
    limits = ServingLimits(keep_alive_s=0.05, send_stall_s=0.2)
    # frames of 200 bytes: more than the sockets' buffers hold
    settings = {"answer_tokens": 400_000, "output_tokens_max": 400_000}
    async with selling(limits=limits, **settings) as (here, caller):
        host, port = here.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=1_024)
        signed = caller.sign(chat_body(stream=True, max_tokens=400_000))
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
            f"Authorization: {signed.header}\r\nContent-Length: {len(signed.body)}\r\n\r\n"
        )
        writer.write(head.encode() + signed.body)
        await reader.read(100)  # and no more
        await until(lambda: here.engine.active == 1)
        await until(lambda: here.broker.in_flight == 0 and here.engine.active == 0)
        _, receipts = await caller.fetch_receipts()
        receipt = receipts[0].receipt
        assert receipt.finish_reason is FinishReason.CANCELLED
        assert 0 < receipt.usage.output_tokens < 400_000
        writer.close()
