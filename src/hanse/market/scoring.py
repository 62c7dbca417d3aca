"""The score of an offer for one request: what it costs in money, time and doubt. Lower is better.

    score =  price         * fee / usual fee                (of the expected tokens)
          +  speed         * time / usual time              (first token, and the tokens after it)
          +  reliability   * share of failures / usual share
          +  verifiability * steps below the strongest check / 3
          +  locality      * (0 in the gateway's region, else 1)

Every part falls with a feature of the offer that is never negative, and none depends on another
offer but through what is usual for the model. Hence a lower bound of a group of offers is the score
of its least features, and the best of many is found without looking at most (`hanse.market.tree`).

A score is no amount: floating point does for an order, and fees are computed elsewhere, exactly.

Source: `docs/decisions/0023-matching.md`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median_low

import msgspec

from hanse.market.policy import Policy
from hanse.protocol.messages import Prices

BYTES_PER_TOKEN = 4
"""English text has about four bytes a token; only the ranking depends on it, never a fee."""

OUTPUT_TOKENS_EXPECTED = 256
"""Output tokens of a choice that the ranking assumes at most; answers mostly end before."""

FIRST_TOKEN_S_USUAL = 1.0
"""Of a provider that was never measured, and the unit of speed: what people call prompt."""

TOKEN_S_USUAL = 1 / 30
"""Seconds a token of one never measured: a small model on a processor, a large one on a card."""

COLD_S = 30.0
"""Until the first token of a model that is not loaded: a few gigabytes from a disk."""

RISK_USUAL = 0.05
"""Share of failures of one never asked; one that fails once in twenty costs no more than it."""

Features = tuple[float, float, float, float, float, int, int]
"""Base units per million input and output tokens, seconds to the first token, seconds for each
token after it, share of failures, steps below the strongest check, and 1 outside the gateway's
region; all as they count now, load included."""


class RequestShape(msgspec.Struct, frozen=True):
    """What of a request the choice depends on.

    Attributes:
        service_type, model: what is asked for.
        body_bytes: length of the body.
        output_tokens_asked: most tokens of one choice, None if the request does not say.
        choices: answers asked for (`n`).
        affinity: names what should stay with one provider: a session, or the prompt's beginning;
            empty for nothing.
        is_session: whether `affinity` names a session, which no trial interrupts.
    """

    service_type: str
    model: str
    body_bytes: int
    output_tokens_asked: int | None
    choices: int = 1
    affinity: bytes = b""
    is_session: bool = False

    @property
    def input_tokens(self) -> int:
        """Expected, at least 1."""
        return max(1, self.body_bytes // BYTES_PER_TOKEN)

    @property
    def output_tokens(self) -> int:
        """Expected over all choices."""
        if self.service_type != "chat":
            return 0
        asked = self.output_tokens_asked
        each = OUTPUT_TOKENS_EXPECTED if asked is None else min(asked, OUTPUT_TOKENS_EXPECTED)
        return each * self.choices


class Coefficients(msgspec.Struct, frozen=True):
    """What one request makes of each feature; all are at least 0."""

    input_price: float
    output_price: float
    first_token: float
    token: float
    risk: float
    check: float
    far: float

    def get_score(self, features: Features) -> float:
        """The score; `hanse.market.tree` adds up in the same order, so that both round alike."""
        f0, f1, f2, f3, f4, f5, f6 = features
        own = self.input_price * f0 + self.output_price * f1 + self.risk * f4
        return own + ((self.first_token * f2 + self.token * f3) + (self.check * f5 + self.far * f6))

    def get_parts(self, features: Features) -> tuple[float, ...]:
        """The score's five parts, in the order of `hanse.market.policy.WEIGHTS`."""
        f0, f1, f2, f3, f4, f5, f6 = features
        return (
            self.input_price * f0 + self.output_price * f1,
            self.first_token * f2 + self.token * f3,
            self.risk * f4,
            self.check * f5,
            self.far * f6,
        )


@dataclass(frozen=True, slots=True)
class UsualPrices:
    """The middle of a model's prices, base units per million tokens: what a fee is held against."""

    input_per_mtok: int = 1
    output_per_mtok: int = 1


def get_usual_prices(prices: Sequence[Prices]) -> UsualPrices:
    """The median of each; of few absurd prices it knows nothing."""
    if not prices:
        return UsualPrices()
    return UsualPrices(
        median_low([price.input_per_mtok for price in prices]),
        median_low([price.output_per_mtok for price in prices]),
    )


def get_coefficients(shape: RequestShape, policy: Policy, usual: UsualPrices) -> Coefficients:
    """How much each feature counts for this request."""
    input_tokens, output_tokens = shape.input_tokens, shape.output_tokens
    fee = input_tokens * usual.input_per_mtok + output_tokens * usual.output_per_mtok
    of_fee = policy.price / max(1, fee)
    of_time = policy.speed / (FIRST_TOKEN_S_USUAL + output_tokens * TOKEN_S_USUAL)
    return Coefficients(
        of_fee * input_tokens,
        of_fee * output_tokens,
        of_time,
        of_time * output_tokens,
        policy.reliability / RISK_USUAL,
        policy.verifiability / 3,
        policy.locality,
    )


def get_time_s(features: Features, output_tokens: int) -> float:
    """Seconds until the answer's end that are expected."""
    return features[2] + output_tokens * features[3]
