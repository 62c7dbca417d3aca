"""The simulated day: its JSON is what the issue names, it repeats, its gas is a chain's."""

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.house.repository import ROOT

pytestmark = pytest.mark.slow


def simulate(*options: str) -> dict[str, Any]:
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks.sim_settlement", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("\n") == 1, "one document, nothing beside it"
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def test_a_day_is_settled_recorded_and_repeats():
    first = simulate("--users", "230", "--seed", "5")
    assert list(first)[:5] == [
        "users",
        "requests",
        "gas_per_user",
        "gas_per_request",
        "transactions",
    ]
    assert first["users"] == 230
    assert (first["users_waiting"], first["value_waiting"]) == (0, 0)
    assert first["claims"] >= 230
    assert first["settlements"] >= 2, "more than 200 claims are more than one transaction"
    assert first["commits"] == 144
    assert first["refunds_completed"] == 2, "the seed has users who leave"
    assert first["transactions"] == (
        first["settlements"] + first["commits"] + first["refunds_completed"]
    )
    assert 12_000 < first["gas_per_claim"] < 14_000
    assert 21_000 < first["gas_per_commit"] <= 60_000
    again = simulate("--users", "230", "--seed", "5")
    assert {**again, "seconds": 0} == {**first, "seconds": 0}


def test_a_dear_day_leaves_small_users_waiting_and_keeps_the_rule():
    found = simulate("--users", "100", "--gas-price-gwei", "0.05")
    assert 0 < found["users_waiting"] < 100
    assert found["gas_percent_of_value"] <= 1
    assert found["claims"] + found["users_waiting"] >= 100
