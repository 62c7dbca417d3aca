"""What a server that speaks OpenAI's API says went wrong, as strangers write it.

    said = read_server_error(raw, secrets=[key])      # never fails
    said.message                                      # short, printable, without keys
    read_retry_after_s(header)

Engines ask such servers, and so does a gateway in front of servers of one's own. What each makes of
a status is its own; what of a stranger's text may go on to callers is the same for both.

Source: OpenAI's API reference, "Errors"; RFC 9110, section "Retry-After".
"""

import re
from collections.abc import Iterable

import msgspec

from hanse.protocol.nesting import is_nested_too_deep

ERROR_BODY_BYTES_MAX = 65_536
"""Of an error's body no more is read."""

ERROR_MESSAGE_CHARS_MAX = 300
"""Of its message no more is passed on."""

PARAM_CHARS_MAX = 64
"""Of a field's name no more is passed on."""

RETRY_AFTER_S_MAX = 3_600.0
"""A longer wait asked for by a server is cut to this."""

_KEYS = re.compile(r"\b(sk|key|Bearer)[-_ ][A-Za-z0-9_\-]{8,}\S*")
"""What looks like one, whosever it is."""


class ServerError(msgspec.Struct, frozen=True):
    """What was said; empty where nothing was, or nothing that can be read.

    Attributes:
        message: for people.
        param: the field that it is about.
        kind: its code and type.
    """

    message: str = ""
    param: str | None = None
    kind: str = ""


def read_server_error(raw: bytes, secrets: Iterable[str] = ()) -> ServerError:
    """Read the body of an answer that is no 200; `secrets` never leave in what it gives."""
    try:
        if is_nested_too_deep(raw):
            return ServerError()
        error = msgspec.json.decode(raw.decode("utf-8", "replace"))["error"]
    except (msgspec.DecodeError, KeyError, TypeError, RecursionError):
        return ServerError()
    if not isinstance(error, dict):
        error = {"message": error}
    message, param = error.get("message"), error.get("param")
    return ServerError(
        _clean(message, secrets) if isinstance(message, str) else "",
        (isinstance(param, str) and param.isprintable() and param[:PARAM_CHARS_MAX]) or None,
        f"{error.get('code')} {error.get('type')}",
    )


def read_retry_after_s(text: str | None) -> float | None:
    """The wait that a server asks for; None where it asks for none, or by a date."""
    try:
        return None if text is None else max(0.0, min(float(text), RETRY_AFTER_S_MAX))
    except ValueError:
        return None


def _clean(text: str, secrets: Iterable[str]) -> str:
    for secret in filter(None, secrets):
        text = text.replace(secret, "***")
    printable = "".join(c if c.isprintable() else " " for c in _KEYS.sub("***", text))
    return " ".join(printable.split())[:ERROR_MESSAGE_CHARS_MAX]
