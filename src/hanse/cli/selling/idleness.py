"""Why a provider is idle: from facts to sentences, pure.

Read by `hanse provider start` and `hanse provider status`. The first reason is the one to remove
first: whoever is not registered need not look at its price.
"""

from collections.abc import Callable
from dataclasses import dataclass

QUIET_S = 300
"""Without a request for so long a running provider is told why that may be."""

NOT_RUNNING = "not running"
"""Health of a broker that no process of this home is."""


@dataclass(frozen=True)
class ProviderFacts:
    """What is known of a provider. Amounts in base units, times in unix seconds.

    Attributes:
        is_registered: whether the Registry knows it.
        stake, minimum_stake: what it has and what it takes.
        unbonding_until_s: when the stake comes free; 0 if it stays.
        receipt_key_matches: whether the Registry's receipt key is this home's.
        published_offers: active services in the Registry.
        health: of the broker at its first endpoint: `ok`, `draining`, `unreachable`, ...
        valid_until_s: of the offer in force; 0 if there is none.
        cheaper_offers: other providers' offers of the same model at a lower output price.
        sub_accounts: that users have funded for this provider.
        requests: receipted ever.
        last_request_s: when the last was finished; 0 if none was.
        is_condemned: whether a fraud was proven against it; it is never active again.
        name: what this home calls it, for commands that can be copied.
    """

    is_registered: bool
    stake: int
    minimum_stake: int
    unbonding_until_s: int
    receipt_key_matches: bool
    published_offers: int
    health: str
    valid_until_s: int
    cheaper_offers: int
    sub_accounts: int
    requests: int
    last_request_s: int
    is_condemned: bool = False
    name: str = "NAME"


def explain_idle(
    facts: ProviderFacts, now_s: int, format_amount: Callable[[int], str] = str
) -> list[str]:
    """Why no request comes, the most basic reason first; empty if one came lately."""
    hard = _explain_unlisted(facts, now_s, format_amount)
    if hard:
        return hard
    if facts.last_request_s and now_s - facts.last_request_s < QUIET_S:
        return []
    soft = []
    if facts.sub_accounts == 0:
        soft.append("no user has funded a sub-account for this provider yet")
    if facts.cheaper_offers:
        count = facts.cheaper_offers
        soft.append(
            f"{count} other {'offer' if count == 1 else 'offers'} of this model "
            f"{'is' if count == 1 else 'are'} cheaper, and the cheapest healthy one is asked first"
        )
    if facts.requests == 0:
        soft.append("no request has come yet")
    elif not soft:
        soft.append("nobody has asked lately; nothing is wrong that can be seen from here")
    return soft


def _explain_unlisted(
    facts: ProviderFacts, now_s: int, format_amount: Callable[[int], str]
) -> list[str]:
    reasons = []
    if facts.is_condemned:
        return ["condemned: a fraud was proven against this provider, and its stake is lost"]
    if not facts.is_registered:
        return [f"not registered: hanse provider start --register --name {facts.name}"]
    if facts.unbonding_until_s:
        reasons.append("the stake is unbonding, so no user can fund this provider")
    elif facts.stake < facts.minimum_stake:
        reasons.append(
            f"the stake of {format_amount(facts.stake)} is below the least that counts, "
            f"{format_amount(facts.minimum_stake)}"
        )
    if not facts.receipt_key_matches:
        reasons.append("the Registry names another receipt key than this home's")
    if facts.health == NOT_RUNNING:
        return [*reasons, f"the broker is not running: hanse provider start --name {facts.name}"]
    if not facts.published_offers:
        reasons.append("no offer is published")
    elif facts.valid_until_s and facts.valid_until_s <= now_s:
        reasons.append("the published offer has expired; a running broker renews it")
    if facts.health != "ok":
        reasons.append(f"at the endpoint that the offer names the broker is {facts.health}")
    return reasons
