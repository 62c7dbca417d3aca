"""Buy, judge, once more, then the default: what is delivered, and what was paid."""

import json
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from hanse.gateway.bodies import names_format
from hanse.gateway.operations import CHAT, decode_body
from hanse.gateway.structured.checked import CheckedStream
from hanse.gateway.structured.contents import write_chunks, write_completion
from hanse.gateway.structured.demand import find_demand
from hanse.gateway.structured.validated import (
    HELD_BYTES_MAX,
    REPAIRED_CHARS_MAX,
    HeldAnswer,
    buy_validated,
)
from hanse.protocol.errors import RequestError, TransientError, VerificationError
from hanse.protocol.hashing import DONE_FRAME
from hanse.protocol.messages import Usage
from tests.gateway.structured.scripted_market import (
    BAD,
    FEE,
    GOOD,
    SCHEMA,
    ScriptedMarket,
    make_body,
)

DEFAULT = b'{"action":"wait"}'


async def buy_for(
    market: ScriptedMarket,
    *,
    wishes: Mapping[bytes, bytes] | None = None,
    afterwards: str = "repair",
    **extra: Any,
) -> tuple[Any, dict[str, str]]:
    body = make_body(**extra)
    demand = find_demand(body, wishes or {}, afterwards)
    assert demand is not None
    answer, headers = await buy_validated(demand, body, market.buy, market.note, "id-1", 7)
    return answer, {name.decode(): value.decode() for name, value in headers}


async def test_a_first_answer_that_fits_is_delivered_as_it_came() -> None:
    market = ScriptedMarket(GOOD)
    answer, headers = await buy_for(market)
    assert await answer.read() == write_completion("x", 1, "m", GOOD, Usage())
    assert answer.provider == "0xp1"
    assert answer.receipt.fee == FEE
    assert headers == {
        "hanse-structured": "valid",
        "hanse-attempts": "1",
        "hanse-total-fee": str(FEE),
    }
    assert market.spent == []
    assert market.answers[0].closed


async def test_a_wrong_answer_is_repaired_by_whoever_gave_it() -> None:
    market = ScriptedMarket(BAD, GOOD)
    answer, headers = await buy_for(market)
    added = market.bodies[1]["messages"][1:]
    assert [message["role"] for message in added] == ["assistant", "user"]
    assert added[0]["content"] == BAD
    assert "/action" in added[1]["content"]
    assert market.bodies[1]["response_format"] == market.bodies[0]["response_format"]
    assert market.avoided == ["", ""]
    assert market.preferred == ["", "0xp1"]
    assert GOOD in json.loads(await answer.read())["choices"][0]["message"]["content"]
    assert headers["hanse-structured"] == "repaired"
    assert headers["hanse-attempts"] == "2"
    assert headers["hanse-total-fee"] == str(FEE + 2 * FEE)
    assert market.spent == [FEE]
    assert all(bought.closed for bought in market.answers)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_was_cut_is_told_as_cut(stream: bool) -> None:
    choice: dict[str, Any] = {"index": 0, "finish_reason": "length"}
    choice["delta" if stream else "message"] = {"content": '{"action":"gre'}
    body = json.dumps({"choices": [choice]}).encode()
    parts = [b"data: " + body + b"\n\n", DONE_FRAME] if stream else [body]
    with pytest.raises(VerificationError, match="truncated; it was cut at max_tokens"):
        await buy_for(ScriptedMarket(parts, parts), stream=stream)


@pytest.mark.parametrize(
    ("afterwards", "limit", "attempts"),
    [
        ("repair", {"max_tokens": 8}, "1"),
        ("repair", {}, "1"),
        ("elsewhere", {"max_completion_tokens": 8}, "1"),
        ("elsewhere", {"max_tokens": None}, "2"),  # whose offer may allow for more
    ],
)
async def test_what_was_cut_is_not_bought_again_to_be_cut_there(
    afterwards: str, limit: dict[str, Any], attempts: str
) -> None:
    message = {"index": 0, "finish_reason": "length", "message": {"content": '{"action":"gre'}}
    cut = [json.dumps({"choices": [message]}).encode()]
    market = ScriptedMarket(cut, cut)
    wishes = {b"hanse-default": DEFAULT}
    answer, headers = await buy_for(market, wishes=wishes, afterwards=afterwards, **limit)
    assert json.loads(await answer.read())["choices"][0]["message"]["content"] == DEFAULT.decode()
    assert (headers["hanse-structured"], headers["hanse-attempts"]) == ("default", attempts)
    assert headers["hanse-total-fee"] == str(sum(market.spent))
    assert len(market.spent) == int(attempts)


@pytest.mark.parametrize("by", ["setting", "header"])
async def test_or_asked_of_another_provider(by: str) -> None:
    market = ScriptedMarket(BAD, GOOD)
    wishes = {b"hanse-structured": b"Elsewhere"} if by == "header" else None
    _, headers = await buy_for(
        market, wishes=wishes, afterwards="elsewhere" if by == "setting" else "repair"
    )
    assert market.bodies[0] == market.bodies[1]
    assert market.avoided == ["", "0xp1"]
    assert market.preferred == ["", ""]
    assert headers["hanse-structured"] == "elsewhere"


@pytest.mark.parametrize(
    ("first", "extra"),
    [
        ("x" * (REPAIRED_CHARS_MAX + 1), {}),
        (
            [
                json.dumps(
                    {
                        "choices": [
                            {"index": i, "message": {"content": text}}
                            for i, text in enumerate((GOOD, BAD))
                        ]
                    }
                ).encode()
            ],
            {"n": 2},
        ),
        ([b"no completion"], {}),
        ([b"{}"], {}),
        ([b'data: {"error": {"message": "engine"}}\n\n'], {"stream": True}),
        (list(write_chunks("x", 1, "m", GOOD, None))[:-1], {"stream": True}),
        ([b": nothing\n\n", DONE_FRAME], {"stream": True}),
        (
            [b"data: " + b" " * HELD_BYTES_MAX + b"{}\n\n", DONE_FRAME],
            {"stream": True},
        ),
    ],
    ids=["long", "second-choice", "malformed", "empty", "error", "cut", "comments", "too-large"],
)
async def test_what_cannot_be_repaired_is_asked_elsewhere(first: Any, extra: Any) -> None:
    market = ScriptedMarket(first, GOOD)
    _, headers = await buy_for(market, **extra)
    assert headers["hanse-structured"] == "elsewhere"
    assert market.avoided[1] == "0xp1"


@pytest.mark.parametrize("declared", ["header", "schema"])
@pytest.mark.parametrize("stream", [False, True])
async def test_after_two_wrong_answers_the_default_is_delivered(
    declared: str, stream: bool
) -> None:
    market = ScriptedMarket(BAD, "not even JSON")
    wishes, extra = {}, {}
    if declared == "header":
        wishes = {b"hanse-default": DEFAULT}
    else:
        schema = SCHEMA | {"default": {"action": "wait"}}
        shape = {"type": "json_schema", "json_schema": {"schema": schema}}
        extra = {"response_format": shape}
    options = {"include_usage": True}
    answer, headers = await buy_for(
        market, wishes=wishes, stream=stream, stream_options=options, **extra
    )
    assert headers["hanse-structured"] == "default"
    assert headers["hanse-total-fee"] == str(3 * FEE)
    assert market.spent == [FEE, 2 * FEE]
    assert answer.provider == "canned"
    assert answer.receipt is None
    if stream:
        frames = [frame async for frame in answer.frames()]
        chunks = [json.loads(frame[5:]) for frame in frames[:-1]]
        assert frames[-1] == DONE_FRAME
        assert chunks[0]["choices"][0]["delta"]["content"].encode() == DEFAULT
        assert chunks[1]["choices"][0]["finish_reason"] == "stop"
        usage = chunks[2]["usage"]
    else:
        whole = json.loads(await answer.read())
        assert whole["choices"][0]["message"]["content"].encode() == DEFAULT
        assert whole["id"] == "id-1"
        usage = whole["usage"]
    assert usage == {"prompt_tokens": 8, "completion_tokens": 4, "total_tokens": 12}


async def test_the_default_comes_too_when_no_second_answer_can_be_bought() -> None:
    market = ScriptedMarket(BAD, TransientError("no_provider", "none"))
    _, headers = await buy_for(market, wishes={b"hanse-default": DEFAULT})
    assert headers["hanse-structured"] == "default"
    assert headers["hanse-total-fee"] == str(FEE)


async def test_without_a_default_it_is_an_error_that_says_what_was_wrong() -> None:
    market = ScriptedMarket(BAD, BAD)
    with pytest.raises(VerificationError, match=r"no answer of 2 fits.*/action") as caught:
        await buy_for(market)
    assert caught.value.code == "schema_unmet"
    assert market.spent == [FEE, 2 * FEE]


async def test_a_first_attempt_that_cannot_be_bought_fails_as_any_request() -> None:
    market = ScriptedMarket(RequestError("insufficient_balance", "too little"))
    with pytest.raises(RequestError, match="too little"):
        await buy_for(market, wishes={b"hanse-default": DEFAULT})


async def test_a_tool_call_or_a_refusal_is_no_answer_to_hold_a_schema_against() -> None:
    call = {"tool_calls": [{"id": "1", "function": {"name": "wait"}}]}
    for message in (call, {"refusal": "no", "content": ""}):
        body = json.dumps({"choices": [{"index": 0, "message": message}]}).encode()
        _, headers = await buy_for(ScriptedMarket([body]))
        assert headers["hanse-structured"] == "valid"


async def test_a_stream_is_held_until_it_is_whole() -> None:
    market = ScriptedMarket(GOOD)
    answer, _ = await buy_for(market, stream=True)
    assert isinstance(answer, HeldAnswer)
    assert market.answers[0].receipt is not None  # it was read to its end before this returned
    assert [f async for f in answer.frames()] == list(write_chunks("x", 1, "m", GOOD, None))


async def check_stream(text: str) -> list[bytes]:
    body = make_body(stream=True)
    demand = find_demand(body, {b"hanse-structured": b"stream"}, "repair")
    assert demand is not None
    assert not demand.held
    market = ScriptedMarket(text)
    checked = CheckedStream(await market.buy(body), demand)
    frames = []
    try:
        async for frame in checked.frames():
            frames.append(frame)
    finally:
        assert checked.receipt is not None
        await checked.close()
        assert market.answers[0].closed
    return frames


async def test_a_stream_can_be_judged_at_its_end_instead() -> None:
    assert (await check_stream(GOOD))[-2:] == [b": hanse-structured valid\n\n", DONE_FRAME]
    with pytest.raises(VerificationError, match="does not fit"):
        await check_stream(BAD)


@pytest.mark.parametrize(
    "extra",
    [
        {"response_format": None},
        {"response_format": {"type": "text"}},
        {"response_format": {"type": "json_object"}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
    ],
)
def test_without_a_schema_nothing_is_demanded(extra: Any) -> None:
    assert find_demand(make_body(**extra), {}, "repair") is None


def test_a_name_in_escapes_is_read_as_engines_read_it() -> None:
    body = make_body().replace(b'"response_format"', b'"response\\u005fformat"')
    assert names_format(decode_body(CHAT, body))
    assert find_demand(body, {}, "repair") is not None


def test_a_body_tells_whether_a_format_is_to_be_looked_for() -> None:
    whole = msgspec.json.decode(make_body())
    for given in (None, [1], {}, whole["response_format"]):
        body = msgspec.json.encode({**whole, "response_format": given})
        assert names_format(decode_body(CHAT, body))
    del whole["response_format"]
    whole["messages"][0]["content"] = 'is it "response_format"?'
    fields = decode_body(CHAT, msgspec.json.encode(whole))
    assert not names_format(fields)
    assert find_demand(make_body(), {}, "repair", has_format=False) is None


@pytest.mark.parametrize(
    ("wishes", "param"),
    [
        ({b"hanse-structured": b"perhaps"}, "hanse-structured"),
        ({b"hanse-default": BAD.encode()}, "hanse-default"),
        ({b"hanse-default": b"\xff"}, "hanse-default"),
    ],
)
def test_headers_that_cannot_be_used_are_refused(wishes: Any, param: str) -> None:
    with pytest.raises(RequestError) as caught:
        find_demand(make_body(), wishes, "repair")
    assert caught.value.param == param
    if param == "hanse-structured":  # whether or not the body has a schema
        with pytest.raises(RequestError, match="expected repair, elsewhere or stream"):
            find_demand(make_body(response_format=None), wishes, "repair")


def test_a_response_format_of_another_shape_is_refused() -> None:
    with pytest.raises(RequestError, match="response_format"):
        find_demand(make_body(response_format=[1]), {}, "repair")
