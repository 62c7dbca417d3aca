"""What a broker must know of a frame or an answer in OpenAI's shape; decoded in about 2 us."""

from typing import Annotated, Any

import msgspec

from hanse.protocol.errors import TransientError
from hanse.protocol.limits import TOKENS_MAX
from hanse.protocol.messages import FinishReason, Usage
from hanse.protocol.nesting import is_nested_too_deep

Count = Annotated[int, msgspec.Meta(ge=0, le=TOKENS_MAX)]

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
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise TransientError("engine_unavailable", "The engine's answer is not valid.") from error
    if envelope.error is not None:
        raise TransientError("engine_unavailable", "The engine reported an error amid its answer.")
    return envelope


def get_finish_reason(envelope: Envelope, choices: int) -> FinishReason | None:
    """Why a whole answer's first choice ended; None if fewer than `choices` say why they did.

    A reason of the engine's own counts as `stop`.
    """
    reasons: dict[int, FinishReason] = {}
    note_reasons(envelope, reasons)
    return reasons[min(reasons)] if len(reasons) >= choices else None


def note_reasons(envelope: Envelope, reasons: dict[int, FinishReason]) -> None:
    """Add why each choice ended that says so here; what it said first stands."""
    for choice in envelope.choices:
        if choice.finish_reason:
            reasons.setdefault(choice.index, _REASONS.get(choice.finish_reason, FinishReason.STOP))
