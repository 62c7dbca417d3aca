"""Anthropic's Messages API: how a bought chat completion is told, whole or as events.

    message_start  content_block_start  content_block_delta ...  content_block_stop  ...
    message_delta  message_stop

Input tokens are known only at a stream's end, so `message_start` says 0 and `message_delta` carries
the counts; Anthropic's SDKs add them up that way. A chat completion does not tell which stop
sequence it met, so its `stop_reason` is `end_turn` then.

Source: Anthropic's API reference, "Streaming Messages", "Errors".
"""

from typing import Any

import msgspec

from hanse.gateway.dialects.chat import ChatReader, Piece, Usage, parse_arguments
from hanse.gateway.dialects.dialect import Dialect, Translation, encode_chat, to_event
from hanse.gateway.dialects.messages_request import (
    AdaptiveThinking,
    read_messages_body,
    to_chat,
)
from hanse.protocol.errors import HanseError, VerificationError

_STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}

_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
}
"""By HTTP status; everything else is `api_error`."""


class MessagesErrorFacts(msgspec.Struct):
    """What went wrong, as Anthropic shapes it, with Hanse's facts beside it."""

    type: str
    message: str
    code: str
    param: str | msgspec.UnsetType = msgspec.UNSET
    hanse: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


class MessagesErrorBody(msgspec.Struct):
    """Body of every error on a Messages path."""

    error: MessagesErrorFacts
    type: str = "error"


class MessagesWriter:
    """Tells one answer."""

    def __init__(self, model: str, with_thinking: bool) -> None:
        self._model = model
        self._with_thinking = with_thinking
        self._blocks: list[dict[str, Any]] = []
        self._arguments: list[str] = []
        self._open: tuple[str, int] | None = None

    def begin(self, reader: ChatReader) -> bytes:
        """`message_start`."""
        message = self._make_message(reader, Usage())
        return to_event("message_start", {"message": message | {"stop_reason": None}})

    def write(self, piece: Piece) -> bytes:
        """The block's start if it is new, the end of the one before, and what is added."""
        if piece.kind == "reasoning" and not self._with_thinking:
            return b""
        if piece.kind == "text" and not piece.text:
            return b""
        frames = self._turn_to(piece)
        index = len(self._blocks) - 1
        if piece.kind == "tool":
            self._arguments[index] += piece.text
            delta = {"type": "input_json_delta", "partial_json": piece.text}
        else:
            name = "text" if piece.kind == "text" else "thinking"
            self._blocks[index][name] += piece.text
            delta = {"type": f"{name}_delta", name: piece.text}
        if not piece.text:
            return frames
        return frames + to_event("content_block_delta", {"index": index, "delta": delta})

    def end(self, reader: ChatReader) -> bytes:
        """The end of the last block, `message_delta`, `message_stop`."""
        frames = self._close()
        delta = {"stop_reason": _get_stop_reason(reader), "stop_sequence": None}
        told = {"delta": delta, "usage": _to_usage(reader.usage)}
        return frames + to_event("message_delta", told) + to_event("message_stop", {})

    def get_whole(self, reader: ChatReader) -> dict[str, Any]:
        """The message; a tool call's arguments are an object here, empty if max_tokens cut them."""
        reason = _get_stop_reason(reader)
        for block, arguments in zip(self._blocks, self._arguments, strict=True):
            if block["type"] == "tool_use":
                try:
                    block["input"] = parse_arguments(arguments)
                except VerificationError:
                    if reason != _STOP_REASONS["length"]:
                        raise
                    block["input"] = {}
        message = self._make_message(reader, reader.usage)
        return message | {"content": self._blocks, "stop_reason": reason}

    def _make_message(self, reader: ChatReader, usage: Usage) -> dict[str, Any]:
        return {
            "id": f"msg_{reader.id}",
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": _to_usage(usage),
        }

    def _turn_to(self, piece: Piece) -> bytes:
        """Close the block at work and open this piece's, unless it is the same."""
        if self._open == (piece.kind, piece.index):
            return b""
        if piece.kind == "tool" and not piece.name:
            raise VerificationError(
                "response_malformed", "the provider went back to a tool call that had ended"
            )
        frames = self._close()
        self._open = (piece.kind, piece.index)
        block: dict[str, Any]
        if piece.kind == "tool":
            block = {"type": "tool_use", "id": piece.call_id, "name": piece.name, "input": {}}
        elif piece.kind == "text":
            block = {"type": "text", "text": ""}
        else:
            block = {"type": "thinking", "thinking": "", "signature": ""}
        self._blocks.append(block)
        self._arguments.append("")
        told = {"index": len(self._blocks) - 1, "content_block": block}
        return frames + to_event("content_block_start", told)

    def _close(self) -> bytes:
        if self._open is None:
            return b""
        self._open = None
        return to_event("content_block_stop", {"index": len(self._blocks) - 1})


def _translate(body: bytes) -> Translation:
    asked = read_messages_body(body)
    with_thinking = isinstance(asked.thinking, AdaptiveThinking)
    return Translation(
        encode_chat(to_chat(asked)), lambda: MessagesWriter(asked.model, with_thinking)
    )


def _to_error_body(error: HanseError) -> MessagesErrorBody:
    kind = _ERROR_TYPES.get(error.row.status, "api_error")
    facts = MessagesErrorFacts(kind, error.message, error.code)
    if error.param is not None:
        facts.param = error.param
    if error.details:
        facts.hanse = error.details
    return MessagesErrorBody(facts)


def _to_error_frame(error: HanseError) -> bytes:
    return to_event("error", {"error": _to_error_body(error).error})


def _get_stop_reason(reader: ChatReader) -> str:
    return _STOP_REASONS.get(reader.finish_reason or "stop", "end_turn")


def _to_usage(usage: Usage) -> dict[str, int]:
    """Anthropic's input tokens leave out what came from a cache."""
    cached = min(usage.cached_tokens, usage.input_tokens)
    return {
        "input_tokens": usage.input_tokens - cached,
        "cache_read_input_tokens": cached,
        "cache_creation_input_tokens": 0,
        "output_tokens": usage.output_tokens,
    }


MESSAGES = Dialect(_translate, _to_error_body, _to_error_frame, MessagesErrorBody, b"request-id")
"""Anthropic's Messages API."""
