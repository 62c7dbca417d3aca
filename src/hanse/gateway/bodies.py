"""What the gateway reads of the bodies that it hands on.

The structs name only what the gateway itself looks at. Everything else in a body (tools, seed,
logprobs, response_format ...) is checked for being JSON and handed on: the gateway never changes a
body, since its hash is what the voucher buys. One pass over the body, nothing kept of the fields
that are not named here.

Source: OpenAI's API reference for chat completions, completions, embeddings and audio.
"""

from collections.abc import Callable
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta

from hanse.gateway.dialects.fields import decode_json, get_field_error
from hanse.protocol.errors import RequestError
from hanse.protocol.limits import CHOICES_MAX, MESSAGES_MAX, NAME_CHARS_MAX, TOKENS_MAX
from hanse.protocol.wire.forms import read_form

TEXTS_MAX = 1_048_576
"""Texts, or token numbers, of one prompt or input; the body's size bounds them anyway, this bounds
the work.
"""

_Model = Annotated[str, Meta(min_length=1, max_length=NAME_CHARS_MAX)]
_Tokens = Annotated[int, Meta(ge=1, le=TOKENS_MAX)]
_Choices = Annotated[int, Meta(ge=1, le=CHOICES_MAX)]
_Token = Annotated[int, Meta(ge=0, le=TOKENS_MAX)]
_Text = (
    Annotated[str, Meta(min_length=1)]
    | Annotated[list[str | _Token | list[_Token]], Meta(min_length=1, max_length=TEXTS_MAX)]
)


class Message(msgspec.Struct):
    """One message of a conversation; who may say what is the engine's business."""

    role: str


class StreamOptions(msgspec.Struct):
    """What a stream carries besides the answer."""

    include_usage: bool | None = None


class ChatBody(msgspec.Struct):
    """What the gateway reads of a chat completion request."""

    model: _Model
    messages: Annotated[list[Message], Meta(min_length=1, max_length=MESSAGES_MAX)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: _Tokens | None = None
    max_completion_tokens: _Tokens | None = None
    n: _Choices | None = None


class ReadChatBody(ChatBody):
    """The same as it is read: with what `hanse.gateway.structured` understands and describes."""

    response_format: msgspec.Raw = msgspec.Raw()


class CompletionBody(msgspec.Struct):
    """What the gateway reads of a completion request."""

    model: _Model
    prompt: _Text
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: _Tokens | None = None
    n: _Choices | None = None


class EmbeddingBody(msgspec.Struct):
    """What the gateway reads of an embedding request."""

    model: _Model
    input: _Text


class SpeechBody(msgspec.Struct):
    """What the gateway reads of a speech request."""

    model: _Model
    input: Annotated[str, Meta(min_length=1)]
    voice: Annotated[str, Meta(min_length=1)]
    response_format: Literal["mp3", "opus", "aac", "flac", "wav", "pcm"] | None = None


class TranscriptionBody(msgspec.Struct):
    """What the gateway reads of a transcription's form; `file` stands for what is uploaded."""

    model: _Model
    file: Annotated[str, Meta(extra_json_schema={"format": "binary"})]
    response_format: Literal["json", "verbose_json", "text"] = "json"


Body = ChatBody | CompletionBody | EmbeddingBody | SpeechBody | TranscriptionBody
_BodyT = TypeVar("_BodyT", ChatBody, CompletionBody, EmbeddingBody, SpeechBody)


def decode_as(kind: type[object], body: bytes) -> Body:
    """Read what the gateway needs of a body; `kind` is one of `Body`.

    Raises:
        RequestError: `invalid_request`; `param` names the field as OpenAI does.
    """
    if kind is TranscriptionBody:
        return _read_form_body(body)
    return decode_json(_DECODE[kind], body)


def rename_model(body: bytes, model: str) -> bytes:
    """The same request to another model: bytes of the gateway's own making.

    Raises:
        RequestError: `invalid_request`, it is a form.
    """
    return msgspec.json.encode({**decode_json(msgspec.json.decode, body), "model": model})


def names_format(fields: Body) -> bool:
    """Whether a body has a `response_format`, however its name is written; True if not read."""
    return not isinstance(fields, ReadChatBody) or len(fields.response_format) > 0


def _read_form_body(body: bytes) -> TranscriptionBody:
    form = read_form(body)
    if form.file is None:
        raise RequestError("invalid_request", "file: no file is in the form", param="file")
    try:
        return msgspec.convert({**form.fields, "file": ""}, TranscriptionBody)
    except msgspec.ValidationError as error:
        raise get_field_error(str(error)) from None


def _decoder(kind: type[_BodyT]) -> Callable[[bytes], _BodyT]:
    return msgspec.json.Decoder(kind).decode


_DECODE: dict[type[object], Callable[[bytes], Body]] = {
    ChatBody: _decoder(ReadChatBody),
    CompletionBody: _decoder(CompletionBody),
    EmbeddingBody: _decoder(EmbeddingBody),
    SpeechBody: _decoder(SpeechBody),
}
