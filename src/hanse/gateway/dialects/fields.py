"""Reading a request's fields: which are taken, which are ignored, which are refused by name.

Nothing that could change an answer is dropped silently. `null` counts as absent.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec

from hanse.protocol.errors import RequestError
from hanse.protocol.nesting import NESTING_MAX, is_nested_too_deep

SHOWN_CHARS_MAX = 64
"""A caller chooses a field's name, so what is repeated of it is short."""

_FIELD_AT = re.compile(r" - at `\$\.?([^`]*)`$")
_MISSING = re.compile(r"^Object missing required field `([^`]*)`")
_UNKNOWN_KIND = re.compile(r"^Invalid (?:enum )?value '(.*)'", re.DOTALL)
_T = TypeVar("_T", bound=msgspec.Struct)
_DecodedT = TypeVar("_DecodedT")


def decode_json(decode: Callable[[bytes], _DecodedT], body: bytes) -> _DecodedT:
    """Read a body with its struct's decoder.

    Raises:
        RequestError: `invalid_request`; `param` names the field as OpenAI does.
    """
    if is_nested_too_deep(body):
        raise RequestError("invalid_request", f"the body has more than {NESTING_MAX} levels")
    try:
        if not body.isascii():
            body.decode()  # a decoder does not look into the texts that it skips
        return decode(body)
    except msgspec.ValidationError as error:
        raise get_field_error(str(error)) from None
    except msgspec.DecodeError as error:
        raise RequestError("invalid_request", f"the body is not JSON: {error}") from None
    except (UnicodeDecodeError, RecursionError) as error:
        reason = "not UTF-8" if isinstance(error, UnicodeDecodeError) else "nested too deeply"
        raise RequestError("invalid_request", f"the body is not JSON: {reason}") from None


def read_fields(body: bytes, kind: type[_T], refused: Mapping[str, str]) -> _T:
    """Read a body into its struct.

    Args:
        body: JSON.
        kind: what is taken, or ignored because it cannot change an answer.
        refused: fields that are known but not offered, each with what to do instead.

    Raises:
        RequestError: `invalid_request` or `unsupported_parameter`; `param` names the field.
    """
    given: Any = decode_json(msgspec.json.decode, body)
    if not isinstance(given, dict):
        raise RequestError("invalid_request", "the body must be a JSON object")
    fields = {name: value for name, value in given.items() if value is not None}
    for name in fields:
        if name in refused:
            raise refuse(name, refused[name])
        if name not in kind.__struct_encode_fields__:
            raise refuse(name, "is not known here; leave it out")
    try:
        return msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        raise get_field_error(str(error)) from None


def get_field_error(text: str) -> RequestError:
    """What msgspec says of a wrong field, as OpenAI says it.

    A `type` that is not among those taken (an image, a vendor's tool) is refused by its name.
    """
    at = _FIELD_AT.search(text)
    missing = _MISSING.match(text)
    param = ".".join(part for part in (at and at[1], missing and missing[1]) if part) or None
    reason = text[: at.start()] if at else text
    unknown = _UNKNOWN_KIND.match(reason)
    if unknown and param and param.endswith(".type"):
        return refuse(param, f"{_show(unknown[1])!r} is not offered here")
    return RequestError("invalid_request", f"{param or 'the body'}: {reason}", param=param)


def refuse(name: str, why: str) -> RequestError:
    """A field or value that is well formed, but not offered."""
    shown = _show(name)
    return RequestError("unsupported_parameter", f"{shown} {why}", param=shown)


def _show(name: str) -> str:
    return "".join(c for c in name[:SHOWN_CHARS_MAX] if c.isprintable())
