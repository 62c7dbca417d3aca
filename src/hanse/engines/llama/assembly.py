"""A whole answer put together from the frames of a streamed one.

llama.cpp does not notice that a caller of a whole answer has left: it goes on to the last token
(measured: 26 s of a slot for nobody). Of a stream it notices within milliseconds. So `llama` always
streams, and here the parts become what OpenAI would have sent at once.
"""

from typing import Any

import msgspec

from hanse.engines.base import Operation


class AnswerAssembler:
    """Feeds on decoded frames of one choice, gives the body."""

    def __init__(self, operation: Operation, answer_id: str, model: str) -> None:
        self._is_chat = operation is Operation.CHAT
        self._head: dict[str, Any] = {
            "id": answer_id,
            "object": "chat.completion" if self._is_chat else "text_completion",
            "model": model,
        }
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._logprobs: list[Any] = []
        self._calls: dict[int, dict[str, Any]] = {}
        self._reason: str | None = None
        self._usage: Any = None

    def take(self, payload: bytes) -> None:
        """Add one frame."""
        frame = msgspec.json.decode(payload)
        if "prompt_progress" in frame:
            return
        self._head["created"] = frame.get("created", 0)
        self._usage = frame.get("usage") or self._usage
        for choice in frame.get("choices", ()):
            self._reason = choice.get("finish_reason") or self._reason
            self._logprobs += (choice.get("logprobs") or {}).get("content") or []
            delta = choice.get("delta") or {}
            self._text.append(delta.get("content") or choice.get("text") or "")
            self._reasoning.append(delta.get("reasoning_content") or "")
            for call in delta.get("tool_calls") or ():
                self._take_call(call)

    def get_body(self) -> bytes:
        """The body as JSON."""
        text = "".join(self._text)
        choice: dict[str, Any] = {"index": 0}
        if self._is_chat:
            message: dict[str, Any] = {"role": "assistant", "content": text}
            if reasoning := "".join(self._reasoning):
                message["reasoning_content"] = reasoning
            if self._calls:
                message["content"] = text or None
                message["tool_calls"] = [self._calls[index] for index in sorted(self._calls)]
            choice["message"] = message
        else:
            choice["text"] = text
        choice["logprobs"] = {"content": self._logprobs} if self._logprobs else None
        choice["finish_reason"] = self._reason
        return msgspec.json.encode({**self._head, "choices": [choice], "usage": self._usage})

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
