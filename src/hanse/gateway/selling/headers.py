"""What the headers of a paid request may hold, as `/openapi.json` describes it.

They are read by `hanse.gateway.selling.wishes`, `hanse.gateway.resilience.wishes`,
`hanse.gateway.structured.demand` and `hanse.gateway.telemetry.tracing`. The limits here are theirs;
a test holds the names equal to what they look up, and the description is fuzzed both ways: what
fits it is taken, what does not is refused.

Source: OpenAPI Specification 3.1, "Parameter Object"; docs/gateway/matching.md, staying-up.md and
structured.md for what each header does.
"""

from typing import Any

from hanse.gateway.resilience.wishes import CLASSES, DEADLINE_MS_MAX
from hanse.gateway.selling.wishes import PROVIDERS_MAX, SESSION_CHARS_MAX
from hanse.gateway.structured.demand import AFTERWARDS, STREAM
from hanse.market.policy import POLICIES, POLICY_CHARS_MAX, WEIGHTS
from hanse.protocol.limits import AMOUNT_MAX, NAME_CHARS_MAX, REGION_CHARS_MAX
from hanse.protocol.wire import VERIFIABILITIES

_VISIBLE = "!-~\u00a1-\u00ac\u00ae-\u00ff"
"""What people can see of latin-1, in which headers come; a space may stand between two of these."""

_WEIGHTS = "|".join(WEIGHTS)
_WEIGHT = rf"(?:{_WEIGHTS})=[0-9]{{1,6}}(?:\.[0-9]{{1,6}})?"
_ADDRESS = "0x[0-9a-fA-F]{40}"
_WORD = f"(?:{'|'.join((*AFTERWARDS, STREAM))})"


def _name(chars_max: int) -> dict[str, Any]:
    pattern = f"^[{_VISIBLE}](?:[ {_VISIBLE}]*[{_VISIBLE}])?$"
    return {"type": "string", "minLength": 1, "maxLength": chars_max, "pattern": pattern}


def _match(pattern: str, chars_max: int | None = None) -> dict[str, Any]:
    limit = {} if chars_max is None else {"maxLength": chars_max}
    return {"type": "string", "pattern": f"^{pattern}$", **limit}


_PAID: dict[str, tuple[str, dict[str, Any]]] = {
    "hanse-policy": (
        f"What counts in the choice of a provider: {', '.join(POLICIES)}, or own weights, each "
        "once and not all of them 0",
        _match(
            # not all zeros, and no name twice
            rf"(?:{'|'.join(POLICIES)}|(?![^1-9]*$)(?!.*({_WEIGHTS})=.*\1=)"
            rf"{_WEIGHT}(?:,{_WEIGHT}){{0,{len(WEIGHTS) - 1}}})",
            POLICY_CHARS_MAX,
        ),
    ),
    "hanse-session": (
        "Requests of one name stay with one provider, whose prompt cache is warm",
        _name(SESSION_CHARS_MAX),
    ),
    "hanse-max-fee": (
        "Base units that this request may cost at most",
        {"type": "integer", "minimum": 0, "maximum": AMOUNT_MAX},
    ),
    "hanse-max-prices": (
        "Base units per million tokens of input, cached input and output that may be asked at most",
        _match("[0-9]{1,19}(?: *, *[0-9]{1,19}){2}"),
    ),
    "hanse-region": (
        "Only offers of this region, or of a part of it",
        _match("[a-z0-9]+(?:-[a-z0-9]+)*", REGION_CHARS_MAX),
    ),
    "hanse-verifiability": (
        "The weakest check accepted",
        {"type": "string", "enum": list(VERIFIABILITIES)},
    ),
    "hanse-quantisation": ("Only this one, such as Q8_0", _name(NAME_CHARS_MAX)),
    "hanse-deadline-ms": (
        "The request ends so many milliseconds after its head came",
        {"type": "integer", "minimum": 1, "maximum": DEADLINE_MS_MAX},
    ),
    "hanse-providers": (
        "Only these addresses; in mixed case with their EIP-55 checksum",
        _match(rf"{_ADDRESS}(?: *, *{_ADDRESS}){{0,{PROVIDERS_MAX - 1}}}"),
    ),
    "hanse-explain": (
        "1: the answer's `hanse-match` says who was chosen, and why",
        {"type": "string", "enum": ["0", "1"]},
    ),
    "hanse-class": (
        "How urgent it is in the queue; at most its key's class",
        {"type": "string", "enum": list(CLASSES)},
    ),
    "traceparent": (
        "W3C trace context to join, where this gateway is traced; one that is none is ignored",
        {"type": "string"},
    ),
    "tracestate": ("See `traceparent`", {"type": "string"}),
}

_CHAT: dict[str, tuple[str, dict[str, Any]]] = {
    "hanse-structured": (
        "What follows an answer that does not fit the request's JSON schema; `stream` gives up the "
        "judgement before delivery",
        _match(f" *{_WORD}?(?: *, *{_WORD}?)* *"),
    ),
    "hanse-default": (
        "JSON that fits the request's JSON schema, delivered when no answer does",
        {"type": "string", "contentMediaType": "application/json"},
    ),
}
"""Read where a chat completion is bought."""

PARAMETERS: dict[str, dict[str, Any]] = {
    name: {"name": name, "in": "header", "description": description, "schema": schema}
    for name, (description, schema) in (_PAID | _CHAT).items()
}
"""Every header that a paid path reads, as OpenAPI's parameter."""


def list_headers(*, buys_chat: bool) -> list[str]:
    """Names of `PARAMETERS` that a paid path reads."""
    return [*_PAID, *(_CHAT if buys_chat else ())]
