"""A balance that is all but used up, topped up, refunded and settled while requests come."""

import pytest

from benchmarks.bench_utilisation import measure

pytestmark = pytest.mark.slow
REQUESTS = 500


async def test_nothing_is_overspent_and_every_refusal_is_a_correct_402(database_url, tmp_path):
    found = await measure(REQUESTS, (database_url, str(tmp_path / "user.sqlite3")), seed=3)
    assert found["first_violations"] == []
    assert found["violations"] == 0
    assert found["requests"] == REQUESTS
    assert found["paid"] == found["fees"] > 0
    moves = ("refused_402", "top_ups", "refunds_asked", "refunds_paid", "settlements")
    assert all(found[name] > 0 for name in moves), found
