"""What a broker must know of an engine's OpenAI frames, and the few bytes in them that change.

A frame is decoded into the handful of fields that count (about 2 us) and passed on as the bytes
that came, but for three things, each done by cutting bytes: the engine's id and model name give way
to ours, and llama.cpp's `timings`, which are asked for to count tokens exactly, are taken out
again. Cutting is safe: inside a JSON string a quote is always escaped, so a sequence such as
`,"timings":{` is never text.

Metering, in order of preference:
1. `timings` in the frame (llama.cpp): cumulative, exact at every frame, also when one character
   takes three tokens or a stop string holds text back.
2. `usage` in the frame (the last one; with vLLM's `continuous_usage_stats` every one).
3. Neither: a frame with text counts as one token, and the prompt as its words. Both are lower
   bounds, so a stream cut before its usage never costs more than it used.
"""

from typing import Annotated, Any

import msgspec

from hanse.engines.base import Chunk
from hanse.engines.sse import DONE
from hanse.protocol.errors import TransientError
from hanse.protocol.limits import TOKENS_MAX
from hanse.protocol.messages import FinishReason, Usage
from hanse.protocol.nesting import is_nested_too_deep

Count = Annotated[int, msgspec.Meta(ge=0, le=TOKENS_MAX)]
_TIMINGS = b',"timings":{'

HEADS_MAX = 8
"""Beginnings of frames that are learnt in one stream. Most servers have one for all, and llama.cpp,
which puts the names behind the text, a new one each time.
"""

_REASONS = {
    "stop": FinishReason.STOP,
    "eos": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
}


class _Details(msgspec.Struct):
    cached_tokens: Count | None = None


class WireUsage(msgspec.Struct):
    """`usage` as OpenAI shapes it; `prompt_tokens` includes the cached ones."""

    prompt_tokens: Count = 0
    completion_tokens: Count = 0
    prompt_tokens_details: _Details | None = None

    def to_usage(self) -> Usage:
        """The same counts without overlap."""
        details = self.prompt_tokens_details
        cached = min((details.cached_tokens or 0) if details else 0, self.prompt_tokens)
        return Usage(self.prompt_tokens - cached, cached, self.completion_tokens)


class _Timings(msgspec.Struct):
    """llama.cpp's counters: tokens from the cache, evaluated, and generated so far."""

    cache_n: Count = 0
    prompt_n: Count = 0
    predicted_n: Count = 0


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[Any] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    finish_reason: str | None = None
    delta: _Delta | None = None
    text: str | None = None

    def has_output(self) -> bool:
        delta = self.delta
        if delta is None:
            return bool(self.text)
        return bool(delta.content or delta.reasoning_content or delta.tool_calls)


class Envelope(msgspec.Struct):
    """A frame or a whole answer, as far as it concerns us."""

    id: str | None = None
    model: str | None = None
    choices: list[_Choice] = []
    usage: WireUsage | None = None
    timings: _Timings | None = None
    prompt_progress: dict[str, Any] | None = None
    error: Any = None


_decode_envelope = msgspec.json.Decoder(Envelope).decode


def read_envelope(payload: bytes) -> Envelope:
    """Decode a frame or an answer.

    Raises:
        TransientError: it is not what OpenAI's format says, or it carries an error.
    """
    if is_nested_too_deep(payload):
        raise TransientError("engine_unavailable", "The engine's answer is nested too deep.")
    try:
        envelope = _decode_envelope(payload)
    except (msgspec.DecodeError, RecursionError) as error:
        raise TransientError("engine_unavailable", "The engine's answer is not valid.") from error
    if envelope.error is not None:
        raise TransientError("engine_unavailable", "The engine reported an error amid its answer.")
    return envelope


def get_finish_reason(envelope: Envelope, choices: int) -> FinishReason | None:
    """Why a whole answer's first choice ended; None if fewer than `choices` say why they did.

    A reason of the engine's own counts as `stop`.
    """
    reasons: dict[int, FinishReason] = {}
    _note_reasons(envelope, reasons)
    return reasons[min(reasons)] if len(reasons) >= choices else None


def count_words(body: dict[str, Any]) -> int:
    """Words of a prompt: at least one token each, so never more than the tokens."""
    prompt = body.get("prompt")
    if isinstance(prompt, str):
        return len(prompt.split())
    if isinstance(prompt, list):
        return len(prompt[0].split()) if isinstance(prompt[0], str) else len(prompt)
    words = 0
    for message in body.get("messages", ()):
        content = message.get("content") or ""
        texts = [content] if isinstance(content, str) else [part["text"] for part in content]
        words += sum(len(text.split()) for text in texts)
    return words


class Renamer:
    """Puts our id and model name into the engine's bytes."""

    def __init__(self, answer_id: str, model: str) -> None:
        self._wanted = {"id": answer_id, "model": model}
        self._old: dict[str, tuple[str, bytes, bytes]] = {}
        self._names: tuple[str | None, str | None] = (None, None)
        self._head = self._new_head = b""
        self._heads = 0

    def rename(self, payload: bytes, envelope: Envelope) -> bytes:
        """The payload under our names; a field that the engine leaves out stays out."""
        names = (envelope.id, envelope.model)
        if self._head and payload.startswith(self._head) and names == self._names:
            return self._new_head + payload[len(self._head) :]
        renamed = self._replace(payload, "id", envelope.id)
        renamed = self._replace(renamed, "model", envelope.model)
        if self._heads < HEADS_MAX:
            self._heads += 1
            self._learn_head(payload, names)
        return renamed

    def _learn_head(self, payload: bytes, names: tuple[str | None, str | None]) -> None:
        """Remember a payload up to the end of its names, and what becomes of that.

        Whatever begins so, and has the same names, has the first place of each in there.
        """
        self._head = b""
        changes = []
        for key, found in zip(self._wanted, names, strict=True):
            if found is not None and found != self._wanted[key]:
                known = self._old.get(key)
                if known is None or known[0] != found or known[1] not in payload:
                    return  # it was replaced slowly
                changes.append(known)
        if changes:
            end = max(payload.index(old) + len(old) for _, old, _ in changes)
            self._head = self._new_head = payload[:end]
            self._names = names
        for _, old, new in changes:
            self._new_head = self._new_head.replace(old, new, 1)

    def _replace(self, payload: bytes, key: str, found: str | None) -> bytes:
        if found is None or found == self._wanted[key]:
            return payload
        known = self._old.get(key)
        if known is None or known[0] != found or known[1] not in payload:
            known = self._learn(payload, key, found)
        if known is None:
            return self._replace_slowly(payload, key)
        # The top level comes first in every server's frames, and nothing else has this very value.
        return payload.replace(known[1], known[2], 1)

    def _learn(self, payload: bytes, key: str, found: str) -> tuple[str, bytes, bytes] | None:
        value, wanted = msgspec.json.encode(found), msgspec.json.encode(self._wanted[key])
        for gap in (b"", b" "):
            start = b'"' + key.encode() + b'":' + gap
            if payload.count(start + value) == 1:
                self._old[key] = (found, start + value, start + wanted)
                return self._old[key]
        return None

    def _replace_slowly(self, payload: bytes, key: str) -> bytes:
        decoded = msgspec.json.decode(payload)
        decoded[key] = self._wanted[key]
        return msgspec.json.encode(decoded)


class StreamMeter:
    """Turns one stream's payloads into chunks: renames, meters, keeps the end together.

    The frame with the last choice's finish reason is held until the usage frame behind it has come,
    so that the last chunk carries the final count.

    Of several choices each frame counts its own, as llama.cpp, vLLM and SGLang do; a usage frame
    without a choice counts all.
    """

    def __init__(
        self, renamer: Renamer, *, wants_usage: bool, input_words: int = 0, choices: int = 1
    ) -> None:
        self._renamer = renamer
        self._wants_usage = wants_usage
        self._input_words = input_words
        self._choices = choices
        self._held: list[bytes] = []
        self._is_metered = False
        self._sent_usage = Usage()
        self._counted: dict[int, Usage] = {}
        self._reasons: dict[int, FinishReason] = {}
        self.usage = Usage()
        self.is_done = False

    def take(self, payloads: list[bytes]) -> Chunk | None:
        """One chunk from what one read gave; None if there is nothing to send yet."""
        frames: list[bytes] = []
        for payload in payloads:
            if payload == DONE:
                self.is_done = True
                break
            self._take_one(payload, frames)
        return Chunk(b"".join(frames), self._sent_usage) if frames else None

    def finish(self) -> Chunk:
        """The last chunk, when the engine has ended the stream.

        Raises:
            TransientError: it ended without saying why each choice did, so the answer is not
                complete.
        """
        if len(self._reasons) < self._choices:
            raise TransientError("engine_unavailable", "The engine broke off amid its answer.")
        return Chunk(b"".join(self._held), self.usage, self._reasons[min(self._reasons)])

    def _take_one(self, payload: bytes, frames: list[bytes]) -> None:
        envelope = read_envelope(payload)
        if envelope.prompt_progress is not None:
            return  # llama.cpp's, about the prompt; see `hanse.engines.llama_engine`
        if self._choices > 1 and any(
            not 0 <= choice.index < self._choices for choice in envelope.choices
        ):
            raise TransientError(
                "engine_unavailable", "The engine's answer has a choice that nobody asked for."
            )
        self._meter(envelope)
        if envelope.timings is not None:
            payload = strip_timings(payload)
        if not envelope.choices and envelope.usage is not None and not self._wants_usage:
            return
        frame = b"data: " + self._renamer.rename(payload, envelope) + b"\n\n"
        _note_reasons(envelope, self._reasons)
        if len(self._reasons) < self._choices:
            frames.append(frame)
            self._sent_usage = self.usage
        else:
            self._held.append(frame)

    def _meter(self, envelope: Envelope) -> None:
        if (timings := envelope.timings) is not None:
            self._count(envelope, Usage(timings.prompt_n, timings.cache_n, timings.predicted_n))
        elif envelope.usage is not None:
            self._count(envelope, envelope.usage.to_usage())
        elif not self._is_metered:
            for choice in envelope.choices:
                if choice.has_output():
                    self.usage = Usage(self._input_words, 0, self.usage.output_tokens + 1)
                    return

    def _count(self, envelope: Envelope, usage: Usage) -> None:
        self._is_metered = True
        if self._choices == 1 or not envelope.choices:
            self.usage = usage
            return
        self._counted[envelope.choices[0].index] = usage
        prompt = self._counted[min(self._counted)]  # counted once, as the first choice counts it
        output = sum(each.output_tokens for each in self._counted.values())
        # Of choices that were not counted yet, frames were: those stay owed.
        output = max(output, self.usage.output_tokens)
        self.usage = Usage(prompt.input_tokens, prompt.cached_tokens, output)


def _note_reasons(envelope: Envelope, reasons: dict[int, FinishReason]) -> None:
    for choice in envelope.choices:
        if choice.finish_reason:
            reasons.setdefault(choice.index, _REASONS.get(choice.finish_reason, FinishReason.STOP))


def strip_timings(payload: bytes) -> bytes:
    """The same JSON object without its last field `timings`."""
    start = payload.rfind(_TIMINGS)
    end = payload.find(b"}", start) + 1
    return payload[:start] + payload[end:] if start >= 0 else payload
