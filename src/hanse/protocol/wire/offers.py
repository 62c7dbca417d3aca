"""Signed offers as JSON, as brokers serve them and the market reads them.

Source: `docs/protocol.md`, sections "Signed messages" and "On the wire".
"""

from typing import Any

import msgspec

from hanse.protocol.errors import HanseError, RequestError, VerificationError
from hanse.protocol.limits import (
    ENDPOINT_CHARS_MAX,
    ENDPOINTS_PER_OFFER_MAX,
    NAME_CHARS_MAX,
    PRICE_PER_MTOK_MAX,
    REGION_CHARS_MAX,
    SEQUENCE_MAX,
    TOKENS_MAX,
)
from hanse.protocol.messages import Offer, Prices, SignedOffer
from hanse.protocol.signatures import parse_address, parse_hash32
from hanse.protocol.wire.fields import (
    TIME_MAX,
    WIRE_VERSION,
    check_range,
    check_version,
    convert_json,
    parse_count,
)
from hanse.protocol.wire.operations import SERVICE_TYPES

VERIFIABILITIES = ("tee", "embedded", "sampled", "reputation")


class _PricesWire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    input_per_mtok: str
    cached_per_mtok: str
    output_per_mtok: str


class _OfferWire(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    v: int
    provider: str
    service_id: int
    service_type: str
    model: str
    manifest_root: str
    quantisation: str
    engine: str
    context_tokens: int
    output_tokens_max: int
    prices: _PricesWire
    verifiability: str
    endpoints: tuple[str, ...]
    encryption_key: str
    valid_until: int
    revision: int
    region: str
    signature: str


def parse_region(text: str) -> str:
    """Check a region's name: lower-case words of letters and digits, joined by dashes.

    Raises:
        RequestError: `invalid_request`.
    """
    words = text.split("-")
    if len(text) > REGION_CHARS_MAX or not all(
        word.isascii() and word.isalnum() and word == word.lower() for word in words
    ):
        raise RequestError(
            "invalid_request",
            f"region is {text!r:.60}, expected lower-case letters and digits in words joined by "
            f"dashes, at most {REGION_CHARS_MAX} characters, such as eu or us-east",
            param="region",
        )
    return text


def offer_to_json(signed: SignedOffer) -> dict[str, Any]:
    """A signed offer as a JSON-ready dict."""
    o = signed.offer
    data: dict[str, Any] = msgspec.to_builtins(o)
    data["prices"] = {name: str(price) for name, price in data["prices"].items()}
    data["endpoints"] = list(o.endpoints)
    return {"v": WIRE_VERSION, **data, "signature": signed.signature}


def offer_from_json(data: object) -> SignedOffer:
    """Read a signed offer from decoded JSON; its signature is still unchecked.

    Raises:
        VerificationError: `offer_invalid`, naming what is wrong.
    """
    try:
        w = convert_json(data, _OfferWire)
        check_version(w.v)
        _check_names(w)
        _check_endpoints(w.endpoints)
        return SignedOffer(_to_offer(w), w.signature)
    except HanseError as error:
        raise VerificationError("offer_invalid", f"offer: {error}") from None


def _to_offer(w: _OfferWire) -> Offer:
    return Offer(
        provider=parse_address(w.provider, "provider"),
        service_id=check_range(w.service_id, SEQUENCE_MAX, "service_id"),
        service_type=w.service_type,
        model=w.model,
        manifest_root=parse_hash32(w.manifest_root, "manifest_root"),
        quantisation=w.quantisation,
        engine=w.engine,
        context_tokens=check_range(w.context_tokens, TOKENS_MAX, "context_tokens"),
        output_tokens_max=check_range(w.output_tokens_max, TOKENS_MAX, "output_tokens_max"),
        prices=Prices(
            parse_count(w.prices.input_per_mtok, PRICE_PER_MTOK_MAX, "input_per_mtok"),
            parse_count(w.prices.cached_per_mtok, PRICE_PER_MTOK_MAX, "cached_per_mtok"),
            parse_count(w.prices.output_per_mtok, PRICE_PER_MTOK_MAX, "output_per_mtok"),
        ),
        verifiability=w.verifiability,
        endpoints=w.endpoints,
        encryption_key=parse_hash32(w.encryption_key, "encryption_key"),
        valid_until=check_range(w.valid_until, TIME_MAX, "valid_until"),
        revision=check_range(w.revision, SEQUENCE_MAX, "revision"),
        region=parse_region(w.region) if w.region else "",
    )


def _check_names(w: _OfferWire) -> None:
    for field in ("model", "quantisation", "engine"):
        name = getattr(w, field)
        if not 0 < len(name) <= NAME_CHARS_MAX or not name.isprintable():
            raise RequestError(
                "invalid_request", f"{field} must have 1 .. {NAME_CHARS_MAX} printable characters"
            )
    for field, allowed in (("service_type", SERVICE_TYPES), ("verifiability", VERIFIABILITIES)):
        if getattr(w, field) not in allowed:
            raise RequestError(
                "invalid_request",
                f"{field} {getattr(w, field)!r:.40} is none of {', '.join(allowed)}",
            )


def _check_endpoints(endpoints: tuple[str, ...]) -> None:
    if not 0 < len(endpoints) <= ENDPOINTS_PER_OFFER_MAX:
        raise RequestError(
            "invalid_request",
            f"{len(endpoints)} endpoints, expected 1 .. {ENDPOINTS_PER_OFFER_MAX}",
        )
    for endpoint in endpoints:
        if (
            len(endpoint) > ENDPOINT_CHARS_MAX
            or not endpoint.startswith(("http://", "https://"))
            or not endpoint.isascii()
            or not endpoint.isprintable()
            or " " in endpoint
        ):
            raise RequestError(
                "invalid_request",
                "an endpoint must be an http(s) URL of at most "
                f"{ENDPOINT_CHARS_MAX} printable ASCII characters",
            )
