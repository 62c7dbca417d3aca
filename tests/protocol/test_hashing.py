"""Body and response hashes: what is inside, what is outside."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanse.protocol.hashing import (
    DONE_FRAME,
    EMPTY_RESPONSE_HASH,
    ResponseHasher,
    hash_body,
    hash_response,
)


@given(frames=st.lists(st.binary(max_size=50), max_size=8))
def test_a_stream_hashes_as_its_frames_joined(frames):
    hasher = ResponseHasher()
    for frame in frames:
        hasher.update(frame)
    assert hasher.get_hash() == hash_response(b"".join(frames))
    assert hasher.length_bytes == sum(map(len, frames))


def test_the_hash_so_far_may_be_read_in_mid_stream():
    hasher = ResponseHasher()
    assert hasher.get_hash() == EMPTY_RESPONSE_HASH
    hasher.update(b"data: {}\n\n")
    cut = hasher.get_hash()
    hasher.update(DONE_FRAME)
    assert cut == hash_response(b"data: {}\n\n") != hasher.get_hash()


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions?x", "/v1/chat"])
def test_a_body_counts_on_its_own_path_only(path):
    assert hash_body(path, b"{}") != hash_body("/v1/chat/completions", b"{}")


def test_body_hash_is_that_of_the_documented_bytes():
    expected = hashlib.sha256(b'POST /v1/chat/completions\n{"a":1}').hexdigest()
    assert hash_body("/v1/chat/completions", b'{"a":1}') == "0x" + expected
