"""The plan at its edges: each bound on both sides, each figure exactly, each sentence whole."""

from dataclasses import replace

import pytest

from hanse.settlement.netting.gas import (
    CLAIM_GAS,
    SETTLE_GAS,
    GasMarket,
    SettlementRules,
    get_claims_max,
    get_cost,
    get_scaled_cost,
    get_scaled_share,
    is_refund_worth_completing,
)
from hanse.settlement.netting.payable import order_by_unlock
from hanse.settlement.netting.plan import (
    Decision,
    PlannedBatch,
    Reason,
    SettlementPlan,
    plan_settlement,
)
from tests.settlement.test_plan import CALM, DAY_S, NOW_S, claim, planned

COIN = SettlementRules(native_price=10**9)
WEI_COSTS = GasMarket(gas_price_wei=10**9, block_gas_limit=30_000_000, time_s=NOW_S)
"""Together: one gas costs one base unit, so that figures can be read off."""

BOTH = SETTLE_GAS + CLAIM_GAS
FREE = SettlementRules()


# ---------------------------------------------------------------- gas


def test_gas_costs_its_price_and_is_rounded_up():
    assert get_cost(7, WEI_COSTS, COIN) == 7
    assert get_scaled_cost(7, WEI_COSTS, COIN) == 7 * 10**18
    assert get_cost(1, replace(WEI_COSTS, gas_price_wei=1), COIN) == 1
    assert get_cost(0, WEI_COSTS, COIN) == 0
    assert get_cost(7, WEI_COSTS, FREE) == 0
    assert get_scaled_share(300, COIN) == 3 * 10**18


@pytest.mark.parametrize(
    ("limit", "share", "most"),
    [
        (30_000_000, 50, 200),
        (0, 50, 200),
        (0, 1, 13),
        (30_000_000, 1, 13),
        ((60_000 + 13_000 * 5) * 5 // 4, 100, 5),
        ((60_000 + 13_000 * 5) * 5 // 4 - 1, 100, 4),
        ((60_000 + 13_000 * 201) * 5 // 4, 100, 200),
        (1, 50, 1),
    ],
)
def test_a_transaction_leaves_room_in_its_block(limit, share, most):
    rules = replace(COIN, block_share_percent=share)
    assert get_claims_max(replace(CALM, block_gas_limit=limit), rules) == most


def test_a_refund_is_worth_its_gas_and_its_debt_exactly():
    assert is_refund_worth_completing(7_000_000, 0, WEI_COSTS, COIN)
    assert not is_refund_worth_completing(6_999_999, 0, WEI_COSTS, COIN)
    assert is_refund_worth_completing(7_000_100, 1, WEI_COSTS, COIN)
    assert not is_refund_worth_completing(7_000_099, 1, WEI_COSTS, COIN)


# ---------------------------------------------------------------- what calls for one


@pytest.mark.parametrize(
    ("changes", "payable", "waited_s", "reason"),
    [
        ({"value_min": 10}, 10, DAY_S, Reason.INTERVAL),
        ({"value_min": 10}, 9, DAY_S, Reason.MINIMUM),
        ({"value_min": 10}, 9, DAY_S - 1, Reason.NOT_YET),
        ({"value_min": 10, "interval_s": 0.0}, 9, DAY_S, Reason.NOT_YET),
        ({"value_min": 0}, 1, DAY_S, Reason.INTERVAL),
        ({"value_min": 0, "exposure_max": 1}, 2, 1, Reason.EXPOSURE),
        ({"value_min": 0, "exposure_max": 1}, 1, 1, Reason.NOT_YET),
        ({"value_min": 3, "exposure_max": 1}, 2, 1, Reason.NOT_YET),
        ({"exposure_max": 0}, 10**9, 1, Reason.NOT_YET),
        ({"exposure_max": 5}, 6, DAY_S, Reason.EXPOSURE),
        ({"interval_s": 1.0}, 6, 1, Reason.INTERVAL),
        ({"interval_s": 0.5}, 6, 1, Reason.INTERVAL),
        ({"interval_s": 0.0}, 6, 10**6, Reason.NOT_YET),
    ],
)
def test_what_calls_for_a_settlement(changes, payable, waited_s, reason):
    plan = plan_settlement(
        [claim(1, payable)], CALM, replace(FREE, **changes), since_s=NOW_S - waited_s
    )
    assert plan.reason is reason
    assert (plan.decision is Decision.SETTLE) == (reason in (Reason.INTERVAL, Reason.EXPOSURE))


@pytest.mark.parametrize(
    ("unlock_s", "margin_s", "reason"),
    [
        (0, 3_600, Reason.NOT_YET),
        (1, 3_600, Reason.REFUND),
        (NOW_S, 3_600, Reason.REFUND),
        (NOW_S + 3_600, 3_600, Reason.REFUND),
        (NOW_S + 3_601, 3_600, Reason.NOT_YET),
        (NOW_S, 0, Reason.REFUND),
        (NOW_S + 1, 0, Reason.NOT_YET),
    ],
)
def test_a_refund_calls_within_its_margin(unlock_s, margin_s, reason):
    rules = replace(FREE, refund_margin_s=margin_s)
    assert plan_settlement([claim(1, 5, unlock_s)], CALM, rules).reason is reason


def test_the_reason_of_a_round_is_what_its_transactions_hold():
    near, far = claim(1, 10**9, NOW_S), claim(2, 10**9)
    late = {"since_s": NOW_S - DAY_S}
    assert plan_settlement([near, far], CALM, FREE, **late).reason is Reason.INTERVAL
    assert plan_settlement([near], CALM, FREE, **late).reason is Reason.REFUND
    assert plan_settlement([near], CALM, FREE, asked=True).reason is Reason.ASKED
    assert plan_settlement([far], CALM, FREE, asked=True, **late).reason is Reason.ASKED
    assert plan_settlement([near, far], CALM, FREE).reason is Reason.REFUND


# ---------------------------------------------------------------- what is sent


def test_a_plan_holds_its_figures_exactly():
    rich, poor, later = claim(1, 9_000_000), claim(2, 1_300_000), claim(3, 5, NOW_S + 9_999)
    plan = plan_settlement([poor, rich, later, claim(4, 0)], WEI_COSTS, COIN, since_s=5, asked=True)
    gas = SETTLE_GAS + 2 * CLAIM_GAS
    assert plan == SettlementPlan(
        decision=Decision.SETTLE,
        reason=Reason.ASKED,
        words="somebody asked for it",
        waiting=(poor, rich, later),
        value=10_300_005,
        batches=(PlannedBatch((rich, poor), 10_300_000, gas, gas, 10**9 * 103_000 // gas),),
        market=WEI_COSTS,
        since_s=5,
        next_due_s=5 + DAY_S,
        overdue_s=NOW_S - 5 - DAY_S,
    )
    assert (plan.planned_value, plan.cost) == (10_300_000, gas)


@pytest.mark.parametrize(
    ("first", "second", "sent"),
    [
        (7_300_000, 0, 1),
        (7_299_999, 0, 0),
        (7_300_000, 1_300_000, 2),
        (7_300_000, 1_299_999, 1),
        (4_300_000, 4_300_000, 2),
        (4_300_000, 4_299_999, 0),
    ],
)
def test_each_pays_its_own_gas_and_together_the_transactions(first, second, sent):
    claims = [claim(1, first), claim(2, second)]
    plan = plan_settlement(claims, WEI_COSTS, COIN, asked=True)
    assert len(planned(plan)) == sent


@pytest.mark.parametrize(("payable", "sent"), [(BOTH + 1, 1), (BOTH, 0), (7_300_000, 1)])
def test_a_claim_near_its_refund_may_spend_all_but_one_unit(payable, sent):
    plan = plan_settlement([claim(1, payable, NOW_S)], WEI_COSTS, COIN)
    assert len(planned(plan)) == sent


def test_a_share_above_the_whole_is_not_lowered_by_a_refund():
    """With a share of 100 % a claim may spend all that it brings, near a refund or not."""
    whole = replace(COIN, gas_share_ppm=1_000_000)
    assert planned(plan_settlement([claim(1, BOTH, NOW_S)], WEI_COSTS, whole))
    assert planned(plan_settlement([claim(1, BOTH)], WEI_COSTS, whole, asked=True))
    assert not planned(plan_settlement([claim(1, BOTH - 1)], WEI_COSTS, whole, asked=True))


def test_pages_are_filled_by_what_is_left_and_end_where_they_are_not_worth_it():
    tight = replace(WEI_COSTS, block_gas_limit=250_000)  # three claims a transaction
    claims = [claim(n, payable) for n, payable in enumerate((30, 20, 20, 20, 2, 2, 90), 1)]
    claims = [replace(c, payable=c.payable * 1_000_000) for c in claims]
    plan = plan_settlement(claims, tight, COIN, asked=True)
    pages = [[c.payable // 1_000_000 for c in batch.claims] for batch in plan.batches]
    assert pages == [[90, 30, 20], [20, 20, 2]]
    numbers = [int(c.claim.user, 16) for c in planned(plan)]
    assert numbers == [7, 1, 2, 3, 4, 5]
    assert len(plan.waiting) == 7


def test_of_two_signers_of_one_user_the_lower_goes_first():
    one, other = claim(1, 10**9), claim(1, 10**9)
    other = replace(other, claim=replace(other.claim, signer="0x" + "00" * 20))
    assert planned(plan_settlement([one, other], CALM, FREE, asked=True)) == [other, one]
    assert order_by_unlock([one, other]) == [other, one]
    assert order_by_unlock([claim(2, 5), claim(1, 5), claim(3, 6)])[0].payable == 6
    mixed = [claim(1, 1), claim(2, 9, 50), claim(3, 1, 40), claim(4, 2, 50), claim(5, 3)]
    assert [int(c.claim.user, 16) for c in order_by_unlock(mixed)] == [3, 2, 4, 5, 1]


def test_without_a_price_of_the_coin_no_gas_price_is_too_high():
    (batch,) = plan_settlement([claim(1, 1)], WEI_COSTS, FREE, asked=True).batches
    assert batch == PlannedBatch((claim(1, 1),), 1, BOTH, 0, 0)
    (batch,) = plan_settlement([claim(1, 10**8)], CALM, COIN, asked=True).batches
    assert batch.fee_cap_wei == 10**15 // BOTH


# ---------------------------------------------------------------- when it is due


@pytest.mark.parametrize(
    ("claims", "interval_s", "due_s"),
    [
        ([claim(1, BOTH + 1, NOW_S + 9_000)], 86_400, NOW_S + 5_400),
        ([claim(1, BOTH, NOW_S + 9_000)], 86_400, NOW_S + DAY_S),
        ([claim(1, BOTH, NOW_S + 9_000)], 0, 0),
        ([claim(1, BOTH + 1)], 0, 0),
        ([claim(1, BOTH + 1, NOW_S + 9_000), claim(2, BOTH + 1, NOW_S + 8_000)], 0, NOW_S + 4_400),
        ([claim(1, BOTH + 1, NOW_S + 9_000)], 1, NOW_S + 1),
        ([claim(1, 0, NOW_S + 9_000)], 1, 0),
        ([], 86_400, 0),
    ],
)
def test_when_the_next_settlement_is_due(claims, interval_s, due_s):
    rules = replace(COIN, interval_s=float(interval_s))
    assert plan_settlement(claims, WEI_COSTS, rules).next_due_s == due_s


@pytest.mark.parametrize(
    ("payable", "waited_s", "overdue_s"),
    [
        (5, DAY_S + 3_600, 0),
        (5, DAY_S + 3_601, 3_601),
        (4, DAY_S + 3_601, 0),
        (5, 10, 0),
    ],
)
def test_a_settlement_is_overdue_an_hour_after_its_time(payable, waited_s, overdue_s):
    rules = replace(COIN, value_min=5)
    plan = plan_settlement([claim(1, payable)], WEI_COSTS, rules, since_s=NOW_S - waited_s)
    assert plan.overdue_s == overdue_s
    asked_for_nothing = replace(COIN, value_min=0, interval_s=0.0)
    assert plan_settlement([claim(1, 5)], WEI_COSTS, asked_for_nothing, since_s=1).overdue_s == 0


def test_one_base_unit_is_the_least_that_is_overdue():
    rules = replace(COIN, value_min=0)
    plan = plan_settlement([claim(1, 1)], WEI_COSTS, rules, since_s=NOW_S - DAY_S - 3_601)
    assert plan.overdue_s == 3_601


# ---------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("claims", "rules", "asked", "words"),
    [
        ([claim(1, 5)], FREE, True, "somebody asked for it"),
        (
            [claim(1, 5)],
            replace(FREE, exposure_max=4),
            False,
            "5 base units wait, more than the limit of 4",
        ),
        (
            [claim(1, 5)],
            replace(FREE, interval_s=10.0),
            False,
            "something has been waiting for 10 s",
        ),
        (
            [claim(1, 5, NOW_S), claim(2, 5, NOW_S), claim(3, 5)],
            FREE,
            False,
            "2 claims would be lost to refunds that unlock within 3600 s",
        ),
        ([], FREE, True, "nothing can be claimed"),
        (
            [claim(1, 5)],
            FREE,
            False,
            "neither the clock nor a refund nor the exposure calls for it",
        ),
        (
            [claim(1, 5)],
            replace(FREE, value_min=6, interval_s=1.0),
            False,
            "5 base units wait, less than the least of 6",
        ),
        (
            [claim(1, 430_000), claim(2, 430_000)],
            COIN,
            True,
            "gas would take about 10 % of the 860000 base units that are called for; at most 1 % "
            "is allowed, or all but one base unit of a claim that a refund would take away",
        ),
        (
            [claim(1, 1, NOW_S)],
            replace(COIN, gas_share_ppm=12_500),
            False,
            "gas would take about 7.3e+06 % of the 1 base units that are called for; at most "
            "1.25 % is allowed, or all but one base unit of a claim that a refund would take away",
        ),
    ],
)
def test_a_plan_says_why(claims, rules, asked, words):
    plan = plan_settlement(claims, WEI_COSTS, rules, since_s=NOW_S - 10, asked=asked)
    assert plan.words == words
