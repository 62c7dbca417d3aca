"""Bounds: known values of the tables, and samples that do not carry what is asked of them."""

import random

import pytest

from hanse.verification.audits.bounds import (
    find_rank,
    find_upper_bound,
    get_carried_quantile,
    get_chance,
    get_chance_at_any_look,
    get_count_needed,
    get_rate_bound,
)


@pytest.mark.parametrize(
    ("quantile", "confidence", "count"),
    [(0.95, 0.95, 59), (0.99, 0.95, 299), (0.99, 0.99, 459), (0.9999, 0.95, 29_956)],
)
def test_the_sample_sizes_of_the_tables(quantile: float, confidence: float, count: int) -> None:
    assert get_count_needed(quantile, confidence) == count
    assert find_rank(count, quantile, confidence) == count
    assert find_rank(count - 1, quantile, confidence) is None
    assert get_carried_quantile(count, confidence) >= quantile


def test_a_larger_sample_needs_not_its_largest_value() -> None:
    assert find_rank(93, 0.95, 0.95) == 92  # the second largest, by the tables
    assert find_upper_bound(range(93), 0.95, 0.95) == 91
    assert find_upper_bound([5] * 58, 0.95, 0.95) is None


@pytest.mark.parametrize(
    ("found", "count", "bound"), [(0, 10, 0.25887), (1, 10, 0.39416), (0, 10_000, 0.00029953)]
)
def test_clopper_and_pearson(found: int, count: int, bound: float) -> None:
    assert get_rate_bound(found, count, 0.95) == pytest.approx(bound, rel=1e-4)


def test_everything_found_bounds_nothing_and_nonsense_is_refused() -> None:
    assert get_rate_bound(3, 3, 0.95) == 1
    for wrong in ((4, 3, 0.95), (0, 0, 0.95), (0, 3, 1.0)):
        with pytest.raises(ValueError, match=r"share|sample|between"):
            get_rate_bound(*wrong)
    with pytest.raises(ValueError, match="between"):
        find_rank(10, 1.0, 0.95)


def test_a_bound_holds_as_often_as_it_says() -> None:
    drawn = random.Random(4)
    kept = 0
    for _ in range(400):
        values = [drawn.randrange(1_000_000) for _ in range(120)]
        bound = find_upper_bound(values, 0.9, 0.95)
        assert bound is not None
        kept += bound >= 900_000
    assert kept >= 368  # 380 expected, three standard deviations are 13


def test_many_findings_that_prove_nothing_alone_are_no_chance() -> None:
    assert get_chance(0, 20, 0.05) == pytest.approx(1)
    assert get_chance(1, 20, 0.05) == pytest.approx(1 - 0.95**20)
    assert get_chance(10, 20, 0.05) < 1e-7
    with pytest.raises(ValueError, match="no share"):
        get_chance(21, 20, 0.05)


def test_looking_after_every_audit_accuses_no_more_honest_providers_than_it_says() -> None:
    drawn, accused = random.Random(7), 0
    for _ in range(600):
        found = 0
        for count in range(1, 101):
            found += drawn.random() < 0.05
            if get_chance_at_any_look(found, count, 0.05) < 0.05:
                accused += 1
                break
    assert (
        0 < accused <= 30
    )  # at most 5 %, however often one looks; looking so often by get_chance, 14 %


def test_a_cheat_that_is_doubted_every_time_is_beyond_chance_within_seven_audits() -> None:
    assert get_chance_at_any_look(6, 6, 0.03) < 1e-6 < get_chance_at_any_look(4, 4, 0.03)
    assert get_chance_at_any_look(0, 50, 0.03) == 1
    with pytest.raises(ValueError, match="no share"):
        get_chance_at_any_look(2, 1, 0.03)
