"""Kill -9 of a real broker process at every step of a request; after a restart the books agree."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import msgspec
import pytest

from hanse.protocol.eip712 import Domain
from hanse.protocol.hashing import EMPTY_RESPONSE_HASH
from hanse.protocol.messages import FinishReason
from hanse.protocol.wire import offer_from_json
from tests.provider.broker_parts import Caller, chat_body, until
from tests.provider.chain_parts import STAKE, run_market

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


@contextlib.asynccontextmanager
async def broker_process(
    *arguments: str, failpoint: str = "", delay_s: float = 0.0
) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    environment = {**os.environ, "HANSE_FAILPOINT": failpoint, "TOKEN_DELAY_S": str(delay_s)}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.provider.crashing_broker", *arguments),
        cwd=ROOT,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        line = await asyncio.wait_for(process.stdout.readline(), 60)
        yield process, json.loads(line)["url"]
    finally:
        if process.returncode is None:
            process.terminate()
            await asyncio.wait_for(process.wait(), 30)


async def fetch_offer(url):
    async with aiohttp.ClientSession() as session, session.get(url + "/hanse/v1/offers") as found:
        return offer_from_json((await found.json())["offers"][0]).offer


async def send_into_crash(caller, signed):
    """What arrived before the process died; None if nothing did."""
    try:
        return await caller.send(signed)
    except aiohttp.ClientError:
        return None


# What the books may say afterwards, of a whole answer and of a stream. Until a byte has left, the
# voucher may be on disk or not (it shares its commit with what follows soon, if the disk is fast):
# the request costs nothing, or was never seen and may be served.
CUTS = [
    ("admitting:2", {"nothing"}, {"nothing"}),  # before the voucher is in the book
    ("admitted:2", {"nothing", "zero"}, {"nothing", "zero"}),  # the engine has not begun
    ("frame:1", None, {"zero"}),  # the first frame is with the network
    ("frame:5", None, {"zero"}),  # mid-stream
    ("finishing:2", {"nothing", "zero"}, {"zero"}),  # complete, the receipt not stored
    ("finished:2", {"whole"}, {"whole"}),  # the receipt is stored, the end not sent
]


CASES = [
    pytest.param(name, expected, stream, id=f"{name}-{'stream' if stream else 'whole'}")
    for name, whole, streamed in CUTS
    for stream, expected in ((False, whole), (True, streamed))
    if expected  # a whole answer has no frames
]


@pytest.mark.parametrize(("failpoint", "expected", "stream"), CASES)
async def test_kill_at_every_step(tmp_path, failpoint, expected, stream):
    database = str(tmp_path / "broker.sqlite3")
    async with (
        broker_process(database, failpoint=failpoint) as (process, url),
        Caller(url, await fetch_offer(url)) as caller,
    ):
        if not failpoint.startswith("frame"):
            await caller.buy(chat_body(stream=False))
        first_fee = caller.book.acknowledged_fee
        signed = caller.sign(chat_body(stream=stream))
        reply = await send_into_crash(caller, signed)
        assert reply is None or reply.receipt is None
        assert await asyncio.wait_for(process.wait(), 10) == -signal.SIGKILL
        book = caller.book

    async with (
        broker_process(database) as (process, url),
        Caller(url, await fetch_offer(url)) as caller,
    ):
        caller.book = book
        data, receipts = await caller.fetch_receipts(book.acknowledged)
        assert data["in_flight"] == []
        assert data["state"]["reserved"] == "0"
        again = await caller.send(signed)
        if not receipts:
            assert "nothing" in expected
            assert again.status == 200  # never admitted, so it can still be served
            return
        assert again.status == 409
        (receipt,) = [item.receipt for item in receipts]
        assert again.error["hanse"]["receipt"]["sequence"] == str(receipt.sequence)
        assert receipt.cumulative_fee == first_fee + receipt.fee
        if "whole" not in expected:
            assert "zero" in expected
            assert (receipt.fee, receipt.finish_reason) == (0, FinishReason.ERROR)
            assert receipt.response_hash == EMPTY_RESPONSE_HASH
            assert await caller.fetch_answer(signed) is None
        else:
            assert receipt.fee > 0
            kept = await caller.fetch_answer(signed)  # what was paid for can be fetched
            reply = reply or await caller.get("/health")
            reply.frames, reply.body = ([kept], b"") if stream else ([], kept)
            reply.receipt = receipts[0]
            caller.check(signed, reply)
        caller.acknowledge(receipts[0])
        await caller.buy()


async def test_kill_under_load_conserves_every_unit(tmp_path):
    database = str(tmp_path / "broker.sqlite3")
    delay_s = 0.002
    async with (
        broker_process(database, failpoint="frame:300", delay_s=delay_s) as (process, url),
        Caller(url, await fetch_offer(url)) as caller,
    ):
        signed = [
            caller.sign(chat_body(stream=True), committed=10**9, sequence_max=1_000)
            for _ in range(60)
        ]
        few = asyncio.Semaphore(10)

        async def send(item):
            async with few:
                return await send_into_crash(caller, item)

        replies = await asyncio.gather(*(send(item) for item in signed))
        assert await asyncio.wait_for(process.wait(), 10) == -signal.SIGKILL
    seen = [reply.receipt for reply in replies if reply is not None and reply.receipt]
    assert 0 < len(seen) < 60

    async with (
        broker_process(database) as (process, url),
        Caller(url, await fetch_offer(url)) as caller,
    ):
        data, receipts = await caller.fetch_receipts()
        assert [item.receipt.sequence for item in receipts] == list(range(1, len(receipts) + 1))
        running = 0
        for item in receipts:
            running += item.receipt.fee
            assert item.receipt.cumulative_fee == running
        assert data["state"]["cumulative_fee"] == str(running)
        assert (data["state"]["reserved"], data["in_flight"]) == ("0", [])
        # whatever a caller has seen stands, to the signature
        assert all(item in receipts for item in seen)


@pytest.mark.parametrize("failpoint", ["settling", "settle_enqueued", "settle_confirmed"])
async def test_kill_during_settlement_pays_once(tmp_path, anvil_cache, failpoint):
    async with run_market(tmp_path / "chain", anvil_cache) as market:
        chain = {
            "url": market.url,
            "owner": market.owner._secret.to_hex(),
            "receipt": market.receipt._secret.to_hex(),
            "deployment": msgspec.json.encode(market.deployment).decode(),
            "stake": str(STAKE),
        }
        chain_file = tmp_path / "chain.json"
        chain_file.write_text(json.dumps(chain))
        folder = str(tmp_path / "broker")
        domain = Domain(market.deployment.chain_id, market.deployment.escrow)
        options = {
            "domain": domain,
            "provider": market.owner.address,
            "receipt_key": market.receipt.address,
        }
        async with broker_process(folder, str(chain_file), failpoint=failpoint) as (process, url):
            user, signer = await market.make_user(10**6)
            offer = await fetch_offer(url)
            async with Caller(url, offer, signer, user.address, **options) as caller:
                await until_funded(caller)
                fees = [(await caller.buy()).receipt.receipt.fee for _ in range(3)]
            before = await market.read_asset(market.owner.address)
            process.send_signal(signal.SIGUSR1)
            assert await asyncio.wait_for(process.wait(), 30) == -signal.SIGKILL

        async with broker_process(folder, str(chain_file)) as (process, url):
            process.send_signal(signal.SIGUSR1)
            await asyncio.wait_for(process.stdout.readline(), 60)
            assert await market.read_asset(market.owner.address) == before + sum(fees)
            sub = await market.read_sub_account(user, signer)
            assert (sub.claimed, sub.balance) == (sum(fees), 10**6 - sum(fees))


async def until_funded(caller):
    """The broker sees the sub-account once its funding is confirmed."""

    async def is_funded():
        reply = await caller.get("/hanse/v1/sub-account", caller.sign_query())
        return json.loads(reply.body)["funded"] != "0"

    await until(is_funded, 20)
