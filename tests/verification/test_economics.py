"""The simulation of cheats agrees with the formula, repeats by its seed, and names its inputs."""

import json

import pytest

from benchmarks.cheat_table import CHEATS, take_detections
from benchmarks.sim_cheats import RATES, STAKES, find_break_even, simulate

BY_NAME = {cheat.name: cheat for cheat in CHEATS}
AUDITED = [c for c in CHEATS if c.penalty == "stake" and c.found_by == "audit"]


def test_every_cheat_is_in_the_table_with_the_source_of_each_figure():
    named = "quantise swap other-copy skip-layer kv4 drop-system overbill forward"
    assert list(BY_NAME) == [*named.split(), "cheap-text-prefill", "equivocate", "overclaim"]
    for cheat in CHEATS:
        for source in (cheat.gain_source, cheat.detection_source):
            assert source.split(":")[0] in ("design", "arithmetic", "assumed", "exact"), cheat.name


@pytest.mark.parametrize("stake", [10, 1_000])
def test_the_simulated_break_even_is_the_formulas(stake):
    cheat = BY_NAME["quantise"]
    formula = cheat.gain / (cheat.detection * (stake + cheat.gain))
    assert find_break_even(1, cheat, stake) == pytest.approx(formula, rel=0.03)


def test_a_seed_gives_one_result():
    def play(seed: int) -> dict[str, object]:
        return simulate(seed, BY_NAME["swap"], 0.01, 100, 20)

    assert play(1) == play(1)
    assert play(1) != play(2)


def test_at_a_stake_of_a_thousand_prices_no_penalised_cheat_pays_at_the_least_rate():
    for cheat in AUDITED:
        assert simulate(1, cheat, RATES[0], STAKES[-1], 50)["profit_over_honest"] < 0, cheat.name


def test_a_cheat_that_only_counts_in_the_record_pays_while_half_the_users_do_not_look():
    """The simulation must be able to say so: it is why the docs ask for more than a record."""
    cheat = BY_NAME["cheap-text-prefill"]
    half = simulate(1, cheat, 0.01, 1_000, 10, 0.5)
    assert half["profit_over_honest"] > 0
    assert simulate(1, cheat, 0.01, 1_000, 10, 1.0)["profit_over_honest"] < 0


def make_line(
    cheat: str, rung: str, tokens: int, detected: float, penalised: float, groups: int
) -> str:
    """As bench-audit prints it."""
    shares = {"detected": detected, "penalised": penalised}
    return json.dumps({"cheat": cheat, "rung": rung, "tokens": tokens, "groups": groups} | shares)


def test_measured_detections_take_the_place_of_quoted_ones_by_their_lower_bound():
    lines = [
        make_line("quantise", "V3", 16, 1.0, 1.0, 300),
        make_line("quantise", "V3", 4, 0.5, 0.5, 300),
        make_line("skip-layer", "V3", 16, 1.0, 0.5, 300),
        make_line("kv4", "V2", 16, 0.1, 0.0, 300),
        make_line("cheap-text-prefill", "V2", 16, 0.8, 0.0, 9),
        '{"cheat": "overbill", "rung": "V0", "tokens": 1, "groups": 100, "detected": 1.0}',
        '{"prover_overhead": 0.03}',
        '{"honest": "kind", "is": "code", "tokens": 16}',
    ]
    taken = {cheat.name: cheat for cheat in take_detections(CHEATS, lines)}
    assert taken["quantise"].detection == pytest.approx(1 - 3 / 300, abs=1e-3)
    assert taken["quantise"].detection_source.startswith("measured: bench-audit, 300 of 300")
    assert 0.4 < taken["cheap-text-prefill"].detection < 0.8
    assert 0.96 < taken["overbill"].detection < 0.98  # by signatures, so no verdict is asked for
    assert taken["skip-layer"].detection < 0.5  # what is above a threshold costs no stake
    for name in ("kv4", "swap", "overclaim"):  # the draws penalise nobody; not measured
        assert taken[name] == BY_NAME[name]
