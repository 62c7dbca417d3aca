"""Heartbeats as the user's side fetches and judges them, and who is out because of them."""

import asyncio
import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanse.market import Needs
from hanse.protocol.errors import TransientError
from hanse.protocol.messages import Heartbeat
from hanse.sdk import Hanse
from hanse.sdk.purchase.ask import read_ask
from tests.gateway.gateway_parts import until
from tests.gateway.market_parts import CHEAP, DEAR, open_market
from tests.sdk.conftest import World
from tests.sdk.fake_broker import FakeBroker

PATH = "/v1/chat/completions"
BODY = msgspec.json.encode(
    {"model": "echo", "messages": [{"role": "user", "content": "Moin"}], "max_tokens": 10}
)


def beat(broker: FakeBroker, **changes) -> None:
    """The broker has a new heartbeat."""
    before = broker.heartbeat
    sent_at_ms = int(broker.clock() * 1_000) if before is None else before.sent_at_ms + 1
    fields = {"slots": 2, "free_slots": 2, "queued": 0, "queue_free": 4, "is_warm": True}
    broker.heartbeat = Heartbeat(broker.provider, 1, sent_at_ms, **{**fields, **changes})


def find_kind(hanse: Hanse, broker: FakeBroker) -> str:
    """What stands against a broker."""
    found = hanse.rank(PATH, BODY)
    return {e.listed.provider: e.kind for e in found.exclusions}.get(broker.provider, "")


async def test_a_full_broker_is_passed_over_until_it_says_otherwise(world: World):
    async with world.open() as hanse:
        beat(world.cheap, free_slots=0, queued=4, queue_free=0)
        beat(world.dear)
        await hanse.fetch_heartbeats()
        assert find_kind(hanse, world.cheap) == "full"
        answer = await hanse.request(PATH, BODY)
        await answer.read()
        assert answer.provider == world.dear.provider
        beat(world.cheap)
        await hanse.fetch_heartbeats()
        assert find_kind(hanse, world.cheap) == ""


@pytest.mark.parametrize(
    "fault", ["repeated", "old", "of another", "by another", "malformed", "of no service"]
)
async def test_what_is_not_its_own_new_word_is_no_heartbeat(world: World, fault: str):
    async with world.open() as hanse:
        beat(world.cheap)
        await hanse.fetch_heartbeats()
        if fault != "repeated":
            beat(world.cheap)
        if fault == "old":
            world.cheap.clock.now += 61
        elif fault == "of another":
            beat(world.cheap)
            world.cheap.heartbeat = msgspec.structs.replace(
                world.cheap.heartbeat, provider=world.dear.provider
            )
        elif fault == "by another":
            world.cheap.key = world.dear.key
        elif fault == "malformed":
            beat(world.cheap, slots=0)
        elif fault == "of no service":
            world.cheap.heartbeat = msgspec.structs.replace(world.cheap.heartbeat, service_id=9)
        await hanse.fetch_heartbeats()
        assert find_kind(hanse, world.cheap) == ""  # one may be lost
        await hanse.fetch_heartbeats()
        assert find_kind(hanse, world.cheap) == "down"


async def test_a_broker_without_heartbeats_is_asked_all_the_same(world: World):
    async with world.open() as hanse:
        for _ in range(3):
            await hanse.fetch_heartbeats()
        assert find_kind(hanse, world.cheap) == ""


async def test_an_answer_is_measured(world: World):
    async with world.open() as hanse:
        world.cheap.frames_text = tuple(f" w{n}" for n in range(20))

        async def pass_time(number: int) -> None:
            world.clock.now += 0.5

        world.cheap.at_frame = pass_time
        body = msgspec.json.encode({**msgspec.json.decode(BODY), "stream": True, "max_tokens": 99})
        answer = await hanse.request(PATH, body)
        async for _ in answer.frames():
            pass
        measured = hanse.chooser.board.measured.get((world.cheap.provider, 1))
        assert measured.answers == 1
        seconds = measured.first_token_s + 19 * measured.token_s
        assert seconds == pytest.approx(20 * 0.5, rel=0.1)
        assert len(hanse._buyer.active) == 0


def test_a_session_is_named_by_the_caller_else_by_openais_fields_else_by_the_first_message():
    def shape(session: str = "", **fields):
        body = {"model": "m", "messages": [{"role": "system", "content": "a persona"}], **fields}
        return read_ask(PATH, msgspec.json.encode(body)).get_shape(session)

    assert shape("npc-1").affinity == b"npc-1"
    assert shape(prompt_cache_key="key", user="u").affinity == b'"key"'
    assert shape(user="u").is_session
    talk = [{"role": "system", "content": "a persona"}, {"role": "user", "content": "Moin"}]
    assert not shape().is_session
    assert shape().affinity == shape(messages=talk).affinity != b""
    assert shape(messages=talk[1:]).affinity != shape().affinity
    assert shape(messages=5, user=7).affinity == b""  # the broker says what is wrong with it


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text('{}[]",\\ab', max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@given(json_values | st.lists(json_values, max_size=3), st.sampled_from([None, 1]), st.booleans())
def test_the_first_message_is_the_first_of_the_list_whatever_it_holds(messages, indent, is_tight):
    tight = (",", ":") if is_tight else None
    written = json.dumps(messages, indent=indent, separators=tight).encode()
    asked = read_ask(PATH, b'{"model": "m", "messages": %s}' % written)
    try:
        found = msgspec.json.decode(written, type=list[msgspec.Raw])
    except msgspec.ValidationError:
        found = []
    assert asked.beginning == (bytes(found[0]) if found else b"")


async def test_a_broker_that_died_is_out_by_its_next_heartbeat(tmp_path: Path):
    async with open_market(tmp_path) as market:
        body = msgspec.json.encode({**msgspec.json.decode(BODY), "model": "echo-fake"})
        await market.hanse.fetch_heartbeats()
        ranked = market.hanse.rank(PATH, body)
        assert [c.listed.provider for c in ranked.candidates] == [CHEAP, DEAR]
        await market.cheap.server.stop()  # its port is closed from now on
        await market.hanse.fetch_heartbeats()
        ranked = market.hanse.rank(PATH, body)
        assert [c.listed.provider for c in ranked.candidates] == [DEAR]
        assert "no heartbeat" in ranked.exclusions[0].reason
        only = Needs(providers=frozenset({CHEAP}))
        with pytest.raises(TransientError) as refused:
            await market.hanse.request(PATH, body, only)
        assert refused.value.code == "no_provider"


async def test_the_loop_asks_at_once_and_again_and_again(world: World):
    async with world.open() as hanse:
        beat(world.cheap, free_slots=0, queued=4, queue_free=0)
        running = asyncio.create_task(hanse._heartbeats.run(0.01))
        try:
            await until(lambda: find_kind(hanse, world.cheap) == "full")
            beat(world.cheap)
            await until(lambda: find_kind(hanse, world.cheap) == "")
        finally:
            running.cancel()
