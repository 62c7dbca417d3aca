"""The fast choice against the plain ranking, sessions, spill, and trials."""

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hanse.market import BALANCED, CHEAPEST, FASTEST, Needs, Policy, read_policy
from hanse.market.affinity import POOL_MAX
from hanse.market.board import FRESH_ANSWERS
from hanse.market.choosing import TRIAL_FEE_FACTOR_MAX, find_best
from hanse.market.health import BACKOFF_S_MIN, DISHONEST_S, PROBE_S, HealthBook
from hanse.market.matching import Judge, get_policy_coefficients
from hanse.protocol.errors import HanseError, RequestError, TransientError
from hanse.protocol.messages import Prices
from hanse.protocol.wire import VERIFIABILITIES
from tests.market.market_parts import (
    ALPHA,
    BETA,
    DELTA,
    GAMMA,
    NOW,
    MadeMarket,
    list_offer,
    make_heartbeat,
    make_shape,
)

REGIONS = ("", "eu", "eu-north", "us")
QUANTISATIONS = ("Q4_0", "F16")


def make_provider(number: int) -> str:
    return f"0x{number:040x}"


def make_offer(chance: random.Random, number: int):
    price = chance.choice((1, 10, 100, 1_000, 10_000))
    return list_offer(
        make_provider(number),
        verifiability=chance.choice(VERIFIABILITIES),
        region=chance.choice(REGIONS),
        quantisation=chance.choice(QUANTISATIONS),
        context_tokens=chance.choice((1_000, 4_096)),
        output_tokens_max=chance.choice((50, 1_000)),
        prices=Prices(price, 0, chance.choice((price, 3 * price))),
        valid_until=int(NOW) + chance.choice((5, 100)),
    )


def change_something(market: MadeMarket, chance: random.Random, count: int) -> None:
    provider = make_provider(chance.randrange(count))
    happening = chance.randrange(11)
    if happening == 0:
        market.health.report_failure(provider, "gone")
    elif happening == 1:
        market.health.report_success(provider, chance.random())
    elif happening == 2:
        market.measure(provider, chance.random(), chance.random() / 10, chance.randint(1, 4))
    elif happening == 3:
        slots = chance.randint(1, 3)
        free = chance.randint(0, slots)
        waiting = 0 if free else chance.randint(0, 5)
        beat = make_heartbeat(
            provider,
            int(market.clock.now * 1_000) + chance.randrange(1_000),
            slots=slots,
            free_slots=free,
            queued=waiting,
            queue_free=5 - waiting,
            is_warm=chance.random() < 0.8,
        )
        market.presence.take([beat])
    elif happening == 4:
        market.presence.miss(provider, "silent")
    elif happening == 5:
        market.clock.now += chance.random() * 3
    elif happening == 6:
        market.funds[provider] = chance.choice((0, 10**15))
    elif happening == 7:
        market.health.bar(provider, "caught", market.clock.now + chance.random() * 5)
    elif happening == 8:
        market.board.attested.refuse(provider, provider, "another image")
    elif happening == 9:
        until = market.clock.now + chance.random() * 5
        market.board.attested.verify_until(provider, provider, "image", until)
    else:
        chance.choice((market.presence.begin, market.presence.end))((provider, 1))


def make_needs(chance: random.Random, count: int) -> Needs:
    if chance.random() < 0.4:
        return Needs()
    some = frozenset(make_provider(chance.randrange(count)) for _ in range(3))
    return Needs(
        max_fee=chance.choice((None, None, 50, 5_000)),
        max_prices=chance.choice((None, None, Prices(100, 100, 1_000))),
        verifiability_min=chance.choice(("reputation", "sampled", "tee")),
        context_tokens=chance.choice((0, 2_000)),
        providers=chance.choice((frozenset(), frozenset(), some)),
        excluded=chance.choice((frozenset(), some)),
        region=chance.choice(("", "", "eu", "us")),
        quantisation=chance.choice(("", "", "F16")),
        deadline_s=chance.choice((0.0, 0.0, 2.0)),
    )


POLICY_LIST = (CHEAPEST, FASTEST, BALANCED, read_policy("reliability=2,speed=1,locality=1"))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.sampled_from((1, 7, 40, 150)))
def test_the_fast_choice_is_the_first_of_the_plain_ranking_whatever_happened(seed, count):
    chance = random.Random(seed)
    offers = [make_offer(chance, number) for number in range(count)]
    market = MadeMarket(offers, region=chance.choice(("", "eu")))
    for _ in range(12):
        for _ in range(chance.choice((1, 5, 30))):
            change_something(market, chance, count)
        if chance.random() < 0.2:
            some = chance.randrange(count)
            offers[some] = make_offer(chance, some)
            market.offer(offers if chance.random() < 0.7 else offers[: count // 2 + 1])
        if chance.random() < 0.2:
            market.board.set_region(chance.choice(("", "eu", "us")))
        policy = chance.choice(POLICY_LIST)
        needs = make_needs(chance, count)
        shape = make_shape(
            body_bytes=chance.choice((40, 4_000, 400_000)),
            output_tokens_asked=chance.choice((None, 1, 40, 900)),
        )
        check_against_ranking(market, policy, needs, shape)


def check_against_ranking(market: MadeMarket, policy: Policy, needs: Needs, shape) -> None:
    market.chooser.policy = policy
    expected = market.chooser.rank(shape, needs, market.clock()).ranked
    if not expected:
        check_last_resort(market, needs, shape)
        return
    chosen = market.chooser.choose(shape, needs, market.clock()).candidate
    assert chosen == expected[0].candidate
    group = market.board.find_group("chat", "echo")
    judge = Judge(market.board, shape, needs, market.clock(), market.funds.get)
    coefficients = get_policy_coefficients(group, judge, policy)
    for most, tolerance in ((1, 0.0), (POOL_MAX, 0.25), (7, 0.0), (10**6, 10.0**9)):
        found = find_best(group, judge, coefficients, most, tolerance)
        reach = expected[0].score * (1 + tolerance)
        wanted = [one for one in expected if one.score <= reach][:most]
        assert [(score, key) for score, key, _ in found] == [
            (one.score, one.row.key) for one in wanted
        ]


def check_last_resort(market: MadeMarket, needs: Needs, shape) -> None:
    """Who was left alone is asked if nothing else is in the way, the least bad one; else nobody."""
    now, known = market.clock(), market.board.health
    market.board.health = HealthBook(market.clock)  # which forgives everything
    forgiven = market.chooser.rank(shape, needs, now).ranked
    market.board.health = known
    probes = {
        one.row.listed.provider: (state.failures, state.retry_at)
        for one in forgiven
        if (state := known.get(one.row.listed.provider)).failures
        and not (state.is_probed or state.is_dishonest)
        and now - state.failed_at >= BACKOFF_S_MIN
        and now >= state.barred_until
    }
    if not probes:
        with pytest.raises(HanseError):
            market.chooser.choose(shape, needs, now)
        return
    choice = market.chooser.choose(shape, needs, now)
    assert choice.why == "probe"
    assert probes[choice.candidate.listed.provider] == min(probes.values())


def test_the_fastest_and_the_balanced_weigh_what_was_measured():
    market = MadeMarket([list_offer(ALPHA, 100), list_offer(BETA, 110), list_offer(GAMMA, 150)])
    market.measure(ALPHA, 2.0, 0.1)
    market.measure(BETA, 0.5, 0.02)
    market.measure(GAMMA, 0.4, 0.01)
    assert market.choose(Needs(policy=CHEAPEST)) == ALPHA
    assert market.choose(Needs(policy=FASTEST)) == GAMMA
    assert market.choose(Needs(policy=BALANCED)) == BETA


def test_verifiability_and_place_count_as_much_as_a_policy_says():
    near = list_offer(ALPHA, 100, region="eu-north")
    checked = list_offer(BETA, 100, verifiability="tee", region="us")
    market = MadeMarket([near, checked], region="eu")
    assert market.choose(Needs(policy=read_policy("locality=1,price=1"))) == ALPHA
    assert market.choose(Needs(policy=read_policy("verifiability=1,price=1"))) == BETA


def test_what_counts_is_set_anew_while_it_works():
    near, cheap = list_offer(ALPHA, 110, region="eu-north"), list_offer(BETA, 100, region="us")
    market = MadeMarket([near, cheap], draws=[0.0])
    assert market.choose_why() == (BETA, "best")
    policy = read_policy("locality=1,price=1")
    for region, chosen in (("eu", ALPHA), ("us", BETA), ("eu", ALPHA), ("", BETA)):
        market.chooser.choose_by(policy, 0.0, region)
        assert market.choose() == chosen
    market.chooser.choose_by(CHEAPEST, 1.0, "eu")
    assert market.choose_why()[1] == "trial"


@pytest.mark.parametrize(
    "text", ["", "fast", "price", "price=-1", "price=1,price=1", "price=nan", "x=1", "price=0"]
)
def test_a_policy_that_cannot_be_read_is_refused_with_what_can_be_written(text: str):
    with pytest.raises(RequestError) as refused:
        read_policy(text)
    assert "balanced" in refused.value.message


def test_own_weights_count_by_their_proportion():
    assert read_policy("price=3,speed=1") == read_policy("price=0.75, speed=0.25")
    assert read_policy("cheapest") is CHEAPEST


def spread(market: MadeMarket, sessions: int = 200) -> dict[int, str]:
    return {n: market.choose(affinity=b"s%d" % n, is_session=True) for n in range(sessions)}


def test_a_session_stays_and_only_those_of_a_provider_that_leaves_move():
    offers = [list_offer(provider) for provider in (ALPHA, BETA, GAMMA)]
    market = MadeMarket(offers)
    before = spread(market)
    assert spread(market) == before
    assert set(Counter(before.values())) == {ALPHA, BETA, GAMMA}
    assert min(Counter(before.values()).values()) > 40
    other = MadeMarket(offers[::-1])  # another gateway, which heard of them in another order
    assert spread(other) == before
    market.presence.miss(BETA, "its port is closed", is_certain=True)
    after = spread(market)
    assert {n for n in before if before[n] != after[n]} == {n for n in before if before[n] == BETA}


def test_a_session_never_costs_more_than_the_policy_tolerates():
    market = MadeMarket([list_offer(ALPHA, 100_000), list_offer(BETA, 120_000)], policy=BALANCED)
    assert set(spread(market).values()) == {ALPHA, BETA}
    assert set(Counter(spread(market).values()).most_common(1)[0][:1]) == {ALPHA}
    market.offer([list_offer(ALPHA, 100_000), list_offer(BETA, 300_000)])
    assert set(spread(market).values()) == {ALPHA}
    market.offer([list_offer(ALPHA, 100_000), list_offer(BETA, 102_000)])
    market.chooser.policy = CHEAPEST
    assert set(spread(market).values()) == {ALPHA}


def test_a_session_spills_while_its_provider_is_full_and_comes_back():
    market = MadeMarket([list_offer(ALPHA), list_offer(BETA)])
    for provider in (ALPHA, BETA):
        market.presence.take([make_heartbeat(provider, slots=2, free_slots=2)])
    shape = {"affinity": b"a session", "is_session": True}
    home, why = market.choose_why(**shape)
    assert why == "session"
    other = BETA if home == ALPHA else ALPHA
    for _ in range(2):
        market.presence.begin((home, 1))  # our own requests count before it says so
    assert market.choose_why(**shape) == (other, "spill")
    for _ in range(2):
        market.presence.begin((other, 1))
    assert market.choose(**shape) == home  # all are full: its cache is warm
    market.presence.end((home, 1))
    assert market.choose_why(**shape) == (home, "session")


def test_the_prompts_beginning_is_kept_together_too_but_may_be_tried_elsewhere():
    market = MadeMarket([list_offer(ALPHA), list_offer(BETA)])
    assert market.choose_why(affinity=b"persona")[1] == "prefix"


def test_fresh_providers_get_an_equal_share_and_no_more():
    share, requests = 0.1, 10_000
    chance = random.Random(7)
    offers = [list_offer(ALPHA, 100), list_offer(BETA, 140), list_offer(GAMMA, 140)]
    market = MadeMarket(offers, trial_share=share, draws=iter(chance.random, None))
    market.measure(ALPHA, 0.1, 0.01)
    asked = Counter(market.choose() for _ in range(requests))
    assert asked[BETA] + asked[GAMMA] == pytest.approx(share * requests, rel=0.2)
    assert asked[BETA] == pytest.approx(asked[GAMMA], rel=0.25)
    assert {market.choose(is_session=True, affinity=b"s") for _ in range(200)} == {ALPHA}


def test_trials_end_with_the_measurement_and_never_cost_half_more():
    dear = int(100_000 * TRIAL_FEE_FACTOR_MAX) + 1_000
    offers = [list_offer(ALPHA, 100_000), list_offer(BETA, 101_000), list_offer(GAMMA, dear)]
    market = MadeMarket(offers, trial_share=1.0, draws=iter(lambda: 0.5, None))
    market.measure(ALPHA, 0.1, 0.01)
    assert market.choose_why() == (BETA, "trial")
    market.measure(BETA, 0.1, 0.01, answers=FRESH_ANSWERS)
    assert market.choose_why() == (ALPHA, "best")


def test_an_explained_choice_says_its_score_in_parts():
    market = MadeMarket([list_offer(ALPHA, 100), list_offer(BETA, 100)])
    told = []
    needs = Needs(explain_to=told.append, policy=BALANCED)
    choice = market.chooser.choose(make_shape(), needs, NOW)
    assert told == [choice]
    assert choice.ranked is not None
    assert choice.ranked.score == pytest.approx(sum(choice.ranked.parts))
    text = choice.to_text()
    assert text.startswith(f"provider={ALPHA}, why=best, policy=balanced")
    assert text.isascii()
    assert "locality=" in text


def fail(market: MadeMarket, provider: str, times: int, rest_s: float = 50.0) -> None:
    """So many failures in a row, all of them now; then it is left alone for so long."""
    for _ in range(times):
        market.health.report_failure(provider, "gone", rest_s)


def test_where_everybody_is_left_alone_the_least_bad_one_is_asked_a_second_after_it_failed():
    market = MadeMarket([list_offer(ALPHA, 1), list_offer(BETA, 3), list_offer(GAMMA, 2)])
    fail(market, ALPHA, 6)
    fail(market, BETA, 3, rest_s=40.0)
    fail(market, GAMMA, 3)
    with pytest.raises(TransientError, match="is down since"):
        market.choose()  # they have only just failed
    market.clock.now += BACKOFF_S_MIN
    assert market.choose_why() == (BETA, "probe")
    assert market.choose_why(Needs(excluded=frozenset({BETA}))) == (GAMMA, "probe")
    assert market.choose_why(Needs(providers=frozenset({ALPHA}))) == (ALPHA, "probe")
    market.offer([list_offer(ALPHA, 1), list_offer(BETA, 2), list_offer(DELTA, 9)])
    assert market.choose_why() == (DELTA, "best")  # for whose sake the others are left alone


def test_one_request_at_a_time_finds_out_and_what_it_finds_counts():
    market = MadeMarket([list_offer(ALPHA)])
    fail(market, ALPHA, 6)
    market.clock.now += BACKOFF_S_MIN
    assert market.choose_why() == (ALPHA, "probe")
    market.health.begin(ALPHA)
    with pytest.raises(TransientError, match="is down since"):
        market.choose()
    market.health.report_failure(ALPHA, "gone still")
    assert market.health.get(ALPHA).retry_at == market.clock.now + 60  # as if others were there
    market.clock.now += BACKOFF_S_MIN
    assert market.choose_why() == (ALPHA, "probe")
    market.health.begin(ALPHA)
    market.clock.now += PROBE_S  # nothing was heard of it
    assert market.choose_why() == (ALPHA, "best")
    market.health.begin(ALPHA)
    market.health.report_success(ALPHA, 0.1)
    assert market.choose_why() == (ALPHA, "best")


@pytest.mark.parametrize(
    "obstacle", ["lied", "lied long ago", "absent", "full", "unfunded", "barred"]
)
def test_nobody_is_asked_in_the_last_resort_whom_more_than_failures_stands_against(obstacle: str):
    market = MadeMarket([list_offer(ALPHA, valid_until=int(NOW) + 10_000)])
    if obstacle.startswith("lied"):
        market.health.report_dishonest(ALPHA, "a false receipt")
        market.clock.now += DISHONEST_S - 1 if obstacle == "lied long ago" else 0
    else:
        fail(market, ALPHA, 5)
    if obstacle == "absent":
        market.presence.miss(ALPHA, "its port is closed", is_certain=True)
    elif obstacle == "full":
        market.presence.take([make_heartbeat(ALPHA, free_slots=0, queued=8, queue_free=0)])
    elif obstacle == "unfunded":
        market.funds[ALPHA] = 1
    elif obstacle == "barred":
        market.health.bar(ALPHA, "it ran something else", market.clock.now + 1_000)
    market.clock.now += BACKOFF_S_MIN if obstacle != "lied long ago" else 0
    with pytest.raises(HanseError):
        market.choose()


def test_a_measurement_changes_its_own_service_and_no_other_of_its_provider():
    market = MadeMarket([list_offer(ALPHA), list_offer(ALPHA, service=2, model="other")])
    rows = sorted((row for _, row in market.board.list_rows(ALPHA)), key=lambda row: row.key)
    market.health.report_success(ALPHA, 0.1)
    before = [row.features for row in rows]
    market.health.report_audit(ALPHA, is_passed=False)
    assert rows[1].features != before[1]  # what is known of the provider counts for both
    before = [row.features for row in rows]
    market.measure(ALPHA, 9.0, 0.5)
    market.board.catch_up()  # both stand alone
    assert rows[0].features[2:4] == (9.0, 0.5)
    assert rows[1].features is before[1]


def test_what_was_measured_of_an_offer_that_stood_alone_counts_as_soon_as_it_matters():
    alpha = list_offer(ALPHA)
    market = MadeMarket([alpha])
    assert market.choose(Needs(deadline_s=40.0)) == ALPHA
    market.measure(ALPHA, 50.0, 0.5)
    assert market.choose() == ALPHA
    with pytest.raises(TransientError, match="would take about"):
        market.choose(Needs(deadline_s=40.0))
    market.measure(ALPHA, 90.0, 0.5)
    told = []
    market.choose(Needs(explain_to=told.append, policy=FASTEST))
    assert told[0].ranked.row.features[2] > 50.0
    market.measure(ALPHA, 500.0, 0.5)
    market.offer([alpha, list_offer(BETA)])
    assert market.choose(Needs(policy=FASTEST)) == BETA


def test_a_fresh_provider_that_comes_and_goes_has_no_more_than_its_one_chance():
    offers = [list_offer(ALPHA, 100), list_offer(BETA, 100), list_offer(GAMMA, 100)]
    chance = random.Random(7)
    market = MadeMarket(offers, trial_share=0.5, draws=iter(chance.random, None))
    market.measure(ALPHA, 0.1, 0.01)
    market.choose()
    for _ in range(50):
        market.presence.miss(BETA, "its port is closed", is_certain=True)
        market.presence.take([make_heartbeat(BETA, int(market.clock.now))])
        market.clock.now += 1
    asked = Counter(market.choose_why() for _ in range(4_000))
    assert asked[BETA, "trial"] == pytest.approx(asked[GAMMA, "trial"], rel=0.2)
    assert asked[BETA, "trial"] > 500


def test_who_is_barred_by_an_audit_is_passed_over_and_an_explanation_says_so():
    market = MadeMarket([list_offer(ALPHA, 1), list_offer(BETA, 2)])
    assert market.choose() == ALPHA
    market.health.bar(ALPHA, "it ran something else", market.clock.now + 10)
    told: list[str] = []
    needs = Needs(explain_to=lambda choice: told.append(choice.to_text()))
    assert market.choose(needs) == BETA
    assert told[0].endswith(f"barred-by-audit={ALPHA}")
    (left_out,) = market.rank().exclusions
    assert (left_out.listed.provider, left_out.kind) == (ALPHA, "down")
    assert left_out.reason == f"{ALPHA} is left out: it ran something else"
    market.clock.now += 10
    assert market.choose(needs) == ALPHA, "it comes back by itself"
    assert "barred" not in told[1]
