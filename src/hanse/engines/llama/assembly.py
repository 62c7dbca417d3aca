"""A whole answer put together from the frames of a streamed one.

llama.cpp does not notice that a caller of a whole answer has left: it goes on to the last token
(measured: 26 s of a slot for nobody). Of a stream it notices within milliseconds. So `llama` always
streams, and here the parts become what OpenAI would have sent at once.
"""

from typing import Any

import msgspec

from hanse.engines.base import Operation
from hanse.engines.wire.sse import DONE


class AnswerAssembler:
    """Feeds on decoded frames, gives the body."""

    def __init__(self, operation: Operation, answer_id: str, model: str) -> None:
        self._is_chat = operation is Operation.CHAT
        self._head: dict[str, Any] = {
            "id": answer_id,
            "object": "chat.completion" if self._is_chat else "text_completion",
            "model": model,
        }
        self._choices: dict[int, _Choice] = {}
        self._usage: Any = None

    def take(self, payload: bytes) -> None:
        """Add one frame; the stream's end adds nothing."""
        if payload == DONE:
            return
        frame = msgspec.json.decode(payload)
        if "prompt_progress" in frame:
            return
        self._head["created"] = frame.get("created", 0)
        self._usage = frame.get("usage") or self._usage
        for part in frame.get("choices", ()):
            self._choices.setdefault(part.get("index", 0), _Choice()).take(part)

    def get_body(self) -> bytes:
        """The body as JSON."""
        choices = [
            {"index": index, **self._choices[index].get_fields(self._is_chat)}
            for index in sorted(self._choices)
        ]
        return msgspec.json.encode({**self._head, "choices": choices, "usage": self._usage})


class _Choice:
    """The parts of one choice."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._logprobs: list[Any] = []
        self._calls: dict[int, dict[str, Any]] = {}
        self._reason: str | None = None

    def take(self, part: dict[str, Any]) -> None:
        self._reason = part.get("finish_reason") or self._reason
        self._logprobs += (part.get("logprobs") or {}).get("content") or []
        delta = part.get("delta") or {}
        self._text.append(delta.get("content") or part.get("text") or "")
        self._reasoning.append(delta.get("reasoning_content") or "")
        for call in delta.get("tool_calls") or ():
            self._take_call(call)

    def get_fields(self, is_chat: bool) -> dict[str, Any]:
        text = "".join(self._text)
        fields: dict[str, Any] = {}
        if is_chat:
            message: dict[str, Any] = {"role": "assistant", "content": text}
            if reasoning := "".join(self._reasoning):
                message["reasoning_content"] = reasoning
            if self._calls:
                message["content"] = text or None
                message["tool_calls"] = [self._calls[index] for index in sorted(self._calls)]
            fields["message"] = message
        else:
            fields["text"] = text
        fields["logprobs"] = {"content": self._logprobs} if self._logprobs else None
        fields["finish_reason"] = self._reason
        return fields

    def _take_call(self, part: dict[str, Any]) -> None:
        """A tool call's name comes first, its arguments in pieces."""
        function = part.get("function") or {}
        call = self._calls.setdefault(
            part.get("index", 0),
            {"id": "", "type": "function", "function": {"name": "", "arguments": ""}},
        )
        call["id"] = part.get("id") or call["id"]
        call["function"]["name"] += function.get("name") or ""
        call["function"]["arguments"] += function.get("arguments") or ""
