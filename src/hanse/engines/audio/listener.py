"""The child process of engine `whisper`: a model that hears one file at a time.

Run by `hanse.engines.audio.listeners` as `python -m hanse.engines.audio.listener`. CTranslate2
cannot be interrupted within its window of 30 seconds of audio, so a request that is cancelled ends
this process instead. What a stranger uploads is taken apart here too, by FFmpeg's libraries, away
from the books and the keys.

The parent sends `Config` and then `Ask`s, each is answered by a `Reply`, all in msgpack. A
thread of its own reads them: at the end of the input the parent is gone, and so is this process,
also in the middle of a window.
"""

import math
import os
import queue
import sys
import threading
from collections.abc import Iterator
from typing import Any, BinaryIO

import msgspec

from hanse.engines.audio.codec import HEARD_RATE_HZ, decode_audio
from hanse.engines.audio.model_folder import load_library
from hanse.engines.child_process import bound_memory, follow_parent
from hanse.protocol.errors import RequestError

LENGTH_BYTES = 4
"""Of the length before each message, the highest byte first."""


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """What the parent sends first.

    Attributes:
        folder: of a CTranslate2 Whisper model.
        compute_type: CTranslate2's.
        threads: processor threads; 0 for CTranslate2's choice.
        seconds_max: longest audio.
        memory_max_mib: of this process; Linux only.
        parent_pid: whose end is ours.
    """

    folder: str
    compute_type: str
    threads: int
    seconds_max: int
    memory_max_mib: int
    parent_pid: int


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """A request, its fields checked by the engine; without a format only its seconds count."""

    file: bytes
    response_format: str = ""
    language: str | None = None
    prompt: str | None = None
    temperature: float = 0.0


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The model is loaded."""


class Heard(msgspec.Struct, frozen=True, tag=True):
    """The answer's body (empty if only the seconds count) and the seconds of audio, rounded up."""

    body: bytes
    seconds: int


class Refused(msgspec.Struct, frozen=True, tag=True):
    """What a RequestError says."""

    code: str
    message: str
    param: str | None = None


Reply = Ready | Heard | Refused


def main() -> None:
    """Answer until standard input ends; anything but a RequestError ends this process."""
    # Libraries write where they like; the parent's messages have a descriptor of their own.
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    config = msgspec.msgpack.decode(_read(sys.stdin.buffer), type=Config)
    follow_parent(config.parent_pid)
    bound_memory(config.memory_max_mib)
    asked: queue.SimpleQueue[Ask] = queue.SimpleQueue()
    threading.Thread(target=_take_in, args=(sys.stdin.buffer, asked), daemon=True).start()
    try:
        model = _load(config)
    except RequestError as error:
        _say(pipe, Refused(error.code, str(error), error.param))
        os._exit(1)
    _say(pipe, Ready())
    while True:
        try:
            reply: Reply = _answer(model, asked.get(), config.seconds_max)
        except RequestError as error:
            reply = Refused(error.code, str(error), error.param)
        _say(pipe, reply)


def frame(message: msgspec.Struct) -> bytes:
    """A message as it goes through the pipe."""
    packed = msgspec.msgpack.encode(message)
    return len(packed).to_bytes(LENGTH_BYTES, "big") + packed


def _load(config: Config) -> Any:
    library = load_library("faster_whisper")
    try:
        return library.WhisperModel(
            config.folder,
            device="cpu",
            compute_type=config.compute_type,
            cpu_threads=config.threads,
            num_workers=1,
            local_files_only=True,
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise RequestError(
            "configuration_invalid", f"The model could not be loaded: {str(error)[:300]}"
        ) from error


def _answer(model: Any, ask: Ask, seconds_max: int) -> Heard:
    samples = decode_audio(ask.file, seconds_max)
    seconds = math.ceil(len(samples) / HEARD_RATE_HZ)
    if not ask.response_format:
        return Heard(b"", seconds)
    heard = list(_listen(model, samples, ask))
    return Heard(_make_body(ask.response_format, heard, len(samples) / HEARD_RATE_HZ), seconds)


def _listen(model: Any, samples: Any, ask: Ask) -> Iterator[Any]:
    """What was heard, a window at a time, beginning with the facts on all of it."""
    language = ask.language and ask.language.lower()
    if language not in (None, "en") and not model.model.is_multilingual:
        raise RequestError(
            "unsupported_parameter", "language: this model knows English only.", param="language"
        )
    try:
        segments, facts = model.transcribe(
            samples,
            language=language,
            initial_prompt=ask.prompt,
            temperature=ask.temperature,
            beam_size=1,
            condition_on_previous_text=False,
        )
    except ValueError as error:  # a language that the model does not know
        raise RequestError(
            "invalid_request", f"language: {str(error)[:200]}", param="language"
        ) from error
    yield facts
    yield from segments


def _make_body(wanted: str, heard: list[Any], duration_s: float) -> bytes:
    facts, *segments = heard
    text = "".join(segment.text for segment in segments).strip()
    if wanted == "text":
        return text.encode() + b"\n"
    usage = {"type": "duration", "seconds": math.ceil(duration_s)}
    if wanted == "json":
        return msgspec.json.encode({"text": text, "usage": usage})
    rows = [
        {
            "id": number,
            "seek": segment.seek,
            "start": segment.start,
            "end": segment.end,
            "text": segment.text,
            "tokens": segment.tokens,
            "temperature": segment.temperature,
            "avg_logprob": segment.avg_logprob,
            "compression_ratio": segment.compression_ratio,
            "no_speech_prob": segment.no_speech_prob,
        }
        for number, segment in enumerate(segments)
    ]
    return msgspec.json.encode(
        {
            "task": "transcribe",
            "language": facts.language,
            "duration": duration_s,
            "text": text,
            "segments": rows,
            "usage": usage,
        }
    )


def _take_in(stream: BinaryIO, asked: "queue.SimpleQueue[Ask]") -> None:
    try:
        while True:
            asked.put(msgspec.msgpack.decode(_read(stream), type=Ask))
    finally:
        os._exit(0)


def _read(stream: BinaryIO) -> bytes:
    length = int.from_bytes(stream.read(LENGTH_BYTES), "big")
    message = stream.read(length)
    if not length or len(message) < length:
        raise EOFError
    return message


def _say(pipe: BinaryIO, reply: Reply) -> None:
    pipe.write(frame(reply))
    pipe.flush()


if __name__ == "__main__":
    main()
