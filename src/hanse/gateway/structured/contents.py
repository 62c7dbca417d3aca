"""The texts inside chat completions, whole or streamed, and completions that the gateway makes.

Only what is judged is read: per choice its content, and whether it is an answer at all. A choice
that calls tools, or refuses and says nothing else, is none, and no schema is held against it.

What is judged has to be what every reader finds. So a whole answer has messages and a stream has
deltas, never both, and a whole answer has each choice once.

Source: OpenAI's API reference, "The chat completion object" and "chunk object".
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from hanse.gateway.resilience.delivered import ERROR_FRAME
from hanse.protocol.errors import VerificationError
from hanse.protocol.hashing import DONE_FRAME
from hanse.protocol.messages import Usage
from hanse.protocol.wire.frames import is_done

_DATA = b"data:"


class _Named(msgspec.Struct):
    name: str | None = None


class _Call(msgspec.Struct):
    function: _Named | None = None
    custom: _Named | None = None


class _Message(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[_Call | None] | None = None

    @property
    def calls_tool(self) -> bool:
        """Whether a call begins here: one with a name."""
        named = [each.function or each.custom for each in self.tool_calls or () if each]
        return any(tool and tool.name for tool in named)


class _Choice(msgspec.Struct):
    index: int = 0
    message: _Message | None = None
    delta: _Message | None = None
    finish_reason: str | None = None


class _Completion(msgspec.Struct):
    choices: list[_Choice] = []


_DECODE = msgspec.json.Decoder(_Completion).decode


@dataclass(slots=True)
class Choice:
    """One choice of an answer.

    Attributes:
        parts: its content so far.
        calls_tool: whether it calls one.
        refuses: whether it says that it will not answer.
        is_cut: whether it ended at its limit of tokens.
    """

    parts: list[str] = field(default_factory=list)
    calls_tool: bool = False
    refuses: bool = False
    is_cut: bool = False

    @property
    def is_answer(self) -> bool:
        """Whether its content is to be judged."""
        return not self.calls_tool and (bool(self.parts) or not self.refuses)

    @property
    def text(self) -> str:
        """Its content."""
        return "".join(self.parts)


class Gathering:
    """Collects the choices of one answer, from its body or frame by frame.

    Attributes:
        choices: by index.
        broken: whether a frame said that the answer failed.
    """

    def __init__(self) -> None:
        self.choices: dict[int, Choice] = {}
        self.broken = False

    def add(self, body: bytes) -> None:
        """Take a whole completion.

        Raises:
            VerificationError: `response_malformed`.
        """
        choices = _read_choices(body)
        if len({each.index for each in choices}) < len(choices):
            raise _get_malformed("it has one choice twice")
        for each in choices:
            if each.delta is not None:
                raise _get_malformed("it is whole, and has a delta")
            self._take(each, each.message)

    def _take(self, each: _Choice, message: _Message | None) -> None:
        choice = self.choices.setdefault(each.index, Choice())
        choice.is_cut = choice.is_cut or each.finish_reason == "length"
        if message is not None:
            if message.content:
                choice.parts.append(message.content)
            choice.calls_tool = choice.calls_tool or message.calls_tool
            choice.refuses = choice.refuses or bool(message.refusal)

    def add_frame(self, frame: bytes) -> None:
        """Take one frame of a stream; comments and the end hold nothing.

        Raises:
            VerificationError: `response_malformed`.
        """
        if not frame.startswith(_DATA) or is_done(frame):
            return
        if frame.startswith(ERROR_FRAME):
            self.broken = True
            return
        for each in _read_choices(frame[len(_DATA) :]):
            if each.message is not None:
                raise _get_malformed("it is a stream, and has a whole message")
            self._take(each, each.delta)


def _read_choices(body: bytes) -> list[_Choice]:
    try:
        return _DECODE(body).choices
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _get_malformed("it is no chat completion") from None


def _get_malformed(why: str) -> VerificationError:
    return VerificationError("response_malformed", f"the provider's answer: {why}")


def write_completion(id_: str, now_s: int, model: str, text: str, usage: Usage) -> bytes:
    """A completion of the gateway's own, with one choice."""
    message = {"role": "assistant", "content": text}
    return msgspec.json.encode(
        {
            "id": id_,
            "object": "chat.completion",
            "created": now_s,
            "model": model,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": _to_openai(usage),
        }
    )


def write_chunks(
    id_: str, now_s: int, model: str, text: str, usage: Usage | None
) -> tuple[bytes, ...]:
    """The same as a stream; `usage` is a chunk of its own if it is wanted."""
    head = {"id": id_, "object": "chat.completion.chunk", "created": now_s, "model": model}
    delta = {"role": "assistant", "content": text}
    parts: list[dict[str, Any]] = [
        {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    ]
    if usage is not None:
        parts.append({"choices": [], "usage": _to_openai(usage)})
    frames = [_DATA + b" " + msgspec.json.encode(head | part) + b"\n\n" for part in parts]
    return (*frames, DONE_FRAME)


def add_usage(usages: Iterable[Usage]) -> Usage:
    """What several answers took together."""
    counted = list(usages)
    return Usage(
        sum(usage.input_tokens for usage in counted),
        sum(usage.cached_tokens for usage in counted),
        sum(usage.output_tokens for usage in counted),
    )


def _to_openai(usage: Usage) -> dict[str, int]:
    prompt = usage.input_tokens + usage.cached_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": usage.output_tokens,
        "total_tokens": prompt + usage.output_tokens,
    }
