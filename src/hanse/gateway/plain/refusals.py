"""What an upstream's error means for the application.

The application's own faults go on to it, with a short, cleaned sentence of the upstream's. What the
operator has to mend (key, address) and what passes by itself is an error that others may be asked
after. An upstream's key never leaves in a message.
"""

from hanse.protocol.errors import HanseError, RequestError, TransientError
from hanse.protocol.wire.server_errors import read_retry_after_s, read_server_error

_FAULTS = {
    400: "invalid_request",
    404: "model_not_found",
    413: "request_too_large",
    422: "unprocessable",
}


def read_refusal(
    name: str, status: int, raw: bytes, key: str, retry_after: str | None
) -> HanseError:
    """The error to raise for an answer whose status is not 200."""
    said = read_server_error(raw, [key])
    code = _FAULTS.get(status)
    if code is not None:
        message = said.message or f"the upstream refused the request with HTTP status {status}"
        return RequestError(code, message, param=said.param)
    wait_s = read_retry_after_s(retry_after) if status in (429, 503) else None
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
