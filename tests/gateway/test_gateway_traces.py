"""OpenAI's SDK -> gateway -> SDK -> broker -> echo engine, with traces on at both sides."""

import asyncio
import contextlib
import time

import openai
import pytest

from hanse.chain import Key
from hanse.engines.echo_engine import Fault
from hanse.protocol.errors import TransientError, VerificationError
from hanse.sdk.purchase.ask import read_ask
from hanse.settlement.traces.bundle import open_trace
from hanse.settlement.traces.capture import TraceLimits, TraceSettings
from hanse.settlement.traces.checking import check_trace
from hanse.settlement.traces.document import Side
from hanse.settlement.traces.notes import TraceState
from hanse.settlement.traces.object_store import ObjectStore, open_object_store
from hanse.settlement.traces.writer import TraceWriter, open_trace_notes
from hanse.store import open_sqlite
from tests.gateway.market_parts import CHAT_MODEL, DOMAIN, open_market
from tests.settlement.trace_parts import (
    PROVIDER_PRIVATE,
    PROVIDER_PUBLIC,
    STRANGER_PRIVATE,
    USER_PRIVATE,
    USER_PUBLIC,
    read_all,
)

MESSAGES = [{"role": "user", "content": "one secret two secret three secret"}]
RECEIPT_KEY = Key(b"\x02" * 32).address


@contextlib.asynccontextmanager
async def open_traced(path, store: ObjectStore):
    """A market whose cheap provider and user keep traces in one store, apart from each other."""
    async with contextlib.AsyncExitStack() as stack:
        writers = []
        for side, key in ((Side.PROVIDER, PROVIDER_PUBLIC), (Side.USER, USER_PUBLIC)):
            database = await open_sqlite(path / f"{side}-traces.sqlite3")
            stack.push_async_callback(database.close)
            settings = TraceSettings("", key, limits=TraceLimits(pauses_s=(), drain_s=0.0))
            notes = await open_trace_notes(database)
            writer = TraceWriter(settings, notes, store, side, time.time)
            writers.append(await stack.enter_async_context(writer))
        market = await stack.enter_async_context(
            open_market(
                path,
                encryption_key=PROVIDER_PUBLIC,
                provider_traces=writers[0],
                user_traces=writers[1],
            )
        )
        client = await stack.enter_async_context(
            openai.AsyncOpenAI(
                base_url=market.gateway.base_url, api_key=market.gateway.key, max_retries=0
            )
        )
        yield market, client, *writers


async def ask(client: openai.AsyncOpenAI, *, stream: bool) -> str:
    asked = {"model": CHAT_MODEL, "messages": MESSAGES, "max_tokens": 50}
    if not stream:
        answer = await client.chat.completions.create(**asked)
        return answer.choices[0].message.content
    parts = await client.chat.completions.create(stream=True, **asked)
    return "".join([part.choices[0].delta.content or "" async for part in parts if part.choices])


@pytest.mark.parametrize("stream", [False, True])
async def test_both_sides_keep_a_trace_that_both_can_check(tmp_path, stream):
    store = open_object_store(str(tmp_path / "objects"))
    async with open_traced(tmp_path, store) as (market, client, provider, user):
        text = await ask(client, stream=stream)
        traces, notes = {}, {}
        (stored,) = await market.vouchers.list_receipts(before=2**40, limit=2, offset=0)
        for writer in (provider, user):
            assert await writer.wait_written(10)
            (note,) = await writer.notes.list_newest(5)
            assert note.state is TraceState.STORED
            assert note.request_id == stored.request_id
            receipt = stored.signed.receipt
            assert await writer.find_trace_hash(receipt) == note.trace_hash
            content = await store.fetch(note.trace_hash)
            keys = await writer.notes.list_keys(note.trace_hash)
            opened = [
                open_trace(content, note.trace_hash, keys, private)
                for private in (USER_PRIVATE, PROVIDER_PRIVATE)
            ]
            assert opened[0] == opened[1]
            with pytest.raises(VerificationError):
                open_trace(content, note.trace_hash, keys, STRANGER_PRIVATE)
            check_trace(opened[0], DOMAIN, RECEIPT_KEY, stored.signed)
            traces[writer.side], notes[writer.side] = opened[0], note
        assert traces[Side.USER].body == traces[Side.PROVIDER].body
        assert traces[Side.USER].response == traces[Side.PROVIDER].response
        assert b"one secret" in traces[Side.USER].body
        assert text.split()[0].encode() in traces[Side.USER].response
        assert notes[Side.USER].trace_hash != notes[Side.PROVIDER].trace_hash
        assert b"secret" not in read_all(tmp_path)


async def test_a_stream_that_the_caller_leaves_is_the_providers_trace_over_its_prefix(tmp_path):
    store = open_object_store(str(tmp_path / "objects"))
    async with open_traced(tmp_path, store) as (market, client, provider, user):
        parts = await client.chat.completions.create(
            model=CHAT_MODEL, messages=MESSAGES, max_tokens=1_000, stream=True
        )
        async for _ in parts:
            break
        await parts.close()
        async with asyncio.timeout(10):
            while not (found := await provider.notes.list_newest(5)):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert await provider.wait_written(10)
        keys = await provider.notes.list_keys(found[0].trace_hash)
        content = await store.fetch(found[0].trace_hash)
        trace = open_trace(content, found[0].trace_hash, keys, PROVIDER_PRIVATE)
        check_trace(trace, DOMAIN, RECEIPT_KEY)
        await market.hanse.wait_idle()
        assert user.held_bytes == 0


async def test_an_answer_that_failed_is_traced_with_the_error_that_its_receipt_is_over(tmp_path):
    store = open_object_store(str(tmp_path / "objects"))
    async with open_traced(tmp_path, store) as (market, client, provider, _):
        market.cheap.engine.fault = Fault(kind="refuse")
        await ask(client, stream=False)  # the dear one answers
        async with asyncio.timeout(10):
            while not (found := await provider.notes.list_newest(5)):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert await provider.wait_written(10)
        keys = await provider.notes.list_keys(found[0].trace_hash)
        content = await store.fetch(found[0].trace_hash)
        trace = open_trace(content, found[0].trace_hash, keys, PROVIDER_PRIVATE)
        check_trace(trace, DOMAIN, RECEIPT_KEY)
        assert (trace.receipt.receipt.fee, b'"error"' in trace.response) == (0, True)


class Hanging:
    """A store that takes nothing and never answers."""

    location = "hanging"

    async def put(self, content: bytes) -> str:
        await asyncio.Event().wait()
        raise AssertionError

    async def delete(self, name: str) -> None:
        raise TransientError("store_unavailable", "hanging")


async def test_a_store_that_hangs_delays_no_answer_and_fails_none(tmp_path):
    async with open_traced(tmp_path, Hanging()) as (_, client, provider, user):  # type: ignore[arg-type]
        async with asyncio.timeout(20):
            answers = await asyncio.gather(*(ask(client, stream=n % 2 == 0) for n in range(12)))
        assert all(answers)
        assert provider.stored == user.stored == 0


async def test_without_traces_the_user_sends_no_key(tmp_path):
    async with open_market(tmp_path) as market:
        ask = read_ask("/v1/chat/completions", b'{"model":"m"}')
        headers = market.hanse._buyer._get_headers("x", ask, None)
        assert headers.keys() == {"authorization", "content-type"}
