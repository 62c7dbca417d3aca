"""What is read of a broken stream, what is asked for next, and how the parts are joined."""

import json

import msgspec
import pytest

from hanse.gateway.resilience.continuing import Joint, find_obstacle, make_end, make_rest
from hanse.gateway.resilience.delivered import Delivered, verify_frame
from hanse.protocol.errors import VerificationError
from hanse.protocol.hashing import DONE_FRAME

CHAT = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "stream": True}
PLAIN = {"model": "m", "prompt": "hello", "stream": True}


def to_frame(**fields: object) -> bytes:
    head = {"id": "first", "object": "chat.completion.chunk", "created": 7, "model": "m"}
    return b"data: " + msgspec.json.encode({**head, **fields}) + b"\n\n"


def to_chunk(text: str = "", *, reason: str | None = None, **delta: object) -> bytes:
    said = {"content": text, **delta} if text else delta
    return to_frame(choices=[{"index": 0, "delta": said, "finish_reason": reason}])


def deliver(*frames: bytes) -> Delivered:
    delivered = Delivered()
    delivered.held.extend(frames)
    delivered.read()
    return delivered


def read(frame: bytes | None) -> dict:
    assert frame is not None
    return json.loads(frame[6:])


def test_text_names_and_tokens_are_read_once():
    delivered = deliver(to_chunk(role="assistant"), to_chunk("one"), to_chunk(" two"))
    assert (delivered.get(0).text, delivered.tokens) == ("one two", 2)
    assert delivered.get(0).has_role
    assert (delivered.id, delivered.created, delivered.held) == ("first", 7, [])
    delivered.held.append(to_chunk(" three"))
    delivered.read()
    assert (delivered.get(0).text, delivered.tokens) == ("one two three", 3)


def test_usage_in_a_frame_counts_more_than_its_frames():
    usage = {"prompt_tokens": 5, "completion_tokens": 9}
    frame = to_frame(choices=[{"index": 0, "delta": {"content": "a lot"}}], usage=usage)
    assert deliver(frame).tokens == 9


def test_a_role_alone_is_nothing_delivered():
    assert deliver(to_chunk(role="assistant")).is_empty
    assert not deliver(to_chunk("x")).is_empty
    assert not deliver(to_chunk(reason="stop")).is_empty


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (to_chunk(tool_calls=[{"index": 0}]), "tool call"),
        (to_chunk(reasoning_content="hm"), "thoughts"),
        (to_frame(choices=[{"index": 1, "delta": {"content": "x"}}]), "more choices"),
        (to_frame(choices=[{"index": -1, "delta": {"content": "x"}}]), "a choice -1"),
        (to_frame(choices=[{"index": 128, "delta": {"content": "x"}}]), "a choice 128"),
        (to_chunk("x", reason="stop"), "end"),
        (b"data: {oops}\n\n", "cannot be read"),
    ],
)
def test_what_was_delivered_may_stand_in_the_way(frame, why):
    assert why in find_obstacle(CHAT, deliver(to_chunk("x"), frame))


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
def test_no_more_text_is_handed_over_than_was_asked_for(limit):
    request = {**CHAT, limit: 10}
    assert not find_obstacle(request, deliver(to_chunk("é" * 160)))
    assert "321 bytes" in find_obstacle(request, deliver(to_chunk("é" * 160 + "x")))
    assert not find_obstacle(CHAT, deliver(to_chunk("x" * 65_536)))
    assert find_obstacle(CHAT, deliver(to_chunk("é" * 40_000)))
    assert find_obstacle({**CHAT, limit: 10**6}, deliver(to_chunk("x" * 65_537)))


@pytest.mark.parametrize(
    "fields",
    [
        {"best_of": 2},
        {"n": 2, "best_of": 3},
        {"n": 2, "logprobs": 1},
        {"logprobs": True},
        {"response_format": {"type": "json_object"}},
        {"response_format": {"type": "json_schema", "json_schema": {}}},
        {"grammar": "root ::= x"},
        {"tool_choice": "required"},
        {"messages": [{"role": "assistant", "content": [{"type": "text", "text": "x"}]}]},
        {"messages": None, "prompt": ["a", "b"]},
        {"messages": None, "prompt": "a", "echo": True},
        {"messages": None, "prompt": "a", "suffix": "b"},
        {"messages": None, "prompt": [1, 2]},
    ],
)
def test_a_request_may_stand_in_the_way(fields):
    request = {name: value for name, value in {**CHAT, **fields}.items() if value is not None}
    assert find_obstacle(request, deliver(to_chunk("x")))


@pytest.mark.parametrize("fields", [{}, {"n": 1}, {"response_format": {"type": "text"}}])
def test_most_requests_go_on(fields):
    for request in (CHAT, PLAIN):
        assert not find_obstacle({**request, **fields}, deliver(to_chunk("x")))


def test_a_chat_goes_on_as_an_assistant_message_with_fewer_tokens():
    delivered = deliver(to_chunk("one"), to_chunk(" two"))
    rest = make_rest({**CHAT, "max_tokens": 5, "seed": 3}, delivered)
    assert rest is not None
    body = json.loads(rest)
    assert body["messages"] == [*CHAT["messages"], {"role": "assistant", "content": "one two"}]
    assert (body["max_tokens"], body["seed"], body["stream"]) == (3, 3, True)
    again = json.loads(make_rest(body, deliver(to_chunk(" three"))))  # a third provider
    assert again["messages"][-1]["content"] == "one two three"
    assert (again["max_tokens"], len(again["messages"])) == (2, 2)


def test_a_plain_completion_goes_on_from_its_text():
    rest = make_rest({**PLAIN, "prompt": ["hello"]}, deliver(to_chunk(" you")))
    assert json.loads(rest)["prompt"] == "hello you"


def test_nothing_is_asked_for_when_every_token_came():
    delivered = deliver(to_chunk("one"), to_chunk(" two"))
    request = {**CHAT, "max_completion_tokens": 2, "stream_options": {"include_usage": True}}
    assert make_rest(request, delivered) is None
    last, usage, done = make_end(request, delivered, [6])
    assert read(last)["choices"][0]["finish_reason"] == "length"
    assert read(usage)["usage"]["total_tokens"] == 8
    assert (read(last)["id"], done) == ("first", DONE_FRAME)


def test_a_later_part_has_the_firsts_names_no_role_and_usage_added_up():
    delivered = deliver(to_chunk("one", role="assistant"), to_chunk(" two"))
    joint = Joint(delivered, [10])
    other = {"id": "second", "created": 9, "model": "elsewhere"}
    assert joint.join(to_frame(**other, choices=[{"index": 0, "delta": {"role": "x"}}])) is None
    joined = read(joint.join(to_frame(**other, choices=[{"index": 0, "delta": {"content": "!"}}])))
    assert (joined["id"], joined["created"], joined["model"]) == ("first", 7, "m")
    usage = {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}
    counted = read(joint.join(to_frame(**other, choices=[], usage=usage)))["usage"]
    assert counted == {"prompt_tokens": 22, "completion_tokens": 5, "total_tokens": 27}


def test_a_part_whose_prompt_nobody_told_counts_as_the_applications_own():
    joint = Joint(deliver(to_chunk("one"), to_chunk(" two")), [None])
    usage = {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}
    counted = read(joint.join(to_frame(choices=[], usage=usage)))["usage"]
    assert counted["prompt_tokens"] == 12 + (12 - 2)


@pytest.mark.parametrize(
    "raw",
    [
        b"data: []\n\n",
        b"data: {oops}\n\n",
        b"data: 7\n\n",
        b'data: {"usage":{"x":1}}\n\n',
        b'data: {"usage":{"prompt_tokens":1}}\n\n',
        b'data: {"usage":{"prompt_tokens":"1","completion_tokens":1}}\n\n',
    ],
)
def test_what_is_no_chunk_is_refused(raw):
    with pytest.raises(VerificationError):
        Joint(deliver(to_chunk("x")), []).join(raw)


@pytest.mark.parametrize("raw", [b"data: {oops\n\n", b"data: x\n\n", b"event: x\n\n", b"{}\n\n"])
def test_what_is_no_frame_is_refused(raw):
    with pytest.raises(VerificationError):
        verify_frame(raw)


@pytest.mark.parametrize("raw", [b'data: {"a":1}\r\n\r\n', b'data:{"a":1}\n\n'])
def test_other_line_ends_are_frames_too(raw):
    verify_frame(raw)
