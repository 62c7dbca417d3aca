"""Whether to settle now, what, and in which transactions: one pure function, and why it says so.

    plan = plan_settlement(claims, market, rules, since_s=waiting_since_s)
    plan.decision, plan.words              # "wait", "nothing is due before ..."
    for batch in plan.batches: ...

A settlement is *called for* by the clock (a day since something began to wait), by an exposure
above its limit, or by a person who asks. Then every claim may spend the gas share (1 %) of what it
brings on gas. A refund that is about to unlock calls for its own claim alone, which may then spend
all that the refund would take of it less one base unit: after the refund that could not be claimed.

A claim whose own gas is above what it may spend stays out, whoever asks; a transaction whose gas is
above what its claims may spend together is not sent. So one base unit under a pending refund moves
nothing (docs/decisions/0015), and no claim in a transaction is carried by another.

Everything is compared exactly (`gas.py`); only what is shown is rounded.

Source: docs/decisions/0015-netting.md.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from hanse.settlement.netting.gas import (
    CLAIM_GAS,
    SETTLE_GAS,
    WEI_PER_NATIVE,
    GasMarket,
    SettlementRules,
    get_claims_max,
    get_cost,
    get_scaled_cost,
    get_scaled_share,
)
from hanse.settlement.netting.payable import PayableClaim


class Decision(StrEnum):
    """What to do now."""

    SETTLE = "settle"
    WAIT = "wait"


class Reason(StrEnum):
    """Why. The first four settle, the others wait."""

    ASKED = "asked"
    EXPOSURE = "exposure"
    INTERVAL = "interval"
    REFUND = "refund"
    NOTHING = "nothing"
    NOT_YET = "not_yet"
    MINIMUM = "minimum"
    GAS = "gas"


@dataclass(frozen=True, slots=True)
class PlannedBatch:
    """One transaction.

    Attributes:
        claims: at most 200, those that bring most after their gas first.
        value: base units that it brings.
        gas: estimate.
        cost: of the gas, base units, rounded up.
        fee_cap_wei: above this price of one gas it would break the rule; 0: no price does.
    """

    claims: tuple[PayableClaim, ...]
    value: int
    gas: int
    cost: int
    fee_cap_wei: int


@dataclass(frozen=True, slots=True)
class SettlementPlan:
    """The decision and what led to it.

    Attributes:
        decision, reason, words: what to do, why, and that for people.
        waiting: all that could be claimed, as given; see `order_by_unlock`.
        value: base units of it.
        batches: what to send now; none if the decision is to wait.
        market: the chain's prices it was computed from.
        since_s: since when something has been waiting, 0 if nothing does; unix seconds.
        next_due_s: when the clock or a refund calls for a settlement; 0: neither will.
        overdue_s: how long past its time a settlement is; 0 if it is not.
    """

    decision: Decision
    reason: Reason
    words: str
    waiting: tuple[PayableClaim, ...]
    value: int
    batches: tuple[PlannedBatch, ...]
    market: GasMarket
    since_s: int
    next_due_s: int
    overdue_s: int

    @property
    def planned_value(self) -> int:
        """Base units that the batches bring."""
        return sum(batch.value for batch in self.batches)

    @property
    def cost(self) -> int:
        """Of all batches, base units."""
        return sum(batch.cost for batch in self.batches)


def plan_settlement(
    claims: Iterable[PayableClaim],
    market: GasMarket,
    rules: SettlementRules,
    *,
    since_s: int = 0,
    asked: bool = False,
) -> SettlementPlan:
    """Decide.

    Args:
        claims: of one provider, at most one a sub-account.
        market: the chain's prices and time.
        rules: the provider's.
        since_s: since when something has been waiting, unix seconds; 0: since now.
        asked: a person, or the round that this plan continues, calls for a settlement.
    """
    waiting = [claim for claim in claims if claim.payable > 0]
    value = sum(claim.payable for claim in waiting)
    since_s = (since_s or market.time_s) if waiting else 0
    called = _find_call(value, market, rules, since_s, asked)
    chosen = waiting if called else [c for c in waiting if _is_near(c, market, rules)]
    batches = _pack(chosen, market, rules)
    if not batches:
        reason = _find_wait(value, chosen, market, rules, since_s)
    elif asked or any(not _is_near(c, market, rules) for b in batches for c in b.claims):
        reason = called or Reason.REFUND
    else:
        reason = Reason.REFUND
    next_due_s = _get_next_due(waiting, market, rules, since_s)
    return SettlementPlan(
        decision=Decision.SETTLE if batches else Decision.WAIT,
        reason=reason,
        words=_describe(reason, value, chosen, batches, market, rules),
        waiting=tuple(waiting),
        value=value,
        batches=batches,
        market=market,
        since_s=since_s,
        next_due_s=next_due_s,
        overdue_s=_get_overdue(value, market, rules, next_due_s),
    )


def _find_call(
    value: int, market: GasMarket, rules: SettlementRules, since_s: int, asked: bool
) -> Reason | None:
    if asked:
        return Reason.ASKED
    if value < max(1, rules.value_min):
        return None
    if rules.exposure_max and value > rules.exposure_max:
        return Reason.EXPOSURE
    if rules.interval_s > 0 and market.time_s >= since_s + rules.interval_s:
        return Reason.INTERVAL
    return None


def _pack(
    chosen: Sequence[PayableClaim], market: GasMarket, rules: SettlementRules
) -> tuple[PlannedBatch, ...]:
    """Fill transactions with what leaves most after its gas, as long as they are worth theirs."""
    gas_of_claim = get_scaled_cost(CLAIM_GAS, market, rules)
    gas_of_batch = get_scaled_cost(SETTLE_GAS, market, rules)
    left = [(_scaled_allowance(claim, market, rules) - gas_of_claim, claim) for claim in chosen]
    worth = [item for item in left if item[0] >= 0]
    worth.sort(key=lambda item: (-item[0], item[1].claim.user, item[1].claim.signer))
    size = get_claims_max(market, rules)
    batches = []
    for start in range(0, len(worth), size):
        page = worth[start : start + size]
        if sum(rest for rest, _ in page) < gas_of_batch:
            break  # the pages after it leave less still
        batches.append(_make_batch([claim for _, claim in page], market, rules))
    return tuple(batches)


def _make_batch(
    claims: Sequence[PayableClaim], market: GasMarket, rules: SettlementRules
) -> PlannedBatch:
    gas = SETTLE_GAS + len(claims) * CLAIM_GAS
    allowed = sum(_scaled_allowance(claim, market, rules) for claim in claims)
    return PlannedBatch(
        claims=tuple(claims),
        value=sum(claim.payable for claim in claims),
        gas=gas,
        cost=get_cost(gas, market, rules),
        fee_cap_wei=allowed // (gas * rules.native_price) if rules.native_price else 0,
    )


def _scaled_allowance(claim: PayableClaim, market: GasMarket, rules: SettlementRules) -> int:
    """What a claim may spend on gas."""
    share = get_scaled_share(claim.payable, rules)
    if _is_near(claim, market, rules):
        return max(share, (claim.at_risk - 1) * WEI_PER_NATIVE)
    return share


def _is_near(claim: PayableClaim, market: GasMarket, rules: SettlementRules) -> bool:
    return 0 < claim.unlock_s <= market.time_s + rules.refund_margin_s


def _find_wait(
    value: int,
    chosen: Sequence[PayableClaim],
    market: GasMarket,
    rules: SettlementRules,
    since_s: int,
) -> Reason:
    if not value:
        return Reason.NOTHING
    if chosen:
        return Reason.GAS
    is_late = rules.interval_s > 0 and market.time_s >= since_s + rules.interval_s
    return Reason.MINIMUM if is_late else Reason.NOT_YET


def _get_next_due(
    waiting: Sequence[PayableClaim], market: GasMarket, rules: SettlementRules, since_s: int
) -> int:
    """By the clock or by a refund whose claim is worth a transaction of its own."""
    found = []
    if waiting and rules.interval_s > 0:
        found.append(int(since_s + rules.interval_s))
    alone = get_scaled_cost(SETTLE_GAS + CLAIM_GAS, market, rules)
    for claim in waiting:
        if claim.unlock_s and alone <= (claim.at_risk - 1) * WEI_PER_NATIVE:
            found.append(int(claim.unlock_s - rules.refund_margin_s))
    return min(found, default=0)


def _get_overdue(value: int, market: GasMarket, rules: SettlementRules, next_due_s: int) -> int:
    if not next_due_s or value < max(1, rules.value_min):
        return 0
    late_s = market.time_s - next_due_s
    return late_s if late_s > rules.overdue_after_s else 0


def _describe(
    reason: Reason,
    value: int,
    chosen: Sequence[PayableClaim],
    batches: Sequence[PlannedBatch],
    market: GasMarket,
    rules: SettlementRules,
) -> str:
    least = SETTLE_GAS + min(len(chosen), get_claims_max(market, rules)) * CLAIM_GAS
    brings = sum(claim.payable for claim in chosen)
    percent = 100 * get_cost(least, market, rules) / max(1, brings)
    sent = sum(len(batch.claims) for batch in batches)
    return {
        Reason.ASKED: "somebody asked for it",
        Reason.EXPOSURE: f"{value} base units wait, more than the limit of {rules.exposure_max}",
        Reason.INTERVAL: f"something has been waiting for {rules.interval_s:.0f} s",
        Reason.REFUND: f"{sent} claims would be lost to refunds that unlock within "
        f"{rules.refund_margin_s:.0f} s",
        Reason.NOTHING: "nothing can be claimed",
        Reason.NOT_YET: "neither the clock nor a refund nor the exposure calls for it",
        Reason.MINIMUM: f"{value} base units wait, less than the least of {rules.value_min}",
        Reason.GAS: f"gas would take about {percent:.3g} % of the {brings} base units that are "
        f"called for; at most {rules.gas_share_ppm / 10_000:g} % is allowed, or all but one base "
        "unit of a claim that a refund would take away",
    }[reason]
