"""Reputation: the same for everybody, whatever the order, bounded, fading, and explained."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hanse.market import BALANCED, reputation  # by its module: pytest takes Test... for a test
from hanse.market.health import FORGET_S
from hanse.market.reputation import (
    Word,
    compute_reputation,
    get_risk_step,
)
from hanse.market.reputation.computing import (
    FIRST_TOKEN_MS_USUAL,
    HALF_LIFE_S,
    NEW_HALF_LIFE_S,
    NEW_PPM,
    PPM,
    PRIOR_PPM,
)
from hanse.market.reputation.fading import ONE, fade
from hanse.market.scoring import RISK_USUAL
from tests.market.market_parts import ALPHA, BETA, MadeMarket, list_offer

PROVIDER, AUDITOR, OTHER = ("0x" + digit * 40 for digit in "abc")
NOW_S = 1_900_000_000
LONG_AGO_S = NOW_S - 40 * NEW_HALF_LIFE_S
STAKE = 1_000_000
WITNESSES = [f"0x{n:040x}" for n in range(1, 6)]


def say(word: Word = Word.AUDIT_FAILED, number: int = 0, **changes: object) -> reputation.Testimony:
    fields = {"provider": PROVIDER, "witness": AUDITOR, "at_s": NOW_S, **changes}
    return reputation.Testimony(f"0x{number:064x}", word=word, **fields)


def get_risk(*testimonies: reputation.Testimony, at_s: int = NOW_S, **stakes: int) -> int:
    held = {PROVIDER: STAKE, AUDITOR: STAKE, **stakes}
    return compute_reputation(PROVIDER, testimonies, held, LONG_AGO_S, at_s).risk_ppm


TESTIMONIES = st.builds(
    reputation.Testimony,
    evidence_hash=st.integers(0, 40).map(lambda n: f"0x{n:064x}"),
    provider=st.sampled_from([PROVIDER, PROVIDER, OTHER]),
    witness=st.sampled_from([*WITNESSES, PROVIDER]),
    word=st.sampled_from(Word),
    at_s=st.integers(NOW_S - 20 * HALF_LIFE_S, NOW_S + 100),
    first_token_ms=st.integers(0, 20_000),
)
STAKES = st.fixed_dictionaries(
    {PROVIDER: st.integers(0, 10**12), **{w: st.integers(0, 10**12) for w in WITNESSES}}
)


def test_a_file_that_somebody_stripped_does_not_stand_in_for_the_whole_one():
    """Without its content evidence of a cheat is a doubt, under the same hash and time."""
    whole, stripped = say(Word.AUDIT_FAILED), say(Word.AUDIT_DOUBTED)
    for told in ((whole, stripped), (stripped, whole)):
        assert get_risk(*told) == get_risk(whole) > get_risk(stripped)


@settings(max_examples=60, deadline=None)
@given(st.lists(TESTIMONIES, max_size=40), STAKES, st.randoms(use_true_random=False))
def test_the_order_and_repetitions_change_nothing(told, stakes, chance):
    once = compute_reputation(PROVIDER, told, stakes, LONG_AGO_S, NOW_S)
    again = [*told, *told]
    chance.shuffle(again)
    twice = compute_reputation(PROVIDER, again, stakes, LONG_AGO_S, NOW_S)
    assert (twice.risk_ppm, twice.parts) == (once.risk_ppm, once.parts)


@settings(max_examples=60, deadline=None)
@given(st.lists(TESTIMONIES, max_size=20), STAKES, st.sampled_from(WITNESSES))
def test_one_more_word_never_moves_the_risk_the_other_way(told, stakes, witness):
    def get(*more: reputation.Testimony) -> int:
        return compute_reputation(PROVIDER, [*told, *more], stakes, LONG_AGO_S, NOW_S).risk_ppm

    bad, worse = (say(number=100, witness=witness, at_s=NOW_S - age) for age in (999_999, 0))
    good = say(Word.AUDIT_PASSED, 101, witness=witness)
    late = say(Word.FIRST_TOKEN, 102, witness=witness, first_token_ms=5_000)
    assert get(good) <= get() <= get(late) <= get(late, bad) <= get(late, worse)


@settings(max_examples=60, deadline=None)
@given(st.lists(TESTIMONIES, max_size=40), STAKES)
def test_witnesses_together_move_no_more_than_they_stake(told, stakes):
    found = compute_reputation(PROVIDER, told, stakes, LONG_AGO_S, NOW_S)
    base = max(1, stakes[PROVIDER])
    backing = sum(min(stakes[witness], base) for witness in WITNESSES)
    assert found.risk_ppm <= (base * found.prior_ppm + backing * PPM) // (base + backing)
    assert found.risk_ppm >= base * found.prior_ppm // (base + backing)


def test_a_stake_spread_over_many_names_says_no_more():
    alone = get_risk(say())
    names = [f"0x{n:040x}" for n in range(100, 1_100)]
    crowd = [say(number=n, witness=name) for n, name in enumerate(names)]
    assert get_risk(*crowd, **dict.fromkeys(names, STAKE // 1_000)) == alone
    assert get_risk(*crowd) == PRIOR_PPM  # names without stake say nothing


def test_one_witness_alone_however_rich_stays_below_the_middle():
    rich = [say(number=n) for n in range(1_000)]
    assert get_risk(*rich, **{AUDITOR: 10**24}) == (PRIOR_PPM + PPM) // 2


def test_nobody_speaks_for_itself():
    own = [say(Word.AUDIT_PASSED, n, witness=PROVIDER) for n in range(100)]
    assert get_risk(*own) == PRIOR_PPM


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 70 * HALF_LIFE_S), st.integers(0, 10**6))
def test_weight_never_rises_with_age(age_s, more_s):
    assert fade(age_s + more_s, HALF_LIFE_S) <= fade(age_s, HALF_LIFE_S)


def test_weight_halves_in_a_half_life_and_ends():
    assert [fade(n * HALF_LIFE_S, HALF_LIFE_S) for n in range(4)] == [ONE >> n for n in range(4)]
    assert fade(33 * HALF_LIFE_S, HALF_LIFE_S) == 0
    for tenth in range(40):
        true = ONE * 0.5 ** (tenth / 10)
        assert abs(fade(tenth * HALF_LIFE_S // 10, HALF_LIFE_S) - true) < 2e-5 * true


def test_a_failed_audit_fades_to_the_prior():
    fresh, half, old = (get_risk(say(), at_s=NOW_S + n * HALF_LIFE_S) for n in (0, 1, 40))
    assert fresh == 525_000  # (0.05 + 1) / 2: provider and auditor stake the same
    assert half == (PRIOR_PPM * 2 + PPM) // 3  # half a word against a whole stake
    assert old == PRIOR_PPM


def test_evidence_counts_once_and_for_who_was_first():
    first = say(at_s=NOW_S - 10)
    copied = say(witness=OTHER, at_s=NOW_S - 5)
    both = compute_reputation(
        PROVIDER, [copied, first], {PROVIDER: 1, AUDITOR: 1, OTHER: 1}, LONG_AGO_S, NOW_S
    )
    assert [part.testimony for part in both.parts] == [first]
    assert both.unheard == 1


def test_the_future_says_nothing_yet():
    assert get_risk(say(at_s=NOW_S + 1)) == PRIOR_PPM


def test_a_new_name_starts_worse_and_gets_over_it():
    def get(age_s: int) -> int:
        return compute_reputation(PROVIDER, [], {}, NOW_S - age_s, NOW_S).risk_ppm

    assert get(0) == PRIOR_PPM + NEW_PPM
    assert get(NEW_HALF_LIFE_S) == PRIOR_PPM + NEW_PPM // 2
    assert get(40 * NEW_HALF_LIFE_S) == PRIOR_PPM == int(RISK_USUAL * PPM)


def test_slow_is_bad_in_proportion_and_prompt_is_good():
    def get(first_token_ms: int) -> int:
        said = (say(Word.FIRST_TOKEN, n, first_token_ms=first_token_ms) for n in range(10))
        return get_risk(*said)

    assert get(FIRST_TOKEN_MS_USUAL) < PRIOR_PPM < get(3_000) < get(6_000) < get(11_000)
    assert get(11_000) == get(60_000) < get_risk(say())  # slow is no fraud


def test_observations_that_nobody_can_run_again_make_a_quarter_of_a_word():
    many = [say(Word.REQUEST_FAILED, n) for n in range(1_000)]
    slow = [say(Word.FIRST_TOKEN, n + 1_000, first_token_ms=60_000) for n in range(1_000)]
    quarter = (4 * PRIOR_PPM + PPM) // 5
    assert get_risk(*many) == get_risk(*many, *slow) == quarter
    assert quarter < get_risk(say())


def test_it_says_which_testimony_gave_what():
    stakes = {PROVIDER: 600, AUDITOR: 300, OTHER: 100}
    told = [
        say(),
        say(Word.AUDIT_PASSED, 1, witness=OTHER),
        say(number=2, witness="0x"),
    ]
    found = compute_reputation(PROVIDER, told, stakes, LONG_AGO_S, NOW_S)
    (against, favour) = found.parts
    assert (against.is_bad, against.weight) == (True, 300)
    assert (favour.is_bad, favour.weight) == (False, 4)  # a twentieth of 100, rounded down
    prior = found.prior_ppm * 600 // 905
    assert found.risk_ppm == pytest.approx(prior + against.share_ppm, abs=2)
    text = "\n".join(found.explain())
    assert AUDITOR in text
    assert told[0].evidence_hash in text
    assert "1 without weight" in text


def test_a_long_history_is_computed_from_its_parts():
    chance = random.Random(5)
    words = (Word.AUDIT_PASSED,) * 9 + (Word.REQUEST_FAILED,)
    told = [
        say(chance.choice(words), n, at_s=NOW_S - chance.randrange(10**7)) for n in range(2_000)
    ]
    found = compute_reputation(PROVIDER, told, {PROVIDER: 10**9, AUDITOR: 10**9}, 0, NOW_S)
    shares = sum(part.share_ppm for part in found.parts)
    assert shares + PPM * 4 // 9 == pytest.approx(PPM, abs=2_100)  # a word, a quarter, the prior


def test_matching_takes_the_nearest_of_few_steps():
    steps = [get_risk_step(risk) for risk in (0, 35_000, 36_000, 70_000, 71_000, PPM)]
    assert steps == [25_000, 25_000, 50_000, 50_000, 100_000, 800_000]
    assert get_risk_step(PRIOR_PPM) == PRIOR_PPM  # who is nothing special counts as usual


def test_matching_goes_by_reputation():
    market = MadeMarket([list_offer(ALPHA, 1), list_offer(BETA, 1)], policy=BALANCED)
    assert market.choose() == ALPHA  # a tie, decided by the address
    market.health.take_reputation(ALPHA, get_risk(say()))
    assert market.choose() == BETA
    reliability = {one.row.listed.provider: one.parts[2] for one in market.rank().ranked}
    assert reliability[ALPHA] == pytest.approx(8 * reliability[BETA])
    market.health.take_reputation(ALPHA, get_risk(say(), at_s=NOW_S + 40 * HALF_LIFE_S))
    assert market.choose() == ALPHA


def test_praise_helps_whom_nobody_here_has_asked():
    market = MadeMarket([list_offer(ALPHA, 1), list_offer(BETA, 1)], policy=BALANCED)
    market.health.take_reputation(BETA, 0)
    assert market.choose() == BETA
    for _ in range(30):
        market.health.report_failure(BETA, "gone")
        market.clock.now += FORGET_S / 100
        market.health.report_success(BETA, 1.0)
    assert market.health.get_risk(BETA) > RISK_USUAL  # what was seen here counts more
