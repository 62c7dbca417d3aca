"""What a broker's error means for the voucher that was sent, and for the caller.

| answer | voucher | then |
| --- | --- | --- |
| an error of the protocol, 4xx or 503, no receipt | released: not admitted | see below |
| the same with a receipt | receipted, usually with fee 0 | as without |
| 409 `request_replayed` | stays in flight: somebody was admitted with it | next provider |
| anything else (5xx, a proxy's page, a redirect) | stays in flight: nobody knows | next provider |

| code | then |
| --- | --- |
| `voucher_too_low` | count the receipts that it brings, sign once more for the same provider |
| 429, 503, `insufficient_balance`, `offer_changed`, 401 ... (`_ELSEWHERE`) | next provider |
| `unsupported_parameter` | next provider, whose engine may offer it; no failure, if not for ever |
| other 4xx | the caller's: raised |

Source: `docs/protocol.md`, section "Errors"; `docs/decisions/0009-user-side.md`.
"""

from dataclasses import dataclass
from typing import Any

import msgspec

from hanse.protocol.errors import (
    ERROR_TABLE,
    HanseError,
    RequestError,
    TransientError,
)
from hanse.protocol.signatures import Address

MESSAGE_CHARS_MAX = 500
"""Of a provider's own words in our messages."""

ERROR_BODY_BYTES_MAX = 1024 * 1024
"""An error's body: 500 receipts of about 1 kB at most come with a 402, with room."""

RETRY_AFTER_DIGITS_MAX = 4
"""Of a provider's wish to be left alone, in seconds; longer ones, and dates, are not followed."""

_ELSEWHERE = frozenset(
    {
        "insufficient_balance",
        "sub_account_unknown",
        "fee_too_low",
        "offer_changed",
        "wrong_provider",
        "signature_invalid",
        "header_malformed",
        "voucher_expired",
        "voucher_too_low",
        "request_replayed",
        "model_not_found",
        "not_found",
        "method_not_allowed",
        "permission_denied",
        "unsupported_parameter",
    }
)
"""Codes of a refusal that says nothing about what another provider would do."""


class _Error(msgspec.Struct):
    message: str = ""
    code: str | None = None
    param: str | None = None
    hanse: dict[str, Any] | None = None


class _Body(msgspec.Struct):
    error: _Error


@dataclass(frozen=True, slots=True)
class Refusal:
    """A broker's error.

    Attributes:
        error: for the caller, if it gets that far.
        is_explicit: the broker says that it did not admit the request.
        is_elsewhere: another provider may well serve it.
        details: the broker's facts (`error.hanse`).
    """

    error: HanseError
    is_explicit: bool
    is_elsewhere: bool
    details: dict[str, Any]


def read_refusal(provider: Address, status: int, body: bytes, retry_after: str | None) -> Refusal:
    """Understand an answer that is not 200."""
    try:
        found = msgspec.json.decode(body, type=_Body).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        found = _Error()
    retry_after_s = _read_seconds(retry_after or "")
    code = found.code or ""
    details = found.hanse or {}
    is_known = code in ERROR_TABLE and ERROR_TABLE[code].status == status
    if not is_known or not (400 <= status < 500 or status == 503):
        error = TransientError(
            "provider_unreachable", f"provider {provider} answered with status {status}"
        )
        return Refusal(error, False, True, details)
    shown = "".join(c if c.isprintable() else " " for c in found.message[:MESSAGE_CHARS_MAX])
    message = f"provider {provider}: {shown}"
    if status in (429, 503):
        transient = TransientError(code, message, retry_after_s=retry_after_s)
        return Refusal(transient, True, True, details)
    kept = {name: details[name] for name in _AMOUNTS if isinstance(details.get(name), str)}
    refused = RequestError(code, message, details=kept, param=found.param)
    return Refusal(refused, code != "request_replayed", code in _ELSEWHERE, details)


def _read_seconds(text: str) -> float | None:
    is_number = len(text) <= RETRY_AFTER_DIGITS_MAX and text.isascii() and text.isdigit()
    return float(text) if is_number else None


_AMOUNTS = ("needed", "available", "missing", "cumulative_fee", "reserved", "maximum_fee")
