"""Multipart forms, from strangers."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanse.protocol.errors import RequestError
from hanse.protocol.wire.forms import FIELD_BYTES_MAX, PARTS_MAX, Form, read_form


def make_part(name: str, value: bytes, filename: str | None = None) -> bytes:
    head = f'--b0\r\nContent-Disposition: form-data; name="{name}"'
    if filename is not None:
        head += f'; filename="{filename}"\r\nContent-Type: audio/wav'
    return head.encode() + b"\r\n\r\n" + value + b"\r\n"


def make_form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--b0--\r\n"


MODEL = make_part("model", b"whisper")
FILE = make_part("file", b"RIFF\r\n--b1\r\n", "a.wav")


def test_a_form_is_read_by_its_own_boundary():
    form = read_form(make_form(FILE, MODEL))
    assert form == Form({"model": "whisper"}, b"RIFF\r\n--b1\r\n")


@given(st.binary(max_size=300), st.text(max_size=30))
def test_what_is_written_is_read(file, text):
    if b"--b0" in file or "--b0" in text:
        return
    form = read_form(make_form(make_part("file", file, "x"), make_part("prompt", text.encode())))
    assert form == Form({"prompt": text}, file)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "boundary"),
        (b"{}", "boundary"),
        (b"--\r\n", "boundary"),
        (b"--" + b"b" * 80 + b"\r\n", "boundary"),
        (b"--\xff\r\n", "boundary"),
        (MODEL, "cannot be read"),
        (make_form(*[make_part(f"f{i}", b"") for i in range(PARTS_MAX + 1)]), "cannot be read"),
        (b"--b0\r\nX: " + b"y" * 9_000 + b"\r\n\r\n\r\n--b0--\r\n", "cannot be read"),
        (make_form(MODEL, MODEL), "twice"),
        (make_form(FILE, FILE), "two files"),
        (make_form(make_part("prompt", b"x", "a.txt")), "takes none"),
        (make_form(make_part("prompt", b"x" * (FIELD_BYTES_MAX + 1))), "more than"),
        (make_form(make_part("prompt", b"\xff")), "UTF-8"),
    ],
)
def test_what_is_no_form_is_refused(body, why):
    with pytest.raises(RequestError, match=why) as caught:
        read_form(body)
    assert caught.value.code == "invalid_request"


@given(st.binary(max_size=400) | st.binary(max_size=400).map(lambda raw: b"--b0\r\n" + raw))
def test_any_bytes_are_read_or_refused(body):
    with contextlib.suppress(RequestError):
        assert isinstance(read_form(body), Form)
