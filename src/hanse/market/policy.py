"""Policies: how much price, speed, reliability, verifiability and locality count in the choice.

    read_policy("balanced")                 one by its name
    read_policy("price=3,speed=2")          own weights; what is not named counts nothing

Only the proportion of the weights counts: they are divided by their sum. The formula that they go
into is `hanse.market.scoring`'s; why it is that one: `docs/decisions/0023-matching.md`.
"""

import math
from dataclasses import dataclass, fields

from hanse.protocol.errors import RequestError

POLICY_CHARS_MAX = 160
"""All five weights with six digits each, and some room."""

WEIGHT_MAX = 1_000_000.0
"""Of one weight; only proportions count, so more says nothing."""

TIE = 1e-6
"""Weight of speed under `cheapest`: it orders equal prices, and moves no price by a millionth."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Weights from 0 to 1, and how far from the best a warm session may stay.

    Attributes:
        price: of the fee that is expected.
        speed: of the time to the answer's end that is expected.
        reliability: of failures and failed audits.
        verifiability: of how the work can be checked.
        locality: of being served in the gateway's own region.
        tolerance: a session stays with a provider whose score is at most so much above the best,
            as a part of the best: 0.25 is a quarter.
        name: for people.
    """

    price: float = 0.0
    speed: float = 0.0
    reliability: float = 0.0
    verifiability: float = 0.0
    locality: float = 0.0
    tolerance: float = 0.25
    name: str = "own"


CHEAPEST = Policy(price=1.0, speed=TIE, tolerance=0.01, name="cheapest")
FASTEST = Policy(price=0.1, speed=0.7, reliability=0.2, name="fastest")
BALANCED = Policy(
    price=0.4, speed=0.3, reliability=0.2, verifiability=0.05, locality=0.05, name="balanced"
)

POLICIES = {policy.name: policy for policy in (CHEAPEST, FASTEST, BALANCED)}
"""The named ones."""

WEIGHTS = tuple(field.name for field in fields(Policy))[:5]
"""What can be weighed, in the order of the score's parts."""


def read_policy(text: str) -> Policy:
    """The policy of this name or with these weights.

    Raises:
        RequestError: `invalid_request`, saying what can be written.
    """
    known = POLICIES.get(text)
    if known is not None:
        return known
    weights: dict[str, float] = {}
    for part in text[:POLICY_CHARS_MAX].split(","):
        name, _, value = part.strip().partition("=")
        if name not in WEIGHTS or name in weights or not _is_weight(value):
            raise _refuse(text)
        weights[name] = float(value)
    total = sum(weights.values())
    if len(text) > POLICY_CHARS_MAX or total <= 0:
        raise _refuse(text)
    price, speed, reliability, verifiability, locality = (
        weights.get(name, 0.0) / total for name in WEIGHTS
    )
    return Policy(price, speed, reliability, verifiability, locality)


def _is_weight(text: str) -> bool:
    try:
        value = float(text)
    except ValueError:
        return False
    return math.isfinite(value) and 0 <= value <= WEIGHT_MAX


def _refuse(text: str) -> RequestError:
    return RequestError(
        "invalid_request",
        f"the policy is {text!r:.80}, expected {', '.join(POLICIES)}, or weights such as "
        f"price=3,speed=2 of {', '.join(WEIGHTS)}",
        param="hanse-policy",
    )
