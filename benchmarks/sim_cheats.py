"""What cheating earns in a month, for every cheat and audit rate. JSON lines; a table on stderr.

    make -s sim-cheats          SEED=1; DETECTIONS=file takes what `make bench-audit` printed

Simulated, not measured: providers that cheat on every request among honest ones at the same price,
1,000 requests a day each, for 30 days. Inputs are `benchmarks.cheat_table`, each with its source.
What is drawn at random is which receipts are audited, and whether an audit finds the cheat.

What happens then is chosen in favour of the cheat, so that the rates err on the safe side:

- what an audit finds takes effect a day later, what the user's own check finds ten minutes later,
  and the cheat goes on and keeps all its fees until then;
- it loses its whole stake and one day's business, and is back under a new name with a new stake and
  its old traffic on the next day;
- where a finding is no ground for a penalty (`record`) it only loses the requests of users whose
  policy weighs reliability, by the reputation that `hanse.market.reputation` computes from it.

`profit_over_honest` is what a cheat earns beyond an honest provider in the month, in prices of one
request. `never_pays_from` is the least rate of those tried from which on it is never above 0.
`formula_rate` is g / (d (S + g)), and `simulated_rate` where the simulation's break-even lies when
a finding takes effect at once: the two are held against each other.
"""

import argparse
import json
import math
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.cheat_table import (
    AUDIT_OVER_GENERATION,
    CHEATS,
    COST,
    FALSE_POSITIVE_MAX,
    Cheat,
    take_detections,
)
from benchmarks.sim_cheats_plot import draw_plot
from hanse.market.reputation import Testimony, Word, compute_reputation, get_risk_step
from hanse.protocol.commitments.lottery import Exposure, find_audit_rate_ppm

RATES = (0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1)
STAKES = (10, 100, 1_000)
DAYS = 30
REQUESTS_A_DAY = 1_000
DELAY_DAYS = {"audit": 1.0, "user": 10 / 1_440}
"""From a finding to its effect. Assumed: a panel that votes without an appeal; a proof by receipts
needs one confirmed transaction, and the user's side looks every 5 s."""

TRAFFIC = (100, 1_000, 10_000)
"""Requests a day that are tried besides, at the highest stake."""
AUDITORS = 5
"""Who audit in turn, each staking as much as the provider."""

WEIGHING_SHARE = 0.5
"""Requests of users whose policy weighs reliability. Assumed; the default policy is `cheapest`,
which does not, so the share is also tried at 1."""

RISK_SHUNNED_PPM = 100_000
"""From twice the usual risk on an honest provider at the same price is better for every policy that
weighs reliability: those users go there."""

PROVIDER = "0x" + "a" * 40
WITNESSES = [f"0x{n:040x}" for n in range(1, AUDITORS + 1)]
PAST_S = 1_900_000_000


@dataclass(frozen=True)
class Month:
    """One provider's month: profit in prices of a request, and how often it lost its stake."""

    profit: float
    times_caught: int
    first_caught_day: float | None


def draw_wait(chance: random.Random, probability: float) -> int:
    """Requests until the first finding, itself included; geometric."""
    if probability >= 1:
        return 1
    return math.floor(math.log1p(-chance.random()) / math.log1p(-probability)) + 1


def play_stake(chance: random.Random, cheat: Cheat, rate: float, stake: float, a_day: int) -> Month:
    """A month of a cheat whose finding costs the stake, at so many requests a day."""
    found = cheat.detection * (1 if cheat.found_by == "user" else rate)
    delay = round(DELAY_DAYS[cheat.found_by] * a_day)
    left, profit, caught, first = DAYS * a_day, 0.0, 0, None
    while left > 0:
        wait = draw_wait(chance, found) + delay
        profit += min(left, wait) * (1 - COST + cheat.gain)
        if wait > left:
            break
        left -= wait
        if first is None:
            first = DAYS - left / a_day
        left -= a_day  # its day without business
        profit -= stake
        caught += 1
    return Month(profit, caught, first)


def play_record(chance: random.Random, cheat: Cheat, rate: float, weighing_share: float) -> Month:
    """A month of a cheat whose findings only count in the reputation."""
    testimonies: list[Testimony] = []
    profit, share, first = 0.0, 1.0, None
    for day in range(DAYS):
        served = round(REQUESTS_A_DAY * share)
        profit += served * (1 - COST + cheat.gain)
        audits = sum(chance.random() < rate for _ in range(served))
        for n in range(audits):
            is_found = chance.random() < cheat.detection
            testimonies.append(
                Testimony(
                    f"0x{len(testimonies):064x}",
                    PROVIDER,
                    WITNESSES[n % AUDITORS],
                    Word.AUDIT_DOUBTED if is_found else Word.AUDIT_PASSED,
                    PAST_S + day * 86_400,
                )
            )
        is_shunned = _get_risk(testimonies, day + 1) >= RISK_SHUNNED_PPM
        share = 1 - weighing_share if is_shunned else 1.0
        if is_shunned and first is None:
            first = day + 1.0
    return Month(profit, 0, first)


def _get_risk(testimonies: list[Testimony], day: int) -> int:
    """The risk as matching takes it, of a provider that is a year old. The latest 200 words do: by
    then every witness has said all that it can."""
    now_s = PAST_S + day * 86_400
    stakes = dict.fromkeys([PROVIDER, *WITNESSES], 1_000)
    year_ago_s = PAST_S - 365 * 86_400
    found = compute_reputation(PROVIDER, testimonies[-200:], stakes, year_ago_s, now_s)
    return get_risk_step(found.risk_ppm)


def simulate(
    seed: int,
    cheat: Cheat,
    rate: float,
    stake: int,
    runs: int,
    weighing_share: float = WEIGHING_SHARE,
    a_day: int = REQUESTS_A_DAY,
) -> dict[str, Any]:
    """Many months; one document."""
    chance = random.Random(f"{seed}/{cheat.name}/{rate}/{stake}/{weighing_share}/{a_day}")
    honest = DAYS * a_day * (1 - COST)
    if cheat.penalty == "record":
        months = [play_record(chance, cheat, rate, weighing_share) for _ in range(runs)]
    else:
        months = [play_stake(chance, cheat, rate, stake, a_day) for _ in range(runs)]
    over = sorted(month.profit - honest for month in months)
    firsts = sorted(m.first_caught_day for m in months if m.first_caught_day is not None)
    return {
        "cheat": cheat.name,
        "penalty": cheat.penalty,
        "stake_over_price": stake,
        "requests_a_day": a_day,
        "weighing_share": weighing_share if cheat.penalty == "record" else None,
        "audit_rate": rate,
        "profit_over_honest": round(sum(over) / runs, 1),
        "luckiest_of_100": round(over[-max(1, runs // 100)], 1),
        "caught_share": round(len(firsts) / runs, 3),
        "times_caught": round(sum(month.times_caught for month in months) / runs, 2),
        "first_caught_day_p50": round(firsts[len(firsts) // 2], 1) if firsts else None,
    }


def find_break_even(seed: int, cheat: Cheat, stake: int) -> float:
    """The rate at which a finding that takes effect at once takes all the gain, simulated.

    The mean over many findings of what was gained until then, less stake and gain of the request
    that was found, falls as the rate rises; bisected on the same draws.
    """
    low, high = 1e-7, 1.0
    for _ in range(40):
        middle = math.sqrt(low * high)
        chance = random.Random(f"{seed}/{cheat.name}/{stake}")
        found = cheat.detection * middle
        waits = [draw_wait(chance, found) for _ in range(20_000)]
        mean = sum((wait - 1) * cheat.gain for wait in waits) / len(waits) - stake
        low, high = (middle, high) if mean > 0 else (low, middle)
    return math.sqrt(low * high)


def find_never(lines: list[dict[str, Any]]) -> float | None:
    """The least rate that was tried from which on no mean is above the honest one."""
    paying = [line["audit_rate"] for line in lines if line["profit_over_honest"] > 0]
    later = [rate for rate in RATES if not paying or rate > max(paying)]
    return later[0] if later else None


def summarise(seed: int, cheat: Cheat, stake: int, lines: list[dict[str, Any]]) -> dict[str, Any]:
    """What follows for one cheat and stake."""
    document: dict[str, Any] = {
        "cheat": cheat.name,
        "stake_over_price": stake,
        "gain": round(cheat.gain, 4),
        "gain_source": cheat.gain_source,
        "detection": cheat.detection,
        "detection_source": cheat.detection_source,
        "never_pays_from": find_never(lines),
    }
    if cheat.penalty == "stake" and cheat.found_by == "audit":
        document["formula_rate"] = cheat.gain / (cheat.detection * (stake + cheat.gain))
        document["simulated_rate"] = find_break_even(seed, cheat, stake)
        exposure = Exposure(
            stake * 10**6,
            round(cheat.gain * 10**6),
            round(cheat.detection * 10**6),
            window_requests=round(DELAY_DAYS["audit"] * REQUESTS_A_DAY),
        )
        rate_ppm = find_audit_rate_ppm(exposure)
        document["scheduler_rate"] = None if rate_ppm is None else rate_ppm / 10**6
    return document


def simulate_all(
    seed: int, runs: int, cheats: Sequence[Cheat] = CHEATS
) -> Iterator[dict[str, Any]]:
    """Every document, in the order in which it is printed."""
    for stake in STAKES:
        for cheat in cheats:
            if cheat.penalty == "record" and stake != STAKES[-1]:
                continue  # its stake is never touched
            shares = (WEIGHING_SHARE, 1.0) if cheat.penalty == "record" else (WEIGHING_SHARE,)
            for share in shares:
                few = max(20, runs // 10) if cheat.penalty == "record" else runs
                lines = [simulate(seed, cheat, rate, stake, few, share) for rate in RATES]
                yield from lines
                summary = summarise(seed, cheat, stake, lines)
                yield {**summary, "weighing_share": share if len(shares) > 1 else None}
    for a_day in TRAFFIC:
        quantise = cheats[0]
        lines = [simulate(seed, quantise, rate, STAKES[-1], runs, a_day=a_day) for rate in RATES]
        yield {
            "cheat": None,
            "of_traffic": quantise.name,
            "stake_over_price": STAKES[-1],
            "requests_a_day": a_day,
            "profit_over_honest_by_rate": [line["profit_over_honest"] for line in lines],
            "never_pays_from": find_never(lines),
        }
    for rate in RATES:
        yield {
            "cheat": None,
            "audit_rate": rate,
            "audit_cost_over_generation": round(rate * AUDIT_OVER_GENERATION, 6),
            "honest_loss_max": round(
                rate * DAYS * REQUESTS_A_DAY * FALSE_POSITIVE_MAX * STAKES[-1], 1
            ),
            "honest_profit": round(DAYS * REQUESTS_A_DAY * (1 - COST)),
        }


def print_table(documents: list[dict[str, Any]]) -> None:
    """Profit over an honest provider's, in thousands of prices, for people."""
    print("profit over an honest month's 9,000, in prices of a request", file=sys.stderr)
    head = "".join(f"{rate:>9.1%}" for rate in RATES)
    print(f"{'stake':>5} {'cheat':25}{head}  never from", file=sys.stderr)
    row: list[float] = []
    for document in documents:
        if "profit_over_honest" in document:
            row.append(document["profit_over_honest"])
        elif document["cheat"]:
            shown = "".join(f"{value:>9,.0f}" for value in row)
            share = document["weighing_share"]
            name = document["cheat"] + (f" ({share:.0%})" if share is not None else "")
            never = document["never_pays_from"]
            text = "-" if never is None else f"{never:.1%}"
            print(f"{document['stake_over_price']:>5} {name:25}{shown}  {text}", file=sys.stderr)
            row = []
        elif "of_traffic" in document:
            shown = "".join(f"{value:>9,.0f}" for value in document["profit_over_honest_by_rate"])
            name = f"{document['of_traffic']}, {document['requests_a_day']:,} a day"
            never = document["never_pays_from"]
            text = "-" if never is None else f"{never:.1%}"
            print(f"{document['stake_over_price']:>5} {name:25}{shown}  {text}", file=sys.stderr)


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runs", type=int, default=1_000)
    parser.add_argument("--detections", type=Path, help="lines that bench-audit printed")
    parser.add_argument("--plot", type=Path, help="where an SVG goes")
    options = parser.parse_args()
    documents, cheats = [], CHEATS
    if options.detections is not None:
        cheats = take_detections(CHEATS, options.detections.read_text().splitlines())
    for document in simulate_all(options.seed, options.runs, cheats):
        documents.append(document)
        print(json.dumps(document), flush=True)
    print_table(documents)
    if options.plot is not None:
        options.plot.write_text(draw_plot(documents))


if __name__ == "__main__":
    main()
