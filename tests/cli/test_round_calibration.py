"""The thresholds that `hanse up` audits its cheat by: what they rest on, and what they let pass."""

from hanse.cli.local.cast import CALIBRATION
from hanse.verification.audits.calibration import decode_calibration
from hanse.verification.audits.judging import PENALTY_FACTOR

Q4_LEAST_PPM = {"fingerprint/4": 310_000, "fingerprint/16": 260_000}
"""The least that Q4_0 sold as Q8_0, or a skipped layer, came to (docs/measurements.md, Audits)."""


def test_it_rests_on_thousands_of_answers_under_several_loads() -> None:
    found = decode_calibration(CALIBRATION.read_bytes())
    assert found.quantile_ppm == 990_000
    assert max(one.answers for one in found.thresholds) >= 2_000
    assert {"threads=1", "threads=2", "concurrent=4", "concurrent=16"} <= set(
        found.conditions.labels
    )
    assert found.conditions.served_by.startswith("llama ")
    assert found.conditions.audited_by.startswith("llama.cpp ")


def test_no_honest_answer_of_it_would_be_a_cheat_and_every_q4_answer_would() -> None:
    found = decode_calibration(CALIBRATION.read_bytes())
    for statistic, least in Q4_LEAST_PPM.items():
        threshold = found.find(statistic)
        assert threshold is not None
        penalised_from = PENALTY_FACTOR * threshold.limit_ppm
        assert threshold.largest_ppm[0] < penalised_from < least
