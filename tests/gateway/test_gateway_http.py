"""What the gateway answers to requests that are right, wrong, too many, too large or too late."""

import asyncio
import json
import logging
import time

import pytest

from hanse.gateway import GatewayApp, GatewaySettings, open_api_keys
from hanse.gateway.budgets.admission import DEGRADED_HEADER
from hanse.gateway.money import advise
from hanse.gateway.operations import OPERATIONS
from hanse.gateway.relay import FEE_HEADER, PROVIDER_HEADER
from hanse.gateway.resilience.answer import FALLBACK_HEADER
from hanse.gateway.selling.wishes import MATCH_HEADER
from hanse.gateway.structured.demand import NAME_HEADER
from hanse.protocol.errors import RequestError
from hanse.protocol.hashing import DONE_FRAME
from hanse.protocol.wire import encode_receipt_frame
from hanse.sdk.money import Alarm, Money, Place
from hanse.store import open_sqlite
from tests.gateway.asgi_caller import Caller
from tests.gateway.gateway_parts import (
    CHUNK_MODEL,
    FEE,
    PROVIDER,
    MemoryMarket,
    make_chunks,
    make_receipt,
    until,
)

CHAT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "a secret prompt"}]


class App:
    def __init__(self, market, keys, key):
        self.market, self.keys, self.key = market, keys, key
        self.start()

    def start(self, **settings):
        self.app = GatewayApp(GatewaySettings(**settings), self.market, self.keys)
        return self

    async def ask(self, method, path, body=None, *, key=None, headers=None, parts=None):
        key = self.key if key is None else key
        given = {**({"authorization": f"Bearer {key}"} if key else {}), **(headers or {})}
        if body is not None:
            parts = [body if isinstance(body, bytes) else json.dumps(body).encode()]
        return await Caller(method, path, given, parts).run(self.app)

    async def chat(self, **fields):
        return await self.ask("POST", CHAT, {"model": CHUNK_MODEL, "messages": MESSAGES, **fields})


@pytest.fixture
async def app():
    database = await open_sqlite(":memory:")
    keys = await open_api_keys(database, time.time)
    _, key = await keys.create("test")
    yield App(MemoryMarket(), keys, key)
    await database.close()


async def test_a_streams_bytes_pass_untouched_with_the_receipt_before_done(app):
    answer = await app.chat(stream=True)
    frames = make_chunks()
    expected = b"".join(frames[:-1]) + encode_receipt_frame(make_receipt()) + DONE_FRAME
    assert answer.body == expected
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert [event["body"] for event in answer.sent[1:-1]] == frames[:-1]  # none waits for another


async def test_the_body_reaches_the_market_byte_for_byte(app):
    odd = b'{ "messages" : [{"role":"user","content":"\\u00e9"}],\n"x":1.50,"model":"memory-chat" }'
    assert (await app.ask("POST", CHAT, parts=[odd[:7], odd[7:9], b"", odd[9:]])).status == 200
    assert app.market.bodies == [(CHAT, odd)]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"{", None),
        (b"[]", None),
        (b'"text"', None),
        (b"null", None),
        (b'{"model":"\xff","messages":[{"role":"user"}]}', None),
        (b'{"messages":[{"role":"user"}],"x":' + b"[" * 100_000, None),
        ({"messages": MESSAGES}, "model"),
        ({"model": 5, "messages": MESSAGES}, "model"),
        ({"model": "", "messages": MESSAGES}, "model"),
        ({"model": "m" * 129, "messages": MESSAGES}, "model"),
        ({"model": "m"}, "messages"),
        ({"model": "m", "messages": []}, "messages"),
        ({"model": "m", "messages": "hello"}, "messages"),
        ({"model": "m", "messages": [{}]}, "messages[0].role"),
        ({"model": "m", "messages": [{"role": 1}]}, "messages[0].role"),
        ({"model": "m", "messages": ["hello"]}, "messages[0]"),
        ({"model": "m", "messages": MESSAGES, "stream": "yes"}, "stream"),
        ({"model": "m", "messages": MESSAGES, "max_tokens": 0}, "max_tokens"),
        ({"model": "m", "messages": MESSAGES, "max_tokens": "9"}, "max_tokens"),
        ({"model": "m", "messages": MESSAGES, "max_tokens": 2**70}, "max_tokens"),
        ({"model": "m", "messages": MESSAGES, "n": 129}, "n"),
        (
            {"model": "m", "messages": MESSAGES, "stream_options": {"include_usage": 1}},
            "stream_options.include_usage",
        ),
    ],
)  # fmt: skip
async def test_a_wrong_body_is_refused_by_field(app, body, param):
    answer = await app.ask("POST", CHAT, body)
    assert answer.status == 400
    assert answer.error["param"] == param
    assert answer.error["type"] == "invalid_request_error"
    assert answer.error["code"] == "invalid_request"
    assert "secret" not in answer.error["message"]
    assert not app.market.bodies


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/completions", {"model": "m"}, "prompt"),
        ("/v1/completions", {"model": "m", "prompt": ""}, "prompt"),
        ("/v1/completions", {"model": "m", "prompt": []}, "prompt"),
        ("/v1/completions", {"model": "m", "prompt": {}}, "prompt"),
        ("/v1/embeddings", {"model": "m"}, "input"),
        ("/v1/embeddings", {"model": "m", "input": [1.5]}, "input[0]"),
    ],
)
async def test_other_operations_name_their_fields(app, path, body, param):
    answer = await app.ask("POST", path, body)
    assert (answer.status, answer.error["param"]) == (400, param)


@pytest.mark.parametrize("text", ["once", ["a", "b"], [1, 2], [[1, 2], [3]]])
async def test_prompts_may_be_texts_or_token_numbers(app, text):
    body = {"model": CHUNK_MODEL, "prompt": text}
    assert (await app.ask("POST", "/v1/completions", body)).status == 200


async def test_a_large_body_is_refused_with_413_declared_or_not(app):
    app.start(body_bytes_max=1_000)
    declared = {"content-length": "5000"}
    for headers in (declared, None):
        answer = await app.ask("POST", CHAT, headers=headers, parts=[b"x" * 500] * 10)
        assert (answer.status, answer.error["code"]) == (413, "request_too_large")
        assert "connection" not in answer.headers  # it was read to its end; the next may come
    endless = {"content-length": str(10**12)}
    answer = await app.ask("POST", CHAT, headers=endless, parts=[b"x"] * 3)
    assert answer.status == 413
    assert answer.headers["connection"] == "close"


async def test_unknown_paths_and_methods(app):
    nothing = await app.ask("GET", "/nothing", key="")
    assert nothing.error["code"] == "not_found"
    assert nothing.error["message"].endswith("GET /openapi.json lists those that there are")
    assert (await app.ask("GET", "/v1/models/", key="")).status == 404
    wrong = await app.ask("DELETE", CHAT)
    assert (wrong.status, wrong.error["code"]) == (405, "method_not_allowed")
    assert wrong.headers["allow"] == "POST"
    assert (await app.ask("POST", "/v1/models")).headers["allow"] == "GET, HEAD"
    assert (await app.ask("OPTIONS", CHAT)).status == 405


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/chat/completions", "base URL has to end in /v1"),
        ("/v1/v1/messages", "base URL ends before that"),
    ],
)
async def test_a_client_with_a_wrong_base_url_is_told(app, path, hint):
    told = await app.ask("POST", path)
    assert (told.status, told.error["code"]) == (404, "not_found")
    assert told.error["message"].endswith(hint)


async def test_head_answers_like_get_without_a_body(app):
    answer = await app.ask("HEAD", "/health", key="")
    assert (answer.status, answer.body) == (200, b"")
    assert int(answer.headers["content-length"]) > 0


@pytest.mark.parametrize("path", [row.path for row in OPERATIONS if row.authenticated])
@pytest.mark.parametrize("given", [None, "Basic abc", "Bearer", "Bearer ", "Bearer hgw_x", "hgw_x"])
async def test_everything_that_costs_or_tells_needs_a_key(app, path, given):
    [operation] = [row for row in OPERATIONS if row.path == path]
    headers = {} if given is None else {"authorization": given}
    answer = await app.ask(operation.method, path, {}, key="", headers=headers)
    assert (answer.status, answer.error["code"]) == (401, "api_key_invalid")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert not app.market.bodies


async def test_a_key_made_elsewhere_works_at_its_first_use(app, tmp_path):
    database = await open_sqlite(tmp_path / "keys.sqlite")
    here = await open_api_keys(database, time.time)
    there = await open_api_keys(database, time.time)
    _, text = await there.create("made elsewhere")
    gateway = App(app.market, here, text).start(keys_refresh_s=1e-6)
    assert (await gateway.ask("GET", "/v1/models")).status == 200
    await database.close()


async def test_models_are_found_by_names_with_slashes(app):
    listed = json.loads((await app.ask("GET", "/v1/models")).body)
    assert [row["id"] for row in listed["data"]] == [CHUNK_MODEL, "org/memory-embed"]
    found = await app.ask("GET", "/v1/models/org/memory-embed")
    assert json.loads(found.body)["id"] == "org/memory-embed"
    twice = await app.ask("GET", "/v1/models/org%2Fmemory-embed")  # an escape that was escaped
    assert twice.error["code"] == "model_not_found"


async def test_money(app):
    money = json.loads((await app.ask("GET", "/hanse/v1/money")).body)
    assert (money["total"], money["paid"]) == (str(2**60 + 7), "5")  # text: JavaScript ends at 2^53
    assert [(row["place"], row["amount"]) for row in money["places"]] == [
        ("wallet", str(2**60)),
        ("free", "7"),
    ]
    assert money["asset"] == {"symbol": "tHSD", "decimals": 6}


async def test_alarms_of_the_money_are_in_health_and_metrics_without_amounts_in_health(app):
    async def read_health() -> list[str]:
        return json.loads((await app.ask("GET", "/health", key="")).body)["money_alarms"]

    async def read_series() -> dict[str, str]:
        text = (await app.ask("GET", "/metrics", key="")).body.decode()
        lines = [line for line in text.splitlines() if line.startswith("hanse_gateway_money")]
        return dict(line.rsplit(" ", 1) for line in lines)

    assert await read_health() == []
    words = "a refund has been free for 1 h and nobody has completed it"
    app.market.alarms = (Alarm("refund_overdue", 7, 1, words, "hanse account refund 0x1 --claim"),)
    money = json.loads((await app.ask("GET", "/hanse/v1/money")).body)
    assert money["alarms"] == [
        {
            "code": "refund_overdue",
            "amount": "7",
            "since_s": 1,
            "message": words,
            "command": "hanse account refund 0x1 --claim",
        }
    ]
    assert await read_health() == ["refund_overdue"]
    series = await read_series()
    assert series['hanse_gateway_money_alarms{code="refund_overdue"}'] == "1.0"
    assert series['hanse_gateway_money_alarms{code="books_differ"}'] == "0.0"
    assert series['hanse_gateway_money_base_units{place="free"}'] == "7.0"

    app.market.alarms = ()
    await app.ask("GET", "/hanse/v1/money")
    assert await read_health() == []
    assert (await read_series())['hanse_gateway_money_alarms{code="refund_overdue"}'] == "0.0"


ACCOUNT = Place("account", 150)


@pytest.mark.parametrize(
    ("details", "places", "expected"),
    [
        pytest.param(
            {"provider": PROVIDER, "signer": "0x" + "22" * 20, "missing": "100"}, (ACCOUNT,),
            f"hanse account fund {PROVIDER} 0.0001", id="the account has it",
        ),
        pytest.param(
            {"provider": PROVIDER, "signer": "0xsession", "missing": "1500200"}, (ACCOUNT,),
            f"hanse account open --deposit 1.50005 {PROVIDER}=1.5002 --signer 0xsession",
            id="the rest is deposited",
        ),
        pytest.param(
            {"missing": "100"}, (), "hanse money, then hanse account fund PROVIDER AMOUNT",
            id="nobody said whose",
        ),
        *(
            pytest.param(
                {"provider": PROVIDER, "missing": missing}, (),
                "hanse money, then hanse account fund PROVIDER AMOUNT", id=f"{missing!r:.9}",
            )
            for missing in ("abc", "-1", "\u0663", "9" * 5_000)
        ),
    ],
)  # fmt: skip
def test_a_402_names_the_command_that_funds_it(details, places, expected):
    money = Money("0x" + "22" * 20, 9, places, 0, (), (), symbol="tHSD", decimals=6)
    error = RequestError("insufficient_balance", "too little is there", details=dict(details))
    advise(error, money, "user")
    assert error.details["next_step"] == expected
    assert error.message.endswith(f"can do: {expected}")
    other = RequestError("insufficient_balance", "too little is there", details=dict(details))
    advise(other, money, "poor")
    assert other.details["next_step"] == f"{expected} --key poor"


async def test_what_a_provider_sends_behind_an_end_of_its_own_goes_nowhere(app):
    class Odd(MemoryMarket):
        def _answer(self, path, request):
            answer = super()._answer(path, request)
            answer._frames[1:1] = [b'data: "[DONE]"\n\n']
            return answer

    app.market = Odd()
    app.start()
    answer = await app.chat(stream=True)
    assert answer.status == 200
    assert answer.body.endswith(b'data: "[DONE]"\n\n')
    assert app.market.answers[0].receipt is not None  # it was read to its end, and is counted


async def test_a_503_names_the_command_that_shows_who_is_healthy(app):
    unserved = await app.chat(model="unserved")
    assert unserved.error["hanse"]["next_step"] == "hanse offers"
    assert unserved.error["message"].endswith("can do: hanse offers")
    assert (await app.chat(model="unpaid")).error["hanse"]["missing"] == "200"


async def test_requests_above_the_limit_wait_and_above_the_queue_are_refused(app):
    app.start(requests_max=1, queue_max=1)
    app.market.gate = asyncio.Event()
    first = asyncio.create_task(app.chat())
    await app.market.asked.wait()
    second = asyncio.create_task(app.chat())
    await until(lambda: app.app.in_flight == 2)
    third = await app.chat()
    assert (third.status, third.error["code"]) == (429, "rate_limited")
    assert int(third.headers["retry-after"]) >= 1
    assert len(app.market.bodies) == 1
    app.market.gate.set()
    assert (await first).status == 200
    assert (await second).status == 200
    assert (await app.chat()).status == 200


async def test_draining_refuses_new_requests_and_finishes_those_at_work(app):
    app.market.gate = asyncio.Event()
    running = asyncio.create_task(app.chat(stream=True))
    await app.market.asked.wait()
    app.app.paid.drain()
    refused = await app.chat()
    assert (refused.status, refused.error["code"]) == (503, "draining")
    assert refused.headers["connection"] == "close"
    assert int(refused.headers["retry-after"]) >= 1
    assert (await app.ask("GET", "/health", key="")).status == 503
    idle = asyncio.create_task(app.app.paid.wait_idle(5))
    app.market.gate.set()
    assert (await running).body.endswith(DONE_FRAME)
    await asyncio.wait_for(idle, 1)


async def test_cutting_ends_streams_with_an_error_frame_and_closes_the_provider(app):
    app.market.gate = asyncio.Event()
    running = asyncio.create_task(app.chat(stream=True))
    waiting = asyncio.create_task(app.chat())
    await until(lambda: len(app.market.open_answers) == 2)
    app.app.paid.cut()
    body = (await running).body
    assert b'data: {"error":' in body
    assert b'"draining"' in body
    assert b"[DONE]" not in body
    assert (await waiting).status == 503
    assert not app.market.open_answers


@pytest.mark.parametrize("origin", ["https://evil.example", "null", ""])
async def test_browsers_of_other_origins_are_told_nothing(app, origin):
    for origins in ((), ("https://app.example",)):
        app.start(allowed_origins=origins)
        answer = await app.ask("OPTIONS", CHAT, headers={"origin": origin}, key="")
        assert answer.status == 405
        answer = await app.ask("GET", "/v1/models", headers={"origin": origin})
        assert not any(name.startswith("access-control") for name in answer.headers)


async def test_browsers_of_an_allowed_origin_may_call(app):
    app.start(allowed_origins=("https://app.example",))
    headers = {"origin": "https://app.example", "access-control-request-method": "POST",
               "access-control-request-headers": "authorization,x-stainless-lang"}  # fmt: skip
    preflight = await app.ask("OPTIONS", CHAT, headers=headers, key="")
    assert preflight.status == 204
    assert preflight.headers["access-control-allow-origin"] == "https://app.example"
    assert preflight.headers["access-control-allow-headers"] == "authorization,x-stainless-lang"
    assert preflight.headers["access-control-allow-methods"] == "POST"
    assert (await app.ask("OPTIONS", "/no", headers=headers, key="")).status == 404
    answer = await app.ask("GET", "/v1/models", headers=headers)
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    exposed = answer.headers["access-control-expose-headers"].split(", ")
    assert "hanse-receipt" in exposed
    told = (PROVIDER_HEADER, FEE_HEADER, FALLBACK_HEADER, DEGRADED_HEADER, MATCH_HEADER)
    assert {name.decode() for name in (*told, NAME_HEADER, b"x-should-retry")} <= set(exposed)
    assert answer.headers["vary"] == "origin"
    refused = await app.ask("GET", "/v1/models", headers=headers, key="x")
    assert refused.headers["access-control-allow-origin"] == "https://app.example"


async def test_metrics_count_requests_fees_and_broken_streams(app):
    await app.chat()
    await app.chat(stream=True)
    await app.chat(model="breaks-later", stream=True)
    await app.chat(model="unpaid")
    text = (await app.ask("GET", "/metrics", key="")).body.decode()
    count = 'hanse_gateway_requests_total{operation="chat_completions",status="%d"} %.1f'
    assert count % (200, 3) in text
    assert count % (402, 1) in text
    assert f"hanse_gateway_fees_base_units_total {2.0 * FEE}" in text
    assert "hanse_gateway_streams_broken_total 1.0" in text
    assert "hanse_gateway_requests_in_flight 0.0" in text


async def test_logs_never_hold_content_or_keys(app, caplog):
    caplog.set_level(logging.DEBUG)
    await app.chat()
    assert "hanse.gateway.access" not in {record.name for record in caplog.records}
    app.start(access_log=True)
    await app.chat(stream=True)
    await app.chat(model="defect")
    await app.ask("POST", CHAT, b"a secret prompt")
    lines = [r.getMessage() for r in caplog.records if r.name == "hanse.gateway.access"]
    [stream, defect, malformed] = map(json.loads, lines)
    assert (stream["status"], defect["status"], malformed["status"]) == (200, 500, 400)
    assert stream["operation"] == "chat_completions"
    assert stream["key"]
    assert "ZeroDivisionError in GatewayApp" in caplog.text
    for secret in ("secret", app.key, app.key[4:]):
        assert secret not in caplog.text


@pytest.mark.parametrize(
    ("settings", "param"),
    [
        ({"port": 70_000}, "port"),
        ({"body_bytes_max": 0}, "body_bytes_max"),
        ({"body_bytes_max": 10**9}, "body_bytes_max"),
        ({"requests_max": -1}, "requests_max"),
        ({"drain_s": 0}, "drain_s"),
        ({"allowed_origins": ("app.example",)}, "allowed_origins"),
        ({"allowed_origins": ("https://app.example/path",)}, "allowed_origins"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, param):
    with pytest.raises(RequestError) as caught:
        GatewaySettings(**settings)
    assert (caught.value.code, caught.value.param) == ("configuration_invalid", param)
