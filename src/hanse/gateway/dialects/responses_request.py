"""OpenAI's Responses API: a request, and the chat completion that is bought for it.

Stateless: nothing is stored, so what refers to an earlier response is refused by name, and the
whole conversation comes in `input`. `store` may be left out or false. Text and functions only:
images, files and the vendor's own tools are refused by name.

Source: OpenAI's API reference, "Create a model response".
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from hanse.gateway.dialects.fields import read_fields, refuse
from hanse.gateway.dialects.responses_items import DESCRIBED, Name, to_messages
from hanse.protocol.limits import MESSAGES_MAX, TOKENS_MAX

TOP_LOGPROBS_MAX = 20
"""Alternatives a token; OpenAI's limit."""

_STATELESS = "needs a stored response, and nothing is stored here: send all of it in input"

REFUSED = {
    "previous_response_id": _STATELESS,
    "conversation": _STATELESS,
    "prompt": "names a stored prompt, and nothing is stored here: send its text as instructions",
    "background_options": "is not offered: stream, or wait for the answer",
    "context_management": "is not offered: send the conversation as the model shall see it",
    "max_tool_calls": "is about the vendor's own tools, which are not offered",
    "moderation": "is not offered; leave it out",
    "image": "is not offered; leave it out",
}
"""Known fields that are not offered, each with what to do instead."""


class FunctionTool(msgspec.Struct, tag_field="type", tag="function"):
    """A function that the application runs."""

    name: Name
    parameters: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None


class FunctionChoice(msgspec.Struct, tag_field="type", tag="function"):
    """This function must be called."""

    name: Name


class TextFormat(msgspec.Struct, tag_field="type", tag="text"):
    """Free text."""


class ObjectFormat(msgspec.Struct, tag_field="type", tag="json_object"):
    """Any JSON object."""


class SchemaFormat(msgspec.Struct, tag_field="type", tag="json_schema"):
    """JSON that fits this schema."""

    name: str
    schema: dict[str, Any]
    description: str | None = None
    strict: bool | None = None


class TextConfig(msgspec.Struct, forbid_unknown_fields=True):
    """The answer's form."""

    format: TextFormat | ObjectFormat | SchemaFormat | None = None


class ReasoningConfig(msgspec.Struct, forbid_unknown_fields=True):
    """Taken empty only: a chat completion has no setting for it."""


_Include = Literal["message.output_text.logprobs", "reasoning.encrypted_content"]
_False = Annotated[bool, Meta(extra_json_schema={"const": False})]
_ITEMS = {"anyOf": [{"$ref": f"#/components/schemas/{kind.__name__}"} for kind in DESCRIBED]}


class ResponsesBody(msgspec.Struct, forbid_unknown_fields=True):
    """What is taken of a Responses request; the last fields are ignored.

    The ignored ones are of the vendor's own serving and cannot change what a model answers.
    """

    model: Name
    input: (
        str
        | Annotated[
            list[Any],
            Meta(min_length=1, max_length=MESSAGES_MAX, extra_json_schema={"items": _ITEMS}),
        ]
    )
    instructions: str | None = None
    stream: bool | None = None
    max_output_tokens: Annotated[int, Meta(ge=1, le=TOKENS_MAX)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=TOP_LOGPROBS_MAX)] | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: Literal["none", "auto", "required"] | FunctionChoice | None = None
    parallel_tool_calls: bool | None = None
    text: TextConfig | None = None
    reasoning: ReasoningConfig | None = None
    include: list[_Include] | None = None
    user: str | None = None
    metadata: dict[str, str] | None = None
    store: _False | None = None
    background: _False | None = None
    truncation: Literal["disabled"] | None = None
    prompt_cache_key: Any = None
    prompt_cache_options: Any = None
    prompt_cache_retention: Any = None
    safety_identifier: Any = None
    service_tier: Any = None
    stream_options: Any = None


def read_responses_body(body: bytes) -> ResponsesBody:
    """Read a body.

    Raises:
        RequestError: `invalid_request`, `unsupported_parameter`.
    """
    asked = read_fields(body, ResponsesBody, REFUSED)
    if asked.store:
        raise refuse("store", "is true, and nothing is stored here: leave it out")
    if asked.background:
        raise refuse("background", "is not offered: stream, or wait for the answer")
    return asked


def wants_logprobs(asked: ResponsesBody) -> bool:
    """Whether the text shall come with its tokens' log probabilities."""
    return "message.output_text.logprobs" in (asked.include or ())


def to_chat(asked: ResponsesBody) -> dict[str, Any]:
    """The chat completion to buy.

    Raises:
        RequestError: an item that a chat completion cannot carry.
    """
    chat: dict[str, Any] = {"model": asked.model, "messages": _to_messages(asked)}
    plain = {
        "max_completion_tokens": asked.max_output_tokens,
        "temperature": asked.temperature,
        "top_p": asked.top_p,
        "parallel_tool_calls": asked.parallel_tool_calls,
        "user": asked.user,
    }
    chat |= {name: value for name, value in plain.items() if value is not None}
    if wants_logprobs(asked):
        chat |= {"logprobs": True, "top_logprobs": asked.top_logprobs or 0}
    if asked.tools:
        chat["tools"] = [_to_tool(tool) for tool in asked.tools]
    if isinstance(asked.tool_choice, FunctionChoice):
        chat["tool_choice"] = {"type": "function", "function": {"name": asked.tool_choice.name}}
    elif asked.tool_choice is not None:
        chat["tool_choice"] = asked.tool_choice
    if asked.text is not None and asked.text.format is not None:
        chat["response_format"] = _to_response_format(asked.text.format)
    if asked.stream:
        chat |= {"stream": True, "stream_options": {"include_usage": True}}
    return chat


def _to_messages(asked: ResponsesBody) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    if asked.instructions:
        messages.append({"role": "system", "content": asked.instructions})
    if isinstance(asked.input, str):
        return [*messages, {"role": "user", "content": asked.input}]
    return [*messages, *to_messages(asked.input)]


def _to_tool(tool: FunctionTool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name, "parameters": tool.parameters or {}}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _to_response_format(wanted: TextFormat | ObjectFormat | SchemaFormat) -> dict[str, Any]:
    if isinstance(wanted, TextFormat):
        return {"type": "text"}
    if isinstance(wanted, ObjectFormat):
        return {"type": "json_object"}
    holder: dict[str, Any] = {"name": wanted.name, "schema": wanted.schema}
    if wanted.description is not None:
        holder["description"] = wanted.description
    if wanted.strict is not None:
        holder["strict"] = wanted.strict
    return {"type": "json_schema", "json_schema": holder}
