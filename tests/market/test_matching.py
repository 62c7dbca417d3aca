"""Who is asked, and why the others are not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanse.market import HealthBook, ListedOffer, Needs, OfferIndex, explain, match
from hanse.market.health import BACKOFF_S_MAX, DISHONEST_S, FORGET_S
from hanse.protocol.errors import RequestError, TransientError
from hanse.protocol.messages import Offer, Prices, SignedOffer
from hanse.protocol.pricing import get_maximum_fee
from hanse.protocol.signatures import ZERO_HASH

NOW = 1_900_000_000.0
ALPHA, BETA, GAMMA = ("0x" + digit * 40 for digit in "abc")


def list_offer(
    provider: str, price: int = 1_000_000, *, verifiability: str = "reputation", service: int = 1
) -> ListedOffer:
    offer = Offer(
        provider,
        service,
        "chat",
        "echo",
        ZERO_HASH,
        "none",
        "echo",
        4_096,
        1_000,
        Prices(price, price, price),
        verifiability,
        (f"http://{provider}/",),
        ZERO_HASH,
        int(NOW) + 100,
        1,
    )
    return ListedOffer(SignedOffer(offer, ""), "0x" + offer.struct_hash().hex(), provider)


class Clock:
    now = NOW

    def __call__(self) -> float:
        return self.now


def find(offers, needs=None, health=None, now=NOW, available=10**12, asked=100, choices=1):
    return match(
        offers,
        health or HealthBook(Clock()),
        needs or Needs(),
        now,
        lambda provider: available,
        body_bytes=400,
        output_tokens_asked=asked,
        choices=choices,
    )


def test_the_cheapest_comes_first_and_the_order_is_always_the_same():
    offers = [list_offer(GAMMA, 5), list_offer(BETA, 3_000_000), list_offer(ALPHA, 2_000_000)]
    for order in (offers, offers[::-1]):
        found = find(order)
        assert [c.listed.provider for c in found.candidates] == [GAMMA, ALPHA, BETA]


def test_latency_breaks_a_tie():
    health = HealthBook(Clock())
    health.report_success(ALPHA, 0.9)
    health.report_success(BETA, 0.1)
    found = find([list_offer(ALPHA), list_offer(BETA)], health=health)
    assert [c.listed.provider for c in found.candidates] == [BETA, ALPHA]


@given(asked=st.integers(1, 1_000), choices=st.integers(1, 8))
def test_the_maximum_fee_is_the_protocols(asked: int, choices: int):
    (candidate,) = find([list_offer(ALPHA)], asked=asked, choices=choices).candidates
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
    ],
)
def test_each_need_excludes_with_its_reason(needs: Needs, kind: str):
    found = find([list_offer(ALPHA)], needs)
    assert found.candidates == ()
    assert [e.kind for e in found.exclusions] == [kind]
    assert ALPHA in found.exclusions[0].reason


def test_a_stronger_check_than_asked_for_is_fine():
    needs = Needs(verifiability_min="sampled")
    assert find([list_offer(ALPHA, verifiability="tee")], needs).candidates


def test_an_offer_that_ended_or_gives_too_few_tokens_is_left_out():
    assert [e.kind for e in find([list_offer(ALPHA)], now=NOW + 100).exclusions] == ["expired"]
    assert [e.kind for e in find([list_offer(ALPHA)], asked=1_001).exclusions] == ["limit"]


def test_preferred_comes_first_whatever_it_costs():
    offers = [list_offer(ALPHA, 1), list_offer(BETA, 9_000_000)]
    found = find(offers, Needs(preferred=BETA))
    assert [c.listed.provider for c in found.candidates] == [BETA, ALPHA]


def test_the_error_says_who_is_down_since_when_and_who_is_too_dear():
    health = HealthBook(Clock())
    health.report_failure(ALPHA, "cannot connect")
    offers = [list_offer(ALPHA, 1), list_offer(BETA), list_offer(GAMMA)]
    error = explain(find(offers, Needs(max_prices=Prices(9, 9, 9)), health), "echo")
    assert isinstance(error, TransientError)
    assert "3 providers offer echo" in error.message
    assert "is down since" in error.message
    assert "your limit is 9" in error.message


def test_the_error_names_the_smallest_sum_that_would_do():
    offers = [list_offer(ALPHA, 1_000_000), list_offer(BETA, 9_000_000)]
    error = explain(find(offers, available=10), "echo")
    assert isinstance(error, RequestError)
    assert error.code == "insufficient_balance"
    cheapest = get_maximum_fee(offers[0].offer, 400, 100)
    assert error.details["missing"] == str(cheapest - 10)
    assert error.details["provider"] == ALPHA


def test_no_offer_is_a_404_and_only_unfit_ones_are_the_callers_to_fix():
    assert explain(find([]), "echo").code == "model_not_found"
    error = explain(find([list_offer(ALPHA)], Needs(max_fee=1)), "echo")
    assert error.code == "unprocessable"


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


def test_the_index_holds_one_offer_a_service():
    index = OfferIndex()
    index.replace_all([list_offer(ALPHA, 1), list_offer(ALPHA, 2), list_offer(BETA, 3)])
    assert [o.offer.prices.input_per_mtok for o in index.list_for("chat", "echo")] == [2, 3]
    assert index.list_for("embeddings", "echo") == ()
    assert index.list_models() == ["echo"]
    assert index.find(ALPHA, 1).endpoint == f"http://{ALPHA}"
    index.replace_all([])
    assert index.list_all() == []
