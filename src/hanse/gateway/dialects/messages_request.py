"""Anthropic's Messages API: a request, and the chat completion that is bought for it.

Only text and tools: images and documents are refused by name, as are the vendor's own server tools.
`cache_control` is ignored, since it cannot change an answer.

Source: Anthropic's API reference, "Create a Message".
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from hanse.gateway.dialects.fields import read_fields
from hanse.protocol.limits import MESSAGES_MAX, NAME_CHARS_MAX, TOKENS_MAX

BLOCKS_MAX = 4_096
"""Blocks of one turn; the body's size bounds them anyway, this bounds the work."""

REFUSED = {
    "container": "needs a place that keeps files; nothing is kept here",
    "mcp_servers": "is not offered: call the server yourself and send its answer as a tool result",
    "context_management": "is not offered: send the conversation as the model shall see it",
}
"""Known fields that are not offered, each with what to do instead."""

_Name = Annotated[str, Meta(min_length=1, max_length=NAME_CHARS_MAX)]
_Part = Annotated[float, Meta(ge=0, le=1)]


class TextBlock(msgspec.Struct, tag_field="type", tag="text"):
    """Text."""

    text: str


class ThinkingBlock(msgspec.Struct, tag_field="type", tag="thinking"):
    """Reasoning of an earlier answer; its signature is not looked at."""

    thinking: str


class ToolUseBlock(msgspec.Struct, tag_field="type", tag="tool_use"):
    """A tool call of an earlier answer."""

    id: str
    name: _Name
    input: dict[str, Any] = {}


class ToolResultBlock(msgspec.Struct, tag_field="type", tag="tool_result"):
    """What the application's tool gave."""

    tool_use_id: str
    content: str | list[TextBlock] | None = None
    is_error: bool | None = None


_Asked = Annotated[list[TextBlock | ToolResultBlock], Meta(min_length=1, max_length=BLOCKS_MAX)]
_Said = Annotated[
    list[TextBlock | ThinkingBlock | ToolUseBlock], Meta(min_length=1, max_length=BLOCKS_MAX)
]
_Texts = Annotated[list[TextBlock], Meta(min_length=1, max_length=BLOCKS_MAX)]


class UserTurn(msgspec.Struct, tag_field="role", tag="user"):
    """What the application says."""

    content: str | _Asked


class AssistantTurn(msgspec.Struct, tag_field="role", tag="assistant"):
    """What the model said."""

    content: str | _Said


class SystemTurn(msgspec.Struct, tag_field="role", tag="system"):
    """Instructions amid a conversation."""

    content: str | _Texts


class MessagesTool(msgspec.Struct):
    """A tool that the application runs."""

    name: _Name
    input_schema: dict[str, Any] = {}
    description: str | None = None
    type: Literal["custom"] | None = None
    strict: bool | None = None


class MessagesMetadata(msgspec.Struct):
    """Whose request it is, for the limits of an end user."""

    user_id: str | None = None


class AutoChoice(msgspec.Struct, tag_field="type", tag="auto"):
    """The model decides."""

    disable_parallel_tool_use: bool | None = None


class AnyChoice(msgspec.Struct, tag_field="type", tag="any"):
    """Some tool must be called."""

    disable_parallel_tool_use: bool | None = None


class NoneChoice(msgspec.Struct, tag_field="type", tag="none"):
    """No tool may be called."""


class ToolChoice(msgspec.Struct, tag_field="type", tag="tool"):
    """This tool must be called."""

    name: _Name
    disable_parallel_tool_use: bool | None = None


class NoThinking(msgspec.Struct, tag_field="type", tag="disabled"):
    """Reasoning is not shown."""


class AdaptiveThinking(msgspec.Struct, tag_field="type", tag="adaptive"):
    """Reasoning is shown if the model gives any; a chat completion has no budget for it."""


class SchemaFormat(msgspec.Struct, tag_field="type", tag="json_schema"):
    """The answer fits this schema."""

    schema: dict[str, Any]


class OutputConfig(msgspec.Struct, forbid_unknown_fields=True):
    """The answer's form."""

    format: SchemaFormat | None = None


class MessagesBody(msgspec.Struct, forbid_unknown_fields=True):
    """What is taken of a Messages request; the last fields are ignored.

    The ignored ones are of the vendor's own serving and cannot change what a model answers.
    """

    model: _Name
    messages: Annotated[
        list[UserTurn | AssistantTurn | SystemTurn], Meta(min_length=1, max_length=MESSAGES_MAX)
    ]
    max_tokens: Annotated[int, Meta(ge=1, le=TOKENS_MAX)]
    system: str | list[TextBlock] | None = None
    stream: bool | None = None
    stop_sequences: list[str] | None = None
    temperature: _Part | None = None
    top_p: _Part | None = None
    top_k: Annotated[int, Meta(ge=0, le=1_000)] | None = None
    tools: list[MessagesTool] | None = None
    tool_choice: AutoChoice | AnyChoice | NoneChoice | ToolChoice | None = None
    thinking: NoThinking | AdaptiveThinking | None = None
    output_config: OutputConfig | None = None
    metadata: MessagesMetadata | None = None
    cache_control: Any = None
    diagnostics: Any = None
    inference_geo: Any = None
    service_tier: Any = None
    speed: Any = None


def read_messages_body(body: bytes) -> MessagesBody:
    """Read a body.

    Raises:
        RequestError: `invalid_request`, `unsupported_parameter`.
    """
    return read_fields(body, MessagesBody, REFUSED)


def to_chat(asked: MessagesBody) -> dict[str, Any]:
    """The chat completion to buy."""
    chat: dict[str, Any] = {"model": asked.model, "messages": _to_messages(asked)}
    chat["max_tokens"] = asked.max_tokens
    plain = {
        "stop": asked.stop_sequences,
        "temperature": asked.temperature,
        "top_p": asked.top_p,
        "top_k": asked.top_k,
        "user": asked.metadata.user_id if asked.metadata else None,
    }
    chat |= {name: value for name, value in plain.items() if value is not None}
    if asked.tools:
        chat["tools"] = [_to_tool(tool) for tool in asked.tools]
    if asked.tool_choice is not None:
        chat |= _to_tool_choice(asked.tool_choice)
    if asked.output_config is not None and asked.output_config.format is not None:
        holder = {"name": "answer", "schema": asked.output_config.format.schema, "strict": True}
        chat["response_format"] = {"type": "json_schema", "json_schema": holder}
    if asked.stream:
        chat |= {"stream": True, "stream_options": {"include_usage": True}}
    return chat


def _to_messages(asked: MessagesBody) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    if asked.system:
        messages.append({"role": "system", "content": _to_text(asked.system)})
    for turn in asked.messages:
        if isinstance(turn, AssistantTurn):
            messages.append(_to_said(turn.content))
        elif isinstance(turn, SystemTurn):
            messages.append({"role": "system", "content": _to_text(turn.content)})
        else:
            messages += _to_asked(turn.content)
    return messages


def _to_asked(content: str | list[TextBlock | ToolResultBlock]) -> list[dict[str, Any]]:
    """A turn of the application's: tool results become messages of their own, in order."""
    if isinstance(content, str):
        return [{"role": "user", "content": content}]
    messages: list[dict[str, Any]] = []
    for block in content:
        if isinstance(block, ToolResultBlock):
            messages.append(_to_result(block))
            continue
        if not messages or messages[-1]["role"] != "user":
            messages.append({"role": "user", "content": []})
        messages[-1]["content"].append({"type": "text", "text": block.text})
    for message in messages:
        if message["role"] == "user" and len(message["content"]) == 1:
            message["content"] = message["content"][0]["text"]
    return messages


def _to_result(block: ToolResultBlock) -> dict[str, Any]:
    content = _to_text(block.content or "")
    if block.is_error:  # a chat's tool message has no field for it
        content = f"error: {content}"
    return {"role": "tool", "tool_call_id": block.tool_use_id, "content": content}


def _to_said(content: str | list[TextBlock | ThinkingBlock | ToolUseBlock]) -> dict[str, Any]:
    blocks = [TextBlock(content)] if isinstance(content, str) else content
    text = "".join(block.text for block in blocks if isinstance(block, TextBlock))
    thought = "".join(block.thinking for block in blocks if isinstance(block, ThinkingBlock))
    calls = [_to_call(block) for block in blocks if isinstance(block, ToolUseBlock)]
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if thought:
        message["reasoning_content"] = thought
    if calls:
        message |= {"content": text or None, "tool_calls": calls}
    return message


def _to_call(block: ToolUseBlock) -> dict[str, Any]:
    arguments = msgspec.json.encode(block.input).decode()
    function = {"name": block.name, "arguments": arguments}
    return {"id": block.id, "type": "function", "function": function}


def _to_text(content: str | list[TextBlock]) -> str:
    return content if isinstance(content, str) else "\n".join(block.text for block in content)


def _to_tool(tool: MessagesTool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name, "parameters": tool.input_schema}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _to_tool_choice(choice: AutoChoice | AnyChoice | NoneChoice | ToolChoice) -> dict[str, Any]:
    if isinstance(choice, NoneChoice):
        return {"tool_choice": "none"}
    chosen: dict[str, Any] = {"tool_choice": "auto"}
    if isinstance(choice, AnyChoice):
        chosen["tool_choice"] = "required"
    elif isinstance(choice, ToolChoice):
        chosen["tool_choice"] = {"type": "function", "function": {"name": choice.name}}
    if choice.disable_parallel_tool_use:
        chosen["parallel_tool_calls"] = False
    return chosen
