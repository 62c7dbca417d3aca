"""A multipart form, as an upload of audio comes: one file and a few short fields.

The boundary is read from the body's own first line, so that the body alone, whose hash a voucher
buys, says everything; no header takes part. Both sides read it by these rules.

Source: RFC 7578; `docs/protocol.md`, section "On the wire".
"""

from dataclasses import dataclass

import multipart

from hanse.protocol.errors import RequestError
from hanse.protocol.wire.operations import OPERATIONS_BY_PATH

PARTS_MAX = 32
"""Parts of a form; OpenAI's uploads have ten at most."""

FIELD_BYTES_MAX = 16_384
"""One field that is no file; a prompt is the longest, and OpenAI's is 244 tokens."""

BOUNDARY_BYTES_MAX = 70
"""As RFC 2046 has it."""


@dataclass(frozen=True, slots=True)
class Form:
    """A form's fields by name, and its file."""

    fields: dict[str, str]
    file: bytes | None


def read_form(body: bytes) -> Form:
    """Read a whole form.

    Raises:
        RequestError: `invalid_request`, it is none, or over a limit.
    """
    fields: dict[str, str] = {}
    file: bytes | None = None
    for name, filename, value in _read_parts(body):
        if name == "file" and filename is not None:
            if file is not None:
                raise _reject("holds two files")
            file = value
            continue
        if name in fields:
            raise _reject("holds a field twice", name)
        if filename is not None:
            raise _reject("has a file in a field that takes none", name)
        if len(value) > FIELD_BYTES_MAX:
            raise _reject(f"has a field of more than {FIELD_BYTES_MAX} bytes", name)
        try:
            fields[name] = value.decode()
        except UnicodeDecodeError:
            raise _reject("has a field that is not UTF-8", name) from None
    return Form(fields, file)


def get_body_type(path: str, body: bytes) -> str:
    """The content type of a request's body; nobody who pays or serves reads it.

    Raises:
        RequestError: `invalid_request`, a form is to be sent there, and this is none.
    """
    operation = OPERATIONS_BY_PATH.get(path)
    if operation is None or not operation.takes_form:
        return "application/json"
    return f"multipart/form-data; boundary={_get_boundary(body).decode()}"


def _read_parts(body: bytes) -> list[tuple[str, str | None, bytes]]:
    parts: list[tuple[str, str | None, bytes]] = []
    name, filename, pieces = "", None, bytearray()
    try:
        with multipart.PushMultipartParser(
            _get_boundary(body),
            content_length=len(body),
            max_segment_count=PARTS_MAX,
            strict=True,
        ) as parser:
            for event in parser.parse(body):
                if isinstance(event, multipart.MultipartSegment):
                    name, filename, pieces = event.name or "", event.filename, bytearray()
                elif event is None:
                    parts.append((name, filename, bytes(pieces)))
                else:
                    pieces += event
    except (multipart.MultipartError, UnicodeError, ValueError) as error:
        raise _reject(f"cannot be read ({type(error).__name__})") from None
    return parts


def _get_boundary(body: bytes) -> bytes:
    line, found, _ = body[: BOUNDARY_BYTES_MAX + 4].partition(b"\r\n")
    boundary = line[2:]
    if not (found and line.startswith(b"--") and boundary and boundary.isascii()):
        raise _reject("does not begin with a boundary: send multipart/form-data")
    return boundary


def _reject(why: str, name: str | None = None) -> RequestError:
    shown = None if name is None else "".join(c for c in name[:64] if c.isprintable())
    return RequestError("invalid_request", f"the form {why}", param=shown)
