"""Histograms and sums, on their own."""

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from hanse.gateway.telemetry.record import RequestRecord
from hanse.gateway.telemetry.tally import MODELS_MAX, OTHER_MODEL, PROVIDERS_MAX, RECENT_MAX, Tally
from hanse.gateway.telemetry.times import STAGES_MAX, Times


def make_record(**changes: object) -> RequestRecord:
    fields = {"request_id": "req_1", "key": "k", "operation": "chat_completions", "status": 200}
    fields |= {"sent_bytes": 1, "ms": 2.0, "model": "m", "provider": "0xp", "first_ms": 1.0}
    return RequestRecord(**(fields | changes))  # type: ignore[arg-type]


def test_times_are_what_prometheus_expects_of_a_histogram() -> None:
    times = Times("stage_seconds", "help")
    registry = CollectorRegistry()
    registry.register(times)
    for seconds in (0.0001, 0.0002, 0.3, 1_000.0):
        times.add("match", seconds)
    text = generate_latest(registry).decode()
    assert 'stage_seconds_bucket{le="0.0001",stage="match"} 1.0' in text
    assert 'stage_seconds_bucket{le="0.25",stage="match"} 2.0' in text
    assert 'stage_seconds_bucket{le="300.0",stage="match"} 3.0' in text
    assert 'stage_seconds_bucket{le="+Inf",stage="match"} 4.0' in text
    assert 'stage_seconds_count{stage="match"} 4.0' in text
    assert 'stage_seconds_sum{stage="match"} 1000.3003' in text


def test_quantiles_lie_within_their_bucket() -> None:
    times = Times("t", "help")
    assert times.find_quantile_s("match", 0.5) is None
    for _ in range(99):
        times.add("match", 0.003)
    times.add("match", 400.0)
    assert times.find_quantile_s("match", 0.5) == pytest.approx(0.0025 + 0.0025 * 50 / 99)
    assert times.find_quantile_s("match", 1.0) == 300.0
    assert times.get_count("match") == 100


def test_a_mistake_makes_no_thousand_series() -> None:
    times = Times("t", "help")
    for index in range(STAGES_MAX + 9):
        times.add(str(index), 0.1)
    assert len(times.list_stages()) == STAGES_MAX


def test_an_application_that_left_is_no_failure_of_its_provider() -> None:
    tally = Tally()
    tally.add(make_record(status=499, is_broken=True), 3)
    document = tally.to_document()
    assert (document["requests"], document["failed"], document["fee"]) == (1, 0, "3")
    assert document["providers"][0]["failed"] == 0


def test_sums_by_provider_and_model() -> None:
    tally = Tally()
    tally.add(make_record(first_ms=10.0, at=1.0), 5)
    tally.add(make_record(first_ms=20.0, at=2.0), 7)
    tally.add(make_record(status=503, provider="0xq", first_ms=None), 0)
    tally.add(make_record(is_broken=True), 1)
    tally.add(make_record(status=503, provider=""), 0)
    document = tally.to_document()
    assert (document["requests"], document["failed"], document["fee"]) == (5, 3, "13")
    first, second = document["providers"]
    assert (first["provider"], first["requests"], first["failed"], first["fee"]) == (
        "0xp",
        3,
        1,
        "13",
    )
    assert (second["provider"], second["failed"], second["first_ms"]) == ("0xq", 1, None)
    assert [row["model"] for row in document["models"]] == ["m"]
    assert tally.recent[-1].status == 503


def test_sums_are_bounded_whatever_is_asked_for() -> None:
    tally = Tally()
    for index in range(PROVIDERS_MAX + 50):
        tally.add(make_record(model=f"m{index}", provider=f"0x{index}"), 1)
    document = tally.to_document()
    assert len(document["providers"]) == PROVIDERS_MAX
    assert len(document["models"]) == MODELS_MAX + 1
    assert document["models"][0]["model"] == OTHER_MODEL
    assert len(tally.recent) == RECENT_MAX
    assert tally.get_label("new") == OTHER_MODEL
    assert tally.get_label("m1") == "m1"
