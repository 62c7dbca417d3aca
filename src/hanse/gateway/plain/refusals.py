"""What an upstream's error means for the application.

The application's own faults go on to it, with a short, cleaned sentence of the upstream's. What the
operator has to mend (key, address) and what passes by itself is an error that others may be asked
after. An upstream's key never leaves in a message.
"""

import msgspec

from hanse.protocol.errors import HanseError, RequestError, TransientError
from hanse.protocol.nesting import is_nested_too_deep

ERROR_BODY_BYTES_MAX = 65_536
"""Of an error's body no more is read."""

ERROR_MESSAGE_CHARS_MAX = 300
"""Of its message no more is passed on."""

RETRY_AFTER_S_MAX = 3_600.0
"""A longer wait asked for by a server is cut to this."""

_FAULTS = {
    400: "invalid_request",
    404: "model_not_found",
    413: "request_too_large",
    422: "unprocessable",
}


class _Error(msgspec.Struct):
    message: str = ""
    param: str | None = None


class _Body(msgspec.Struct):
    error: _Error | str = ""


def read_refusal(
    name: str, status: int, raw: bytes, key: str, retry_after: str | None
) -> HanseError:
    """The error to raise for an answer whose status is not 200."""
    error = _read_error(raw)
    said = _clean(error.message.replace(key, "***") if key else error.message)
    code = _FAULTS.get(status)
    if code is not None:
        param = error.param if error.param and error.param.isprintable() else None
        message = said or f"the upstream refused the request with HTTP status {status}"
        return RequestError(code, message, param=param and param[:64])
    wait_s = _read_s(retry_after) if status in (429, 503) else None
    details = {"upstream": name}
    if status == 429:
        return TransientError(
            "rate_limited",
            "the upstream is at its rate limit",
            retry_after_s=wait_s,
            details=details,
        )
    return TransientError(
        "engine_unavailable",
        f"the upstream refused with HTTP status {status}",
        retry_after_s=wait_s,
        details=details,
    )


def _read_error(raw: bytes) -> _Error:
    try:
        if is_nested_too_deep(raw):
            return _Error()
        error = msgspec.json.decode(raw, type=_Body).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Error()
    return _Error(error) if isinstance(error, str) else error


def _clean(text: str) -> str:
    printable = "".join(c if c.isprintable() else " " for c in text[: 4 * ERROR_MESSAGE_CHARS_MAX])
    return " ".join(printable.split())[:ERROR_MESSAGE_CHARS_MAX]


def _read_s(text: str | None) -> float | None:
    try:
        return None if text is None else max(0.0, min(float(text), RETRY_AFTER_S_MAX))
    except ValueError:
        return None
