"""Splitting, cutting and renaming bytes, for any text whatever."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanse.engines.frames import Renamer, StreamMeter, read_envelope, strip_timings
from hanse.engines.sse import FrameSplitter
from hanse.protocol.errors import TransientError
from hanse.protocol.messages import Usage

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


def test_more_cached_than_prompt_never_goes_negative() -> None:
    details = {"prompt_tokens": 3, "prompt_tokens_details": {"cached_tokens": 9}}
    envelope = read_envelope(encode({"choices": [], "usage": details}))
    assert envelope.usage is not None
    assert envelope.usage.to_usage() == Usage(0, 3, 0)
