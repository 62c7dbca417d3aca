"""What a caller needs, which offers fit it, and why the others do not.

Hard limits come first: an offer beyond one of them is out, whatever its score. `find_exclusion`
says which limit it is; it is asked for every promising offer of every request, so the sentence for
people is made apart (`Exclusion.reason`). `rank_all` scores every offer of a model: the plain
reading of the rules, for explanations and errors, and what the fast choice is held to.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from hanse.market.board import Board, Group, Row, is_within
from hanse.market.offers import ListedOffer
from hanse.market.policy import CHEAPEST, Policy
from hanse.market.scoring import (
    OUTPUT_TOKENS_EXPECTED,
    Coefficients,
    RequestShape,
    get_coefficients,
    get_time_s,
)
from hanse.protocol.errors import HanseError, RequestError, Shortfall, TransientError
from hanse.protocol.messages import Offer, Prices, Usage
from hanse.protocol.pricing import get_maximum_fee
from hanse.protocol.signatures import Address
from hanse.protocol.wire import VERIFIABILITIES

if TYPE_CHECKING:  # it is made of what this module has
    from hanse.market.choosing import Choice

REASONS_SHOWN_MAX = 3
"""Reasons that an error message names one by one."""

STRENGTHS = {name: place for place, name in enumerate(VERIFIABILITIES)}
"""Strongest check first."""

Available = Callable[[Address], int | None]
"""Base units that may still be committed to a provider; None if nothing is set aside for it."""


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
        preferred: asked first if it fits, whatever it costs.
        region: only offers of this region or a part of it; empty for any.
        quantisation: only this one; empty for any.
        deadline_s: seconds within which the answer should be there; 0 for any. Providers never
            measured are not held to it.
        policy: what counts how much; None for the user's side's own.
        session: names what should stay with one provider; empty for nothing.
        explain_to: is told each choice that is made for it, with its score; None for nobody.
    """

    max_fee: int | None = None
    max_prices: Prices | None = None
    verifiability_min: str = "reputation"
    context_tokens: int = 0
    providers: frozenset[Address] = frozenset()
    excluded: frozenset[Address] = frozenset()
    preferred: Address | None = None
    region: str = ""
    quantisation: str = ""
    deadline_s: float = 0.0
    policy: Policy | None = None
    session: str = ""
    explain_to: "Callable[[Choice], None] | None" = None


class Candidate(msgspec.Struct, frozen=True):
    """An offer that fits; `maximum_fee` is what its voucher must authorise, base units."""

    listed: ListedOffer
    maximum_fee: int
    output_tokens_max: int
    shape: RequestShape

    @property
    def expected_fee(self) -> int:
        """What it will probably cost, base units."""
        output_tokens = OUTPUT_TOKENS_EXPECTED * self.shape.choices
        usage = Usage(
            input_tokens=self.shape.input_tokens,
            output_tokens=min(self.output_tokens_max, output_tokens),
        )
        return self.listed.offer.prices.get_fee(usage)


@dataclass(frozen=True, slots=True)
class Exclusion:
    """An offer that does not fit: `kind` for programs, `reason` for people.

    `maximum_fee` is that of one beyond the caller's own limit, of kind `fee`.
    """

    listed: ListedOffer
    kind: str
    reason: str
    shortfall: Shortfall | None = None
    maximum_fee: int | None = None


class Ranked(msgspec.Struct, frozen=True):
    """One offer that fits, with its score and the score's parts; see `hanse.market.policy`."""

    candidate: Candidate
    row: Row
    score: float
    parts: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Match:
    """Offers that fit, best first, and why the others do not."""

    ranked: tuple[Ranked, ...]
    exclusions: tuple[Exclusion, ...]

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The offers that fit, best first."""
        return tuple(one.candidate for one in self.ranked)


class Judge(msgspec.Struct):
    """One request before the offers of one model: does this one fit, and how good is it?"""

    board: Board
    shape: RequestShape
    needs: Needs
    now: float
    available: Available
    probes: bool = False  # whether one that is left alone for its failures may fit all the same
    priced: tuple[Row, Candidate] | None = None  # the one that was looked at last

    def fits(self, row: Row) -> bool:
        """Whether no limit stands against it."""
        return not self.find_exclusion(row)

    def find_exclusion(self, row: Row) -> str:
        """Which limit stands against it, by its kind; empty if none does."""
        offer, needs = row.listed.offer, self.needs
        provider = offer.provider
        asked = self.shape.output_tokens_asked
        if asked is not None and asked > offer.output_tokens_max and offer.service_type == "chat":
            return "limit"
        if provider in needs.excluded:
            return "tried"
        if needs.providers and provider not in needs.providers:
            return "choice"
        if offer.valid_until <= self.now:
            return "expired"
        strength = row.features[5]
        if strength > STRENGTHS[needs.verifiability_min]:
            return "verifiability"
        if strength == 0 and self.board.attested.find_problem(row.listed):
            return "attestation"
        if offer.context_tokens < needs.context_tokens:
            return "context"
        if needs.region and not is_within(offer.region, needs.region):
            return "region"
        if needs.quantisation and offer.quantisation != needs.quantisation:
            return "quantisation"
        candidate = price_offer(row.listed, self.shape)
        self.priced, maximum_fee = (row, candidate), candidate.maximum_fee
        if needs.max_prices is not None and _find_dear(offer.prices, needs.max_prices):
            return "price"
        if needs.max_fee is not None and maximum_fee > needs.max_fee:
            return "fee"
        return self._find_state_exclusion(row, maximum_fee)

    def to_candidate(self, row: Row) -> Candidate:
        """An offer that fits, with its fees."""
        priced = self.priced
        return priced[1] if priced and priced[0] is row else price_offer(row.listed, self.shape)

    def explain(self, row: Row, kind: str) -> Exclusion:
        """The exclusion in words."""
        offer, provider = row.listed.offer, row.listed.provider
        needs = self.needs
        if kind == "balance":
            return self._explain_balance(row)
        reasons: dict[str, Callable[[], str]] = {
            "limit": lambda: (
                f"{provider} gives at most {offer.output_tokens_max} tokens, "
                f"asked for are {self.shape.output_tokens_asked}"
            ),
            "tried": lambda: (
                f"{provider} was tried: {self.board.health.get(provider).reason or 'it refused'}"
            ),
            "choice": lambda: f"{provider} is none of those asked for",
            "expired": lambda: f"the offer of {provider} has ended",
            "verifiability": lambda: (
                f"{provider} is checked by {offer.verifiability}, "
                f"asked for was {needs.verifiability_min}"
            ),
            "attestation": lambda: (
                f"{provider} is left out: {self.board.attested.find_problem(row.listed)}"
            ),
            "context": lambda: (
                f"{provider} has a context of {offer.context_tokens}, needed are "
                f"{needs.context_tokens} tokens"
            ),
            "region": lambda: (
                f"{provider} serves in {offer.region or 'no region that it names'}, "
                f"asked for was {needs.region}"
            ),
            "quantisation": lambda: (
                f"{provider} serves {offer.quantisation}, asked for was {needs.quantisation}"
            ),
            "price": lambda: self._explain_price(offer),
            "fee": lambda: (
                f"{provider} may charge up to {self._get_maximum_fee(offer)} base units, your "
                f"limit is {needs.max_fee} base units: lower max_tokens or raise the limit"
            ),
            "down": lambda: self._explain_down(provider),
            "full": lambda: f"{provider} is full: no slot is free, and its queue neither",
            "deadline": lambda: (
                f"{provider} would take about {self._get_time_s(row):.1f} s, asked for were "
                f"{needs.deadline_s:g}"
            ),
        }
        maximum_fee = self._get_maximum_fee(offer) if kind == "fee" else None
        return Exclusion(row.listed, kind, reasons[kind](), maximum_fee=maximum_fee)

    def _find_state_exclusion(self, row: Row, maximum_fee: int) -> str:
        board, provider = self.board, row.listed.provider
        if board.presence.find_absence(provider):
            return "down"
        if not self.probes and board.health.get(provider).is_down(self.now):
            return "down"
        free = self.available(provider)
        if free is None or free < maximum_fee:
            return "balance"
        if board.presence.is_full(row.service):
            return "full"
        limit_s = self.needs.deadline_s
        if limit_s and not board.is_fresh(row) and self._get_time_s(row) > limit_s:
            return "deadline"
        return ""

    def _get_time_s(self, row: Row) -> float:
        return get_time_s(row.features, self.shape.output_tokens)

    def _get_maximum_fee(self, offer: Offer) -> int:
        output_tokens = _get_output_tokens(offer, self.shape)
        return get_maximum_fee(offer, self.shape.body_bytes, output_tokens)

    def _explain_price(self, offer: Offer) -> str:
        assert self.needs.max_prices is not None  # else price excludes nobody
        asked, accepted, name = _find_dear(offer.prices, self.needs.max_prices)[0]
        return (
            f"{offer.provider} asks {asked} base units per million {name} tokens, "
            f"your limit is {accepted} base units"
        )

    def _explain_down(self, provider: Address) -> str:
        absence = self.board.presence.find_absence(provider)
        if absence is not None:
            return (
                f"{provider} is down since {_format_time(absence.since)} "
                f"(no heartbeat: {absence.reason})"
            )
        state = self.board.health.get(provider)
        if self.now < state.barred_until:
            return f"{provider} is left out: {state.barred_reason}"
        return f"{provider} is down since {_format_time(state.down_since)} ({state.reason})"

    def _explain_balance(self, row: Row) -> Exclusion:
        maximum_fee = self._get_maximum_fee(row.listed.offer)
        free = self.available(row.listed.provider)
        reason = f"{row.listed.provider} needs {maximum_fee} base units to be free, " + (
            f"free are {free} base units" if free is not None else "nothing is set aside for it"
        )
        shortfall = Shortfall(maximum_fee, free or 0, {"maximum_fee": maximum_fee})
        return Exclusion(row.listed, "balance", reason, shortfall)


def price_offer(listed: ListedOffer, shape: RequestShape) -> Candidate:
    """What a request costs by an offer, at most and as expected."""
    output_tokens = _get_output_tokens(listed.offer, shape)
    maximum_fee = get_maximum_fee(listed.offer, shape.body_bytes, output_tokens)
    return Candidate(listed, maximum_fee, output_tokens, shape)


def get_policy_coefficients(group: Group, judge: Judge, policy: Policy | None) -> Coefficients:
    """What this request makes of each feature, by its own policy or the given one."""
    return get_coefficients(judge.shape, judge.needs.policy or policy or CHEAPEST, group.usual)


def rank_all(group: Group, judge: Judge, policy: Policy | None = None) -> Match:
    """Score every offer of a model: what fits, best first, and why the rest does not."""
    coefficients = get_policy_coefficients(group, judge, policy)
    ranked: list[Ranked] = []
    exclusions: list[Exclusion] = []
    for row in group.rows.values():
        kind = judge.find_exclusion(row)
        if kind:
            exclusions.append(judge.explain(row, kind))
            continue
        ranked.append(rate(row, judge, coefficients))
    preferred = judge.needs.preferred
    ranked.sort(key=lambda one: (one.row.listed.provider != preferred, one.score, one.row.key))
    return Match(tuple(ranked), tuple(exclusions))


def rate(row: Row, judge: Judge, coefficients: Coefficients) -> Ranked:
    """One offer that fits, with its score."""
    return Ranked(
        judge.to_candidate(row),
        row,
        coefficients.get_score(row.features),
        coefficients.get_parts(row.features),
    )


def explain(match: Match, model: str) -> HanseError:
    """The error for a request that nobody could serve.

    A shortage of money that alone stands in the way is named with its amounts (402); offers that
    will never fit are the caller's to fix (404, 422); anything that may pass is transient (503).
    Where a limit of the caller's on the fee stands in the way, `maximum_fee_least` is the lowest
    that would do.
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
    fees = [e.maximum_fee for e in exclusions if e.maximum_fee is not None]
    least_fee = {"maximum_fee_least": str(min(fees))} if fees else {}
    if any(kinds[kind] for kind in _PASSING):
        return TransientError("no_provider", message, details=least_fee)
    short = [(e.shortfall, e.listed.provider) for e in exclusions if e.shortfall is not None]
    if short:
        least, provider = min(short, key=lambda s: (s[0].needed - s[0].available, s[1]))
        details = {**least.to_details(), "provider": provider, **least_fee}
        return RequestError("insufficient_balance", message, details=details)
    if any(kinds[kind] for kind in _PERMANENT):
        return RequestError("unprocessable", message, details=least_fee)
    return TransientError("no_provider", message)


_PASSING = ("down", "tried", "full", "deadline", "attestation")
_PERMANENT = (
    "fee",
    "price",
    "limit",
    "context",
    "verifiability",
    "choice",
    "region",
    "quantisation",
)


def _get_output_tokens(offer: Offer, shape: RequestShape) -> int:
    if offer.service_type != "chat":
        return 0
    asked = shape.output_tokens_asked
    return shape.choices * (offer.output_tokens_max if asked is None else asked)


def _find_dear(prices: Prices, most: Prices) -> list[tuple[int, int, str]]:
    """Prices above the highest accepted ones: asked, accepted, name."""
    if (
        prices.input_per_mtok <= most.input_per_mtok
        and prices.cached_per_mtok <= most.cached_per_mtok
        and prices.output_per_mtok <= most.output_per_mtok
    ):
        return []
    pairs = (
        (prices.input_per_mtok, most.input_per_mtok, "input"),
        (prices.cached_per_mtok, most.cached_per_mtok, "cached"),
        (prices.output_per_mtok, most.output_per_mtok, "output"),
    )
    return [entry for entry in pairs if entry[0] > entry[1]]


def _format_time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S UTC")
