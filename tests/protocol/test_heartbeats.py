"""Heartbeats on the wire, and what makes one count."""

import msgspec
import pytest
from hypothesis import given

from hanse.protocol.errors import RequestError, VerificationError
from hanse.protocol.limits import CLOCK_SKEW_S_MAX, REGION_CHARS_MAX
from hanse.protocol.messages import Heartbeat, SignedHeartbeat
from hanse.protocol.signatures import sign_digest
from hanse.protocol.verify import verify_heartbeat
from hanse.protocol.wire import heartbeat_from_json, heartbeat_to_json, parse_region
from tests.protocol.made_messages import (
    ATTACKER_KEY,
    DOMAIN,
    NOW_S,
    PROVIDER,
    RECEIPT_ADDRESS,
    RECEIPT_KEY,
    heartbeats,
)


def make_heartbeat(key=RECEIPT_KEY, **changes) -> SignedHeartbeat:
    heartbeat = Heartbeat(PROVIDER, 1, NOW_S * 1_000, 4, 1, 0, 64, True)
    heartbeat = msgspec.structs.replace(heartbeat, **changes)
    return SignedHeartbeat(heartbeat, sign_digest(key, DOMAIN.digest(heartbeat.struct_hash())))


@given(heartbeats)
def test_what_is_written_is_read_again_unless_its_counts_contradict(heartbeat: Heartbeat):
    signed = SignedHeartbeat(heartbeat, "0x00")
    document = msgspec.json.decode(msgspec.json.encode(heartbeat_to_json(signed)))
    possible = (
        heartbeat.slots >= 1
        and heartbeat.free_slots <= heartbeat.slots
        and heartbeat.sent_at_ms <= 1_000 * 2**40
    )
    if possible:
        assert heartbeat_from_json(document) == signed
    else:
        with pytest.raises(VerificationError):
            heartbeat_from_json(document)


@pytest.mark.parametrize(
    "change",
    [
        {"slots": 0},
        {"free_slots": 5},
        {"queued": -1},
        {"queue_free": 2**20 + 1},
        {"is_warm": 1},
        {"v": 2},
        {"provider": "0x12"},
        {"more": 1},
    ],
)
def test_a_malformed_one_is_refused_by_its_code(change):
    document = {**heartbeat_to_json(make_heartbeat()), **change}
    with pytest.raises(VerificationError) as refused:
        heartbeat_from_json(document)
    assert refused.value.code == "heartbeat_invalid"


def test_only_the_receipt_keys_word_of_these_minutes_counts():
    verify_heartbeat(make_heartbeat(), DOMAIN, RECEIPT_ADDRESS, NOW_S + CLOCK_SKEW_S_MAX)
    for signed, now_s in (
        (make_heartbeat(ATTACKER_KEY), NOW_S),
        (make_heartbeat(), NOW_S + CLOCK_SKEW_S_MAX + 1),
        (make_heartbeat(), NOW_S - CLOCK_SKEW_S_MAX - 1),
        (
            SignedHeartbeat(make_heartbeat(free_slots=4).heartbeat, make_heartbeat().signature),
            NOW_S,
        ),
    ):
        with pytest.raises(VerificationError):
            verify_heartbeat(signed, DOMAIN, RECEIPT_ADDRESS, now_s)


@pytest.mark.parametrize("text", ["eu", "us-east", "ap-southeast-2"])
def test_regions_are_words_joined_by_dashes(text: str):
    assert parse_region(text) == text


@pytest.mark.parametrize("text", ["EU", "eu-", "-eu", "eu west", "é", "e" * (REGION_CHARS_MAX + 1)])
def test_other_regions_are_refused(text: str):
    with pytest.raises(RequestError):
        parse_region(text)
