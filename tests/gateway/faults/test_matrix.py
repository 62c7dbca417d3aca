"""Each fault of the matrix, with a real gateway, real brokers and real HTTP."""

import json
import re
from collections import defaultdict

import aiohttp
import pytest

from hanse.gateway import GatewaySettings
from hanse.sdk import Verification
from hanse.sdk.transport import TransportLimits
from tests.gateway.faults.matrix import ROWS, TOKENS, Row
from tests.gateway.gateway_parts import until
from tests.gateway.market_parts import (
    CHAT_MODEL,
    CHEAP,
    DEAR,
    Market,
    open_market,
    wait_counted,
)

PROMPT = "word " * 20
TOKEN_DELAY_S = 0.01
"""So that a fault amid a stream finds the frames before it sent."""

ON_THEIR_WAY_MAX = 3

LIMITS = TransportLimits(connect_s=1.0, silence_s=0.5, whole_s=0.5)


@pytest.mark.parametrize("row", ROWS, ids=[row.fault for row in ROWS])
async def test_what_the_application_sees_and_pays(row: Row, tmp_path):
    settings = GatewaySettings(port=0, drain_s=1.0, **row.settings)
    async with open_market(
        tmp_path,
        front=row.front,
        limits=LIMITS,
        settings=settings,
        breaks_promises=row.breaks_promises,
        token_delay_s=TOKEN_DELAY_S,
    ) as market:
        if row.engine is not None:
            market.cheap.engine.fault = row.engine
            if row.both:
                market.dear.engine.fault = row.engine
        if row.stopped:
            await market.cheap.server.stop()
        saw = await ask(market, row)
        assert saw == row.saw
        assert await tell_payment(market, row.paid) == row.paid
        found = {stored.verification for stored in await market.hanse.get_receipts()}
        assert (Verification.UNCOMMITTED in found) is row.breaks_promises


async def ask(market: Market, row: Row) -> str:
    body = {
        "model": CHAT_MODEL,
        "messages": [{"role": "user", "content": PROMPT}],
        "max_tokens": TOKENS,
        "stream": row.stream,
    }
    if row.choices > 1:
        body["n"] = row.choices
    if row.stream:
        body["stream_options"] = {"include_usage": True}
    headers = {"authorization": f"Bearer {market.gateway.key}"}
    if row.deadline_ms:
        headers["hanse-deadline-ms"] = str(row.deadline_ms)
    url = f"{market.gateway.base_url}/chat/completions"
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, json=body, headers=headers) as answer,
    ):
        text = (await answer.read()).decode()
        if answer.status != 200:
            return f"status {answer.status} `{json.loads(text)['error']['code']}`"
        if row.stream:
            told = tell_stream(text, row.choices)
            if "hanse-fallback" in answer.headers:
                name, code = answer.headers["hanse-provider"], answer.headers["hanse-fallback"]
                return f"{told}, `{name}` after `{code}`"
            return told
        words = json.loads(text)["choices"][0]["message"]["content"].split()
        assert len(words) == TOKENS
        return "one whole answer"


def tell_stream(text: str, choices: int) -> str:
    """What an application makes of a stream; what must hold of any is asserted."""
    frames = [frame for frame in text.split("\n\n") if frame]
    data = [frame[6:] for frame in frames if frame.startswith("data: ")]
    chunks = [json.loads(frame) for frame in data if frame != "[DONE]"]
    errors = [chunk["error"]["code"] for chunk in chunks if "error" in chunk]
    chunks = [chunk for chunk in chunks if "error" not in chunk]
    assert len({chunk["id"] for chunk in chunks}) == 1, "one stream has one id"
    words: list[str] = []
    counts = set()
    said = [choice for chunk in chunks for choice in chunk["choices"]]
    for index in range(choices):
        deltas = [choice["delta"] for choice in said if choice["index"] == index]
        assert sum("role" in delta for delta in deltas) <= 1
        of_choice = [delta["content"] for delta in deltas if delta.get("content")]
        words += of_choice
        counts.add(len(of_choice))
        if not errors:
            assert sum(c["finish_reason"] is not None for c in said if c["index"] == index) == 1
    if errors:
        assert data[-1] != "[DONE]"
        return f"{len(words)} tokens, then `{errors[-1]}`"
    assert data[-1] == "[DONE]"
    [usage] = [chunk["usage"] for chunk in chunks if chunk.get("usage")]
    assert usage["completion_tokens"] == len(words) or usage["total_tokens"] == 0
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert len(counts) == 1
    count = f"{choices} x {len(words) // choices}" if choices > 1 else str(len(words))
    told = f"one whole stream of {count} tokens"
    continued = re.search(r'^: hanse-continued .*"tokens":(\d+)', text, re.MULTILINE)
    return f"{told}, continued after {continued[1]}" if continued else told


async def tell_payment(market: Market, expected: str) -> str:
    """Output tokens by provider, as its receipts say; no voucher's end is unknown for good."""
    await until(lambda: not market.gateway.in_flight)
    await wait_counted(market.hanse)
    market.clock.ahead_s = 300.0  # past each voucher's deadline
    await market.hanse.resume()
    tokens: dict[str, int] = defaultdict(int)
    fees: dict[str, int] = defaultdict(int)
    for stored in await market.hanse.get_receipts():
        receipt = stored.signed.receipt
        assert (receipt.fee == 0) == (receipt.usage.output_tokens == 0)
        tokens[receipt.provider] += receipt.usage.output_tokens
        fees[receipt.provider] += receipt.fee
    for row in await market.vouchers.list_sub_accounts():
        assert row.book.in_flight == 0
        assert row.book.acknowledged_fee == fees[row.key.provider]
    counted = re.search(
        r"^hanse_gateway_fees_base_units_total (\S+)$",
        market.gateway.server.gateway.metrics.to_text().decode(),
        re.MULTILINE,
    )
    assert counted
    assert float(counted[1]) <= sum(fees.values())  # less: receipts that were fetched behind
    told = [
        f"{name} {_round_down(tokens[provider], name, expected)}"
        for provider, name in ((CHEAP, "at fault"), (DEAR, "other"))
        if provider in tokens
    ]
    return "; ".join(told) if sum(tokens.values()) else "nothing"


def _round_down(tokens: int, name: str, expected: str) -> str:
    least = re.search(rf"{name} (\d+)\+", expected)
    if least and int(least[1]) <= tokens <= int(least[1]) + ON_THEIR_WAY_MAX:
        return f"{least[1]}+"
    return str(tokens)
