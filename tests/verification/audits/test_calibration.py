"""Calibrations: what a sample justifies, and documents that claim more."""

import random
import time
from typing import Any

import msgspec
import pytest

from hanse.protocol.errors import RequestError, VerificationError
from hanse.verification.audits.calibration import (
    LARGEST_MAX,
    SAMPLES_MAX,
    Calibration,
    Conditions,
    decode_calibration,
    encode_calibration,
    make_calibration,
    verify_calibration,
)

CONDITIONS = Conditions(
    "0x" + "5a" * 32, "Q8_0", "llama 1", "toy 1", 4_096, 64, ("concurrent=8", "threads=2")
)


def make_answers(count: int) -> list[dict[str, int]]:
    drawn = random.Random(7)
    return [{"fingerprint/4": drawn.randrange(20_000, 60_000), "sampling": 0} for _ in range(count)]


def make(count: int = 400, quantile: float = 0.99) -> Calibration:
    return make_calibration(CONDITIONS, make_answers(count), quantile, 0.95)


def test_thresholds_lie_above_the_noise_by_the_margin() -> None:
    answers = make_answers(400)
    found = make_calibration(CONDITIONS, answers, 0.99, 0.95).find("fingerprint/4")
    assert found is not None
    assert found.answers == 400
    worst = max(answer["fingerprint/4"] for answer in answers)
    assert found.largest_ppm[0] == worst
    assert found.limit_ppm == -(-worst * 5 // 4)  # 400 answers carry 0.99 by their largest


def test_one_odd_token_is_never_too_many() -> None:
    found = make().find("sampling")
    assert found is not None
    assert found.limit_ppm == 62_500


def test_a_sample_that_is_too_small_is_refused_with_the_size_that_would_do() -> None:
    with pytest.raises(RequestError, match="measure 29956"):
        make(400, 0.9999)
    with pytest.raises(RequestError, match="0 honest answers"):
        make(0)


def test_a_statistic_that_too_few_answers_have_is_left_out() -> None:
    answers = make_answers(400) + [{"greedy": 0}] * 20
    found = make_calibration(CONDITIONS, answers, 0.99, 0.95)
    assert found.find("greedy") is None
    assert found.find("sampling") is not None


def test_a_document_comes_back_and_a_quantile_far_down_is_refused() -> None:
    made = make()
    assert decode_calibration(encode_calibration(made)) == made
    with pytest.raises(RequestError):
        make(4_000, 0.5)  # two thousand values would have to be kept


@pytest.mark.parametrize(
    "change",
    [
        {"format": "hanse-calibration-2"},
        {"quantile_ppm": 999_900},
        {"confidence_ppm": 0},
        {"margin_ppm": 999_999},
        {"margin_ppm": 2_000_000},
        {"thresholds": []},
        {"unknown": 1},
    ],
)
def test_a_document_that_claims_what_its_figures_do_not_give_is_refused(
    change: dict[str, Any],
) -> None:
    document = msgspec.json.decode(encode_calibration(make())) | change
    with pytest.raises(VerificationError) as refused:
        decode_calibration(msgspec.json.encode(document))
    assert refused.value.code == "calibration_invalid"


@pytest.mark.parametrize(
    "change",
    [
        {"limit_ppm": 200_000},
        {"answers": 100},
        {"answers": 4_000},
        {"largest_ppm": [1] * LARGEST_MAX},
        {"largest_ppm": list(range(LARGEST_MAX))},
        {"statistic": "vibes"},
        {"statistic": "sampling"},
    ],
)
def test_a_threshold_that_does_not_follow_is_refused(change: dict[str, Any]) -> None:
    document = msgspec.json.decode(encode_calibration(make()))
    document["thresholds"][0] |= change
    with pytest.raises(VerificationError, match="cannot be used"):
        decode_calibration(msgspec.json.encode(document))


def test_limits_of_the_document() -> None:
    for wrong in (b"", b"{}", b"[" * 1_000, b" " * 70_000, b"\xff"):
        with pytest.raises(VerificationError):
            decode_calibration(wrong)


def test_a_strangers_calibration_takes_no_time_to_refuse() -> None:
    """A million values and a low quantile: half a million terms of a binomial before, 2 s each."""
    found = make()
    (first, *_) = found.thresholds
    huge = msgspec.structs.replace(first, answers=SAMPLES_MAX, largest_ppm=(10,) * LARGEST_MAX)
    hostile = msgspec.structs.replace(
        found, quantile_ppm=500_000, confidence_ppm=999_999, thresholds=(huge,)
    )
    began = time.process_time()
    with pytest.raises(VerificationError, match="carry"):
        verify_calibration(hostile)
    assert time.process_time() - began < 0.25
