"""Every stream that is paid for is asked for its usage; who did not ask for it does not see it."""

import json
from typing import Any

import pytest

from hanse.protocol.errors import VerificationError
from hanse.protocol.hashing import hash_body
from hanse.protocol.limits import REQUEST_BODY_BYTES_MAX
from hanse.sdk import Verification
from hanse.sdk.purchase.ask import read_ask
from hanse.sdk.purchase.checking import is_usage_frame
from tests.sdk.conftest import World
from tests.sdk.test_dishonest import BODY, STREAM, buy

PATH = "/v1/chat/completions"
ASKED = json.dumps(json.loads(STREAM) | {"stream_options": {"include_usage": True}}).encode()


def find_usages(stream: bytes) -> list[dict[str, Any]]:
    frames = [frame[6:] for frame in stream.split(b"\n\n") if frame.startswith(b"data: {")]
    return [usage for frame in frames if (usage := json.loads(frame).get("usage"))]


@pytest.mark.parametrize("body", [STREAM, ASKED], ids=["not asked", "asked"])
async def test_a_bill_is_held_to_the_stated_usage_whether_the_caller_asked_or_not(
    world: World, body: bytes
) -> None:
    world.only(world.cheap)
    async with world.open() as hanse:
        answer = await hanse.request(PATH, body)
        got = b"".join([frame async for frame in answer.frames()])
        assert got.endswith(b"data: [DONE]\n\n")
        assert len(find_usages(got)) == (1 if body is ASKED else 0)
        (sent,) = world.cheap.bodies
        assert json.loads(sent)["stream_options"] == {"include_usage": True}
        assert answer.voucher.request.body_hash == hash_body(PATH, sent)
        assert answer.receipt is not None
        assert answer.receipt.verification is Verification.VERIFIED, "over all that was received"
        world.cheap.lie = "usage"
        with pytest.raises(VerificationError, match="output tokens"):
            await buy(hanse, body)


async def test_a_stream_that_does_not_say_what_it_was_asked_is_not_believed(world: World) -> None:
    world.only(world.cheap)
    world.cheap.lie = "unstated"
    async with world.open() as hanse:
        with pytest.raises(VerificationError, match="asked to state its usage"):
            await buy(hanse, STREAM)
        (receipt,) = await hanse.get_receipts()
        assert receipt.verification is Verification.MISMATCHED


def test_only_streams_that_are_paid_for_are_asked() -> None:
    assert read_ask(PATH, BODY).body is BODY
    assert not read_ask(PATH, BODY).asks_usage
    assert read_ask(PATH, STREAM, is_paid=False).body is STREAM
    own = read_ask(PATH, ASKED)
    assert (own.body, own.asks_usage, own.hides_usage) == (ASKED, True, False)
    added = read_ask(PATH, STREAM)
    assert (added.asks_usage, added.hides_usage) == (True, True)


@pytest.mark.parametrize(
    "options", [{}, {"include_usage": False}, {"include_obfuscation": False}, None]
)
def test_other_options_stay(options: dict[str, Any] | None) -> None:
    asked = json.loads(STREAM) | {"stream_options": options, "temperature": 0.25}
    found = read_ask(PATH, json.dumps(asked, indent=1).encode())
    assert found.hides_usage
    wanted = (options or {}) | {"include_usage": True}
    assert json.loads(found.body) == asked | {"stream_options": wanted}


def test_a_body_without_room_and_nonsense_go_as_they_came() -> None:
    padding = REQUEST_BODY_BYTES_MAX - len(STREAM) - 5
    full = STREAM.replace(b"What", b"W" * padding)
    for body in (full, STREAM.replace(b"{", b'{"stream_options": [1],', 1)):
        found = read_ask(PATH, body)
        assert (found.body, found.asks_usage, found.hides_usage) == (body, False, False)


def test_text_that_looks_like_a_usage_frame_is_text() -> None:
    text = json.dumps({"choices": [{"delta": {"content": '"usage":{},"choices":[]'}}]})
    assert not is_usage_frame(b"data: " + text.encode() + b"\n\n")
    assert is_usage_frame(b'data: {"choices":[],"usage":{"prompt_tokens":1}}\n\n')
    assert is_usage_frame(b'data: {"choices": [], "usage":{"prompt_tokens":1}}\n\n')
    assert not is_usage_frame(b'data: {"choices":[{"index":0}],"usage":null}\n\n')
