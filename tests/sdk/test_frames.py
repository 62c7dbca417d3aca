"""Splitting a stream: whatever the cuts, the same frames, byte for byte."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanse.protocol.errors import VerificationError
from hanse.protocol.wire.frames import is_done
from hanse.sdk.transport.frames import FrameSplitter, is_data

line = st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), max_size=20)
frame = st.builds(
    lambda head, text, end: (head + text).encode() + end,
    st.sampled_from(["data: ", ":", ": "]),
    line,
    st.sampled_from([b"\n\n", b"\r\n\r\n"]),
)


@given(st.lists(frame, max_size=12), st.lists(st.integers(1, 9), min_size=1, max_size=40))
def test_frames_survive_every_cut(frames: list[bytes], cuts: list[int]) -> None:
    stream, splitter, found = b"".join(frames), FrameSplitter(), []
    position, number = 0, 0
    while position < len(stream):
        size = cuts[number % len(cuts)]
        found += splitter.feed(stream[position : position + size])
        position += size
        number += 1
    assert found == frames
    assert splitter.rest_bytes == 0


@given(st.lists(frame, max_size=12))
def test_one_chunk_gives_the_same_frames(frames: list[bytes]) -> None:
    assert FrameSplitter().feed(b"".join(frames)) == frames or not frames


@given(st.lists(st.sampled_from(["data: ", "x", ":", "\n", "\n\n", "\r", "\r\n"]), max_size=12))
def test_frames_that_are_said_to_have_one_line_have_one(pieces: list[str]) -> None:
    splitter = FrameSplitter()
    frames = splitter.feed(("".join(pieces) + "\n\n").encode())
    for one in frames if splitter.is_plain else ():
        assert one.count(b"\n") == 2
        assert one.endswith(b"\n\n")
        assert not one.startswith(b"data:") or is_data(one)


def test_most_frames_are_known_to_have_one_line() -> None:
    splitter = FrameSplitter()
    for chunk in (b"data: a\n\n", b"data: a\n\ndata: b\n\n", b": a\n\ndata: [DONE]\n\n"):
        splitter.feed(chunk)
        assert splitter.is_plain
    for chunk in (b"data: a\nx\n\n", b"data: a\r\n\r\n", b"data: a\rb\n\n", b"data: a"):
        splitter.feed(chunk)
        assert not splitter.is_plain


def test_a_frame_that_has_not_ended_waits() -> None:
    splitter = FrameSplitter()
    assert splitter.feed(b"data: a\n") == []
    assert splitter.rest_bytes == 8
    assert splitter.feed(b"\n") == [b"data: a\n\n"]


@pytest.mark.parametrize("chunk", [b"data: " + b"x" * 100, b"data: " + b"x" * 100 + b"\n\n"])
def test_long_frames_are_refused(chunk: bytes) -> None:
    with pytest.raises(VerificationError, match="at most 64"):
        FrameSplitter(64).feed(chunk)


def test_only_data_and_comments_are_known() -> None:
    assert is_data(b"data: x\n\n")
    assert not is_data(b": keep-alive\n\n")
    for strange in (b"event: x\ndata: y\n\n", b": x\ndata: y\n\n", b"id: 1\n\n", b"\ndata: x\n\n"):
        with pytest.raises(VerificationError):
            is_data(strange)
    assert is_data(b"data: x\r\n\r\n")
    for more in (
        b"data: x\nevent: y\n\n",
        b"data: x\r\rdata: y\n\n",
        b"data: x\r\ndata: y\r\n\r\n",
    ):
        with pytest.raises(VerificationError, match="more than one line"):
            is_data(more)
    assert is_done(b"data: [DONE]\n\n")
    assert not is_done(b'data: [DONE] "\n\n')
