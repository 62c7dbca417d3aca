"""Fingerprints: what cancels, what is cut off, and what a difference comes to."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanse.protocol.commitments.fingerprints import (
    CANARIES,
    Q_MAX,
    SCALE,
    get_error,
    get_mean_error,
    get_steps,
    quantise,
)

logits = st.lists(st.floats(-3.5, 3.5, width=32), min_size=CANARIES, max_size=CANARIES)


@given(logits)
def test_steps_are_within_half_a_step_of_the_centred_logits(values: list[float]) -> None:
    mean = sum(values) / CANARIES
    for value, step in zip(values, get_steps(quantise(values)), strict=True):
        wanted = max(-Q_MAX, min(Q_MAX, (value - mean) / SCALE))
        assert abs(step - wanted) <= 0.5 + 1e-6


@given(logits, st.integers(-1_000, 1_000))
def test_what_all_canaries_share_cancels(values: list[float], lift: int) -> None:
    # but for a step at a tie: the lift costs some bits of a float
    near = zip(
        get_steps(quantise(values)), get_steps(quantise([v + lift for v in values])), strict=True
    )
    assert all(abs(a - b) <= 1 for a, b in near)


@given(logits)
def test_equal_ones_have_no_error_and_opposite_ones_twice_the_length(values: list[float]) -> None:
    own = quantise(values)
    assert get_error(own, own) == 0
    if any(get_steps(own)):
        opposite = bytes(-step & 0xFF for step in get_steps(own))
        assert get_error(opposite, own) == pytest.approx(2)
        assert get_error(bytes(CANARIES), own) == pytest.approx(1)


def test_outliers_are_cut_off_not_wrapped() -> None:
    steps = get_steps(quantise([100.0] + [0.0] * 15))
    assert steps[0] == Q_MAX
    assert steps[1] == -Q_MAX


def test_an_own_fingerprint_of_zeros_agrees_with_nothing_else() -> None:
    assert get_error(bytes([3] * 16), bytes(16)) == 12


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([0.0] * 15, SCALE),
        ([math.nan] + [0.0] * 15, SCALE),
        ([math.inf] + [0.0] * 15, SCALE),
        ([0.0] * 16, 0.0),
        ([0.0] * 16, math.nan),
    ],
)
def test_what_is_no_measurement_is_refused(values: list[float], scale: float) -> None:
    with pytest.raises(ValueError, match=r"canary|scale"):
        quantise(values, scale)


def test_nothing_compared_is_no_agreement() -> None:
    with pytest.raises(ValueError, match="no position"):
        get_mean_error([])
    assert get_mean_error([0.25, 0.75]) == 0.5
    with pytest.raises(ValueError, match="15 bytes"):
        get_error(bytes(15), bytes(16))
