"""The SDK against the real broker over HTTP, with the echo engine and a chain that is told."""

import asyncio
import contextlib
import dataclasses
import json
import multiprocessing
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hanse.chain import Key
from hanse.engines.echo_engine import EchoEngine, Fault, Settings
from hanse.market import PublishedService
from hanse.protocol.eip712 import Domain
from hanse.protocol.errors import TransientError
from hanse.protocol.messages import Prices
from hanse.provider import (
    Broker,
    OfferBook,
    Service,
    StaticChainView,
)
from hanse.sdk import CompletionStream, FixedChain, Hanse, HanseParts, Verification
from hanse.sdk.transport.http import HttpTransport
from hanse.serving import HttpServer
from hanse.settlement import ReceiptBook, SubAccountFunds, open_receipt_book
from hanse.settlement.books.voucher_book import VoucherBook, open_voucher_book
from hanse.store.sqlite import open_sqlite
from tests.provider.offer_parts import put_on_offer

DOMAIN = Domain(31_337, "0x" + "e5" * 20)
PROVIDER = "0x" + "b2" * 20
RECEIPT_KEY = Key(b"\x02" * 32)
USER = Key(b"\x01" * 32)
FUNDS = SubAccountFunds(10**12, 0)
MESSAGES = [{"role": "user", "content": "one two three four five six seven eight"}]
MODEL = "echo-fake"


@dataclass
class Pair:
    """A broker on a loopback port and a client, each with its own database."""

    hanse: Hanse
    vouchers: VoucherBook
    receipts: ReceiptBook
    engine: EchoEngine

    async def assert_books_agree(self) -> int:
        """Both sides say the same; returns the cumulative fee."""
        await self.hanse.wait_idle()
        (mine,) = await self.vouchers.list_sub_accounts()
        theirs = await self.receipts.find_state(USER.address, USER.address)
        assert theirs is not None
        assert (mine.book.acknowledged, mine.book.acknowledged_fee, mine.book.in_flight) == (
            theirs.book.sequence,
            theirs.book.cumulative_fee,
            theirs.book.in_flight,
        )
        assert mine.book.in_flight_fee == theirs.book.reserved == 0
        return mine.book.acknowledged_fee


class Clock:
    """The real time and what a test adds to it, for both sides alike."""

    ahead_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_s


@dataclass
class Selling:
    """The broker's side of a pair."""

    receipts: ReceiptBook
    engine: EchoEngine
    published: PublishedService


@contextlib.asynccontextmanager
async def run_broker(folder: Path, clock: Clock, **engine_settings: Any) -> AsyncIterator[Selling]:
    async with contextlib.AsyncExitStack() as stack:
        theirs = await open_sqlite(folder / "broker.db")
        stack.push_async_callback(theirs.close)
        receipts = await open_receipt_book(theirs, PROVIDER, DOMAIN, RECEIPT_KEY)
        await receipts.recover(int(time.time()))
        view = StaticChainView()
        view.set_funds(USER.address, USER.address, FUNDS)
        engine = EchoEngine(Settings(**engine_settings))
        await engine.start()
        stack.push_async_callback(engine.close)
        server = HttpServer.bind("127.0.0.1", 0)
        service = Service(1, engine, Prices(100_000, 50_000, 300_000))
        offers = OfferBook(time.time)
        published = await put_on_offer(
            offers,
            service,
            provider=PROVIDER,
            url=server.url,
            domain=DOMAIN,
            receipt_key=RECEIPT_KEY,
        )
        broker = Broker(
            provider=PROVIDER,
            domain=DOMAIN,
            book=receipts,
            chain_view=view,
            offers=offers,
            now_s=clock,
        )
        await server.start(broker)
        stack.push_async_callback(server.stop)
        broker.admitting = True
        yield Selling(receipts, engine, published)


@contextlib.asynccontextmanager
async def run_client(
    database: Path, published: PublishedService, clock: Clock
) -> AsyncIterator[tuple[Hanse, VoucherBook]]:
    async with contextlib.AsyncExitStack() as stack:
        mine = await open_sqlite(database)
        stack.push_async_callback(mine.close)
        vouchers = await open_voucher_book(mine, DOMAIN)
        transport = HttpTransport(reaches_private=True)
        stack.push_async_callback(transport.close)
        parts = HanseParts(
            domain=DOMAIN,
            user=USER.address,
            signer=USER,
            book=vouchers,
            chain=FixedChain([published], {PROVIDER: FUNDS}),
            transport=transport,
            clock=clock,
        )
        yield await stack.enter_async_context(Hanse.join(parts)), vouchers


@contextlib.asynccontextmanager
async def run_pair(folder: Path, **engine_settings: Any) -> AsyncIterator[Pair]:
    clock = Clock()
    async with run_broker(folder, clock, **engine_settings) as selling:
        client = run_client(folder / "user.db", selling.published, clock)
        async with client as (hanse, vouchers):
            yield Pair(hanse, vouchers, selling.receipts, selling.engine)


async def test_whole_and_streamed_answers_are_paid_and_verified(tmp_path: Path) -> None:
    async with run_pair(tmp_path) as pair:
        whole = await pair.hanse.chat(MODEL, MESSAGES, max_tokens=8)
        assert not isinstance(whole, CompletionStream)
        assert whole.text
        assert whole.receipt.verification is Verification.VERIFIED
        stream = await pair.hanse.chat(
            MODEL, MESSAGES, max_tokens=8, stream=True, stream_options={"include_usage": True}
        )
        assert isinstance(stream, CompletionStream)
        assert "".join([text async for text in stream.texts()])
        assert stream.receipt is not None
        assert stream.receipt.verification is Verification.VERIFIED
        plain = await pair.hanse.completions(MODEL, "one two three", max_tokens=4)
        assert not isinstance(plain, CompletionStream)
        fees = whole.receipt.fee + stream.receipt.fee + plain.receipt.fee
        assert await pair.assert_books_agree() == fees > 0


async def test_a_hundred_at_once(tmp_path: Path) -> None:
    async with run_pair(tmp_path) as pair:
        body = json.dumps({"model": MODEL, "messages": MESSAGES, "stream": True}).encode()

        async def buy() -> None:
            answer = await pair.hanse.request("/v1/chat/completions", body)
            async for _ in answer.frames():
                pass
            assert answer.receipt is not None

        for _ in range(2):
            await asyncio.gather(*(buy() for _ in range(50)))
        assert await pair.assert_books_agree() > 0


async def test_leaving_a_stream_pays_the_delivered_prefix(tmp_path: Path) -> None:
    async with run_pair(tmp_path, token_delay_s=0.02, answer_tokens=500) as pair:
        stream = await pair.hanse.chat(MODEL, MESSAGES, stream=True, max_tokens=500)
        assert isinstance(stream, CompletionStream)
        count = 0
        async with stream:
            async for _ in stream.texts():
                count += 1
                if count == 5:
                    break
        await pair.hanse.wait_idle()
        (receipt,) = await pair.hanse.get_receipts()
        assert receipt.signed.receipt.finish_reason.name == "CANCELLED"
        assert 5 <= receipt.signed.receipt.usage.output_tokens < 50
        assert receipt.verification is Verification.VERIFIED
        assert await pair.assert_books_agree() == receipt.signed.receipt.fee > 0


async def test_an_engine_that_refuses_costs_nothing(tmp_path: Path) -> None:
    async with run_pair(tmp_path) as pair:
        pair.engine.fault = Fault(kind="refuse")
        with pytest.raises(TransientError):
            await pair.hanse.chat(MODEL, MESSAGES)
        assert await pair.assert_books_agree() == 0


async def test_an_engine_that_breaks_in_mid_stream_costs_the_prefix(tmp_path: Path) -> None:
    async with run_pair(tmp_path) as pair:
        pair.engine.fault = Fault(kind="break", after_tokens=3)
        stream = await pair.hanse.chat(MODEL, MESSAGES, stream=True)
        assert isinstance(stream, CompletionStream)
        with pytest.raises(TransientError):
            async for _ in stream:
                pass
        assert stream.receipt is not None
        assert stream.receipt.signed.receipt.finish_reason.name == "ERROR"
        assert stream.receipt.usage.output_tokens == 3
        assert await pair.assert_books_agree() == stream.receipt.fee


async def test_a_client_that_died_finds_its_answer(tmp_path: Path) -> None:
    body = json.dumps({"model": MODEL, "messages": MESSAGES}).encode()
    async with run_pair(tmp_path) as pair:
        answer = await pair.hanse.request("/v1/chat/completions", body)
        request_id = answer.request_id  # and nothing more of it is read
        await pair.hanse.resume()
        (receipt,) = await pair.hanse.get_receipts()
        assert receipt.request_id == request_id
        await answer.close()
        await pair.hanse.wait_idle()
        fetched = await pair.hanse.fetch_answer(request_id)
        assert fetched.is_verified
        assert json.loads(fetched.body)["choices"]
        assert await pair.assert_books_agree() > 0


async def buy_until_killed(database: Path, published: PublishedService) -> None:
    """What a process does that will be killed: streams and whole answers, four at once."""
    async with run_client(database, published, Clock()) as (hanse, _):

        async def buy(is_stream: bool) -> None:
            while True:
                fields = {"model": MODEL, "messages": MESSAGES, "stream": is_stream}
                answer = await hanse.request("/v1/chat/completions", fields)
                if is_stream:
                    async for _ in answer.frames():
                        pass
                else:
                    await answer.read()

        await asyncio.gather(*(buy(number % 2 == 0) for number in range(4)))


def run_killed(database: str, fields: dict[str, Any]) -> None:
    asyncio.run(buy_until_killed(Path(database), PublishedService(**fields)))


@pytest.mark.slow
async def test_a_client_killed_again_and_again_loses_nothing(tmp_path: Path) -> None:
    clock = Clock()
    context = multiprocessing.get_context("spawn")
    async with run_broker(tmp_path, clock, token_delay_s=0.001) as selling:
        for round_ in range(1, 4):
            child = context.Process(
                target=run_killed,
                args=(str(tmp_path / "user.db"), dataclasses.asdict(selling.published)),
                daemon=True,
            )
            child.start()
            await until_sequence(selling.receipts, round_ * 37)
            child.kill()
            await asyncio.to_thread(child.join)
        await until_quiet(selling.receipts)
        clock.ahead_s = 400  # past the deadlines of vouchers that were signed and never sent
        client = run_client(tmp_path / "user.db", selling.published, clock)
        async with client as (hanse, vouchers):
            pair = Pair(hanse, vouchers, selling.receipts, selling.engine)
            await hanse.resume()
            fees = await pair.assert_books_agree()
            receipts = await hanse.get_receipts(limit=100_000)
            assert sum(r.signed.receipt.fee for r in receipts) == fees > 0
            assert {r.verification for r in receipts} == {Verification.VERIFIED}


async def until_sequence(receipts: ReceiptBook, sequence: int) -> None:
    ends = time.monotonic() + 30
    while True:
        state = await receipts.find_state(USER.address, USER.address)
        if state is not None and state.book.sequence >= sequence:
            return
        assert time.monotonic() < ends, f"sequence {sequence} was not reached"
        await asyncio.sleep(0.003)


async def until_quiet(receipts: ReceiptBook) -> None:
    ends = time.monotonic() + 30
    while True:
        state = await receipts.find_state(USER.address, USER.address)
        if state is not None and state.book.in_flight == 0:
            return
        assert time.monotonic() < ends, "the broker is still at work"
        await asyncio.sleep(0.02)
