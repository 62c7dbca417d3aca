"""What llama.cpp is asked where OpenAI's request and its own differ.

`tool_choice` that demands a call: llama.cpp takes it for `auto` without a word. So the answer is
held to a schema of the calls that are allowed, `{"name": ..., "arguments": {...}}`, with the tools
in the prompt as always, and what comes is told as the tool call that it is. Its arguments come in
one piece, at the end. A call that `max_tokens` cuts is told as far as it came, with `finish_reason`
`length`, as OpenAI does; before its name is whole there is nothing to tell but the text.
"""

import re
from collections import defaultdict
from collections.abc import AsyncGenerator
from typing import Any

import msgspec

from hanse.engines.llama.choices import fit_seed
from hanse.engines.wire.sse import DONE
from hanse.protocol.errors import RequestError

_BEGUN_CALL = re.compile(
    r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")(?:\s*,\s*"arguments"\s*:\s*(.*))?', re.DOTALL
)
"""A call whose name is whole, and its arguments as far as they came; the schema gives the order."""


def adapt_messages(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """`developer` is OpenAI's newer name of `system`, which is what templates know."""
    return [{**m, "role": "system"} if m["role"] == "developer" else m for m in messages]


def adapt_body(body: dict[str, Any], *, shares_cache: bool) -> None:
    """Make a checked body what llama.cpp is asked, always for a stream."""
    if "messages" in body:
        body["messages"] = adapt_messages(body["messages"])
    fit_seed(body)
    body |= {
        "stream": True,
        "stream_options": {"include_usage": True},
        "timings_per_token": True,
        # With it the server sends its head before the prompt is read, and only after its head does
        # it notice that a caller has left.
        "return_progress": True,
        "cache_prompt": shares_cache,
    }


def force_call(body: dict[str, Any]) -> bool:
    """Make a checked body demand a tool call if its `tool_choice` does; says whether it does.

    Raises:
        RequestError: the choice names no tool, or contradicts the rest of the body.
    """
    choice = body.get("tool_choice")
    if choice in (None, "none", "auto"):
        return False
    allowed = [_get_function(tool) for tool in body.get("tools", ())]
    if isinstance(choice, dict):
        name = (choice.get("function") or {}).get("name")
        allowed = [function for function in allowed if function["name"] == name]
    if not allowed:
        raise _reject("tool_choice", "names none of the tools.")
    if body.get("response_format", {"type": "text"}) != {"type": "text"} or "grammar" in body:
        raise _reject("tool_choice", "demands a call, so there can be no other form.")
    body["tool_choice"] = "none"  # else llama.cpp takes no schema beside tools
    holder = {"name": "call", "schema": _make_schema(allowed)}
    body["response_format"] = {"type": "json_schema", "json_schema": holder}
    return True


async def tell_calls(
    payloads: AsyncGenerator[list[bytes], None], answer_id: str
) -> AsyncGenerator[list[bytes], None]:
    """A forced call's frames, in which its text has become a tool call."""
    texts: defaultdict[int, list[str]] = defaultdict(list)
    try:
        async for some in payloads:
            yield [told for payload in some for told in _tell(payload, texts, answer_id)]
    finally:
        await payloads.aclose()


def _tell(payload: bytes, texts: defaultdict[int, list[str]], answer_id: str) -> list[bytes]:
    if payload == DONE:
        return [payload]
    frame = msgspec.json.decode(payload)
    told: list[bytes] = []
    for choice in frame.get("choices", ()):
        delta, index = choice.get("delta") or {}, choice.get("index", 0)
        texts[index].append(delta.pop("content", None) or "")
        if choice.get("finish_reason") is None:
            continue
        said = _tell_call("".join(texts[index]), answer_id, index)
        if choice["finish_reason"] == "stop":
            choice["finish_reason"] = "tool_calls"
        last = {**choice, "delta": said, "finish_reason": None}
        told.append(msgspec.json.encode({**frame, "choices": [last]}))
    return [*told, msgspec.json.encode(frame)]


def _tell_call(text: str, answer_id: str, choice: int) -> dict[str, Any]:
    try:
        call = msgspec.json.decode(text)
        name, arguments = call["name"], msgspec.json.encode(call["arguments"]).decode()
    except msgspec.DecodeError:  # cut short
        begun = _BEGUN_CALL.match(text)
        if begun is None:
            return {"content": text}
        name, arguments = msgspec.json.decode(begun[1]), begun[2] or ""
    id_ = f"call_{answer_id}_{choice}" if choice else f"call_{answer_id}"
    function = {"name": name, "arguments": arguments}
    return {"tool_calls": [{"index": 0, "id": id_, "type": "function", "function": function}]}


def _get_function(tool: dict[str, Any]) -> dict[str, Any]:
    function = tool.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise _reject("tools", "must be functions with a name.")
    return function


def _make_schema(functions: list[dict[str, Any]]) -> dict[str, Any]:
    """One of the calls; definitions that a schema refers to stand at the root."""
    definitions: dict[str, Any] = {}
    calls = []
    for function in functions:
        arguments = dict(function.get("parameters") or {"type": "object"})
        for name, definition in (arguments.pop("$defs", None) or {}).items():
            if definitions.setdefault(name, definition) != definition:
                raise _reject("tools", f"define {name[:64]!r} in two ways: demand one function.")
        properties = {"name": {"const": function["name"]}, "arguments": arguments}
        calls.append(
            {"type": "object", "properties": properties, "required": ["name", "arguments"]}
        )
    schema: dict[str, Any] = calls[0] if len(calls) == 1 else {"anyOf": calls}
    return {**schema, "$defs": definitions} if definitions else schema


def _reject(name: str, why: str) -> RequestError:
    return RequestError("invalid_request", f"{name} {why}", param=name)
