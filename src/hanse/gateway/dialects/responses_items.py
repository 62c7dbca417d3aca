"""What `input` of a Responses request holds: messages, function calls and their results, reasoning.

What the model said in a row, in several items, is one assistant message of the chat completion.

Source: OpenAI's API reference, "Input item list" of the Responses API.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from hanse.gateway.dialects.fields import get_field_error
from hanse.protocol.limits import NAME_CHARS_MAX

PARTS_MAX = 4_096
"""Parts of one item; the body's size bounds them anyway, this bounds the work."""

Name = Annotated[str, Meta(min_length=1, max_length=NAME_CHARS_MAX)]


class InputText(msgspec.Struct, tag_field="type", tag="input_text"):
    """Text of the application's."""

    text: str


class OutputText(msgspec.Struct, tag_field="type", tag="output_text"):
    """Text of the model's."""

    text: str


class Refusal(msgspec.Struct, tag_field="type", tag="refusal"):
    """What the model declined with."""

    refusal: str


class ReasoningText(msgspec.Struct, tag_field="type", tag="reasoning_text"):
    """Reasoning of an earlier answer."""

    text: str


_Parts = Annotated[list[InputText | OutputText | Refusal], Meta(min_length=1, max_length=PARTS_MAX)]


class MessageItem(msgspec.Struct, tag_field="type", tag="message"):
    """A message; one without a type is taken for one, as OpenAI does."""

    role: Literal["user", "assistant", "system", "developer"]
    content: str | _Parts


class CallItem(msgspec.Struct, tag_field="type", tag="function_call"):
    """A function call of an earlier answer."""

    call_id: str
    name: Name
    arguments: str


class ResultItem(msgspec.Struct, tag_field="type", tag="function_call_output"):
    """What the application's function gave."""

    call_id: str
    output: str | Annotated[list[InputText], Meta(min_length=1, max_length=PARTS_MAX)]


class ReasoningItem(msgspec.Struct, tag_field="type", tag="reasoning"):
    """Reasoning of an earlier answer."""

    content: list[ReasoningText] | None = None


class UntypedMessage(msgspec.Struct):
    """A message that leaves out its type."""

    role: Literal["user", "assistant", "system", "developer"]
    content: str | _Parts


_Item = MessageItem | CallItem | ResultItem | ReasoningItem

DESCRIBED = (MessageItem, CallItem, ResultItem, ReasoningItem, UntypedMessage)
"""What `input` may hold, for the OpenAPI description."""


class _Input(msgspec.Struct):
    input: list[_Item]


def to_messages(given: list[Any]) -> list[dict[str, Any]]:
    """The items as messages of a chat completion.

    Raises:
        RequestError: `invalid_request`, `unsupported_parameter`; `param` names the item's field.
    """
    messages: list[dict[str, Any]] = []
    said: dict[str, Any] | None = None
    for item in _read_items(given):
        if isinstance(item, CallItem | ReasoningItem) or _is_assistant(item):
            if said is None:
                said = {"role": "assistant", "content": ""}
                messages.append(said)
            _add_said(said, item)
        else:
            said = None
            messages.append(_to_asked(item))
    for message in messages:
        if "tool_calls" in message:
            message["content"] = message["content"] or None
    return messages


def _read_items(given: list[Any]) -> list[_Item]:
    items = [
        {"type": "message", **item} if isinstance(item, dict) and "role" in item else item
        for item in given
    ]
    try:
        return msgspec.convert({"input": items}, _Input).input
    except msgspec.ValidationError as error:
        raise get_field_error(str(error)) from None


def _is_assistant(item: _Item) -> bool:
    return isinstance(item, MessageItem) and item.role == "assistant"


def _add_said(said: dict[str, Any], item: _Item) -> None:
    if isinstance(item, CallItem):
        function = {"name": item.name, "arguments": item.arguments}
        call = {"id": item.call_id, "type": "function", "function": function}
        said.setdefault("tool_calls", []).append(call)
    elif isinstance(item, ReasoningItem):
        thought = "".join(part.text for part in item.content or ())
        said["reasoning_content"] = said.get("reasoning_content", "") + thought
    elif isinstance(item, MessageItem):
        said["content"] += _to_text(item.content)


def _to_asked(item: _Item) -> dict[str, Any]:
    if isinstance(item, ResultItem):
        content = item.output if isinstance(item.output, str) else _to_text(list(item.output))
        return {"role": "tool", "tool_call_id": item.call_id, "content": content}
    assert isinstance(item, MessageItem)
    return {"role": item.role, "content": _to_text(item.content)}


def _to_text(content: str | list[InputText | OutputText | Refusal]) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.refusal if isinstance(part, Refusal) else part.text for part in content)
