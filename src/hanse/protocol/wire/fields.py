"""Fields as they travel: base64url, exact amounts, ranges, and JSON that a stranger wrote.

An amount is a string of decimal digits without sign, point or leading zero. Numbers are refused in
its place: JavaScript's end at 2**53, and a reader that took `1e24` would round money.

What each request carries is read twice: as Hanse writes it (the `Plain` types, all fields in one
call of C), and only where that fails field by field, which takes other spellings of an address and
says what is wrong.

Source: `docs/protocol.md`, sections "Amounts" and "On the wire".
"""

import binascii
from typing import Annotated, TypeVar

import msgspec

from hanse.protocol.errors import RequestError

WIRE_VERSION = 1
TIME_MAX = 2**40
"""Unix seconds; 34,000 years from now, and still exact in JavaScript."""

_DIGITS_MAX = 30
"""Of an amount; 2**96 has 29. Longer text is refused before it is turned into a number."""

_LAST = {1: "", 2: "AQgw", 3: "AEIMQUYcgkosw048"}
"""What a text of base64 whose length leaves so much over 4 may end with: a character that has no
bits beyond the last byte. One character alone is no byte."""

_TO_URL = bytes.maketrans(b"+/", b"-_")

PlainAddress = Annotated[str, msgspec.Meta(pattern=r"^0x[0-9a-f]{40}\Z")]
PlainHash = Annotated[str, msgspec.Meta(pattern=r"^0x[0-9a-f]{64}\Z")]
PlainCount = Annotated[str, msgspec.Meta(pattern=r"^(0|[1-9][0-9]{0,28})\Z")]
"""Its range is still to be checked."""

PlainTime = Annotated[int, msgspec.Meta(ge=0, le=TIME_MAX)]

_T = TypeVar("_T")


def to_base64url(data: bytes) -> str:
    """Base64url without padding."""
    return binascii.b2a_base64(data, newline=False).translate(_TO_URL, b"=").decode()


def from_base64url(text: str) -> bytes:
    """The bytes of unpadded base64url; raises RequestError `header_malformed`.

    Only the one text that `to_base64url` would write is accepted. Python's decoder knows the plain
    alphabet, and takes loose bits at the end.
    """
    surplus = len(text) % 4
    if surplus and text[-1] not in _LAST[surplus]:
        raise RequestError("header_malformed", "not base64url without padding")
    if "+" in text or "/" in text or "=" in text:
        raise RequestError("header_malformed", "not base64url without padding")
    plain = text.replace("-", "+").replace("_", "/") + "=" * (-surplus % 4)
    try:
        return binascii.a2b_base64(plain, strict_mode=True)
    except ValueError:
        raise RequestError("header_malformed", "not base64url") from None


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
