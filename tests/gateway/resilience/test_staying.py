"""Queue, class, deadline, hedging and fallback, as an application meets them at the gateway."""

import asyncio
import contextlib
import json
import re
import time

import pytest
from aiohttp import ClientSession

from hanse.gateway import GatewayApp, GatewaySettings, open_api_keys
from hanse.gateway.resilience.patience import LOOKS, WAITING, WITH_APPLICATION, Patience
from hanse.gateway.resilience.wishes import get_class
from hanse.protocol.errors import TransientError
from hanse.serving import Looks
from hanse.store import open_sqlite
from tests.gateway.asgi_caller import Caller
from tests.gateway.gateway_parts import (
    CHUNK_MODEL,
    MemoryMarket,
    make_chunks,
    run_gateway_here,
    until,
)

CHAT = "/v1/chat/completions"


class Front:
    """A gateway over a market in memory."""

    def __init__(self, app: GatewayApp, market: MemoryMarket, key: str) -> None:
        self.app = app
        self.market = market
        self._key = key

    async def ask(self, path: str = CHAT, *, headers=None, **fields) -> Caller:
        body = {"model": CHUNK_MODEL, "messages": [{"role": "user", "content": "x"}], **fields}
        given = {"authorization": f"Bearer {self._key}", **(headers or {})}
        return await Caller("POST", path, given, [json.dumps(body).encode()]).run(self.app)

    def count(self, name: str, label: str) -> float:
        found = re.search(
            rf'^{name}_total{{\w+="{label}"}} (\S+)$', self.app.metrics.to_text().decode(), re.M
        )
        return float(found[1]) if found else 0.0


@contextlib.asynccontextmanager
async def open_front(market=None, local=None, **settings):
    market = market or MemoryMarket()
    database = await open_sqlite(":memory:")
    keys = await open_api_keys(database, time.time)
    _, key = await keys.create("test")
    yield Front(GatewayApp(GatewaySettings(**settings), market, keys, local=local), market, key)
    await database.close()


async def test_a_deadline_ends_a_request_in_the_queue_and_its_place_is_free():
    async with open_front(requests_max=1) as front:
        front.market.gate = asyncio.Event()
        first = asyncio.create_task(front.ask())
        await front.market.asked.wait()
        late = await front.ask(headers={"hanse-deadline-ms": "30"})
        assert (late.status, late.error["code"]) == (408, "request_timeout")
        assert late.headers["x-should-retry"] == "false"
        assert len(front.market.bodies) == 1  # nobody was paid for it
        front.market.gate.set()
        assert (await first).status == 200
        assert (await front.ask(headers={"hanse-deadline-ms": "5000"})).status == 200


@pytest.mark.parametrize("where", ["delay", "gate"])
async def test_a_deadline_ends_a_request_at_its_provider(where):
    async with open_front() as front:
        setattr(front.market, where, asyncio.Event())
        late = await front.ask(headers={"hanse-deadline-ms": "30"})
        assert (late.status, late.error["code"]) == (408, "request_timeout")
        assert not front.market.open_answers


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("hanse-class", "urgent"),
        ("hanse-deadline-ms", "0"),
        ("hanse-deadline-ms", "-5"),
        ("hanse-deadline-ms", "1.5"),
        ("hanse-deadline-ms", "99999999999"),
        ("hanse-deadline-ms", "soon"),
    ],
)
async def test_a_wish_that_nobody_understands_is_refused_by_name(header, value):
    async with open_front() as front:
        refused = await front.ask(headers={header: value})
        assert (refused.status, refused.error["param"]) == (400, header)
        assert not front.market.bodies


async def test_interactive_overtakes_background_in_the_queue():
    async with open_front(requests_max=1) as front:
        front.market.gate = asyncio.Event()
        order = []

        async def ask(kind: str) -> None:
            assert (await front.ask(headers={"hanse-class": kind}, user=kind)).status == 200
            order.append(kind)

        running = [asyncio.create_task(ask("ambient"))]
        await front.market.asked.wait()
        for kind in ("background", "interactive"):
            waiting = front.app.in_flight
            running.append(asyncio.create_task(ask(kind)))
            await until(lambda waiting=waiting: front.app.in_flight == waiting + 1)
        front.market.gate.set()
        await asyncio.gather(*running)
        assert order == ["ambient", "interactive", "background"]


@pytest.mark.parametrize(
    ("of_key", "asked", "found"),
    [
        ("", None, "interactive"),
        ("", b"background", "background"),
        ("background", None, "background"),
        ("background", b"interactive", "background"),
        ("ambient", b" Background ", "background"),
        ("ambient", b"interactive", "ambient"),
    ],
)
def test_a_request_has_its_keys_class_or_a_lower_one(of_key, asked, found):
    assert get_class({} if asked is None else {b"hanse-class": asked}, of_key) == found


class Late(MemoryMarket):
    """The first provider that is asked never sends a token; the others answer."""

    def __init__(self) -> None:
        super().__init__()
        self.needs = []

    async def request(self, path, body, needs=None, asked=None):
        answer = await super().request(path, body, needs, asked)
        self.needs.append(needs)
        if asked is not None:
            asked.append(answer.provider)
        if len(self.answers) == 1:
            answer._frames = []
            answer._gate = asyncio.Event()
            answer._broken = None
            answer.frames = _hang
        return answer


async def _hang():
    await asyncio.Event().wait()
    yield b""


async def test_a_late_first_token_is_asked_of_another_and_the_loser_is_hung_up_on():
    async with open_front(Late(), hedge_after_s=0.02) as front:
        answer = await front.ask(stream=True)
        assert answer.body.endswith(b"data: [DONE]\n\n")
        first, second = front.market.answers
        assert front.market.needs[1].excluded == {first.provider}
        await asyncio.wait_for(first.closed.wait(), 1)
        assert second.receipt is not None
        assert front.count("hanse_gateway_hedges", "asked") == 1
        assert front.count("hanse_gateway_hedges", "won") == 1
        whole = await front.ask()  # not a stream: there is no first token to wait for
        assert whole.status == 200


async def test_a_timely_first_token_is_not_hedged():
    async with open_front(hedge_after_s=5) as front:
        answer = await front.ask(stream=True)
        assert answer.body.endswith(b"data: [DONE]\n\n")
        assert len(front.market.bodies) == 1


@pytest.mark.parametrize("model", ["unserved", "busy", "unpaid"])
@pytest.mark.parametrize("stream", [False, True])
async def test_the_local_engine_answers_when_the_market_has_nothing(model, stream):
    local = MemoryMarket()
    async with open_front(local=local, fallback_model=CHUNK_MODEL) as front:
        answer = await front.ask(model=model, stream=stream)
        assert answer.status == 200
        assert answer.headers["hanse-provider"] == "local"
        assert "hanse-fallback" in answer.headers
        assert json.loads(local.bodies[0][1])["model"] == CHUNK_MODEL


async def test_the_local_engine_is_asked_over_http_with_its_key(monkeypatch):
    async with run_gateway_here(MemoryMarket()) as local:
        monkeypatch.setenv("HANSE_FALLBACK_KEY", local.key)
        settings = GatewaySettings(
            port=0, drain_s=1.0, fallback_url=local.base_url, fallback_model=CHUNK_MODEL
        )
        async with (
            run_gateway_here(MemoryMarket(), settings) as gateway,
            ClientSession() as session,
        ):
            body = {"model": "unserved", "messages": [{"role": "user", "content": "x"}]}
            headers = {"authorization": f"Bearer {gateway.key}"}
            url = f"{gateway.base_url}/chat/completions"
            async with session.post(url, json=body, headers=headers) as answer:
                assert answer.status == 200
                assert answer.headers["hanse-provider"] == "local"
                assert answer.headers["hanse-fallback"] == "no_provider"
                assert (await answer.json())["model"] == CHUNK_MODEL


async def test_a_stream_goes_on_at_the_local_engine():
    local = MemoryMarket()
    async with open_front(BreaksAfter(2), local=local, fallback_model=CHUNK_MODEL) as front:
        answer = await front.ask(stream=True)
        assert answer.body.endswith(b"data: [DONE]\n\n")
        assert b': hanse-continued {"provider":"local","tokens":2' in answer.body
        asked = json.loads(local.bodies[0][1])
        assert asked["messages"][-1] == {"role": "assistant", "content": "w0 w1 "}
        assert front.count("hanse_gateway_turns", "continued") == 1


class BackSoon(MemoryMarket):
    """Nobody can be asked at first."""

    def __init__(self, rounds: int) -> None:
        super().__init__()
        self.rounds = rounds

    async def request(self, path, body, needs=None, asked=None):
        self.rounds -= 1
        if self.rounds >= 0:
            raise TransientError("no_provider", "all rest", retry_after_s=0.01)
        return await super().request(path, body, needs, asked)


async def test_the_market_is_asked_again_for_a_moment():
    async with open_front(BackSoon(1), market_wait_s=5) as front:
        assert (await front.ask()).status == 200
    async with open_front(BackSoon(3), market_wait_s=0.1) as front:
        assert (await front.ask()).status == 503
        assert front.market.rounds == 1  # two rounds in that time
    async with open_front(BackSoon(1), market_wait_s=5, canned_text="Come back.") as front:
        assert (await front.ask()).headers["hanse-provider"] == "canned"


class BreaksAfter(MemoryMarket):
    """One provider, whose stream breaks after so many words; then there is nobody."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self._words = words

    async def request(self, path, body, needs=None, asked=None):
        if self.answers:
            raise TransientError("no_provider", "all were tried")
        answer = await super().request(path, body, needs, asked)
        answer._frames = make_chunks(5)[: self._words]
        answer._broken = TransientError("provider_unreachable", "it broke off")
        return answer


async def test_a_canned_sentence_is_no_continuation():
    async with open_front(BreaksAfter(2), market_wait_s=0, canned_text="Come back later.") as front:
        answer = await front.ask(stream=True)
        assert b"Come back later." not in answer.body
        assert b'"provider_unreachable"' in answer.body
        assert front.count("hanse_gateway_turns", "lost") == 1


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", [CHAT, "/v1/completions"])
async def test_a_canned_answer_is_marked_and_whole(path, stream):
    async with open_front(canned_text="Come back later.") as front:
        answer = await front.ask(path, model="unserved", prompt="x", stream=stream)
        assert answer.headers["hanse-provider"] == "canned"
        assert answer.headers["hanse-fallback"] == "no_provider"
        assert b"Come back later." in answer.body
        assert answer.body.endswith(b"data: [DONE]\n\n") == stream


@pytest.mark.parametrize("model", ["too-long"])
async def test_no_fallback_hides_what_is_wrong_with_a_request(model):
    async with open_front(local=MemoryMarket(), canned_text="Come back later.") as front:
        assert (await front.ask(model=model)).status == 400


async def test_a_message_in_another_dialect_goes_on_too():
    async with open_front(BreaksAfter(2), local=MemoryMarket()) as front:
        answer = await front.ask("/v1/messages", stream=True, max_tokens=50)
        assert b"message_stop" in answer.body
        assert answer.body.count(b"message_start") == 2  # the event's name and its data
        assert b'"error"' not in answer.body


def be_patient(silence_s: float, first_s: float) -> Patience:
    return Patience(silence_s, first_s, Looks(silence_s / LOOKS))


async def test_a_slow_application_is_no_silence_of_the_provider():
    patience = be_patient(0.02, 0.02)
    patience.state = WITH_APPLICATION
    await asyncio.sleep(0.1)
    assert not patience.is_over
    patience.state = WAITING
    with pytest.raises(asyncio.CancelledError):
        await asyncio.sleep(1)
    assert patience.take_back()
    patience.end()


async def test_a_first_token_has_more_time_than_those_after_it():
    patience = be_patient(0.02, 0.2)
    await asyncio.sleep(0.1)
    assert not patience.is_over
    patience.state = WAITING
    with pytest.raises(asyncio.CancelledError):
        await asyncio.sleep(1)
    assert not patience.is_first
    assert patience.take_back()
    patience.end()


async def test_frames_that_come_are_no_silence():
    patience = be_patient(0.04, 0.04)
    for _ in range(20):
        await asyncio.sleep(0.005)
        patience.state = WAITING
    assert not patience.is_over
    patience.end()


@pytest.mark.parametrize("text", [b"\xff", b"\\ud800"], ids=["no UTF-8", "half a character"])
@pytest.mark.parametrize("dialect", [CHAT, "/v1/messages"])
async def test_a_body_that_holds_no_text_is_refused_before_anybody_is_asked(text, dialect):
    body = b'{"model": "%b", "max_tokens": 5, "messages": [{"role": "user", "content": "%b"}]}'
    async with open_front(canned_text="Come back later.") as front:
        headers = {"authorization": f"Bearer {front._key}"}
        parts = [body % (CHUNK_MODEL.encode(), text)]
        answer = await Caller("POST", dialect, headers, parts).run(front.app)
        assert answer.status == 400
        assert "the body is not JSON" in answer.error["message"]
        assert not front.market.bodies
