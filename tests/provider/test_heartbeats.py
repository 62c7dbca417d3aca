"""What a broker says of how busy it is."""

import asyncio
import json

from hanse.protocol.pricing import get_maximum_fee
from hanse.protocol.verify import verify_heartbeat
from hanse.protocol.wire import HEARTBEATS_PATH, heartbeat_from_json
from hanse.provider import ServingLimits
from tests.provider.broker_parts import DOMAIN, PROVIDER, RECEIPT_KEY, chat_body, selling, until


async def fetch_heartbeat(caller):
    reply = await caller.get(HEARTBEATS_PATH)
    assert reply.status == 200, reply.body
    (document,) = json.loads(reply.body)["heartbeats"]
    return heartbeat_from_json(document)


async def test_a_heartbeat_tells_slots_and_queue_and_is_signed_by_the_receipt_key():
    limits = ServingLimits(queue_max=3)
    async with selling(limits=limits, parallel=2, token_delay_s=0.05) as (here, caller):
        idle = await fetch_heartbeat(caller)
        verify_heartbeat(idle, DOMAIN, RECEIPT_KEY.address, here.broker.parts.now_s())
        said = idle.heartbeat
        assert (said.provider, said.service_id, said.is_warm) == (PROVIDER, 1, True)
        assert (said.slots, said.free_slots, said.queued, said.queue_free) == (2, 2, 0, 3)
        assert await fetch_heartbeat(caller) == idle  # asked at once again: the same
        bodies = [chat_body("one two three four five six", stream=True) for _ in range(3)]
        asked = [
            asyncio.create_task(caller.send(caller.sign(body, committed=10**9, sequence_max=9)))
            for body in bodies
        ]
        await until(lambda: here.broker.in_flight == 3)
        here.broker._heartbeats._made_at = -1e9  # a second has passed
        busy = (await fetch_heartbeat(caller)).heartbeat
        assert (busy.free_slots, busy.queued, busy.queue_free) == (0, 1, 2)
        assert busy.sent_at_ms > said.sent_at_ms
        await asyncio.gather(*asked)


async def test_a_request_for_several_answers_takes_a_slot_for_each():
    async with selling(parallel=4, choices_max=4, token_delay_s=0.05) as (here, caller):
        body = chat_body("one two three four five six", n=3)
        signed = caller.sign(body, maximum_fee=get_maximum_fee(here.offer, 200, 3 * 8))
        asked = asyncio.create_task(caller.send(signed))
        await until(lambda: here.broker.in_flight == 1)
        busy = (await fetch_heartbeat(caller)).heartbeat
        assert (busy.slots, busy.free_slots, busy.queued) == (4, 1, 0)
        assert (await asked).status == 200
        here.broker._heartbeats._made_at = -1e9  # a second has passed
        assert (await fetch_heartbeat(caller)).heartbeat.free_slots == 4


async def test_a_broker_that_drains_has_no_heartbeat():
    async with selling() as (here, caller):
        here.broker.begin_draining()
        reply = await caller.get(HEARTBEATS_PATH)
        assert (reply.status, reply.error["code"]) == (503, "draining")
