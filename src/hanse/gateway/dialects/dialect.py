"""What a dialect is: a body, its translation into a chat completion and back, and its errors.

translation = dialect.translate(body)
translation.body                     # the chat completion to buy, at `BOUGHT_PATH`
writer = translation.open_writer()   # tells one answer
writer.begin(reader) / write(piece) / end(reader)   # frames of a stream, in the dialect
writer.get_whole(reader)             # or all of it at once
"""

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from hanse.gateway.dialects.chat import ChatReader, Piece
from hanse.protocol.errors import HanseError, RequestError
from hanse.protocol.wire import Operation

BOUGHT_PATH = Operation.CHAT.path
"""What is bought for every dialect."""


class Writer(Protocol):
    """Tells one answer; use either the three of a stream, or `write` and `get_whole`."""

    def begin(self, reader: ChatReader) -> bytes:
        """The frames before anything was said."""
        ...

    def write(self, piece: Piece) -> bytes:
        """The frames of one piece.

        Raises:
            VerificationError: `response_malformed`, the pieces come in an order that nobody can
                tell.
        """
        ...

    def end(self, reader: ChatReader) -> bytes:
        """The frames after the last piece."""
        ...

    def get_whole(self, reader: ChatReader) -> dict[str, Any]:
        """The whole answer of what was written."""
        ...


class Translation(msgspec.Struct, frozen=True):
    """One request in another dialect.

    Attributes:
        body: the chat completion that is bought.
        open_writer: makes what tells its answer.
    """

    body: bytes
    open_writer: Callable[[], Writer]


class Dialect(msgspec.Struct, frozen=True):
    """One API that is spoken over chat completions.

    Attributes:
        translate: a body into what is bought; raises RequestError.
        to_error_body: an error as its SDKs read it.
        to_error_frame: the same as the frame that ends a broken stream.
        error_kind: describes an error's JSON; None for OpenAI's.
        request_id_header: where its SDKs look for the request's id, besides `x-request-id`.
        described: structs that its body's description refers to.
    """

    translate: Callable[[bytes], Translation]
    to_error_body: Callable[[HanseError], object]
    to_error_frame: Callable[[HanseError], bytes]
    error_kind: type[msgspec.Struct] | None = None
    request_id_header: bytes = b""
    described: tuple[type[msgspec.Struct], ...] = ()


def to_event(kind: str, content: dict[str, Any]) -> bytes:
    """One named event; its type stands in its data too."""
    data = msgspec.json.encode({"type": kind, **content})
    return b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n"


def encode_chat(chat: dict[str, Any]) -> bytes:
    """The bytes that are bought.

    Raises:
        RequestError: `invalid_request`, a text that no encoding can hold.
    """
    try:
        return msgspec.json.encode(chat)
    except UnicodeEncodeError:
        raise RequestError("invalid_request", "a text holds half of a surrogate pair") from None
