"""The replayed sampler: the known generator, and intervals that fit what it samples."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanse.verification.audits.sampling import (
    PPM,
    Chain,
    get_draws,
    get_interval,
    get_misses,
    sample,
)

chains = st.builds(
    Chain,
    st.integers(100_000, 2_000_000),
    st.sampled_from([0, 2, 5, 40]),
    st.sampled_from([1_000_000, 950_000, 500_000]),
    st.sampled_from([0, 50_000]),
)


def make_logits(seed: int, rows: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, 50)).astype(np.float32) * 2


def test_the_generator_is_the_standard_library_s() -> None:
    # std::mt19937's first outputs for its default seed, 5489, as C++ documents them
    first, second = 3_499_211_612, 581_869_302
    assert get_draws(5489, 1)[0] == (first + second * 2.0**32) / 2.0**64


@given(st.integers(0, 100), chains, st.integers(0, 2**32 - 2))
def test_what_the_seed_samples_has_no_distance(rows: int, chain: Chain, seed: int) -> None:
    logits = make_logits(rows)
    draws = get_draws(seed, len(logits))
    tokens = [sample(row, chain, float(draw)) for row, draw in zip(logits, draws, strict=True)]
    assert get_misses(logits, tokens, chain, seed) == pytest.approx(0, abs=1e-12)


@given(st.integers(0, 100), chains)
def test_the_intervals_of_all_tokens_are_the_whole_walk(rows: int, chain: Chain) -> None:
    (row,) = make_logits(rows, 1)
    intervals = sorted(get_interval(row, token, chain) for token in range(len(row)))
    end = 0.0
    for start, stop in intervals:
        if start < 1:
            assert start == pytest.approx(end)
            end = stop
    assert end == pytest.approx(1)


def test_filters_keep_what_they_say() -> None:
    row = np.log(np.array([0.1, 0.4, 0.05, 0.3, 0.15], dtype=np.float32))
    everything = Chain(1_000_000, 0, 1_000_000, 0)
    assert get_interval(row, 1, everything) == pytest.approx((0.1, 0.5))  # vocabulary order
    two = Chain(1_000_000, 2, 1_000_000, 0)
    assert get_interval(row, 1, two) == pytest.approx((0, 4 / 7))  # the best one first
    assert get_interval(row, 3, two) == pytest.approx((4 / 7, 1))
    assert get_interval(row, 4, two) == (1, 1)
    most = Chain(1_000_000, 0, 800_000, 0)  # .4 + .3 + .15 reach .8
    assert get_interval(row, 4, most) == pytest.approx((0.7 / 0.85, 1))
    assert get_interval(row, 0, most) == (1, 1)
    near = Chain(1_000_000, 0, 1_000_000, 300_000)  # at least .12, still in vocabulary order
    assert get_interval(row, 3, near) == pytest.approx((0.4 / 0.85, 0.7 / 0.85))


def test_a_greedy_token_is_measured_in_logits() -> None:
    logits = np.array([[0.0, 3.0, 1.0]], dtype=np.float32)
    greedy = Chain(0, 40, 950_000, 50_000)
    assert get_misses(logits, [1], greedy, 1) == [0]
    assert get_misses(logits, [2], greedy, 1) == [2]
    assert sample(logits[0], greedy, 0.99) == 1


def test_another_seed_s_tokens_lie_far() -> None:
    logits, chain = make_logits(3, 200), Chain(1_000_000, 0, 1_000_000, 0)
    draws = get_draws(1, 200)
    tokens = [sample(row, chain, float(draw)) for row, draw in zip(logits, draws, strict=True)]
    assert np.mean(get_misses(logits, tokens, chain, 2) > 0.05) > 0.5


@pytest.mark.parametrize("min_p_ppm", [PPM, 1_500_000, 2**31 * PPM])
def test_a_min_p_of_one_or_more_leaves_the_best_token(min_p_ppm: int) -> None:
    row = np.array([0.0, 3.0, 1.0], dtype=np.float32)
    assert sample(row, Chain(800_000, 0, PPM, min_p_ppm), 0.9) == 1
