"""The gateway's paths: one table, from which the router and `/openapi.json` are both made.

What is read of each body stands in `hanse.gateway.bodies`, and for the other dialects beside them.

Source: OpenAI's and Anthropic's API references.
"""

import msgspec

from hanse.gateway.bodies import (
    Body,
    ChatBody,
    CompletionBody,
    EmbeddingBody,
    SpeechBody,
    TranscriptionBody,
    decode_as,
)
from hanse.gateway.budgets.quotes import QuoteBody
from hanse.gateway.dialects.dialect import Dialect
from hanse.gateway.dialects.messages_answer import MESSAGES
from hanse.gateway.dialects.messages_request import MessagesBody
from hanse.gateway.dialects.responses_answer import RESPONSES
from hanse.gateway.dialects.responses_request import ResponsesBody
from hanse.gateway.keys.minting import MintBody
from hanse.protocol.errors import RequestError
from hanse.protocol.wire import operations as paid

DialectBody = MessagesBody | ResponsesBody


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
        more_types: what a 200 answer may be besides.
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
    more_types: tuple[str, ...] = ()
    errors: tuple[int, ...] = ()

    @property
    def takes_form(self) -> bool:
        """Whether its body is a multipart form."""
        return self.body is TranscriptionBody


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
        "transcriptions",
        "POST",
        paid.Operation.TRANSCRIPTION.path,
        "Turn speech into text",
        body=TranscriptionBody,
        more_types=("text/plain",),
        errors=_PAID_ERRORS,
    ),
    Operation(
        "speech",
        "POST",
        paid.Operation.SPEECH.path,
        "Turn text into speech",
        body=SpeechBody,
        content_type="audio/mpeg",
        more_types=tuple(paid.SPEECH_FORMATS.values())[1:],
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
        errors=(400, 401, 403, 404, 408, 413, 429, 500, 503),
    ),
    Operation(
        "mint_key",
        "POST",
        "/hanse/v1/keys",
        "A short-lived API key within this one's reach, if this one may mint",
        body=MintBody,
        errors=(400, 401, 403, 408, 413, 429, 500, 503),
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

_NO_IMAGES = "is not offered: no engine here makes images, since no model for it comes in a package"
_NOTHING_KEPT = "is not offered: nothing is stored here"
NOT_OFFERED = {
    "/v1/images/generations": _NO_IMAGES,
    "/v1/images/edits": _NO_IMAGES,
    "/v1/images/variations": _NO_IMAGES,
    "/v1/audio/translations": "is not offered: transcribe, and let a chat model translate",
    "/v1/messages/count_tokens": "is not offered: a gateway has no model's tokenizer; "
    "POST /hanse/v1/quote says what a request can cost",
    "/v1/messages/batches": _NOTHING_KEPT,
    "/v1/batches": _NOTHING_KEPT,
    "/v1/files": _NOTHING_KEPT,
    "/v1/moderations": "is not offered: no engine here judges content",
}
"""Paths of the APIs spoken here that are refused by name, with the reason."""

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
    if methods is None and path in NOT_OFFERED:
        raise RequestError("not_found", f"{path} {NOT_OFFERED[path]}")
    if methods is None:
        raise RequestError("not_found", f"there is no path {path!r:.80}: {_get_hint(path)}")
    operation = methods.get(method)
    if operation is None:
        raise RequestError(
            "method_not_allowed",
            f"{path:.80} does not take {method!r:.20}, it takes {', '.join(methods)}",
            details={"allowed": list(methods)},
        )
    return operation


def _get_hint(path: str) -> str:
    """What to do about a path that there is not: most often the client's base URL is wrong."""
    if path.startswith("/v1/v1/"):
        return "this client adds /v1 itself, so its base URL ends before that"
    if "/v1" + path in _BY_PATH:
        return "this client's base URL has to end in /v1"
    return "GET /openapi.json lists those that there are"


def decode_body(operation: Operation, body: bytes) -> Body:
    """Read what the gateway needs of a body of one of OpenAI's own paid paths.

    Raises:
        RequestError: `invalid_request`; `param` names the field as OpenAI does.
    """
    assert operation.body is not None, operation.name
    return decode_as(operation.body, body)


def get_content_type(operation: Operation, fields: Body) -> str:
    """Of a whole answer: what the request asked for, whatever a provider says."""
    wanted = {"response_format": getattr(fields, "response_format", None)}
    return paid.OPERATIONS_BY_PATH[operation.path].get_content_type(wanted)
