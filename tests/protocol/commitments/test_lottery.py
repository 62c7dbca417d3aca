"""The lottery: fair, the same for everyone, and dear enough that cheating does not pay."""

from fractions import Fraction
from hashlib import sha256

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hanse.protocol.commitments.lottery import (
    DELAY_BLOCKS_MIN,
    MARGIN_PPM,
    NEWCOMER_FACTOR,
    PPM,
    RATE_PPM_MIN,
    Exposure,
    find_audit_rate_ppm,
    get_deciding_block,
    is_drawn,
)

BLOCK = "0x" + "ab" * 32
DEAR = Exposure(stake=1_000_000, gain=20_000, detection_ppm=900_000)

exposures = st.builds(
    Exposure,
    stake=st.integers(1, 2**80),
    gain=st.integers(1, 2**60),
    detection_ppm=st.integers(1, PPM),
    window_requests=st.integers(1, 200),
)


def get_profit(exposure: Exposure, rate_ppm: int) -> Fraction:
    """Expected profit of cheating on all requests of one window, exactly; its fees are kept."""
    found = Fraction(rate_ppm, PPM) * Fraction(exposure.detection_ppm, PPM)
    missed = (1 - found) ** exposure.window_requests
    return exposure.window_requests * exposure.gain - (1 - missed) * exposure.stake


def make_receipt(number: int) -> str:
    return "0x" + sha256(number.to_bytes(4, "big")).hexdigest()


@given(exposures)
def test_from_the_rate_on_cheating_never_pays(exposure: Exposure) -> None:
    rate = find_audit_rate_ppm(exposure)
    if rate is None:
        # one rounding may stand against the provider, never a whole base unit in a million
        assert get_profit(exposure, PPM) >= -(exposure.stake + exposure.gain) // 2**40
    else:
        assert RATE_PPM_MIN <= rate <= PPM
        assert get_profit(exposure, rate) <= 0


@given(exposures)
def test_the_rate_is_not_much_higher_than_it_has_to_be(exposure: Exposure) -> None:
    rate = find_audit_rate_ppm(exposure)
    if rate is not None and rate > RATE_PPM_MIN:
        assert get_profit(exposure, rate * PPM // MARGIN_PPM - 2) >= -exposure.stake // 2**40


def test_one_request_is_the_formula_of_the_design_without_the_gain() -> None:
    # p = g / (d S) and a quarter more: the design's g / (d (S + g)) has the gain withheld
    wanted = 20_000 / (0.9 * 1_000_000) * 1.25
    rate = find_audit_rate_ppm(DEAR)
    assert rate is not None
    assert rate / PPM == pytest.approx(wanted, rel=1e-3)


def test_stake_of_a_thousand_prices_asks_for_the_least_rate_only() -> None:
    assert find_audit_rate_ppm(Exposure(1_000_000, 1_000, PPM)) == 1_252  # rounded up twice
    assert find_audit_rate_ppm(Exposure(10**9, 1_000, PPM)) == RATE_PPM_MIN


def test_a_long_window_asks_for_more_and_too_long_a_one_for_stake() -> None:
    window = msgspec.structs.replace(DEAR, window_requests=40)
    assert (find_audit_rate_ppm(window) or 0) > (find_audit_rate_ppm(DEAR) or PPM)
    hopeless = msgspec.structs.replace(DEAR, window_requests=1, gain=10**9, detection_ppm=500_000)
    assert find_audit_rate_ppm(hopeless) is None
    for requests, is_deterred in ((49, True), (51, False)):  # 50 gains are the stake
        kept = msgspec.structs.replace(DEAR, window_requests=requests, detection_ppm=PPM)
        assert (find_audit_rate_ppm(kept) is not None) is is_deterred, "fees of it are kept"


def test_newcomers_and_bad_records_are_audited_more() -> None:
    known = find_audit_rate_ppm(DEAR)
    new = find_audit_rate_ppm(msgspec.structs.replace(DEAR, receipts=0))
    failed = find_audit_rate_ppm(msgspec.structs.replace(DEAR, failed_audits=1))
    mended = find_audit_rate_ppm(msgspec.structs.replace(DEAR, failed_audits=1, clean_audits=400))
    assert known is not None
    assert new == NEWCOMER_FACTOR * known
    assert failed == 10 * known
    assert mended == known


def test_as_many_are_drawn_as_the_rate_says() -> None:
    drawn = sum(is_drawn(BLOCK, make_receipt(number), 50_000) for number in range(4_000))
    assert 140 < drawn < 260  # 200 expected; 4 standard deviations are 55
    assert all(is_drawn(BLOCK, make_receipt(number), PPM) for number in range(50))
    assert not any(is_drawn(BLOCK, make_receipt(number), 0) for number in range(50))


@given(st.integers(0, 1_000), st.integers(0, PPM), st.integers(0, PPM))
def test_a_higher_rate_draws_all_that_a_lower_one_does(number: int, one: int, two: int) -> None:
    low, high = sorted((one, two))
    assert is_drawn(BLOCK, make_receipt(number), low) <= is_drawn(BLOCK, make_receipt(number), high)


def test_the_deciding_block_comes_after_the_commitment() -> None:
    assert get_deciding_block(100) == 100 + DELAY_BLOCKS_MIN
    with pytest.raises(ValueError, match="at least 2"):
        get_deciding_block(100, 0)
    with pytest.raises(ValueError, match="ppm"):
        is_drawn(BLOCK, BLOCK, PPM + 1)
    with pytest.raises(ValueError, match="stake"):
        find_audit_rate_ppm(Exposure(-1, 1, 1))
    with pytest.raises(ValueError, match="window"):
        find_audit_rate_ppm(Exposure(1, 1, 1, window_requests=0))
