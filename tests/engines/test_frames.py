"""Splitting, cutting and renaming bytes, for any text whatever."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanse.engines.wire.envelope import read_envelope
from hanse.engines.wire.metering import LESSONS_MAX, StreamMeter, strip_timings
from hanse.engines.wire.renaming import Renamer
from hanse.engines.wire.sse import FrameSplitter
from hanse.protocol.errors import TransientError
from hanse.protocol.messages import FinishReason, Usage

TIMINGS = {"cache_n": 26, "prompt_n": 7, "prompt_ms": 28.8, "predicted_n": 3}
TRICKY = st.text() | st.sampled_from(
    ['","timings":{"a":1}', ',"timings":{', '"model":"up"', '"id":"x-1"', "data: x\n\n", "\r\n\r\n"]
)


def encode(value: Any, compact: bool = True) -> bytes:
    separators = (",", ":") if compact else (", ", ": ")
    return json.dumps(value, separators=separators, ensure_ascii=False).encode()


@given(st.lists(st.binary(min_size=1).filter(lambda b: not set(b) & set(b"\r\n"))), st.data())
def test_any_cut_gives_the_same_payloads(payloads: list[bytes], data: st.DataObject) -> None:
    ending = data.draw(st.sampled_from([b"\n\n", b"\r\n\r\n"]))
    raw = b"".join(b"data: " + payload + ending for payload in payloads)
    splitter, found = FrameSplitter(), []
    while raw:
        size = data.draw(st.integers(1, len(raw)))
        found += splitter.feed(raw[:size])
        raw = raw[size:]
    assert found == payloads


def test_limits_of_frame_and_stream() -> None:
    with pytest.raises(TransientError):
        FrameSplitter(frame_bytes_max=10).feed(b"data: " + b"x" * 20)
    splitter = FrameSplitter(total_bytes_max=30)
    splitter.feed(b"data: 123456789\n\n")
    with pytest.raises(TransientError):
        splitter.feed(b"data: 123456789\n\n")


@given(TRICKY, TRICKY)
def test_timings_are_cut_out_and_nothing_else(content: str, model: str) -> None:
    frame = {"choices": [{"delta": {"content": content}}], "id": "x-1", "model": model}
    assert strip_timings(encode({**frame, "timings": TIMINGS})) == encode(frame)
    assert strip_timings(encode(frame)) == encode(frame)


@given(TRICKY, st.sampled_from(["up", 'u"p', "a/b", "mödel"]), st.booleans())
def test_renaming_changes_two_fields_only(content: str, model: str, compact: bool) -> None:
    renamer = Renamer("ours-1", "offered")
    for number in range(2):
        call = [{"id": "call_1", "function": {"arguments": content}}]
        frame = {
            "id": f"x-{number}",
            "choices": [{"delta": {"content": content, "tool_calls": call}}],
            "model": model,
        }
        payload = encode(frame, compact)
        renamed = renamer.rename(payload, read_envelope(payload))
        assert json.loads(renamed) == {**frame, "id": "ours-1", "model": "offered"}


ORDERS = st.permutations(["id", "object", "model", "choices"])
NAMES = st.sampled_from(["x-1", "x-2", "ours-1", "offered", 'a"b', "a/b", ""])


@given(
    st.lists(st.tuples(ORDERS, NAMES, NAMES, TRICKY, st.booleans()), min_size=1, max_size=9),
    st.integers(1, 3),
)
def test_every_frame_of_a_stream_is_renamed_as_if_it_were_alone(
    frames: list[tuple[list[str], str, str, str, bool]], times: int
) -> None:
    stream = Renamer("ours-1", "offered")
    for order, name, model, content, compact in frames * times:
        choices = [{"delta": {"content": content}}]
        values = {"id": name, "object": "o", "model": model, "choices": choices}
        payload = encode({key: values[key] for key in order}, compact)
        envelope = read_envelope(payload)
        renamed = stream.rename(payload, envelope)
        assert renamed == Renamer("ours-1", "offered").rename(payload, envelope)


def test_a_name_that_comes_twice_is_not_the_one_in_front() -> None:
    renamer = Renamer("ours", "offered")
    head = b'{"id":"x","model":"m","choices":[]'
    assert renamer.rename(head + b"}", read_envelope(head + b"}")) == (
        b'{"id":"ours","model":"offered","choices":[]}'
    )
    twice = head + b',"id":"y"}'  # decoders take the last
    assert renamer.rename(twice, read_envelope(twice)) == (
        b'{"id":"x","model":"offered","choices":[],"id":"ours"}'
    )


def test_an_escaped_name_is_replaced_too() -> None:
    payload = rb'{"id":"a\/b","model":"x","choices":[]}'
    renamed = Renamer("ours", "offered").rename(payload, read_envelope(payload))
    assert json.loads(renamed) == {"id": "ours", "model": "offered", "choices": []}


def test_a_cut_meter_owes_what_was_in_the_frames() -> None:
    meter = StreamMeter(Renamer("a", "m"), wants_usage=False, input_words=9)
    first = {"choices": [{"delta": {"role": "assistant", "content": None}}]}
    chunk = meter.take([encode(first)])
    assert chunk is not None
    assert chunk.usage == Usage()
    second = {"choices": [{"delta": {"content": "x"}}], "timings": TIMINGS}
    end = {"choices": [{"delta": {}, "finish_reason": "stop"}]}
    usage = {"choices": [], "usage": {"prompt_tokens": 33, "completion_tokens": 4}}
    chunk = meter.take([encode(second), encode(end), encode(usage), b"[DONE]"])
    assert chunk is not None
    # The end is held back, so what only the end owes is not in this chunk.
    assert chunk.usage == Usage(7, 26, 3)
    assert meter.is_done
    assert meter.finish().usage == Usage(33, 0, 4)


@pytest.mark.parametrize("wants_usage", [True, False])
def test_who_asks_for_usage_gets_it_also_of_a_server_that_states_none(wants_usage: bool) -> None:
    meter = StreamMeter(Renamer("a", "m"), wants_usage=wants_usage, input_words=9)
    head = {"id": "x", "object": "chat.completion.chunk", "created": 7, "model": "y"}
    choices = [{"index": 0, "delta": {"content": "x"}, "finish_reason": None}]
    end = [{"index": 0, "delta": {}, "finish_reason": "stop"}]
    frames = [encode(head | {"choices": choices}), encode(head | {"choices": end}), b"[DONE]"]
    meter.take(frames)
    *_, last = meter.finish().data.decode().removesuffix("\n\n").split("\n\n")
    stated = json.loads(last.removeprefix("data: "))
    if not wants_usage:
        assert "usage" not in stated
        return
    usage = {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}
    assert stated == head | {"id": "a", "model": "m", "choices": [], "usage": usage}


def tell(index: int, text: str = "", finish: str | None = None, tokens: int = 0) -> bytes:
    choice = {"index": index, "delta": {"content": text}, "finish_reason": finish}
    usage = {"prompt_tokens": 5, "completion_tokens": tokens}
    return encode({"choices": [choice], **({"usage": usage} if tokens else {})})


def make_meter(choices: int = 2) -> StreamMeter:
    return StreamMeter(Renamer("a", "m"), wants_usage=True, input_words=4, choices=choices)


def test_choices_that_count_their_own_are_added_up() -> None:
    meter = make_meter()
    chunk = meter.take([tell(1, "x", tokens=2), tell(0, "y", tokens=3)])
    assert chunk is not None
    assert chunk.usage == Usage(5, 0, 5)
    chunk = meter.take([tell(1, finish="length", tokens=4)])
    assert chunk is not None  # one choice has ended, the answer has not
    assert (chunk.usage, chunk.finish_reason) == (Usage(5, 0, 7), None)
    total = encode({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 8}})
    assert meter.take([tell(0, finish="stop", tokens=4), total, b"[DONE]"]) is None
    end = meter.finish()
    assert (end.usage, end.finish_reason) == (Usage(5, 0, 8), FinishReason.STOP)
    assert end.data.count(b"data: ") == 2


def test_frames_count_for_choices_that_say_nothing_of_themselves() -> None:
    meter = make_meter()
    meter.take([tell(0, "x"), tell(1, "y"), tell(1, "z")])
    assert meter.usage == Usage(4, 0, 3)
    meter.take([tell(0, "x", tokens=2)])
    assert meter.usage == Usage(5, 0, 3)


def test_an_answer_without_the_end_of_each_choice_is_broken() -> None:
    meter = make_meter()
    meter.take([tell(0, "x", finish="stop"), b"[DONE]"])
    with pytest.raises(TransientError):
        meter.finish()


@pytest.mark.parametrize("index", [-1, 2, 2**40])
def test_a_choice_that_nobody_asked_for_breaks_the_answer(index: int) -> None:
    with pytest.raises(TransientError):
        make_meter().take([tell(index, "x")])


def test_more_cached_than_prompt_never_goes_negative() -> None:
    details = {"prompt_tokens": 3, "prompt_tokens_details": {"cached_tokens": 9}}
    envelope = read_envelope(encode({"choices": [], "usage": details}))
    assert envelope.usage is not None
    assert envelope.usage.to_usage() == Usage(0, 3, 0)


FRAMES = st.one_of(
    st.builds(lambda text: {"choices": [{"index": 0, "delta": {"content": text}}]}, TRICKY),
    st.sampled_from(["a", " word", "b c", ""]).map(
        lambda text: {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}
    ),
    st.sampled_from(
        [
            {"choices": [{"index": 0, "delta": {"role": "assistant"}}]},
            {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0}]}}]},
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
            {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 9_000}},
        ]
    ),
)


@given(st.lists(FRAMES, min_size=1, max_size=12), st.integers(1, 3))
def test_frames_that_are_alike_are_taken_as_if_each_were_decoded(
    frames: list[dict[str, Any]], times: int
) -> None:
    """What a stream owes and what leaves of it, at each of its frames."""
    alike, decoded = make_meter(1), make_meter(1)
    for frame in frames * times:
        payload = encode({"id": "x", "model": "y", **frame})
        decoded._lessons = LESSONS_MAX  # learns nothing
        assert alike.take([payload]) == decoded.take([payload])
    assert alike.usage == decoded.usage
