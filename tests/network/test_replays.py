"""One signed request sent a thousand times at once: served once, paid once, whatever crashes."""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from hanse.chain import Key
from hanse.protocol.eip712 import Domain
from hanse.protocol.messages import FinishReason
from hanse.protocol.wire import offer_from_json
from tests.network.books import read_units
from tests.network.market import Market, until
from tests.provider.broker_parts import CHAT, Caller, Signed, chat_body

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]

REPLAYS = 1_000
NAME = "rostock"
SELLERS = (NAME,)
BUSY = {408, 429, 503}
"""Too many at once to be looked at; 408: what it sent was not read within its time."""


@dataclass
class Reply:
    status: int
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        return json.loads(self.body)["error"]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def signer(market: Market) -> Key:
    """A key with a sub-account of its own, which no gateway signs with."""
    key = market.network.get_key("replayed")
    await market.network.run_command(
        *("account", "open", "--deposit", "1", f"{NAME}=1", "--signer", "replayed")
    )
    market.signers.append("replayed")
    return key


@pytest_asyncio.fixture(loop_scope="session")
async def caller(market: Market, signer: Key) -> AsyncIterator[Caller]:
    """The user's side by hand."""
    network = market.network
    url = network.processes[NAME].url
    async with aiohttp.ClientSession() as session, session.get(url + "/hanse/v1/offers") as found:
        offer = offer_from_json((await found.json())["offers"][0]).offer
    deployment = network.deployment
    async with Caller(
        url,
        offer,
        signer,
        market.get_address("user"),
        domain=Domain(deployment.chain_id, deployment.escrow),
        provider=market.get_address(NAME),
        receipt_key=network.get_key(f"{NAME}-receipt").address,
    ) as opened:
        _, receipts = await opened.fetch_receipts()
        for receipt in receipts[-1:]:
            opened.acknowledge(receipt)
        yield opened


def sign(caller: Caller) -> Signed:
    body = chat_body("the same words again and again", model=caller.offer.model, stream=False)
    return caller.sign(body)


async def replay(caller: Caller, signed: Signed, times: int) -> list[Reply | None]:
    """All at once, each on a connection of its own; None for one that nobody answered.

    A broker takes 64 requests of a sub-account at a time; the others ask until it looks at them.
    """
    connector = aiohttp.TCPConnector(limit=0)
    headers = {"Authorization": signed.header}
    async with aiohttp.ClientSession(connector=connector) as session:

        async def send() -> Reply | None:
            with contextlib.suppress(aiohttp.ClientError, OSError):
                while True:
                    async with session.post(
                        caller.url + CHAT, data=signed.body, headers=headers
                    ) as answer:
                        reply = Reply(answer.status, await answer.read())
                    if reply.status not in BUSY:
                        return reply
                    assert reply.error["code"] in ("rate_limited", "overloaded", "request_timeout")
                    await asyncio.sleep(0.05)
            return None

        return list(await asyncio.gather(*(send() for _ in range(times))))


async def read_metrics(caller: Caller) -> dict[str, float]:
    """The broker's counters, summed over their labels."""
    found: Counter[str] = Counter()
    for line in (await caller.get("/metrics")).body.decode().splitlines():
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            found[name.partition("{")[0]] += float(value)
    return found


async def test_a_thousand_replays_are_served_and_paid_once(market, caller):
    before, metrics_before = caller.book, await read_metrics(caller)
    signed = sign(caller)
    replies = await replay(caller, signed, REPLAYS)

    assert None not in replies
    statuses = Counter(reply.status for reply in replies)
    assert statuses == {200: 1, 409: REPLAYS - 1}
    for reply in replies:
        if reply.status == 409:
            assert reply.error["code"] == "request_replayed"
            assert reply.error["hanse"]["request_id"] == signed.voucher.request.request_id

    data, receipts = await caller.fetch_receipts(before.acknowledged)
    (paid,) = receipts
    assert (data["in_flight"], data["state"]["reserved"]) == ([], "0")
    assert paid.receipt.request_hash == signed.voucher.voucher.request_hash
    assert data["state"]["cumulative_fee"] == str(before.acknowledged_fee + paid.receipt.fee)
    assert paid.receipt.fee > 0

    # the engine made one answer's tokens, in this process's whole life
    metrics = await read_metrics(caller)
    made = {name: metrics[name] - metrics_before[name] for name in metrics}
    assert made["hanse_broker_tokens_total"] == sum(
        (paid.receipt.usage.input_tokens, paid.receipt.usage.output_tokens)
    )
    assert made["hanse_broker_requests_total"] == 1
    await read_units(market)


@pytest.mark.parametrize("moment", ["at_work", "answered"])
async def test_replays_across_a_kill_are_paid_once(market, caller, moment):
    """Killed while the answer is being made, and after it was given; then replayed again."""
    before = caller.book
    signed = sign(caller)
    sending = asyncio.create_task(replay(caller, signed, 100))
    if moment == "answered":
        await sending
    else:

        async def is_admitted() -> bool:
            data, _ = await caller.fetch_receipts(before.acknowledged)
            return data["in_flight"] == [signed.voucher.request.request_id]

        await until(is_admitted, 20, "the request is at work")
    await market.restart_provider(NAME)
    first = await sending
    second = await replay(caller, signed, REPLAYS)

    served = [reply for reply in first + second if reply is not None and reply.status == 200]
    assert None not in second
    assert {reply.status for reply in second} == {409}
    _, (kept,) = await caller.fetch_receipts(before.acknowledged)
    replayed = second[0]
    assert replayed.error["hanse"]["receipt"]["sequence"] == str(kept.receipt.sequence)
    if moment == "answered":
        assert len(served) == 1
        assert kept.receipt.fee > 0
    else:
        assert served == []
        assert (kept.receipt.fee, kept.receipt.finish_reason) == (0, FinishReason.ERROR)
    assert kept.receipt.cumulative_fee == before.acknowledged_fee + kept.receipt.fee
    await read_units(market)


async def test_a_stolen_header_buys_nothing_else(caller):
    """The thief has header and body, and may change either."""
    before = caller.book
    signed = sign(caller)
    other = signed.body.replace(b"again", b"other", 1)
    headers = {"Authorization": signed.header}
    async with aiohttp.ClientSession() as thief:
        for path, body in ((CHAT, other), ("/v1/completions", signed.body)):
            async with thief.post(caller.url + path, data=body, headers=headers) as answer:
                assert answer.status == 401, await answer.read()
    data, receipts = await caller.fetch_receipts(before.acknowledged)
    assert (receipts, data["in_flight"]) == ([], [])
    (reply,) = await replay(caller, signed, 1)
    assert reply is not None
    assert reply.status == 200  # it was never used up
