"""What the money depends on in an OpenAI request body; everything else is the engine's.

The body is decoded once, and the engine gets the same decoded object, so no second parser can read
it differently. `n`, the token limits, `stream` and the shape of a prompt decide the maximum fee, so
they are checked here. Whatever would multiply the work without showing in the fee is refused.

Source: OpenAI's API reference; `docs/protocol.md`, section "Maximum fee".
"""

from typing import Any

import msgspec

from hanse.engines import Operation
from hanse.protocol.errors import RequestError
from hanse.protocol.messages import Offer
from hanse.protocol.nesting import NESTING_MAX, is_nested_too_deep
from hanse.protocol.wire.forms import read_form


class PaidBody(msgspec.Struct, frozen=True):
    """A decoded body and what was read from it.

    Attributes:
        fields: the JSON object or form, with the output limit written into it.
        model: what the caller asked for.
        output_tokens: most output tokens over all choices.
        streams: whether the answer is a stream.
    """

    fields: dict[str, Any]
    model: str
    output_tokens: int
    streams: bool


def decode_body(body: bytes, operation: Operation) -> dict[str, Any]:
    """The fields of a body: a JSON object, or a form whose file is the field `file`.

    Raises:
        RequestError: `invalid_request` if it is not what the operation takes.
    """
    if operation.takes_form:
        form = read_form(body)
        return form.fields if form.file is None else {**form.fields, "file": form.file}
    if is_nested_too_deep(body):
        raise RequestError("invalid_request", f"the body has more than {NESTING_MAX} levels")
    try:
        fields = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise RequestError("invalid_request", "the body is not JSON") from None
    if not isinstance(fields, dict):
        raise RequestError("invalid_request", "the body must be a JSON object")
    return fields


def check_body(
    fields: dict[str, Any], operation: Operation, offer: Offer, choices_max: int
) -> PaidBody:
    """Check what the fee depends on.

    Raises:
        RequestError: `invalid_request` or `unsupported_parameter`, naming the field.
    """
    model = fields.get("model")
    if not isinstance(model, str):
        raise RequestError("invalid_request", "model must be a string", param="model")
    if not operation.is_written:
        return PaidBody(fields, model, 0, False)
    streams = fields.get("stream")
    if streams is not None and not isinstance(streams, bool):
        raise RequestError("invalid_request", "stream must be true or false", param="stream")
    choices = _read_count(fields, "n", 1, choices_max)
    best_of = _read_count(fields, "best_of", choices, choices_max)
    if best_of > choices:
        raise RequestError(
            "unsupported_parameter",
            f"best_of {best_of} is above n {choices}: answers that are not returned are not sold",
            param="best_of",
        )
    if operation is Operation.COMPLETION:
        _check_one_prompt(fields.get("prompt"))
    limit = _read_limit(fields, offer.output_tokens_max)
    # The engine must stop where the authorisation ends, also if the caller named no limit.
    bounded = {**fields, "max_tokens": limit}
    bounded.pop("max_completion_tokens", None)
    return PaidBody(bounded, model, choices * limit, bool(streams))


def _read_limit(fields: dict[str, Any], most: int) -> int:
    for name in ("max_completion_tokens", "max_tokens"):
        if fields.get(name) is not None:
            return _read_count(fields, name, most, most)
    return most


def _read_count(fields: dict[str, Any], name: str, absent: int, most: int) -> int:
    value = fields.get(name)
    if value is None:
        return absent
    if type(value) is not int or not 1 <= value <= most:
        shown = value if type(value) is int and abs(value) < 10**30 else type(value).__name__
        raise RequestError(
            "invalid_request", f"{name} is {shown}, expected 1 .. {most}", param=name
        )
    return value


def _check_one_prompt(prompt: object) -> None:
    if isinstance(prompt, list) and len(prompt) > 1 and not isinstance(prompt[0], int):
        raise RequestError(
            "unsupported_parameter",
            f"{len(prompt)} prompts in one request, expected one: send one request for each",
            param="prompt",
        )
