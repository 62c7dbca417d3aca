"""Who is asked: a pure function from offers, health and needs to a ranking with reasons.

The cheapest healthy offer for this request comes first: price for the tokens that it will probably
take, then latency, then the address (so that the order is the same every time). Whoever is left out
is listed with the reason, and `explain` turns the reasons into the error that a caller gets.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from hanse.market.health import HealthBook
from hanse.market.offers import ListedOffer
from hanse.protocol.errors import HanseError, RequestError, Shortfall, TransientError
from hanse.protocol.messages import Prices, Usage
from hanse.protocol.pricing import get_maximum_fee
from hanse.protocol.signatures import Address
from hanse.protocol.wire import VERIFIABILITIES

BYTES_PER_TOKEN = 4
"""English text has about four bytes a token; only the ranking depends on it, never a fee."""

OUTPUT_TOKENS_EXPECTED = 256
"""Output tokens that the ranking assumes at most; answers mostly end before their limit."""

REASONS_SHOWN_MAX = 3
"""Reasons that an error message names one by one."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What a caller asks for beyond the model.

    Attributes:
        max_fee: most that the request may cost, base units; None for no limit of its own.
        max_prices: highest prices accepted, base units per million tokens.
        verifiability_min: weakest kind of check accepted, `tee` being the strongest.
        context_tokens: least context that the offer must have.
        providers: only these; empty for any.
        excluded: never these (they were tried for this request).
        preferred: asked first if it fits, whatever it costs (session affinity).
    """

    max_fee: int | None = None
    max_prices: Prices | None = None
    verifiability_min: str = "reputation"
    context_tokens: int = 0
    providers: frozenset[Address] = frozenset()
    excluded: frozenset[Address] = frozenset()
    preferred: Address | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """An offer that fits; `maximum_fee` is what its voucher must authorise, base units."""

    listed: ListedOffer
    maximum_fee: int
    expected_fee: int
    output_tokens_max: int


@dataclass(frozen=True, slots=True)
class Exclusion:
    """An offer that does not fit: `kind` for programs, `reason` for people."""

    listed: ListedOffer
    kind: str
    reason: str
    shortfall: Shortfall | None = None


@dataclass(frozen=True, slots=True)
class Match:
    """Offers that fit, best first, and why the others do not."""

    candidates: tuple[Candidate, ...]
    exclusions: tuple[Exclusion, ...]


def match(
    offers: Iterable[ListedOffer],
    health: HealthBook,
    needs: Needs,
    now: float,
    available: Callable[[Address], int | None],
    *,
    body_bytes: int,
    output_tokens_asked: int | None,
    choices: int = 1,
) -> Match:
    """Rank the offers of one model for one request.

    Args:
        offers: of the model and type of service.
        health: of their providers.
        needs: what the caller demands.
        now: unix seconds.
        available: base units that may still be committed to a provider; None if nothing is set
            aside for it.
        body_bytes: length of the request's body.
        output_tokens_asked: most tokens of one choice, None if the request does not say.
        choices: answers asked for (`n`).
    """
    candidates: list[tuple[bool, int, float, Address, Candidate]] = []
    exclusions: list[Exclusion] = []
    for listed in offers:
        offer = listed.offer
        if offer.service_type == "embeddings":
            output_tokens = 0
        else:
            output_tokens = choices * (
                offer.output_tokens_max if output_tokens_asked is None else output_tokens_asked
            )
        maximum_fee = get_maximum_fee(offer, body_bytes, output_tokens)
        exclusion = _find_limit_exclusion(listed, output_tokens_asked) or _find_exclusion(
            listed, health, needs, now, maximum_fee, available
        )
        if exclusion is not None:
            exclusions.append(exclusion)
            continue
        expected = Usage(
            input_tokens=body_bytes // BYTES_PER_TOKEN,
            output_tokens=min(output_tokens, OUTPUT_TOKENS_EXPECTED * choices),
        )
        candidate = Candidate(listed, maximum_fee, offer.prices.get_fee(expected), output_tokens)
        latency_s = health.get(offer.provider).latency_s
        candidates.append(
            (
                offer.provider != needs.preferred,
                candidate.expected_fee,
                latency_s,
                offer.provider,
                candidate,
            )
        )
    candidates.sort(key=lambda ranked: ranked[:4])
    return Match(tuple(ranked[4] for ranked in candidates), tuple(exclusions))


def explain(match: Match, model: str) -> HanseError:
    """The error for a request that nobody could serve.

    A shortage of money that alone stands in the way is named with its amounts (402); offers that
    will never fit are the caller's to fix (404, 422); anything that may pass is transient (503).
    """
    exclusions = match.exclusions
    if not exclusions:
        return RequestError("model_not_found", f"no provider offers {model!r:.200}", param="model")
    kinds = Counter(exclusion.kind for exclusion in exclusions)
    count = len(exclusions)
    shown = "; ".join(e.reason for e in exclusions[:REASONS_SHOWN_MAX])
    if count > REASONS_SHOWN_MAX:
        shown += f"; and {count - REASONS_SHOWN_MAX} more"
    message = (
        f"{count} provider{'s' if count > 1 else ''} offer{'' if count > 1 else 's'} "
        f"{model}, none can be asked: {shown}"
    )
    if kinds["down"] or kinds["tried"]:
        return TransientError("no_provider", message)
    short = [(e.shortfall, e.listed.provider) for e in exclusions if e.shortfall is not None]
    if short:
        least, provider = min(short, key=lambda s: (s[0].needed - s[0].available, s[1]))
        details = {**least.to_details(), "provider": provider}
        return RequestError("insufficient_balance", message, details=details)
    if any(kinds[kind] for kind in _PERMANENT):
        return RequestError("unprocessable", message)
    return TransientError("no_provider", message)


_PERMANENT = ("fee", "price", "limit", "context", "verifiability", "choice")


def _find_limit_exclusion(listed: ListedOffer, output_tokens_asked: int | None) -> Exclusion | None:
    offer = listed.offer
    if output_tokens_asked is None or offer.service_type == "embeddings":
        return None
    if output_tokens_asked <= offer.output_tokens_max:
        return None
    return Exclusion(
        listed,
        "limit",
        f"{listed.provider} gives at most {offer.output_tokens_max} tokens, "
        f"asked for are {output_tokens_asked}",
    )


def _find_exclusion(
    listed: ListedOffer,
    health: HealthBook,
    needs: Needs,
    now: float,
    maximum_fee: int,
    available: Callable[[Address], int | None],
) -> Exclusion | None:
    offer, provider = listed.offer, listed.provider
    if provider in needs.excluded:
        reason = health.get(provider).reason or "it refused"
        return Exclusion(listed, "tried", f"{provider} was tried: {reason}")
    if needs.providers and provider not in needs.providers:
        return Exclusion(listed, "choice", f"{provider} is none of those asked for")
    if offer.valid_until <= now:
        return Exclusion(listed, "expired", f"the offer of {provider} has ended")
    strength = VERIFIABILITIES.index
    if strength(offer.verifiability) > strength(needs.verifiability_min):
        return Exclusion(
            listed,
            "verifiability",
            f"{provider} is checked by {offer.verifiability}, "
            f"asked for was {needs.verifiability_min}",
        )
    if offer.context_tokens < needs.context_tokens:
        return Exclusion(
            listed,
            "context",
            f"{provider} has a context of {offer.context_tokens}, needed are "
            f"{needs.context_tokens} tokens",
        )
    return _find_price_exclusion(listed, needs, maximum_fee) or _find_state_exclusion(
        listed, health, now, maximum_fee, available
    )


def _find_price_exclusion(listed: ListedOffer, needs: Needs, maximum_fee: int) -> Exclusion | None:
    prices, most = listed.offer.prices, needs.max_prices
    if most is not None:
        for asked, accepted, name in (
            (prices.input_per_mtok, most.input_per_mtok, "input"),
            (prices.cached_per_mtok, most.cached_per_mtok, "cached"),
            (prices.output_per_mtok, most.output_per_mtok, "output"),
        ):
            if asked > accepted:
                return Exclusion(
                    listed,
                    "price",
                    f"{listed.provider} asks {asked} base units per million {name} tokens, "
                    f"your limit is {accepted}",
                )
    if needs.max_fee is not None and maximum_fee > needs.max_fee:
        return Exclusion(
            listed,
            "fee",
            f"{listed.provider} may charge up to {maximum_fee} base units, your limit is "
            f"{needs.max_fee}: lower max_tokens or raise the limit",
        )
    return None


def _find_state_exclusion(
    listed: ListedOffer,
    health: HealthBook,
    now: float,
    maximum_fee: int,
    available: Callable[[Address], int | None],
) -> Exclusion | None:
    provider, state = listed.provider, health.get(listed.provider)
    if state.is_down(now):
        since = datetime.fromtimestamp(state.down_since, UTC).strftime("%H:%M:%S UTC")
        return Exclusion(listed, "down", f"{provider} is down since {since} ({state.reason})")
    free = available(provider)
    if free is None or free < maximum_fee:
        there = free or 0
        return Exclusion(
            listed,
            "balance",
            f"{provider} needs {maximum_fee} base units to be free, "
            + (f"free are {there}" if free is not None else "nothing is set aside for it"),
            Shortfall(maximum_fee, there, {"maximum_fee": maximum_fee}),
        )
    return None
