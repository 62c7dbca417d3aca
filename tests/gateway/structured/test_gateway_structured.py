"""A schema, asked through the gateway's HTTP."""

import json
import time
from typing import Any

import pytest
from openai import AsyncOpenAI

from hanse.gateway import GatewayApp, GatewaySettings, open_api_keys
from hanse.gateway.keys import KeyTerms
from hanse.gateway.structured.contents import write_chunks, write_completion
from hanse.protocol.errors import RequestError
from hanse.protocol.messages import Usage
from hanse.store import open_memory
from tests.gateway.asgi_caller import Caller
from tests.gateway.gateway_parts import FEE, MemoryAnswer, MemoryMarket, run_gateway_here
from tests.gateway.structured.scripted_market import BAD, GOOD, SCHEMA, make_body

SHAPE = {"type": "json_schema", "json_schema": {"name": "npc", "schema": SCHEMA}}


class TextMarket(MemoryMarket):
    """Answers each request with the next of its texts."""

    def __init__(self, *texts: str) -> None:
        super().__init__()
        self.texts = list(texts)

    def _answer(self, path: str, request: dict[str, Any]) -> MemoryAnswer:
        text = self.texts.pop(0)
        if request.get("stream"):
            return MemoryAnswer(self, None, list(write_chunks("x", 1, "m", text, None)))
        return MemoryAnswer(self, write_completion("x", 1, "m", text, Usage()))


async def ask(market: TextMarket, headers: dict[str, str] | None = None, **extra: Any) -> Any:
    async with (
        run_gateway_here(market, GatewaySettings(port=0)) as gateway,
        AsyncOpenAI(base_url=gateway.base_url, api_key=gateway.key) as client,
    ):
        raw = await client.chat.completions.with_raw_response.create(
            model="memory-chat",
            messages=[{"role": "user", "content": "?"}],
            response_format=SHAPE,  # type: ignore[arg-type]
            extra_headers=headers,
            **extra,
        )
        answer = raw.parse()
        text = ""
        if extra.get("stream"):
            async for chunk in answer:
                text += chunk.choices[0].delta.content or ""
        else:
            text = answer.choices[0].message.content or ""
        counted = gateway.server.gateway.metrics.to_text().decode()
        return text, raw.headers, counted


@pytest.mark.parametrize("stream", [False, True])
async def test_an_application_gets_what_fits_and_pays_each_attempt(stream: bool) -> None:
    market = TextMarket(BAD, GOOD)
    text, headers, counted = await ask(market, stream=stream)
    assert text == GOOD
    assert headers["hanse-structured"] == "repaired"
    assert headers["hanse-total-fee"] == str(2 * FEE)
    assert f"hanse_gateway_fees_base_units_total {2.0 * FEE}" in counted
    assert not market.open_answers


async def test_the_declared_default_is_marked() -> None:
    headers = {"hanse-default": '{"action":"wait"}', "hanse-structured": "elsewhere"}
    text, told, _ = await ask(TextMarket(BAD, BAD), headers)
    assert text == '{"action":"wait"}'
    assert told["hanse-structured"] == "default"
    assert told["hanse-provider"] == "canned"
    assert "hanse-receipt" not in told


async def test_an_sdk_does_not_pay_again_by_itself_for_what_does_not_fit() -> None:
    market = TextMarket(BAD, BAD, GOOD)
    with pytest.raises(Exception, match="no answer of 2 fits") as caught:
        await ask(market)
    assert caught.value.status_code == 502  # type: ignore[attr-defined]
    assert len(market.bodies) == 2


async def test_a_stream_that_is_not_held_ends_with_an_error() -> None:
    with pytest.raises(Exception, match="does not fit"):
        await ask(TextMarket(BAD), {"hanse-structured": "stream"}, stream=True)
    text, told, _ = await ask(TextMarket(GOOD), {"hanse-structured": "stream"}, stream=True)
    assert (text, told["hanse-structured"]) == (GOOD, "stream")


async def test_a_schema_that_cannot_be_used_is_refused_before_anything_is_bought() -> None:
    market = TextMarket(GOOD)
    with pytest.raises(Exception, match="leads to") as caught:
        await ask(
            market,
            extra_body={
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "x", "schema": {"$ref": "http://localhost/x"}},
                }
            },
        )
    assert caught.value.status_code == 400  # type: ignore[attr-defined]
    assert not market.bodies


@pytest.mark.parametrize("stream", [False, True])
async def test_another_dialects_schema_is_held_to_as_well(stream: bool) -> None:
    market = TextMarket(BAD, GOOD)
    async with (
        run_gateway_here(market, GatewaySettings(port=0)) as gateway,
        AsyncOpenAI(base_url=gateway.base_url, api_key=gateway.key) as client,
    ):
        made = await client.responses.create(
            model="memory-chat",
            input="?",
            text={"format": {"type": "json_schema", "name": "npc", "schema": SCHEMA}},
            stream=stream,
        )
        text = ""
        if stream:
            async for event in made:
                if event.type == "response.output_text.delta":
                    text += event.delta
        else:
            text = made.output_text
    assert text == GOOD
    assert len(market.bodies) == 2


def test_the_setting_is_one_of_two_words() -> None:
    with pytest.raises(RequestError, match="repair or elsewhere"):
        GatewaySettings(structured_then="again")


async def test_a_hosted_gateways_broker_gets_what_was_answered_and_buys_once() -> None:
    """It is paid for what was answered; with a verdict, a schema that nothing fits would be free
    for its user and cost the host each attempt."""
    market = TextMarket(BAD)
    database = await open_memory()
    keys = await open_api_keys(database, time.time)
    _, key = await keys.create("host", KeyTerms(unjudged=True))
    headers = {"authorization": f"Bearer {key}"}
    caller = Caller("POST", "/v1/chat/completions", headers, [make_body(model="memory-chat")])
    answer = await caller.run(GatewayApp(GatewaySettings(), market, keys), within_s=10)
    await database.close()
    assert answer.status == 200
    assert json.loads(answer.body)["choices"][0]["message"]["content"] == BAD
