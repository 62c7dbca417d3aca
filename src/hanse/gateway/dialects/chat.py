"""What a bought chat completion says, piece by piece; the same for a whole answer and for a stream.

    reader = ChatReader()
    for piece in reader.read(payload): ...    # reasoning, text, part of a tool call
    reader.finish_reason, reader.usage        # once it has come to its end

A provider is a stranger: what it sends is checked for its form, and an answer that makes no sense
ends as `response_malformed`.

Source: OpenAI's API reference for chat completions and their chunks.
"""

from typing import Annotated, Any, Literal

import msgspec

from hanse.protocol.errors import TransientError, VerificationError
from hanse.protocol.limits import TOKENS_MAX
from hanse.protocol.nesting import is_nested_too_deep

DONE = b"[DONE]"

TOOL_CALLS_MAX = 128
"""Tool calls of one answer, as many as OpenAI's API takes tools."""

Count = Annotated[int, msgspec.Meta(ge=0, le=TOKENS_MAX)]


class TokenLogprob(msgspec.Struct):
    """One token with its log probability."""

    token: str
    logprob: float
    bytes: list[int] | None = None
    top_logprobs: list[Any] = []


class Usage(msgspec.Struct):
    """Tokens as the dialects count them; `input` includes the cached ones."""

    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0


class Piece(msgspec.Struct, frozen=True):
    """Part of an answer.

    Attributes:
        kind: what it belongs to.
        text: what is added: reasoning, text, or a tool call's arguments.
        index: which tool call.
        call_id, name: of a tool call, in its first piece only.
        logprobs: of the text's tokens.
    """

    kind: Literal["reasoning", "text", "tool"]
    text: str
    index: int = 0
    call_id: str = ""
    name: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _Call(msgspec.Struct):
    index: Annotated[int, msgspec.Meta(ge=0, lt=TOOL_CALLS_MAX)] | None = None
    id: str | None = None
    function: _Function | None = None


class _Said(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None


class _Logprobs(msgspec.Struct):
    content: list[TokenLogprob] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Said | None = None
    message: _Said | None = None
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _InputDetails(msgspec.Struct):
    cached_tokens: Count | None = None


class _OutputDetails(msgspec.Struct):
    reasoning_tokens: Count | None = None


class _WireUsage(msgspec.Struct):
    prompt_tokens: Count = 0
    completion_tokens: Count = 0
    prompt_tokens_details: _InputDetails | None = None
    completion_tokens_details: _OutputDetails | None = None

    def to_usage(self) -> Usage:
        before, after = self.prompt_tokens_details, self.completion_tokens_details
        return Usage(
            self.prompt_tokens,
            (before.cached_tokens or 0) if before else 0,
            self.completion_tokens,
            (after.reasoning_tokens or 0) if after else 0,
        )


class _Error(msgspec.Struct):
    message: str = "the provider broke off"


class _Part(msgspec.Struct):
    id: str | None = None
    created: int | None = None
    choices: list[_Choice] = []
    usage: _WireUsage | None = None
    error: _Error | None = None


_DECODER = msgspec.json.Decoder(_Part)


class ChatReader:
    """Reads the first choice of one chat completion.

    Attributes:
        id: of the answer, without its prefix; empty until known.
        created: unix seconds, as the provider says.
        finish_reason: OpenAI's word; None until it has ended.
        usage: as last stated.
    """

    def __init__(self) -> None:
        self.id = ""
        self.created = 0
        self.finish_reason: str | None = None
        self.usage = Usage()
        self._calls: set[int] = set()

    def read(self, payload: bytes) -> list[Piece]:
        """The pieces in a whole answer, or in one frame's data.

        Raises:
            VerificationError: `response_malformed`.
            TransientError: `engine_unavailable`, the provider says that it broke off.
        """
        part = self._decode(payload)
        if part.error is not None:
            raise TransientError("engine_unavailable", part.error.message[:300])
        self.id = self.id or (part.id or "").removeprefix("chatcmpl-")
        self.created = self.created or part.created or 0
        if part.usage is not None:
            self.usage = part.usage.to_usage()
        pieces: list[Piece] = []
        for choice in part.choices:
            if choice.index == 0:
                pieces += self._read_choice(choice)
        return pieces

    def _decode(self, payload: bytes) -> _Part:
        if is_nested_too_deep(payload):
            raise VerificationError(
                "response_malformed", "the provider's answer is nested too deep"
            )
        try:
            return _DECODER.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise VerificationError(
                "response_malformed", "the provider's answer is not a chat completion"
            ) from None

    def _read_choice(self, choice: _Choice) -> list[Piece]:
        self.finish_reason = choice.finish_reason or self.finish_reason
        said = choice.message or choice.delta
        if said is None:
            return []
        pieces = []
        if said.reasoning_content:
            pieces.append(Piece("reasoning", said.reasoning_content))
        text = (said.content or "") + (said.refusal or "")
        logprobs = tuple((choice.logprobs and choice.logprobs.content) or ())
        if text or logprobs:
            pieces.append(Piece("text", text, logprobs=logprobs))
        for position, call in enumerate(said.tool_calls or ()):
            pieces.append(self._read_call(position if call.index is None else call.index, call))
        return pieces

    def _read_call(self, index: int, call: _Call) -> Piece:
        function = call.function or _Function()
        arguments = function.arguments or ""
        if index in self._calls:
            return Piece("tool", arguments, index)
        if not function.name or len(self._calls) >= TOOL_CALLS_MAX:
            raise VerificationError("response_malformed", "the provider's tool call has no name")
        self._calls.add(index)
        return Piece("tool", arguments, index, call.id or f"call_{self.id}_{index}", function.name)


def read_payload(frame: bytes) -> bytes:
    """What stands after `data:` in one frame; empty for a comment."""
    lines = (line for line in frame.splitlines() if line.startswith(b"data:"))
    return b"\n".join(line[5:].strip() for line in lines)


def parse_arguments(arguments: str) -> dict[str, Any]:
    """A tool call's arguments as an object; none at all are an empty one.

    Raises:
        VerificationError: `response_malformed`, the model wrote something else.
    """
    raw = (arguments.strip() or "{}").encode("utf-8", "replace")
    try:
        value = None if is_nested_too_deep(raw) else msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise VerificationError(
            "response_malformed", "the model's tool call has arguments that are no JSON object"
        )
    return value
