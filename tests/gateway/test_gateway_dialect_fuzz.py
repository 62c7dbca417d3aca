"""Whatever a provider sends, a dialect tells it in its own form or ends as malformed."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hanse.gateway.dialects.chat import ChatReader, read_payload
from hanse.gateway.dialects.messages_answer import MESSAGES
from hanse.gateway.dialects.responses_answer import RESPONSES
from hanse.protocol.errors import TransientError, VerificationError

BODIES = {
    MESSAGES: {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]},
    RESPONSES: {"model": "m", "input": "x", "include": ["message.output_text.logprobs"]},
}
texts = st.text(max_size=6)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
calls = st.fixed_dictionaries(
    {},
    optional={
        "index": st.integers(-1, 3) | anything,
        "id": texts | anything,
        "function": st.fixed_dictionaries(
            {}, optional={"name": texts | anything, "arguments": texts | anything}
        ),
    },
)
deltas = st.fixed_dictionaries(
    {},
    optional={
        "content": texts | anything,
        "reasoning_content": texts | anything,
        "refusal": texts,
        "tool_calls": st.lists(calls, max_size=3) | anything,
    },
)
logprobs = st.fixed_dictionaries(
    {"content": st.lists(st.fixed_dictionaries({"token": texts, "logprob": st.floats(-9, 0)}))}
)
choices = st.fixed_dictionaries(
    {},
    optional={
        "index": st.integers(0, 1),
        "delta": deltas,
        "finish_reason": st.sampled_from([None, "stop", "length", "tool_calls", "odd"]),
        "logprobs": logprobs | anything,
    },
)
usages = st.fixed_dictionaries(
    {},
    optional={
        "prompt_tokens": st.integers(),
        "completion_tokens": st.integers(0, 9),
        "prompt_tokens_details": st.fixed_dictionaries({"cached_tokens": st.integers(0, 99)}),
    },
)
frames = st.fixed_dictionaries(
    {},
    optional={
        "id": texts,
        "created": st.integers(),
        "choices": st.lists(choices, max_size=2) | anything,
        "usage": usages | anything,
        "error": st.none() | anything,
    },
)
payloads = st.binary(max_size=20) | (frames | anything).map(
    lambda value: json.dumps(value).encode()
)


@pytest.mark.parametrize("dialect", [MESSAGES, RESPONSES], ids=["messages", "responses"])
@settings(max_examples=200, deadline=None)
@given(stream=st.lists(payloads, max_size=6))
def test_any_stream_is_told_or_malformed(dialect, stream):
    writer = dialect.translate(json.dumps(BODIES[dialect]).encode()).open_writer()
    reader, told = ChatReader(), b""
    try:
        for number, payload in enumerate(stream):
            pieces = reader.read(read_payload(b"data: " + payload.replace(b"\n", b" ") + b"\n\n"))
            told += writer.begin(reader) if number == 0 else b""
            told += b"".join(map(writer.write, pieces))
        told += writer.end(reader)
    except (VerificationError, TransientError) as error:
        told += dialect.to_error_frame(error)
    check_events(told)


def check_events(told: bytes) -> None:
    for frame in told.decode().removesuffix("\n\n").split("\n\n"):
        name, data = frame.split("\n")
        assert name == f"event: {json.loads(data.removeprefix('data: '))['type']}"


@pytest.mark.parametrize("dialect", [MESSAGES, RESPONSES], ids=["messages", "responses"])
@settings(max_examples=100, deadline=None)
@given(said=deltas, reason=st.sampled_from(["stop", "length", "tool_calls"]))
def test_any_whole_answer_is_told_or_malformed(dialect, said, reason):
    writer = dialect.translate(json.dumps(BODIES[dialect]).encode()).open_writer()
    reader = ChatReader()
    whole = {"id": "x", "choices": [{"message": said, "finish_reason": reason}]}
    try:
        for piece in reader.read(json.dumps(whole).encode()):
            writer.write(piece)
        json.dumps(writer.get_whole(reader))
    except (VerificationError, TransientError):
        return
    content = said.get("content")
    assert content is None or isinstance(content, str)
