"""Fields as they travel: base64url, exact amounts, ranges, and JSON that a stranger wrote.

An amount is a string of decimal digits without sign, point or leading zero. Numbers are refused in
its place: JavaScript's end at 2**53, and a reader that took `1e24` would round money.

Source: `docs/protocol.md`, sections "Amounts" and "On the wire".
"""

import base64
from typing import Any, TypeVar

import msgspec

from hanse.protocol.errors import RequestError

WIRE_VERSION = 1
TIME_MAX = 2**40
"""Unix seconds; 34,000 years from now, and still exact in JavaScript."""

_DIGITS_MAX = 30
"""Of an amount; 2**96 has 29. Longer text is refused before it is turned into a number."""

_T = TypeVar("_T")


def to_base64url(data: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def from_base64url(text: str) -> bytes:
    """The bytes of unpadded base64url; raises RequestError `header_malformed`.

    Only the one text that `to_base64url` would write is accepted. Python's decoder also takes the
    plain alphabet's `+` and `/` and loose bits at the end.
    """
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raise RequestError("header_malformed", "not base64url") from None
    if to_base64url(data) != text:
        raise RequestError("header_malformed", "not base64url without padding")
    return data


def decode_json(data: bytes, kind: type[_T]) -> _T:
    """Read JSON of one type that comes from outside.

    Raises:
        RequestError: `header_malformed` for anything that is not such JSON: wrong types, unknown
            fields, bytes that are no UTF-8, nesting deeper than the interpreter's stack.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError("header_malformed", _get_reason(error)) from None


def convert_json(data: object, kind: type[_T]) -> _T:
    """Read one type out of JSON that was decoded already; raises as `decode_json` does."""
    try:
        return msgspec.convert(data, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise RequestError("header_malformed", _get_reason(error)) from None


def encode_json(data: dict[str, Any]) -> str:
    """JSON in base64url, as headers carry it."""
    return to_base64url(msgspec.json.encode(data))


def parse_count(text: str, most: int, field: str) -> int:
    """Read a string of decimal digits, 0 .. `most`; raises RequestError `invalid_request`."""
    if (
        not 0 < len(text) <= _DIGITS_MAX
        or not (text.isascii() and text.isdigit())
        or (text[0] == "0" and text != "0")
    ):
        raise RequestError(
            "invalid_request",
            f"{field} is {text!r:.40}, expected decimal digits such as '12'",
            param=field,
        )
    return check_range(int(text), most, field)


def check_range(value: int, most: int, field: str, least: int = 0) -> int:
    """Return `value` if it is in `least` .. `most`; raises RequestError `invalid_request`."""
    if not least <= value <= most:
        raise RequestError(
            "invalid_request", f"{field} is {value}, outside {least} .. {most}", param=field
        )
    return value


def check_version(version: int) -> None:
    """Refuse any wire version but this one; raises RequestError `invalid_request`."""
    if version != WIRE_VERSION:
        raise RequestError(
            "invalid_request", f"wire version {version}, expected {WIRE_VERSION}", param="v"
        )


def _get_reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "the JSON is not UTF-8"
    return "the JSON is nested too deep" if isinstance(error, RecursionError) else str(error)
