"""What can be bought: the paid operations, at which path, under which type of service.

Both sides read this one table: engines and brokers by the operation, gateway and buyers by its
path, offers and the market by its service type.

A price is always per million units, and a receipt's input, cached and output tokens count units.
What a unit is, the service type says:

| service type | input unit | output unit |
| --- | --- | --- |
| `chat`, `embeddings` | token of the model | token of the model |
| `transcription` | second of audio, the last one begun counts | none |
| `speech` | character (Unicode code point) of `input` | none |

Source: OpenAI's API reference; `docs/protocol.md`, section "On the wire"; decision 26.
"""

from collections.abc import Mapping
from enum import StrEnum
from functools import cached_property
from typing import Any


class Operation(StrEnum):
    """A paid operation; the value is the OpenAI path below `/v1`."""

    CHAT = "chat/completions"
    COMPLETION = "completions"
    EMBEDDINGS = "embeddings"
    TRANSCRIPTION = "audio/transcriptions"
    SPEECH = "audio/speech"

    @cached_property
    def path(self) -> str:
        """The OpenAI path, as in `/v1/chat/completions`."""
        return f"/v1/{self.value}"

    @cached_property
    def service_type(self) -> str:
        """Of the offers that sell it."""
        return _SERVICE_TYPES.get(self, "chat")

    @cached_property
    def is_written(self) -> bool:
        """Whether the answer is written token by token: bounded by `max_tokens`, and streamable."""
        return self.service_type == "chat"

    @cached_property
    def takes_form(self) -> bool:
        """Whether its body is a multipart form, and not JSON."""
        return self is Operation.TRANSCRIPTION

    def get_content_type(self, fields: Mapping[str, Any]) -> str:
        """Of a whole answer to a request with these fields; both sides derive it, nobody sends it.

        A format that nobody knows counts as the operation's default.
        """
        formats = _CONTENT_TYPES.get(self, {})
        default = formats.get("", "application/json")
        wanted = fields.get("response_format")
        return formats.get(wanted, default) if isinstance(wanted, str) else default


_SERVICE_TYPES = {
    Operation.EMBEDDINGS: "embeddings",
    Operation.TRANSCRIPTION: "transcription",
    Operation.SPEECH: "speech",
}

SPEECH_FORMATS = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}
"""Of spoken audio, each with its content type; `pcm` is 16-bit little-endian mono at 24 kHz."""

TRANSCRIPTION_FORMATS = {
    "json": "application/json",
    "verbose_json": "application/json",
    "text": "text/plain; charset=utf-8",
}
"""Of a transcription."""

_CONTENT_TYPES: dict[Operation, dict[str, str]] = {
    Operation.SPEECH: {"": "audio/mpeg", **SPEECH_FORMATS},
    Operation.TRANSCRIPTION: TRANSCRIPTION_FORMATS,
}

OPERATIONS_BY_PATH = {operation.path: operation for operation in Operation}

SERVICE_TYPES = tuple(dict.fromkeys(operation.service_type for operation in Operation))
"""Of all offers: `chat` (chat and plain completions), `embeddings`, `transcription`, `speech`."""
