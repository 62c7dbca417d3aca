"""Asking another provider for the rest of an answer, and joining it to what was delivered.

A chat goes on as an assistant message at the end that holds the delivered text: llama.cpp goes on
from there instead of starting a turn. A plain completion goes on from prompt and text together.
What is asked is a request of the gateway's own making: the voucher buys its hash, the receipt
covers the bytes that the next provider sends. `max_tokens` falls by the tokens that were delivered
(`hanse.gateway.resilience.delivered`).

The delivered text becomes a prompt that is paid for, so one that is longer than the tokens that
were asked for can be is not handed over: a provider could make the next one dear.

Not continued, since the other provider could not know where it stands: several choices, token log
probabilities, an answer bound to a schema or grammar, a tool call under way, a thought.

To the application it is one stream: the first part's id, time and model, one role, usage added up.
Added up is what is paid: each part's prompt (with the text before it) and each part's tokens. A
part whose provider never told its prompt counts as the application's own prompt.

Source: llama.cpp's server, "prefill" of an assistant message that comes last.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from hanse.gateway.resilience.delivered import TEXT_BYTES_MAX, Delivered
from hanse.protocol.errors import VerificationError
from hanse.protocol.hashing import DONE_FRAME

TOKEN_BYTES_MAX = 32
"""Of text for each token that was asked for; tokens of ordinary text have about four."""

_LIMITS = ("max_completion_tokens", "max_tokens")
_BOUND = ("grammar", "json_schema", "guided_json", "guided_regex", "guided_grammar", "suffix")


def find_obstacle(request: dict[str, Any], delivered: Delivered) -> str:
    """Why the rest of this answer cannot be asked for elsewhere; empty if it can."""
    if delivered.finish_reason:
        return "it had come to its end"
    if delivered.obstacle:
        return delivered.obstacle
    text_bytes, most = len(delivered.text.encode()), _get_text_bytes_max(request)
    if text_bytes > most:
        return f"its text has {text_bytes} bytes, more than the {most} of what was asked for"
    if request.get("n") not in (None, 1) or request.get("best_of") not in (None, 1):
        return "it has several choices"
    if request.get("logprobs") or request.get("top_logprobs"):
        return "it has log probabilities"
    shape = request.get("response_format")
    if isinstance(shape, dict) and shape.get("type") not in (None, "text"):
        return "it is bound to a schema"
    if any(request.get(name) for name in _BOUND):
        return "it is bound to a grammar"
    if request.get("echo") or request.get("tool_choice") == "required":
        return "it does not go on from its text"
    return _find_prompt_obstacle(request)


def make_rest(request: dict[str, Any], delivered: Delivered) -> bytes | None:
    """The body that asks for the rest; None if `max_tokens` leaves nothing to ask for.

    Args:
        request: the application's own, decoded; one without obstacle.
        delivered: what it has, with some text.
    """
    body = dict(request)
    for name in _LIMITS:
        if isinstance(body.get(name), int):
            body[name] -= delivered.tokens
            if body[name] < 1:
                return None
    if "messages" in body:
        body["messages"] = _extend(body["messages"], delivered.text)
    else:
        prompt = body["prompt"]
        body["prompt"] = (prompt if isinstance(prompt, str) else prompt[0]) + delivered.text
    return msgspec.json.encode(body)


class Joint:
    """Makes the frames of a later part look like those of the first.

    Args:
        delivered: of all parts before; its id, time and model are kept.
        prompts: prompt tokens of each part before, None where nobody told.
    """

    def __init__(self, delivered: Delivered, prompts: Sequence[int | None]) -> None:
        self._delivered = delivered
        self._prompts = tuple(prompts)
        self._tokens_before = delivered.tokens

    def join(self, raw: bytes) -> bytes | None:
        """One frame as the application gets it; None if it would say nothing new.

        Raises:
            VerificationError: `response_malformed`.
        """
        try:
            frame = msgspec.json.decode(raw[5:], type=dict[str, Any])
            return self._join(frame)
        except (
            msgspec.DecodeError,
            UnicodeDecodeError,
            RecursionError,
            AttributeError,
            TypeError,
            KeyError,
        ):
            raise VerificationError(
                "response_malformed", "a frame of the stream is no chunk of an answer"
            ) from None

    def _join(self, frame: dict[str, Any]) -> bytes | None:
        first = self._delivered
        if first.id:
            frame |= {"id": first.id, "created": first.created, "model": first.model}
        choices = frame.get("choices") or []
        for choice in choices:
            delta = choice.get("delta")
            if delta and first.has_role:
                delta.pop("role", None)
            is_silent = not delta and not choice.get("text")
            if is_silent and choice.get("finish_reason") is None and not frame.get("usage"):
                return None
        if frame.get("usage"):
            self._add_up(frame["usage"])
        return b"data: " + msgspec.json.encode(frame) + b"\n\n"

    def _add_up(self, usage: dict[str, Any]) -> None:
        own = max(0, usage["prompt_tokens"] - self._tokens_before)
        usage["prompt_tokens"] += sum(own if told is None else told for told in self._prompts)
        usage["completion_tokens"] += self._tokens_before
        usage["total_tokens"] = usage["prompt_tokens"] + usage["completion_tokens"]


def make_end(
    request: dict[str, Any], delivered: Delivered, prompts: Sequence[int | None]
) -> list[bytes]:
    """The end of a stream whose last provider gave every token that was asked for, but no end."""
    is_chat = "messages" in request
    choice: dict[str, Any] = {"index": 0, "finish_reason": "length"}
    said: dict[str, Any] = {"delta": {}} if is_chat else {"text": ""}
    head = {
        "id": delivered.id,
        "object": delivered.kind,
        "created": delivered.created,
        "model": delivered.model,
    }
    frames = [{**head, "choices": [choice | said]}]
    if (request.get("stream_options") or {}).get("include_usage"):
        prompt, completion = sum(told or 0 for told in prompts), delivered.tokens
        usage = {"prompt_tokens": prompt, "completion_tokens": completion}
        frames.append(
            {**head, "choices": [], "usage": usage | {"total_tokens": prompt + completion}}
        )
    return [*(b"data: " + msgspec.json.encode(frame) + b"\n\n" for frame in frames), DONE_FRAME]


def _get_text_bytes_max(request: dict[str, Any]) -> int:
    most = TEXT_BYTES_MAX
    for name in _LIMITS:
        asked = request.get(name)
        if isinstance(asked, int):
            most = min(most, asked * TOKEN_BYTES_MAX)
    return most


def _find_prompt_obstacle(request: dict[str, Any]) -> str:
    if "messages" in request:
        last = request["messages"][-1]
        if last.get("role") == "assistant" and not isinstance(last.get("content"), str):
            return "its last message has parts"
        return ""
    prompt = request.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    return "" if isinstance(prompt, str) else "its prompt is not one text"


def _extend(messages: list[dict[str, Any]], text: str) -> list[dict[str, Any]]:
    last = messages[-1]
    if last.get("role") == "assistant":  # the application's own beginning of the answer
        return [*messages[:-1], {**last, "content": last["content"] + text}]
    return [*messages, {"role": "assistant", "content": text}]
