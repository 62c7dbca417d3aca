"""The chaos runner in CI: a few fixed seeds, a fresh one, and proof that it can fail.

Each run is a process of its own: the runner never finalises what it killed.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SUMMARY = {"seed", "steps", "units_lost", "disagreements", "served_twice", "faults"}

pytestmark = pytest.mark.slow


def run_chaos(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "chaos", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


@pytest.mark.parametrize("seed", [1, 2, 11, None], ids=["1", "2", "11", "fresh"])
def test_nothing_is_lost(seed):
    """The fresh seed is in the line that a failure shows: `make chaos SEED=... STEPS=60`."""
    found = run_chaos("--steps", "60", *(["--seed", str(seed)] if seed is not None else []))
    assert found.returncode == 0, found.stdout + found.stderr
    line = json.loads(found.stdout)
    assert line.keys() == SUMMARY
    assert (line["units_lost"], line["disagreements"], line["served_twice"]) == (0, 0, 0)
    assert line["steps"] == 60
    assert sum(line["faults"].values()) > 0


def test_one_seed_is_one_run():
    """Every turn of the loop, every block and every event, not only the verdict."""
    first, second = (run_chaos("--seed", "5", "--steps", "30", "--hashes") for _ in range(2))
    assert first.returncode == second.returncode == 0, first.stderr
    assert first.stdout == second.stdout
    assert get_hash(first) == get_hash(second)


@pytest.mark.parametrize(
    ("bug", "fault", "shows"),
    [
        ("volatile_store", "crash", "that nobody signed for"),
        ("no_reservation", "crash", "stopped admitting"),
        ("forgotten_ids", "storm", "its requests at work are"),
        ("lost_claim", "crash", "claimed only 0"),
    ],
)
def test_a_bug_is_found(bug, fault, shows):
    """Mutations: each is put in on purpose and found, within three seeds."""
    found = run_chaos(
        *("--bug", bug, "--only", fault, "--until-found"),
        *("--seed", "1", "--seeds", "3", "--steps", "60"),
    )
    assert found.returncode == 1, found.stdout + found.stderr
    assert shows in found.stderr


def get_hash(found: "subprocess.CompletedProcess[str]") -> str:
    return found.stderr.splitlines()[-1]
