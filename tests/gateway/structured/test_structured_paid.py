"""Attempts at a schema are paid exactly: two providers' books, the gateway's, and what it says.

The engine is a fake whose words are no JSON, so no attempt ever fits.
"""

import json
from typing import Any

import aiohttp
import msgspec
import pytest

from hanse.engines.base import Capabilities
from hanse.engines.echo_engine import EchoEngine
from tests.gateway.gateway_parts import until
from tests.gateway.market_parts import CHAT_MODEL, CHEAP, DEAR, SIGNER_KEY, USER, open_market
from tests.gateway.structured.scripted_market import make_body


class WordyEngine(EchoEngine):
    """Takes a schema, and answers in words all the same."""

    @property
    def capabilities(self) -> Capabilities:
        return msgspec.structs.replace(super().capabilities, json_schema=True)


@pytest.mark.parametrize("word", ["repair", "elsewhere"])
@pytest.mark.parametrize("stream", [False, True])
async def test_each_attempt_is_paid_by_its_receipt(tmp_path: Any, word: str, stream: bool) -> None:
    headers = {"hanse-structured": word, "hanse-default": '{"action":"wait"}'}
    body = make_body(model=CHAT_MODEL, max_tokens=64, stream=stream)
    async with (
        open_market(tmp_path, make_engine=WordyEngine) as market,
        aiohttp.ClientSession() as http,
    ):
        headers["authorization"] = f"Bearer {market.gateway.key}"
        url = market.gateway.base_url + "/chat/completions"
        async with http.post(url, data=body, headers=headers) as answer:
            said = await answer.text()
            assert answer.status == 200, said
        await until(lambda: not market.gateway.in_flight)
        await market.hanse.wait_idle()
        seen = market.gateway.server.gateway.observer.tally.to_document()
        paid = {}
        for seller in (market.cheap, market.dear):
            state = await seller.book.find_state(USER, SIGNER_KEY.address)
            if state is not None:
                assert state.book.in_flight == 0
                paid[seller.provider] = state.book
    assert answer.headers["hanse-structured"] == "default"
    assert answer.headers["hanse-attempts"] == "2"
    sequences = {provider: book.sequence for provider, book in paid.items()}
    assert sequences == ({CHEAP: 2} if word == "repair" else {CHEAP: 1, DEAR: 1})
    total = sum(book.cumulative_fee for book in paid.values())
    assert total > 0
    assert answer.headers["hanse-total-fee"] == str(total)
    assert seen["fee"] == str(total)
    first = said.partition("\n\n")[0].removeprefix("data: ")
    part = "delta" if stream else "message"
    assert json.loads(first)["choices"][0][part]["content"] == '{"action":"wait"}'
