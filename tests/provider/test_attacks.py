"""A caller that wants to be served for nothing, or to spoil the books."""

import asyncio
import json
from typing import Any

import pytest

from hanse.protocol.limits import AMOUNT_MAX, SEQUENCE_MAX
from hanse.settlement import SubAccountFunds
from tests.provider.broker_parts import (
    DOMAIN,
    SIGNER_KEY,
    STRANGER_KEY,
    USER,
    Caller,
    chat_body,
    selling,
    until,
)

EMBEDDINGS = "/v1/embeddings"


async def test_many_texts_must_be_authorised_at_their_length_not_at_one_context() -> None:
    async with selling(context_tokens=600) as (here, caller):
        texts = ["word " * 500] * 16
        body = json.dumps({"model": here.offer.model, "input": texts}).encode()
        one_context = here.offer.prices.input_per_mtok * 600 // 1_000_000
        assert one_context > 0
        reply = await caller.send(caller.sign(body, path=EMBEDDINGS, maximum_fee=one_context))
        assert reply.status == 402, reply.body
        assert reply.error["code"] == "fee_too_low"


@pytest.mark.parametrize("at_once", [32])
async def test_one_request_id_sent_many_times_at_once_is_served_once(at_once: int) -> None:
    async with selling(token_delay_s=0.002) as (here, caller):
        signed = caller.sign(stream=True)
        replies = await asyncio.gather(*(caller.send(signed) for _ in range(at_once)))
        statuses = sorted(reply.status for reply in replies)
        assert statuses == [200] + [409] * (at_once - 1)
        state = await here.book.find_state(USER, SIGNER_KEY.address)
        assert state is not None
        assert (state.book.sequence, state.book.in_flight) == (1, 0)


async def test_an_id_is_spent_on_every_path_and_with_every_voucher() -> None:
    async with selling() as (here, caller):
        first = await caller.buy()
        assert first.receipt is not None
        used = "0x" + "ab" * 32
        assert (await caller.send(caller.sign(request_id=used))).status == 200
        body = {"model": here.offer.model, "prompt": "one two", "max_tokens": 4}
        for again in (
            caller.sign(request_id=used, committed=10**9, sequence_max=50),
            caller.sign(body, path="/v1/completions", request_id=used, committed=10**9),
        ):
            reply = await caller.send(again)
            assert (reply.status, reply.error["code"]) in (
                (409, "request_replayed"),
                (402, "voucher_too_low"),
            )
        state = await here.book.find_state(USER, SIGNER_KEY.address)
        assert state is not None
        assert state.book.sequence == 2


async def test_a_voucher_of_another_chain_user_or_signer_buys_nothing() -> None:
    async with selling() as (here, caller):
        signed = caller.sign()
        other_chain = Caller(here.url, here.offer, domain=type(DOMAIN)(1, DOMAIN.escrow))
        other_user = Caller(here.url, here.offer, user="0x" + "a9" * 20)
        other_signer = Caller(here.url, here.offer, key=STRANGER_KEY)
        expected = {
            401: [other_chain.sign(), caller.sign(key=STRANGER_KEY)],
            402: [other_user.sign(), other_signer.sign()],
        }
        try:
            for status, attempts in expected.items():
                for attempt in attempts:
                    reply = await caller.send(attempt)
                    assert reply.status == status, reply.body
            moved = caller.sign()
            moved.body = moved.body + b" "
            assert (await caller.send(moved)).status == 401
        finally:
            for one in (other_chain, other_user, other_signer):
                await one.session.close()
        assert (await caller.send(signed)).status == 200


async def test_funds_cannot_be_overdrawn_by_requests_at_once() -> None:
    async with selling(token_delay_s=0.01) as (here, caller):
        signed = [caller.sign(stream=True, committed=10**9, sequence_max=60) for _ in range(20)]
        fee = signed[0].voucher.request.maximum_fee
        here.view.set_funds(USER, SIGNER_KEY.address, SubAccountFunds(3 * fee, 0))
        replies = await asyncio.gather(*(caller.send(one) for one in signed))
        assert sorted(reply.status for reply in replies) == [200] * 3 + [402] * 17
        await until(lambda: here.broker.in_flight == 0)
        state = await here.book.find_state(USER, SIGNER_KEY.address)
        assert state is not None
        assert state.book.cumulative_fee <= 3 * fee


async def test_a_pending_refund_is_not_served_on() -> None:
    async with selling() as (here, caller):
        await caller.buy()
        here.view.set_funds(USER, SIGNER_KEY.address, SubAccountFunds(10**9, 0, 0, 10**9, 1))
        reply = await caller.send(caller.sign())
        assert (reply.status, reply.error["code"]) == (402, "insufficient_balance")


async def test_the_highest_numbers_neither_poison_nor_lock_a_sub_account() -> None:
    async with selling() as (here, caller):
        huge = caller.sign(committed=AMOUNT_MAX, sequence_max=SEQUENCE_MAX)
        assert (await caller.send(huge)).status == 200
        state = await here.book.find_state(USER, SIGNER_KEY.address)
        assert state is not None
        caller.book = type(caller.book)(state.book.sequence, state.book.cumulative_fee)
        low_but_enough = caller.sign()
        assert (await caller.send(low_but_enough)).status == 200
        (claim,) = await here.book.read_due_claims()
        assert claim.cumulative_fee <= claim.cumulative_max
        assert claim.sequence <= claim.sequence_max
        for extreme in (
            {"maximum_fee": AMOUNT_MAX, "committed": AMOUNT_MAX, "sequence_max": SEQUENCE_MAX},
            {"sequence_max": 0, "committed": 0},
            {"maximum_fee": 0},
        ):
            assert (await caller.send(caller.sign(**extreme))).status in (402, 422)
        assert (await caller.send(caller.sign(sequence_max=9, committed=10**9))).status == 200


@pytest.mark.parametrize(
    "more",
    [
        {"n": 0},
        {"n": 1.0},
        {"n": True},
        {"n": 17},
        {"n": "2"},
        {"best_of": 4},
        {"max_tokens": -1},
        {"max_tokens": 0},
        {"max_tokens": 2.5},
        {"max_tokens": 10**30},
        {"max_tokens": True},
        {"max_completion_tokens": -5, "max_tokens": 1},
        {"stream": "yes"},
        {"stream": 1},
    ],
    ids=str,
)
async def test_counts_that_do_not_bound_the_fee_are_refused(more: dict[str, Any]) -> None:
    async with selling() as (here, caller):
        body = json.dumps({**chat_body(), **more}).encode()
        signed = caller.sign(body, maximum_fee=10**9, committed=10**9)
        reply = await caller.send(signed)
        assert reply.status in (400, 422), reply.body
        assert await here.book.find_state(USER, SIGNER_KEY.address) is None, "nothing was admitted"


@pytest.mark.parametrize("more", [{}, {"max_tokens": None}, {"max_completion_tokens": None}])
async def test_no_limit_means_the_offers_limit_and_must_be_authorised(more: dict[str, Any]) -> None:
    async with selling() as (_, caller):
        body = chat_body()
        del body["max_tokens"]
        data = json.dumps({**body, **more}).encode()
        reply = await caller.send(caller.sign(data, maximum_fee=1))
        assert (reply.status, reply.error["code"]) == (402, "fee_too_low")


async def test_a_body_that_no_engine_takes_leaves_no_row_behind() -> None:
    """Else anybody with one funded base unit could fill a broker's disk for nothing."""
    async with selling(choices_max=1) as (here, caller):
        for more in ({"temperature": 9}, {"no_such": 1}, {"n": 2}, {"messages": []}):
            body = json.dumps({**chat_body(), **more}).encode()
            reply = await caller.send(caller.sign(body, maximum_fee=10**6, committed=10**9))
            assert reply.status == 400, reply.body
            assert reply.receipt is None
        assert await here.book.find_state(USER, SIGNER_KEY.address) is None
