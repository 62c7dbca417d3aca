"""OpenAI's Responses API: how a bought chat completion is told, whole or as events.

    response.created  response.in_progress
      response.output_item.added  response.content_part.added  response.output_text.delta ...
      response.output_text.done  response.content_part.done  response.output_item.done
      response.output_item.added  response.function_call_arguments.delta ... .done  ... .done
    response.completed | response.incomplete

Reasoning comes as an item of its own, with `reasoning_text` parts. A stream that breaks ends with
an `error` event, which OpenAI's SDKs raise.

Source: OpenAI's API reference, "Streaming events" of the Responses API.
"""

from typing import Any

import msgspec

from hanse.gateway.dialects.chat import ChatReader, Piece, TokenLogprob
from hanse.gateway.dialects.dialect import Dialect, Translation, encode_chat, to_event
from hanse.gateway.dialects.responses_items import DESCRIBED
from hanse.gateway.dialects.responses_request import (
    ResponsesBody,
    read_responses_body,
    to_chat,
)
from hanse.protocol.errors import HanseError, VerificationError

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


class ResponsesWriter:
    """Tells one answer."""

    def __init__(self, asked: ResponsesBody) -> None:
        self._asked = asked
        self._id = ""
        self._items: list[dict[str, Any]] = []
        self._open: tuple[str, int] | None = None
        self._sequence = 0

    def begin(self, reader: ChatReader) -> bytes:
        """`response.created`, `response.in_progress`."""
        self._id = reader.id
        told = {"response": self._make_response(reader, "in_progress")}
        return self._event("response.created", told) + self._event("response.in_progress", told)

    def write(self, piece: Piece) -> bytes:
        """The item's start if it is new, the end of the one before, and what is added."""
        frames = self._turn_to(piece)
        item = self._items[-1]
        if piece.kind == "tool":
            item["arguments"] += piece.text
            if not piece.text:
                return frames
            return frames + self._tell("response.function_call_arguments.delta", delta=piece.text)
        part = item["content"][0]
        part["text"] += piece.text
        if piece.kind == "reasoning":
            return frames + self._tell_part("response.reasoning_text.delta", delta=piece.text)
        logprobs = [_to_logprob(one) for one in piece.logprobs]
        part["logprobs"] += logprobs
        return frames + self._tell_part(
            "response.output_text.delta", delta=piece.text, logprobs=logprobs
        )

    def end(self, reader: ChatReader) -> bytes:
        """The end of the last item, and of the response."""
        frames = self._close()
        status = _get_status(reader)
        told = {"response": self._make_response(reader, status)}
        return frames + self._event(f"response.{status}", told)

    def get_whole(self, reader: ChatReader) -> dict[str, Any]:
        """The response."""
        self._id = reader.id
        self._close()
        for index, item in enumerate(self._items):
            item["id"] = self._get_item_id(item, index)
        return self._make_response(reader, _get_status(reader))

    def _turn_to(self, piece: Piece) -> bytes:
        """Close the item at work and open this piece's, unless it is the same."""
        if self._open == (piece.kind, piece.index):
            return b""
        if piece.kind == "tool" and not piece.name:
            raise VerificationError(
                "response_malformed", "the provider went back to a tool call that had ended"
            )
        frames = self._close()
        self._open = (piece.kind, piece.index)
        item = _make_item(piece)
        self._items.append(item)
        item["id"] = self._get_item_id(item, len(self._items) - 1)
        empty = item if piece.kind == "tool" else item | {"content": []}
        told = {"output_index": len(self._items) - 1, "item": empty}
        frames += self._event("response.output_item.added", told)
        if piece.kind != "tool":
            frames += self._tell_part("response.content_part.added", part=item["content"][0])
        return frames

    def _close(self) -> bytes:
        if self._open is None:
            return b""
        item = self._items[-1]
        item["status"] = "completed"
        kind, self._open = self._open[0], None
        if kind == "tool":
            frames = self._tell(
                "response.function_call_arguments.done",
                name=item["name"],
                arguments=item["arguments"],
            )
        else:
            part = item["content"][0]
            told = {name: part[name] for name in ("text", "logprobs") if name in part}
            done = f"response.{part['type']}.done"
            frames = self._tell_part(done, **told)
            frames += self._tell_part("response.content_part.done", part=part)
        told = {"output_index": len(self._items) - 1, "item": item}
        return frames + self._event("response.output_item.done", told)

    def _tell(self, kind: str, **facts: Any) -> bytes:
        """An event about the item at work."""
        index = len(self._items) - 1
        return self._event(
            kind, {"item_id": self._items[index]["id"], "output_index": index, **facts}
        )

    def _tell_part(self, kind: str, **facts: Any) -> bytes:
        return self._tell(kind, content_index=0, **facts)

    def _event(self, kind: str, facts: dict[str, Any]) -> bytes:
        frame = to_event(kind, {"sequence_number": self._sequence, **facts})
        self._sequence += 1
        return frame

    def _get_item_id(self, item: dict[str, Any], index: int) -> str:
        prefix = {"message": "msg", "reasoning": "rs", "function_call": "fc"}[item["type"]]
        return f"{prefix}_{self._id}_{index}"

    def _make_response(self, reader: ChatReader, status: str) -> dict[str, Any]:
        asked, is_over = self._asked, status != "in_progress"
        reason = _INCOMPLETE.get(reader.finish_reason or "") if is_over else None
        given = {
            "instructions": asked.instructions,
            "max_output_tokens": asked.max_output_tokens,
            "metadata": asked.metadata or {},
            "model": asked.model,
            "parallel_tool_calls": asked.parallel_tool_calls is not False,
            "temperature": asked.temperature,
            "text": {"format": (asked.text and asked.text.format) or {"type": "text"}},
            "tool_choice": asked.tool_choice or "auto",
            "tools": [_to_tool(tool) for tool in asked.tools or ()],
            "top_p": asked.top_p,
            "user": asked.user,
        }
        return {
            "id": f"resp_{reader.id}",
            "object": "response",
            "created_at": reader.created,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": {"reason": reason} if reason else None,
            "output": self._items if is_over else [],
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "store": False,
            "truncation": "disabled",
            "usage": _to_usage(reader) if is_over else None,
            **given,
        }


def _make_item(piece: Piece) -> dict[str, Any]:
    if piece.kind == "tool":
        return {
            "type": "function_call",
            "id": "",
            "call_id": piece.call_id,
            "name": piece.name,
            "arguments": "",
            "status": "in_progress",
        }
    if piece.kind == "reasoning":
        part: dict[str, Any] = {"type": "reasoning_text", "text": ""}
        return {"type": "reasoning", "id": "", "summary": [], "content": [part]}
    part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    return {
        "type": "message",
        "id": "",
        "role": "assistant",
        "status": "in_progress",
        "content": [part],
    }


def _translate(body: bytes) -> Translation:
    asked = read_responses_body(body)
    return Translation(encode_chat(to_chat(asked)), lambda: ResponsesWriter(asked))


def _to_error_frame(error: HanseError) -> bytes:
    """The event's own fields, and under `error` what OpenAI's SDKs raise."""
    facts = {"code": error.code, "message": error.message, "param": error.param}
    return to_event("error", {**facts, **error.to_openai()})


def _get_status(reader: ChatReader) -> str:
    return "incomplete" if reader.finish_reason in _INCOMPLETE else "completed"


def _to_tool(tool: Any) -> dict[str, Any]:
    """As asked, with the fields that OpenAI's SDKs take for given."""
    told: dict[str, Any] = msgspec.to_builtins(tool)
    return told | {"strict": tool.strict is True}


def _to_logprob(one: TokenLogprob) -> dict[str, Any]:
    raw = list(one.token.encode()) if one.bytes is None else one.bytes
    return {
        "token": one.token,
        "bytes": raw,
        "logprob": one.logprob,
        "top_logprobs": one.top_logprobs,
    }


def _to_usage(reader: ChatReader) -> dict[str, Any]:
    usage = reader.usage
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


RESPONSES = Dialect(_translate, HanseError.to_openai, _to_error_frame, described=DESCRIBED)
"""OpenAI's Responses API."""
