"""What an application's headers ask of the choice of provider.

    hanse-policy: cheapest | fastest | balanced | price=3,speed=1
    hanse-session: npc-7                 stays with one provider while that is free and good enough
    hanse-max-fee: 1500                  base units that this request may cost at most
    hanse-max-prices: 100,50,200         and per million tokens: input, cached, output
    hanse-region: eu                     hard limits: region, check, quantisation, deadline,
    hanse-verifiability: sampled         providers
    hanse-quantisation: Q8_0
    hanse-deadline-ms: 4000
    hanse-providers: 0x..., 0x...
    hanse-explain: 1                     the answer's `hanse-match` says who was chosen, and why

The body is bought as it is, so none of it can stand there. A request without such headers costs
nothing here.

Source: `docs/gateway/matching.md`.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from hanse.gateway.exchange import Headers
from hanse.gateway.resilience.wishes import read_deadline_s
from hanse.market import Choice, Needs, read_policy
from hanse.protocol.errors import RequestError
from hanse.protocol.limits import AMOUNT_MAX, NAME_CHARS_MAX, PRICE_PER_MTOK_MAX
from hanse.protocol.messages import Prices
from hanse.protocol.signatures import parse_address
from hanse.protocol.wire import VERIFIABILITIES, parse_region

SESSION_CHARS_MAX = 128
"""A session's name: room for two UUIDs and a word."""

PROVIDERS_MAX = 32
"""Providers that one request may name; the header stays far below what servers take."""

MATCH_HEADER = b"hanse-match"


def read_needs(
    wishes: Mapping[bytes, bytes], needs: Needs, key_id: str, answer_headers: Headers
) -> Needs:
    """The needs with what the headers ask added; limits that stand already are kept.

    Args:
        wishes: the application's `hanse-...` headers by lower-case name.
        needs: what the request is held to already.
        key_id: of the API key; sessions of two keys are never the same.
        answer_headers: where an explanation goes if one is asked for.

    Raises:
        RequestError: `invalid_request`, naming the header.
    """
    changes: dict[str, Any] = {}
    for name, (field, read) in _READERS.items():
        given = wishes.get(name)
        if given is not None:
            changes[field] = read(name.decode(), given.decode("latin-1").strip())
    if "session" in changes:
        changes["session"] = f"{key_id}/{changes['session']}"
    if "max_fee" in changes and needs.max_fee is not None:
        changes["max_fee"] = min(changes["max_fee"], needs.max_fee)
    if "max_prices" in changes and needs.max_prices is not None:
        changes["max_prices"] = _get_lower(changes["max_prices"], needs.max_prices)
    if "providers" in changes and needs.providers:
        changes["providers"] &= needs.providers
        if not changes["providers"]:  # no names would mean any
            raise RequestError(
                "invalid_request",
                "hanse-providers names none of the providers that this key may ask",
                param="hanse-providers",
            )
    if changes.pop("explains", False):
        changes["explain_to"] = _explain_in(answer_headers)
    return replace(needs, **changes) if changes else needs


def _get_lower(one: Prices, other: Prices) -> Prices:
    return Prices(
        min(one.input_per_mtok, other.input_per_mtok),
        min(one.cached_per_mtok, other.cached_per_mtok),
        min(one.output_per_mtok, other.output_per_mtok),
    )


def _explain_in(headers: Headers) -> Callable[[Choice], None]:
    """Keeps the header of the latest choice: a request may be taken to several providers."""

    def explain(choice: Choice) -> None:
        headers[:] = [header for header in headers if header[0] != MATCH_HEADER]
        headers.append((MATCH_HEADER, choice.to_text().encode("ascii", "replace")))

    return explain


def _read_session(name: str, text: str) -> str:
    if not 0 < len(text) <= SESSION_CHARS_MAX or not text.isprintable():
        raise _refuse(name, text, f"1 .. {SESSION_CHARS_MAX} printable characters")
    return text


def _read_amount(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 30 and int(text) <= AMOUNT_MAX):
        raise _refuse(name, text, "base units in decimal digits")
    return int(text)


def _read_prices(name: str, text: str) -> Prices:
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 3 or not all(
        part.isascii() and part.isdigit() and len(part) < 20 for part in parts
    ):
        raise _refuse(name, text, "three numbers: input, cached, output per million tokens")
    return Prices(*(min(int(part), PRICE_PER_MTOK_MAX) for part in parts))


def _read_region(name: str, text: str) -> str:
    try:
        return parse_region(text)
    except RequestError as error:
        raise RequestError("invalid_request", f"{name}: {error.message}", param=name) from None


def _read_verifiability(name: str, text: str) -> str:
    if text not in VERIFIABILITIES:
        raise _refuse(name, text, f"one of {', '.join(VERIFIABILITIES)}")
    return text


def _read_quantisation(name: str, text: str) -> str:
    if not 0 < len(text) <= NAME_CHARS_MAX or not text.isprintable():
        raise _refuse(name, text, f"1 .. {NAME_CHARS_MAX} printable characters")
    return text


def _read_providers(name: str, text: str) -> frozenset[str]:
    parts = [part.strip() for part in text.split(",")]
    if len(parts) > PROVIDERS_MAX:
        raise _refuse(name, text, f"at most {PROVIDERS_MAX} addresses")
    return frozenset(parse_address(part, name) for part in parts)


def _read_flag(name: str, text: str) -> bool:
    if text not in ("0", "1"):
        raise _refuse(name, text, "0 or 1")
    return text == "1"


def _refuse(name: str, text: str, expected: str) -> RequestError:
    return RequestError(
        "invalid_request", f"{name} is {text!r:.60}, expected {expected}", param=name
    )


_READERS: dict[bytes, tuple[str, Callable[[str, str], Any]]] = {
    b"hanse-policy": ("policy", lambda name, text: read_policy(text)),
    b"hanse-session": ("session", _read_session),
    b"hanse-max-fee": ("max_fee", _read_amount),
    b"hanse-max-prices": ("max_prices", _read_prices),
    b"hanse-region": ("region", _read_region),
    b"hanse-verifiability": ("verifiability_min", _read_verifiability),
    b"hanse-quantisation": ("quantisation", _read_quantisation),
    b"hanse-deadline-ms": ("deadline_s", read_deadline_s),
    b"hanse-providers": ("providers", _read_providers),
    b"hanse-explain": ("explains", _read_flag),
}
