"""The gateway's paths: one table, from which the router and `/openapi.json` are both made.

The bodies' structs name only what the gateway itself looks at. Everything else in a body (tools,
seed, logprobs, response_format ...) is checked for being JSON and handed on: the gateway never
changes a body, since its hash is what the voucher buys. One pass over the body, nothing kept of the
fields that are not named here.

Source: OpenAI's API reference for chat completions, completions and embeddings.
"""

from collections.abc import Callable
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from hanse.gateway.budgets.quotes import QuoteBody
from hanse.gateway.dialects.dialect import Dialect
from hanse.gateway.dialects.fields import get_field_error
from hanse.gateway.dialects.messages_answer import MESSAGES
from hanse.gateway.dialects.messages_request import MessagesBody
from hanse.gateway.dialects.responses_answer import RESPONSES
from hanse.gateway.dialects.responses_request import ResponsesBody
from hanse.gateway.keys.minting import MintBody
from hanse.protocol.errors import RequestError
from hanse.protocol.limits import MESSAGES_MAX, NAME_CHARS_MAX, TOKENS_MAX
from hanse.protocol.nesting import NESTING_MAX, is_nested_too_deep
from hanse.protocol.wire import operations as paid

CHOICES_MAX = 128
"""Answers to one request (`n`), as in OpenAI's API."""

TEXTS_MAX = 1_048_576
"""Texts, or token numbers, of one prompt or input; the body's size bounds them anyway, this bounds
the work.
"""

_Model = Annotated[str, Meta(min_length=1, max_length=NAME_CHARS_MAX)]
_Tokens = Annotated[int, Meta(ge=1, le=TOKENS_MAX)]
_Choices = Annotated[int, Meta(ge=1, le=CHOICES_MAX)]
_Token = Annotated[int, Meta(ge=0, le=TOKENS_MAX)]
_Text = (
    Annotated[str, Meta(min_length=1)]
    | Annotated[list[str | _Token | list[_Token]], Meta(min_length=1, max_length=TEXTS_MAX)]
)


class Message(msgspec.Struct):
    """One message of a conversation; who may say what is the engine's business."""

    role: str


class StreamOptions(msgspec.Struct):
    """What a stream carries besides the answer."""

    include_usage: bool | None = None


class ChatBody(msgspec.Struct):
    """What the gateway reads of a chat completion request."""

    model: _Model
    messages: Annotated[list[Message], Meta(min_length=1, max_length=MESSAGES_MAX)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: _Tokens | None = None
    max_completion_tokens: _Tokens | None = None
    n: _Choices | None = None


class CompletionBody(msgspec.Struct):
    """What the gateway reads of a completion request."""

    model: _Model
    prompt: _Text
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: _Tokens | None = None
    n: _Choices | None = None


class EmbeddingBody(msgspec.Struct):
    """What the gateway reads of an embedding request."""

    model: _Model
    input: _Text


Body = ChatBody | CompletionBody | EmbeddingBody
DialectBody = MessagesBody | ResponsesBody
_BodyT = TypeVar("_BodyT", ChatBody, CompletionBody, EmbeddingBody)


class Operation(msgspec.Struct, frozen=True):
    """One path and method.

    Attributes:
        name: what it is called in metrics, logs and as OpenAPI's operation id.
        method: `GET` (which also answers `HEAD`) or `POST`.
        path: exact, or ending in `{model}`.
        summary: one line for the OpenAPI description.
        body: struct of the body, None if there is none.
        dialect: what turns that body into a chat completion and back; None for OpenAI's own paths.
        authenticated: whether an API key is needed.
        content_type: of the 200 answer.
        errors: statuses that it may answer besides 200.
    """

    name: str
    method: str
    path: str
    summary: str
    body: type[Body | DialectBody | MintBody | QuoteBody] | None = None
    dialect: Dialect | None = None
    authenticated: bool = True
    content_type: str = "application/json"
    errors: tuple[int, ...] = ()


_PAID_ERRORS = (400, 401, 402, 404, 405, 408, 413, 422, 429, 500, 502, 503)

OPERATIONS = (
    Operation(
        "chat_completions",
        "POST",
        paid.Operation.CHAT.path,
        "Continue a conversation, whole or as a stream",
        body=ChatBody,
        errors=_PAID_ERRORS,
    ),
    Operation(
        "completions",
        "POST",
        paid.Operation.COMPLETION.path,
        "Continue a text, whole or as a stream",
        body=CompletionBody,
        errors=_PAID_ERRORS,
    ),
    Operation(
        "embeddings",
        "POST",
        paid.Operation.EMBEDDINGS.path,
        "Turn texts into vectors",
        body=EmbeddingBody,
        errors=_PAID_ERRORS,
    ),
    Operation(
        "responses",
        "POST",
        "/v1/responses",
        "OpenAI's Responses API, stateless, over a chat completion",
        body=ResponsesBody,
        dialect=RESPONSES,
        errors=_PAID_ERRORS,
    ),
    Operation(
        "messages",
        "POST",
        "/v1/messages",
        "Anthropic's Messages API, over a chat completion",
        body=MessagesBody,
        dialect=MESSAGES,
        errors=_PAID_ERRORS,
    ),
    Operation("models", "GET", "/v1/models", "What can be bought now", errors=(401, 503)),
    Operation("model", "GET", "/v1/models/{model}", "One model", errors=(401, 404, 503)),
    Operation(
        "money",
        "GET",
        "/hanse/v1/money",
        "Every unit that this gateway's wallet has: where, why, until when, and what would free it",
        errors=(401, 503),
    ),
    Operation(
        "status",
        "GET",
        "/hanse/v1/status",
        "What this gateway is doing: requests, stages, providers, limits, money",
        errors=(401, 403),
    ),
    Operation(
        "quote",
        "POST",
        "/hanse/v1/quote",
        "What a request would cost by each provider, at most and as expected",
        body=QuoteBody,
        errors=(400, 401, 403, 404, 408, 413, 500, 503),
    ),
    Operation(
        "mint_key",
        "POST",
        "/hanse/v1/keys",
        "A short-lived API key within this one's reach, if this one may mint",
        body=MintBody,
        errors=(400, 401, 403, 408, 413, 500, 503),
    ),
    Operation(
        "health",
        "GET",
        "/health",
        "200 while requests are admitted, 503 while draining",
        authenticated=False,
        errors=(503,),
    ),
    Operation(
        "metrics",
        "GET",
        "/metrics",
        "Figures for Prometheus",
        authenticated=False,
        content_type="text/plain",
    ),
    Operation(
        "openapi",
        "GET",
        "/openapi.json",
        "This description",
        authenticated=False,
    ),
)

CHAT = OPERATIONS[0]
"""What every dialect buys."""

PREFIX = "/v1/models/"
_BY_PATH: dict[str, dict[str, Operation]] = {}
for _operation in OPERATIONS:
    _BY_PATH.setdefault(_operation.path, {})[_operation.method] = _operation
    if _operation.method == "GET":
        _BY_PATH[_operation.path]["HEAD"] = _operation

_MODEL_METHODS = _BY_PATH.pop(PREFIX + "{model}")


def get_operation(method: str, path: str) -> Operation:
    """The operation of this method and path.

    Raises:
        RequestError: `not_found` or `method_not_allowed`, the methods in its details.
    """
    methods = _BY_PATH.get(path)
    if methods is None and path.startswith(PREFIX) and len(path) > len(PREFIX):
        methods = _MODEL_METHODS
    if methods is None:
        raise RequestError("not_found", f"there is no path {path!r:.80}")
    operation = methods.get(method)
    if operation is None:
        raise RequestError(
            "method_not_allowed",
            f"{path:.80} does not take {method!r:.20}, it takes {', '.join(methods)}",
            details={"allowed": list(methods)},
        )
    return operation


def _decoder(kind: type[_BodyT]) -> Callable[[bytes], _BodyT]:
    return msgspec.json.Decoder(kind).decode


_DECODE: dict[type[Body | DialectBody | MintBody | QuoteBody], Callable[[bytes], Body]] = {
    ChatBody: _decoder(ChatBody),
    CompletionBody: _decoder(CompletionBody),
    EmbeddingBody: _decoder(EmbeddingBody),
}


def decode_body(operation: Operation, body: bytes) -> Body:
    """Read what the gateway needs of a body.

    Raises:
        RequestError: `invalid_request`; `param` names the field as OpenAI does.
    """
    assert operation.body is not None, operation.name
    if is_nested_too_deep(body):
        raise RequestError("invalid_request", f"the body has more than {NESTING_MAX} levels")
    try:
        return _DECODE[operation.body](body)
    except msgspec.ValidationError as error:
        raise get_field_error(str(error)) from None
    except msgspec.DecodeError as error:
        raise RequestError("invalid_request", f"the body is not JSON: {error}") from None
    except (UnicodeDecodeError, RecursionError) as error:
        reason = "not UTF-8" if isinstance(error, UnicodeDecodeError) else "nested too deeply"
        raise RequestError("invalid_request", f"the body is not JSON: {reason}") from None
