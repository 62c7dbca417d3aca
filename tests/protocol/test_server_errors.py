"""What of another server's error goes on to callers."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanse.protocol.wire.server_errors import (
    ERROR_MESSAGE_CHARS_MAX,
    PARAM_CHARS_MAX,
    RETRY_AFTER_S_MAX,
    ServerError,
    read_retry_after_s,
    read_server_error,
)

SECRET = "upstream-secret-123"


def read(error: object) -> ServerError:
    return read_server_error(json.dumps({"error": error}).encode(), [SECRET, ""])


def test_message_field_and_kind_are_read():
    said = read({"message": "too  hot", "param": "temperature", "code": "c", "type": "t"})
    assert said == ServerError("too hot", "temperature", "c t")
    assert read("only a text").message == "only a text"
    assert "context_length" in read({"code": "context_length_exceeded"}).kind


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"nonsense",
        b"[]",
        b"7",
        b'"x"',
        b"{}",
        b"null",
        b'{"error": {"message": "\xff',
        b"[" * 9_000,
    ],
)
def test_what_cannot_be_read_says_nothing(raw):
    assert read_server_error(raw) == ServerError()


@pytest.mark.parametrize(
    "error",
    [
        {"message": {"a": 1}, "param": 7},
        {"message": None, "param": ""},
        {"message": 5, "param": "a\nb"},
        None,
        [],
    ],
)
def test_what_is_no_text_is_left_out(error):
    said = read(error)
    assert (said.message, said.param) == ("", None)


def test_no_key_and_no_control_goes_on():
    shown = "\x1b[31m" + SECRET + "\nsk-abcdefgh1234 Bearer abcdefgh1 key_ABCDEFGHIJ, no key of 12"
    said = read({"message": shown, "param": "p" * 99})
    assert said.message == "[31m*** *** *** *** no key of 12"
    assert said.param == "p" * PARAM_CHARS_MAX
    assert len(read({"message": "w " * 9_999}).message) <= ERROR_MESSAGE_CHARS_MAX


def test_bytes_that_are_no_utf_8_lose_no_message():
    assert "hot" in read_server_error(b'{"error": {"message": "hot \xff"}}').message


@given(raw=st.binary(max_size=200))
def test_nothing_that_a_server_writes_is_an_error_here(raw):
    assert isinstance(read_server_error(b'{"error": ' + raw + b"}"), ServerError)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("7", 7),
        ("0.5", 0.5),
        ("-3", 0),
        ("1e99", RETRY_AFTER_S_MAX),
        ("nan", 0),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
    ],
)
def test_a_wait_is_within_its_bound(text, seconds):
    assert read_retry_after_s(text) == seconds
