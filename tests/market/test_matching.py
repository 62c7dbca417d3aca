"""Hard limits, the plain ranking, and errors in words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanse.market import Needs, OfferIndex, explain
from hanse.market.health import BACKOFF_S_MAX, DISHONEST_S, FORGET_S, HealthBook
from hanse.protocol.errors import HanseError, RequestError, TransientError
from hanse.protocol.messages import Prices
from hanse.protocol.pricing import get_maximum_fee
from tests.market.market_parts import (
    ALPHA,
    BETA,
    GAMMA,
    NOW,
    Clock,
    MadeMarket,
    list_offer,
    make_heartbeat,
)


def get_providers(found) -> list[str]:
    return [candidate.listed.provider for candidate in found.candidates]


def test_the_cheapest_comes_first_and_the_order_is_always_the_same():
    offers = [list_offer(GAMMA, 5), list_offer(BETA, 3_000_000), list_offer(ALPHA, 2_000_000)]
    for order in (offers, offers[::-1]):
        market = MadeMarket(order)
        assert get_providers(market.rank()) == [GAMMA, ALPHA, BETA]
        assert market.choose() == GAMMA


def test_latency_breaks_a_tie():
    market = MadeMarket([list_offer(ALPHA), list_offer(BETA)])
    market.health.report_success(ALPHA, 0.9)
    market.health.report_success(BETA, 0.1)
    assert get_providers(market.rank()) == [BETA, ALPHA]
    assert market.choose() == BETA


@given(asked=st.integers(1, 1_000), choices=st.integers(1, 8))
def test_the_maximum_fee_is_the_protocols(asked: int, choices: int):
    market = MadeMarket([list_offer(ALPHA)])
    (candidate,) = market.rank(output_tokens_asked=asked, choices=choices).candidates
    offer = candidate.listed.offer
    assert candidate.maximum_fee == get_maximum_fee(offer, 400, asked * choices)
    assert candidate.expected_fee <= candidate.maximum_fee


@pytest.mark.parametrize(
    ("needs", "kind"),
    [
        (Needs(max_prices=Prices(9, 9, 9)), "price"),
        (Needs(max_fee=1), "fee"),
        (Needs(verifiability_min="sampled"), "verifiability"),
        (Needs(context_tokens=5_000), "context"),
        (Needs(providers=frozenset({BETA})), "choice"),
        (Needs(excluded=frozenset({ALPHA})), "tried"),
        (Needs(region="eu"), "region"),
        (Needs(quantisation="Q4_0"), "quantisation"),
        (Needs(deadline_s=5.0), "deadline"),
    ],
)
def test_each_need_excludes_with_its_reason(needs: Needs, kind: str):
    market = MadeMarket([list_offer(ALPHA)])
    market.measure(ALPHA, 1.0, 0.05)
    found = market.rank(needs)
    assert found.candidates == ()
    assert [e.kind for e in found.exclusions] == [kind]
    assert ALPHA in found.exclusions[0].reason
    with pytest.raises(HanseError) as refused:
        market.choose(needs)
    assert ALPHA in refused.value.message


@pytest.mark.parametrize(
    "needs",
    [
        Needs(verifiability_min="sampled"),
        Needs(region="eu"),
        Needs(region="eu-north"),
        Needs(quantisation="Q4_0"),
        Needs(max_prices=Prices(2, 2, 2)),
        Needs(deadline_s=60.0),
    ],
)
def test_a_need_that_one_offer_fulfils_finds_it_among_others(needs: Needs):
    fitting = list_offer(GAMMA, 2, verifiability="tee", region="eu-north", quantisation="Q4_0")
    others = [list_offer(ALPHA, 3, region="europe"), list_offer(BETA, 3, region="us")]
    market = MadeMarket([*others, fitting])
    for provider in (ALPHA, BETA):
        market.measure(provider, 90.0, 1.0)
    assert market.choose(needs) == GAMMA
    assert get_providers(market.rank(needs)) == [GAMMA]


def test_a_provider_that_was_never_measured_is_not_held_to_a_deadline():
    assert MadeMarket([list_offer(ALPHA)]).choose(Needs(deadline_s=0.001)) == ALPHA


def test_an_offer_that_ended_or_gives_too_few_tokens_is_left_out():
    market = MadeMarket([list_offer(ALPHA)])
    assert [e.kind for e in market.rank(output_tokens_asked=1_001).exclusions] == ["limit"]
    market.clock.now = NOW + 100
    assert [e.kind for e in market.rank().exclusions] == ["expired"]
    with pytest.raises(HanseError):
        market.choose()


def test_preferred_comes_first_whatever_it_costs():
    market = MadeMarket([list_offer(ALPHA, 1), list_offer(BETA, 9_000_000)])
    assert get_providers(market.rank(Needs(preferred=BETA))) == [BETA, ALPHA]
    assert market.choose_why(Needs(preferred=BETA)) == (BETA, "preferred")
    market.health.report_failure(BETA, "gone")
    assert market.choose_why(Needs(preferred=BETA)) == (ALPHA, "best")


def test_the_error_says_who_is_down_since_when_and_who_is_too_dear():
    market = MadeMarket([list_offer(ALPHA, 1), list_offer(BETA), list_offer(GAMMA)])
    market.health.report_failure(ALPHA, "cannot connect")
    error = explain(market.rank(Needs(max_prices=Prices(9, 9, 9))), "echo")
    assert isinstance(error, TransientError)
    assert "3 providers offer echo" in error.message
    assert "is down since" in error.message
    assert "your limit is 9" in error.message


def test_the_error_names_the_smallest_sum_that_would_do():
    offers = [list_offer(ALPHA, 1_000_000), list_offer(BETA, 9_000_000)]
    market = MadeMarket(offers)
    market.funds = {ALPHA: 10, BETA: 10}
    with pytest.raises(RequestError) as refused:
        market.choose()
    error = refused.value
    assert error.code == "insufficient_balance"
    cheapest = get_maximum_fee(offers[0].offer, 400, 100)
    assert error.details["missing"] == str(cheapest - 10)
    assert error.details["provider"] == ALPHA


def test_who_has_no_sub_account_is_not_asked_until_it_has_one():
    market = MadeMarket([list_offer(ALPHA, 1), list_offer(BETA, 2)])
    market.funds = {BETA: 10**9}
    assert market.choose() == BETA
    assert [e.kind for e in market.rank().exclusions] == ["balance"]
    market.funds[ALPHA] = 10**9
    assert market.choose() == ALPHA


def test_no_offer_is_a_404_and_only_unfit_ones_are_the_callers_to_fix():
    assert explain(MadeMarket().rank(), "echo").code == "model_not_found"
    with pytest.raises(RequestError) as refused:
        MadeMarket().choose()
    assert refused.value.code == "model_not_found"
    offers = [list_offer(ALPHA, 9_000_000), list_offer(BETA, 1_000_000)]
    error = explain(MadeMarket(offers).rank(Needs(max_fee=1)), "echo")
    assert error.code == "unprocessable"
    cheapest = get_maximum_fee(offers[1].offer, 400, 100)
    assert error.details == {"maximum_fee_least": str(cheapest)}


def test_a_full_one_is_passed_over_and_told_apart_from_one_that_is_down():
    market = MadeMarket([list_offer(ALPHA, 1), list_offer(BETA, 2)])
    market.presence.take([make_heartbeat(ALPHA, free_slots=0, queued=8, queue_free=0)])
    assert market.choose() == BETA
    assert [e.kind for e in market.rank().exclusions] == ["full"]
    error = explain(market.rank(Needs(excluded=frozenset({BETA}))), "echo")
    assert isinstance(error, TransientError)


def test_back_off_doubles_up_to_a_minute_and_is_forgotten():
    clock = Clock()
    health = HealthBook(clock)
    waits = []
    for _ in range(9):
        health.report_failure(ALPHA, "gone")
        waits.append(health.get(ALPHA).retry_at - clock.now)
        clock.now = health.get(ALPHA).retry_at
    assert waits[:4] == [1, 2, 4, 8]
    assert waits[-1] == BACKOFF_S_MAX
    assert health.get(ALPHA).down_since == NOW
    clock.now += FORGET_S + 1
    health.report_failure(ALPHA, "gone again")
    assert health.get(ALPHA).failures == 1


def test_a_success_ends_a_failure_but_not_a_lie():
    clock = Clock()
    health = HealthBook(clock)
    health.report_failure(ALPHA, "gone")
    clock.now += 2
    health.report_success(ALPHA, 0.1)
    assert not health.get(ALPHA).is_down(clock.now)
    assert health.get(ALPHA).failures == 0
    health.report_dishonest(ALPHA, "a false receipt")
    health.report_success(ALPHA, 0.1)  # of a request that was under way
    assert health.get(ALPHA).is_down(clock.now + DISHONEST_S - 1)
    assert not health.get(ALPHA).is_down(clock.now + DISHONEST_S)


def test_failures_and_failed_audits_are_risk_until_they_are_old():
    clock = Clock()
    health = HealthBook(clock)
    usual = health.get_risk(ALPHA)
    for _ in range(20):
        health.report_success(BETA, 0.1)
    assert health.get_risk(BETA) < usual
    health.report_failure(ALPHA, "gone")
    assert health.get_risk(ALPHA) > usual
    clock.now += FORGET_S + 2
    assert health.get_risk(ALPHA) == usual
    health.report_audit(ALPHA, is_passed=False)
    failed = health.get_risk(ALPHA)
    assert failed > usual
    health.report_audit(ALPHA, is_passed=True)
    assert usual < health.get_risk(ALPHA) < failed


def test_who_is_left_alone_is_asked_again_when_its_time_is_over():
    market = MadeMarket([list_offer(ALPHA, 1), list_offer(BETA, 2)])
    market.health.report_failure(ALPHA, "gone")
    assert market.choose() == BETA
    market.clock.now = market.health.get(ALPHA).retry_at
    assert market.choose() == ALPHA


def test_the_index_holds_one_offer_a_service():
    index = OfferIndex()
    index.replace_all([list_offer(ALPHA, 1), list_offer(ALPHA, 2), list_offer(BETA, 3)])
    assert [o.offer.prices.input_per_mtok for o in index.list_for("chat", "echo")] == [2, 3]
    assert index.list_for("embeddings", "echo") == ()
    assert index.list_models() == ["echo"]
    assert index.find(ALPHA, 1).endpoint == f"http://{ALPHA}"
    index.replace_all([])
    assert index.list_all() == []
