"""Which fields of a speech or transcription request are taken, ignored or refused.

A transcription comes as a form, so its numbers are texts. `hanse.engines.parameters` asks here.

Source: OpenAI's API reference for audio.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from hanse.protocol.errors import RequestError
from hanse.protocol.wire.operations import Operation

SPEECH_CHARS_MAX = 4_096
"""Of one text to speak, as in OpenAI's API."""

PROMPT_CHARS_MAX = 4_096
"""Of a transcription's prompt; models read its end only."""


class SpeechFields(msgspec.Struct):
    """What is taken of a speech request."""

    input: Annotated[str, Meta(min_length=1, max_length=SPEECH_CHARS_MAX)]
    voice: Annotated[str, Meta(min_length=1, max_length=64)]
    response_format: Literal["mp3", "opus", "aac", "flac", "wav", "pcm"] = "mp3"
    speed: Annotated[float, Meta(ge=0.25, le=4)] = 1.0
    stream_format: Literal["audio"] = "audio"


class TranscriptionFields(msgspec.Struct):
    """What is taken of a transcription's form, besides its file."""

    language: Annotated[str, Meta(pattern="^[A-Za-z]{2,3}$")] | None = None
    prompt: Annotated[str, Meta(max_length=PROMPT_CHARS_MAX)] | None = None
    response_format: Literal["json", "verbose_json", "text"] = "json"
    temperature: Annotated[float, Meta(ge=0, le=1)] = 0.0


_KINDS: dict[Operation, type[msgspec.Struct]] = {
    Operation.SPEECH: SpeechFields,
    Operation.TRANSCRIPTION: TranscriptionFields,
}


def check_audio_fields(
    operation: Operation, body: Mapping[str, Any], ignored: frozenset[str]
) -> dict[str, Any]:
    """The fields that the engine must honour, each checked.

    Raises:
        RequestError: `invalid_request` or `unsupported_parameter`, with `param`.
    """
    kind = _KINDS[operation]
    given = {name: value for name, value in body.items() if value is not None}
    file = given.pop("file", None) if operation is Operation.TRANSCRIPTION else None
    if operation is Operation.TRANSCRIPTION:
        if not (isinstance(file, bytes) and file):
            raise RequestError("invalid_request", "file is missing or empty.", param="file")
        if given.get("stream") not in (None, False, "false", "False", "0"):
            raise RequestError(
                "unsupported_parameter", "stream is not offered here.", param="stream"
            )
    for name in given:
        if name not in kind.__struct_fields__ and name not in ignored:
            shown = "".join(c for c in name[:64] if c.isprintable())
            raise RequestError(
                "unsupported_parameter", f"{shown} is not known here; leave it out.", param=shown
            )
    taken = {name: value for name, value in given.items() if name in kind.__struct_fields__}
    try:
        checked = msgspec.convert(taken, kind, strict=operation is not Operation.TRANSCRIPTION)
    except msgspec.ValidationError as error:
        raise _get_error(str(error)) from None
    fields = msgspec.structs.asdict(checked)
    return fields if file is None else {**fields, "file": file}


def _get_error(text: str) -> RequestError:
    """Msgspec's sentence, with the field that it names as `param`."""
    reason, _, at = text.partition(" - at `$.")
    param = at.rstrip("`") or reason.rpartition("field `")[2].rstrip("`")
    return RequestError("invalid_request", f"{param}: {reason}.", param=param or None)
