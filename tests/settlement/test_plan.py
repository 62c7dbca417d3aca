"""The plan of a settlement: what calls for one, what gas may take, and who cannot force one."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanse.settlement import DueClaim
from hanse.settlement.netting.gas import (
    CLAIM_GAS,
    REFUND_GAS,
    SETTLE_GAS,
    WEI_PER_NATIVE,
    GasMarket,
    SettlementRules,
    get_claims_max,
    get_cost,
    is_refund_worth_completing,
)
from hanse.settlement.netting.payable import PayableClaim, order_by_unlock
from hanse.settlement.netting.plan import (
    Decision,
    Reason,
    SettlementPlan,
    plan_settlement,
)

GWEI = 10**9
NOW_S = 1_800_000_000
DAY_S = 86_400
RULES = SettlementRules(native_price=2_500 * 10**6)
"""An asset of six decimals, a coin at 2,500 of it."""

CALM = GasMarket(gas_price_wei=GWEI // 100, block_gas_limit=30_000_000, time_s=NOW_S)
SPIKE = replace(CALM, gas_price_wei=300 * GWEI)

CLAIM_COST = 325
"""Base units of a claim's 13,000 gas at 0.01 gwei."""


def claim(number: int, payable: int, unlock_s: int = 0) -> PayableClaim:
    user, signer = f"0x{number:040x}", f"0x{number + 2**32:040x}"
    due = DueClaim(user, signer, payable, 1, 0, payable, 1, "0x" + "00" * 32, "0x" + "00" * 65)
    return PayableClaim(due, payable, unlock_s)


def planned(plan: SettlementPlan) -> list[PayableClaim]:
    return [c for batch in plan.batches for c in batch.claims]


# ---------------------------------------------------------------- what calls for one


def test_nothing_waits_for_nothing():
    plan = plan_settlement([claim(1, 0)], CALM, RULES, asked=True)
    assert (plan.decision, plan.reason, plan.value) == (Decision.WAIT, Reason.NOTHING, 0)
    assert (plan.next_due_s, plan.since_s, plan.overdue_s) == (0, 0, 0)


def test_the_clock_counts_from_when_something_began_to_wait():
    claims = [claim(1, 10**9)]
    first = plan_settlement(claims, CALM, RULES)
    assert (first.reason, first.since_s, first.next_due_s) == (
        Reason.NOT_YET,
        NOW_S,
        NOW_S + DAY_S,
    )
    early = plan_settlement(claims, CALM, RULES, since_s=NOW_S - DAY_S + 1)
    late = plan_settlement(claims, CALM, RULES, since_s=NOW_S - DAY_S)
    assert (early.reason, late.reason) == (Reason.NOT_YET, Reason.INTERVAL)
    never = plan_settlement(claims, CALM, replace(RULES, interval_s=0), since_s=1)
    assert never.reason is Reason.NOT_YET


def test_exposure_above_its_limit_does_not_wait_for_the_clock():
    rules = replace(RULES, exposure_max=10**9)
    assert plan_settlement([claim(1, 10**9)], CALM, rules).reason is Reason.NOT_YET
    plan = plan_settlement([claim(1, 10**9 + 1)], CALM, rules)
    assert (plan.decision, plan.reason) == (Decision.SETTLE, Reason.EXPOSURE)


def test_a_refund_calls_for_its_own_claim_alone():
    soon, later, none = claim(1, 10**9, NOW_S + 3_600), claim(2, 10**9, NOW_S + 3_601), claim(3, 5)
    plan = plan_settlement([none, later, soon], CALM, RULES)
    assert (plan.reason, planned(plan)) == (Reason.REFUND, [soon])
    assert plan.waiting == (none, later, soon)
    assert order_by_unlock(plan.waiting) == [soon, later, none], "who may lose something is first"
    assert plan.next_due_s == NOW_S


def test_a_round_that_is_called_for_takes_all_that_is_worth_its_gas():
    soon, rich, dust = claim(1, 400, NOW_S + 1), claim(2, 10**9), claim(3, CLAIM_COST * 100 - 1)
    plan = plan_settlement([soon, rich, dust], CALM, RULES, asked=True)
    assert (plan.reason, set(map(id, planned(plan)))) == (Reason.ASKED, {id(soon), id(rich)})


# ---------------------------------------------------------------- attacks


def test_dust_under_pending_refunds_forces_nothing():
    """Ten thousand sub-accounts that owe one base unit each, all about to unlock."""
    dust = [claim(n, 1, NOW_S + 10) for n in range(10_000)]
    plan = plan_settlement(dust, CALM, RULES)
    assert (plan.decision, plan.reason) == (Decision.WAIT, Reason.GAS)
    assert plan.next_due_s == NOW_S + DAY_S, "dust sets no clock either"
    # also where honest value is settled beside it, none of it rides along
    plan = plan_settlement([*dust, claim(10_000, 10**9)], CALM, RULES, asked=True)
    assert [c.payable for c in planned(plan)] == [10**9]


def test_dust_that_is_just_worth_its_own_gas_does_not_pay_for_the_transaction():
    market_cost = get_cost(SETTLE_GAS, CALM, RULES)
    few = [claim(n, CLAIM_COST + 11, NOW_S + 10) for n in range(market_cost // 10 - 1)]
    assert plan_settlement(few, CALM, RULES).reason is Reason.GAS
    more = [*few, *(claim(n + 10_000, CLAIM_COST + 11, NOW_S + 10) for n in range(50))]
    plan = plan_settlement(more, CALM, RULES)
    assert (plan.reason, len(planned(plan)), plan.waiting[0].unlock_s) == (
        Reason.REFUND,
        len(more),
        NOW_S + 10,
    )
    assert sum(b.cost for b in plan.batches) < plan.planned_value


def test_a_gas_price_spike_makes_it_wait_and_raises_the_alarm():
    claims = [claim(1, 10**9)]  # 1,000 whole units
    assert plan_settlement(claims, CALM, RULES, asked=True).decision is Decision.SETTLE
    plan = plan_settlement(claims, SPIKE, RULES, since_s=NOW_S - DAY_S - 3_600)
    assert (plan.decision, plan.reason, plan.overdue_s) == (Decision.WAIT, Reason.GAS, 0)
    assert "about 5.4" in plan.words
    assert "at most 1 %" in plan.words
    late = plan_settlement(claims, SPIKE, RULES, since_s=NOW_S - DAY_S - 3_601)
    assert late.overdue_s == 3_601


def test_a_refund_that_unlocks_during_a_spike_is_settled_while_it_brings_more_than_its_gas():
    cost = get_cost(SETTLE_GAS + CLAIM_GAS, SPIKE, RULES)
    worth, lost = claim(1, cost + 1, NOW_S + 600), claim(2, cost // 10, NOW_S + 600)
    other = claim(3, 10 * cost)
    plan = plan_settlement([worth, lost, other], SPIKE, RULES, since_s=NOW_S - 2 * DAY_S)
    assert (plan.reason, planned(plan)) == (Reason.REFUND, [worth])
    assert plan.batches[0].cost < plan.batches[0].value
    assert plan.next_due_s == NOW_S - DAY_S, "what did not go is still due"
    assert plan_settlement([claim(1, cost, NOW_S + 600)], SPIKE, RULES).reason is Reason.GAS


def test_a_price_that_is_named_too_low_leaves_a_cap_above_which_nothing_is_signed():
    free = replace(CALM, gas_price_wei=0)
    plan = plan_settlement([claim(1, 10**9)], free, RULES, asked=True)
    (batch,) = plan.batches
    assert batch.cost == 0
    at_cap = replace(CALM, gas_price_wei=batch.fee_cap_wei)
    above = replace(CALM, gas_price_wei=batch.fee_cap_wei + 1)
    assert get_cost(batch.gas, at_cap, RULES) <= batch.value // 100
    assert get_cost(batch.gas, above, RULES) > batch.value // 100


def test_a_tight_block_splits_and_a_lying_one_costs_no_more_than_the_rule():
    claims = [claim(n, 10**9 + n) for n in range(200)]
    assert get_claims_max(replace(CALM, block_gas_limit=0), RULES) == 200
    tight = replace(CALM, block_gas_limit=2_000_000)
    plan = plan_settlement(claims, tight, RULES, asked=True)
    sizes = [len(batch.claims) for batch in plan.batches]
    assert sizes == [56, 56, 56, 32]
    assert all(batch.gas * 125 // 100 <= 1_000_000 for batch in plan.batches)
    assert planned(plan) == sorted(claims, key=lambda c: -c.payable)
    lying = plan_settlement(claims, replace(CALM, block_gas_limit=1), RULES, asked=True)
    assert [len(batch.claims) for batch in lying.batches] == [1] * 200
    assert all(batch.cost * 100 <= batch.value for batch in lying.batches)


def test_completing_refunds_cannot_be_made_a_drain():
    cost = get_cost(REFUND_GAS, CALM, RULES)
    assert is_refund_worth_completing(100 * cost, 0, CALM, RULES)
    assert not is_refund_worth_completing(100 * cost - 100, 0, CALM, RULES)
    assert not is_refund_worth_completing(100 * cost, 1, CALM, RULES)


# ---------------------------------------------------------------- for all inputs

MARKETS = st.builds(
    GasMarket,
    gas_price_wei=st.integers(0, 10**12),
    block_gas_limit=st.sampled_from([0, 1, 100_000, 2_000_000, 30_000_000]),
    time_s=st.just(NOW_S),
)
RULE_SETS = st.builds(
    SettlementRules,
    interval_s=st.sampled_from([0.0, 3_600.0, 86_400.0]),
    refund_margin_s=st.sampled_from([0.0, 3_600.0]),
    exposure_max=st.sampled_from([0, 10**6, 10**12]),
    value_min=st.sampled_from([0, 1, 10**7]),
    gas_share_ppm=st.sampled_from([0, 1, 10_000, 1_000_000]),
    native_price=st.sampled_from([0, 1, 2_500 * 10**6, 10**24]),
)
AMOUNTS = st.one_of(st.integers(0, 1_000), st.integers(0, 2**96 - 1))
UNLOCKS = st.one_of(st.just(0), st.integers(NOW_S - 10_000, NOW_S + 10_000))
CLAIMS = st.lists(st.tuples(AMOUNTS, UNLOCKS), max_size=420).map(
    lambda rows: [claim(n, payable, unlock_s) for n, (payable, unlock_s) in enumerate(rows)]
)


@given(CLAIMS, MARKETS, RULE_SETS, st.integers(NOW_S - 200_000, NOW_S), st.booleans())
def test_every_plan_keeps_the_rules(claims, market, rules, since_s, asked):
    plan = plan_settlement(claims, market, rules, since_s=since_s, asked=asked)
    chosen = planned(plan)
    assert plan.value == sum(c.payable for c in claims)
    assert plan.planned_value == sum(c.payable for c in chosen)
    assert len({id(c) for c in chosen}) == len(chosen)
    assert (plan.decision is Decision.SETTLE) == bool(plan.batches)
    assert len(plan.waiting) == sum(c.payable > 0 for c in claims)

    def is_near(c: PayableClaim) -> bool:
        return 0 < c.unlock_s <= NOW_S + rules.refund_margin_s

    for batch in plan.batches:
        assert 1 <= len(batch.claims) <= 200
        assert all(c.payable > 0 for c in batch.claims)
        assert batch.value == sum(c.payable for c in batch.claims)
        # the rule, stated anew: 1 % (the share) of each claim, all but a unit of one near a refund
        may_take = sum(
            max(
                (c.payable - 1) * 10**6 if is_near(c) else 0,
                c.payable * rules.gas_share_ppm,
            )
            for c in batch.claims
        )
        exact = batch.gas * market.gas_price_wei * rules.native_price
        assert exact * 10**6 <= may_take * WEI_PER_NATIVE
        assert batch.cost == -(-exact // WEI_PER_NATIVE)
        if not any(is_near(c) for c in batch.claims):
            assert exact * 10**6 <= batch.value * rules.gas_share_ppm * WEI_PER_NATIVE
        if rules.native_price:
            assert batch.fee_cap_wei >= market.gas_price_wei
            at_cap = batch.gas * batch.fee_cap_wei * rules.native_price
            assert at_cap * 10**6 <= may_take * WEI_PER_NATIVE
    # nothing that a refund would take away and that is worth a transaction is left behind
    alone = get_cost(SETTLE_GAS + CLAIM_GAS, market, rules)
    left = {id(c) for c in claims} - {id(c) for c in chosen}
    assert [c for c in claims if id(c) in left and is_near(c) and c.payable > alone] == []
    # and nothing but refunds makes a transaction that nobody, no clock and no exposure called for
    if plan.reason is Reason.REFUND:
        assert all(is_near(c) for c in chosen)


@given(CLAIMS, MARKETS, RULE_SETS)
def test_the_order_of_the_claims_does_not_matter(claims, market, rules):
    plan = plan_settlement(claims, market, rules, asked=True)
    turned = plan_settlement(claims[::-1], market, rules, asked=True)
    assert replace(turned, waiting=plan.waiting) == plan
    assert order_by_unlock(turned.waiting) == order_by_unlock(plan.waiting)


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_words(reason):
    cases = {
        Reason.ASKED: ([claim(1, 10**9)], CALM, RULES, True),
        Reason.EXPOSURE: ([claim(1, 10**9)], CALM, replace(RULES, exposure_max=1), False),
        Reason.INTERVAL: ([claim(1, 10**9)], CALM, replace(RULES, interval_s=1), False),
        Reason.REFUND: ([claim(1, 10**9, NOW_S)], CALM, RULES, False),
        Reason.NOTHING: ([], CALM, RULES, True),
        Reason.NOT_YET: ([claim(1, 10**9)], CALM, replace(RULES, interval_s=0), False),
        Reason.MINIMUM: ([claim(1, 9)], CALM, replace(RULES, value_min=10, interval_s=1), False),
        Reason.GAS: ([claim(1, 10**6)], SPIKE, RULES, True),
    }
    claims, market, rules, asked = cases[reason]
    plan = plan_settlement(claims, market, rules, since_s=NOW_S - 10, asked=asked)
    assert plan.reason is reason
    assert plan.words[0].islower() or plan.words[0].isdigit()
