"""When a voucher and its receipt are durable: one commit for what is all there, two else."""

import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hanse.engines import Chunk
from hanse.protocol.errors import TransientError
from tests.provider.broker_parts import SIGNER_KEY, USER, BrokerHere, Caller, run_broker_here

ALWAYS = 1_000.0
"""Commit time up to which commits run on the loop."""


@contextlib.asynccontextmanager
async def selling_on_file(
    path: Path, **settings: object
) -> AsyncIterator[tuple[BrokerHere, Caller, list[str]]]:
    async with (
        run_broker_here(path, **settings) as here,
        Caller(here.url, here.offer) as caller,
    ):
        database = here.book._database
        database._loop_commit_s_max = ALWAYS
        ends: list[str] = []
        await caller.buy()
        database._loop_connection.set_trace_callback(
            lambda statement: ends.append(statement) if statement == "COMMIT" else None
        )
        yield here, caller, ends


def count_admitted(path: Path) -> int:
    """What another process finds in the file."""
    other = sqlite3.connect(path)
    try:
        return other.execute("SELECT COUNT(*) FROM receipt_requests").fetchone()[0]
    finally:
        other.close()


async def test_a_whole_answer_takes_one_commit(tmp_path):
    path = tmp_path / "broker.sqlite3"
    async with selling_on_file(path) as (_here, caller, ends):
        await caller.buy()
        assert ends == ["COMMIT"]
        assert count_admitted(path) == 2


async def test_a_stream_that_is_all_there_takes_one_commit_and_loses_nothing(tmp_path):
    path = tmp_path / "broker.sqlite3"
    async with selling_on_file(path) as (here, caller, ends):
        honest = here.engine.stream

        async def at_once(request):
            chunks = [chunk async for chunk in honest(request)]
            *parts, last = chunks
            yield Chunk(b"".join(part.data for part in parts), parts[-1].usage, ends_next=True)
            yield last

        here.engine.stream = at_once
        before = await caller.buy(stream=True)
        assert (len(before.frames), before.ended) == (10, True)  # 8 words, the end, [DONE]
        assert before.receipt.receipt.usage.output_tokens == 8
        assert ends == ["COMMIT"]


async def test_a_voucher_is_durable_before_the_first_frame_leaves(tmp_path):
    path = tmp_path / "broker.sqlite3"
    seen = []

    def look(name):
        if name == "frame":
            seen.append(count_admitted(path))

    async with selling_on_file(path, failpoint=look) as (_here, caller, ends):
        await caller.buy(stream=True)
        assert seen == [2] * 8
        assert len(ends) == 2


async def test_an_admission_that_is_lost_is_refused_and_forgotten(tmp_path):
    path = tmp_path / "broker.sqlite3"
    async with selling_on_file(path) as (here, caller, _ends):
        connection = here.book._database._loop_connection
        honest = here.engine.answer

        async def answer(request):
            connection.execute("ROLLBACK")  # as SQLite does when the disk is full
            return await honest(request)

        here.engine.answer = answer
        reply = await caller.send(caller.sign())
        assert (reply.status, reply.error["code"]) == (503, "store_unavailable")
        here.engine.answer = honest
        await here.broker.maintain()
        state = await here.book.find_state(USER, SIGNER_KEY.address)
        assert (state.book.in_flight, state.book.sequence) == (0, 1)
        await caller.buy()


async def test_a_lost_admission_is_refused_before_the_first_frame(tmp_path):
    path = tmp_path / "broker.sqlite3"
    async with selling_on_file(path, first_token_delay_s=0.001) as (here, caller, _ends):
        begin = here.book.begin_admission

        class Lost:
            is_durable, is_lost = False, True

            def __init__(self, result):
                self.result = result

            async def commit(self):
                raise TransientError("store_unavailable", "the disk is full")

        async def lose(*args, **kwargs):
            begun = await begin(*args, **kwargs)
            await begun.commit()
            return Lost(begun.result)

        here.book.begin_admission = lose
        reply = await caller.send(caller.sign(stream=True))
        assert (reply.status, reply.error["code"]) == (503, "store_unavailable")
        del here.book.begin_admission
        await here.broker.maintain()  # it was stored all the same: ended with fee 0
        state = await here.book.find_state(USER, SIGNER_KEY.address)
        assert (state.book.in_flight, state.book.sequence) == (0, 2)
        _, receipts = await caller.fetch_receipts(1)
        assert receipts[0].receipt.fee == 0
        with pytest.raises(AssertionError):
            await caller.buy()  # its caller has to take that receipt first
