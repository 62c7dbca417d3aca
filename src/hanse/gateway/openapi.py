"""The gateway's description at `/openapi.json`, made from the tables that its code runs on.

Paths, methods and bodies come from `hanse.gateway.operations`, statuses' meanings from the error
table: nothing is written twice, so nothing drifts. What request headers hold stands in
`hanse.gateway.selling.headers`.

Source: OpenAPI Specification 3.1.
"""

from typing import Any

import msgspec

from hanse.gateway.bodies import TranscriptionBody
from hanse.gateway.operations import CHAT, OPERATIONS, Operation
from hanse.gateway.selling.headers import PARAMETERS, list_headers
from hanse.protocol.errors import ERROR_TABLE
from hanse.protocol.wire import OPERATIONS_BY_PATH


class ErrorFacts(msgspec.Struct):
    """What went wrong, as OpenAI shapes it."""

    message: str
    type: str
    param: str | None
    code: str
    hanse: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


class ErrorBody(msgspec.Struct):
    """Body of every error."""

    error: ErrorFacts


def get_description() -> dict[str, Any]:
    """The whole OpenAPI document."""
    kinds: set[type[msgspec.Struct]] = {row.body for row in OPERATIONS if row.body is not None}
    dialects = [operation.dialect for operation in OPERATIONS if operation.dialect is not None]
    kinds |= {kind for dialect in dialects for kind in dialect.described}
    kinds |= {_get_error_kind(operation) for operation in OPERATIONS}
    _, components = msgspec.json.schema_components(
        sorted(kinds, key=lambda kind: kind.__name__),
        ref_template="#/components/schemas/{name}",
    )
    components[TranscriptionBody.__name__]["additionalProperties"] = {"type": "string"}
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _describe(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Hanse gateway",
            "version": "1",
            "description": "OpenAI's and Anthropic's APIs, paid to the providers that serve.",
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "parameters": PARAMETERS,
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer"},
                "anthropicKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def _describe(operation: Operation) -> dict[str, Any]:
    of_keys = (401, 403) if operation.authenticated else ()
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "responses": {"200": _describe_answer(operation)}
        | {
            str(status): _describe_error(operation, status)
            for status in sorted({*of_keys, *operation.errors})
        },
    }
    if operation.body is not None:
        described["requestBody"] = {
            "required": True,
            "content": {_get_body_type(operation): {"schema": _ref(operation.body.__name__)}},
        }
    if operation.authenticated:
        described["security"] = [{"key": []}, {"anthropicKey": []}]
    if parameters := _list_parameters(operation):
        described["parameters"] = parameters
    return described


def _list_parameters(operation: Operation) -> list[dict[str, Any]]:
    if "{model}" in operation.path:
        return [{"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}]
    bought = CHAT.path if operation.dialect is not None else operation.path
    if bought not in OPERATIONS_BY_PATH:
        return []
    names = list_headers(buys_chat=bought == CHAT.path)
    return [{"$ref": f"#/components/parameters/{name}"} for name in names]


def _describe_answer(operation: Operation) -> dict[str, Any]:
    content: dict[str, Any] = {kind: {} for kind in (operation.content_type, *operation.more_types)}
    if operation.body is not None and "stream" in operation.body.__struct_fields__:
        content["text/event-stream"] = {}
    return {"description": operation.summary, "content": content}


def _get_body_type(operation: Operation) -> str:
    return "multipart/form-data" if operation.takes_form else "application/json"


def _get_error_kind(operation: Operation) -> type[msgspec.Struct]:
    return (operation.dialect and operation.dialect.error_kind) or ErrorBody


def _describe_error(operation: Operation, status: int) -> dict[str, Any]:
    meanings = [row.meaning for row in ERROR_TABLE.values() if row.status == status]
    return {
        "description": " ".join(meanings),
        "content": {"application/json": {"schema": _ref(_get_error_kind(operation).__name__)}},
    }


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}
