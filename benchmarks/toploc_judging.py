"""What Hanse's audits and TOPLOC's proofs find in the same answers; for `bench_toploc`.

Both are judged answer by answer, and only up to a number of tokens. Thresholds of Hanse, and those
called `calibrated` of TOPLOC, are made of the first 80 honest answers by the product's own
rule (`verification/audits/calibration.py`): a bound of the quantile 0.95 at 95 %, times 1.25.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.toploc_side import EXPONENTS, MEAN, MEDIAN
from hanse.protocol.commitments.fingerprints import ABSENT, FINGERPRINT_BYTES, quantise
from hanse.protocol.commitments.tree import Entry, get_commitment_root
from hanse.settlement.openings.kept_form import encode_kept
from hanse.verification.audits.bounds import find_upper_bound, get_rate_bound
from hanse.verification.audits.calibration import MARGIN_PPM
from hanse.verification.audits.statistics import (
    FINGERPRINT,
    FLOORS_PPM,
    PPM,
    get_fingerprint_statistics,
    get_sampling_statistics,
)

if TYPE_CHECKING:
    from benchmarks.bench_toploc import Case
    from hanse.auditor.calibrating.noise import Rescored

QUANTILE, CONFIDENCE = 0.95, 0.95
CALIBRATING = 80
"""59 carry the quantile 0.95 at 95 %, and some answers are too short for a statistic."""

POINTS = (4, 16, 32)
PROOFS = {"prompt": slice(0, 1), 32: slice(1, 2), "prompt and 32": slice(0, 2)}
"""TOPLOC's proofs of an answer, by what they cover."""

Finding = tuple[int, float, float]
Limits = tuple[float, float, float]
PAPER: Limits = (EXPONENTS, MEAN, MEDIAN)
STATE_SCALE = 4 / 127
REPEATS = 5


def get_statistics(found: "Rescored", count: int) -> dict[str, int]:
    """Hanse's statistics of an answer's first tokens."""
    served = [entry.fingerprint for entry in found.entries[:count]]
    own = found.measured.fingerprints[:count]
    statistics = get_fingerprint_statistics(served, own)
    return statistics | get_sampling_statistics(found.measured.misses[:count], found.chain)


def find_limits(samples: Sequence[dict[str, int]]) -> dict[str, float]:
    """The product's rule for thresholds; a statistic that too few answers have gets none."""
    limits = {}
    for name in {name for one in samples for name in one}:
        values = [one[name] for one in samples if name in one]
        bound = find_upper_bound(values, QUANTILE, CONFIDENCE)
        if bound is not None:
            limits[name] = max(bound * MARGIN_PPM / PPM, FLOORS_PPM.get(name, 0))
    return limits


def judge_hanse(cases: "Sequence[Case]") -> Iterator[dict[str, Any]]:
    """A line for each cheat, rung and number of tokens."""
    calibrating, held_out = split_honest(cases)
    limits = find_limits([get_statistics(one.found, POINTS[-1]) for one in calibrating])
    rungs = ("V3", "V2+V3") if set(limits) - set(FINGERPRINT) else ("V3",)
    for rung in rungs:
        for point in POINTS:

            def is_above(case: "Case", point: int = point, rung: str = rung) -> bool:
                found = get_statistics(case.found, point)
                return any(
                    value > limits.get(name, value)
                    for name, value in found.items()
                    if rung != "V3" or name in FINGERPRINT
                )

            head = {"scheme": f"hanse {rung}", "verifier": "torch", "tokens": point}
            head |= {"thresholds": "calibrated", "limits_ppm": limits}
            yield from count_found(cases, held_out, head, is_above)


def judge_toploc(cases: "Sequence[Case]", said: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The same of TOPLOC, verified in torch: by the paper's thresholds, and by calibrated ones."""
    calibrating, held_out = split_honest(cases)
    for basis, by_name in said.items():
        known = [case for case in (*calibrating, *held_out) if case.name in by_name]
        trials: list[tuple[str, Limits, Sequence[Case]]] = [("paper", PAPER, known)]
        if basis == "plain":
            own = calibrate_toploc([by_name[one.name]["found"]["torch"] for one in calibrating])
            trials.append(("calibrated", own, held_out))
        for thresholds, limits, honest in trials:
            for point, which in PROOFS.items():

                def is_above(
                    case: "Case",
                    by_name: dict[str, Any] = by_name,
                    which: slice = which,
                    limits: Limits = limits,
                ) -> bool | None:
                    line = by_name.get(case.name)
                    return fails(line["found"]["torch"][which], limits) if line else None

                head = {"scheme": f"toploc {basis}", "verifier": "torch", "tokens": point}
                head |= {"thresholds": thresholds, "limits": limits}
                yield from count_found(cases, honest, head, is_above)


def fails(proofs: Sequence[Finding], limits: Limits) -> bool:
    """Whether one of these proofs does not hold."""
    return any(
        value > limit for proof in proofs for value, limit in zip(proof, limits, strict=True)
    )


def calibrate_toploc(answers: Sequence[list[Finding]]) -> Limits:
    """Thresholds of TOPLOC's three numbers by Hanse's rule: of each answer the worst proof."""
    found = []
    for place in range(3):
        worst = [max(round(proof[place] * PPM) for proof in proofs) for proofs in answers]
        bound = find_upper_bound(worst, QUANTILE, CONFIDENCE)
        found.append(bound * MARGIN_PPM / PPM / PPM if bound is not None else float("inf"))
    return (found[0], found[1], found[2])


def count_found(
    cases: "Sequence[Case]",
    honest: "Sequence[Case]",
    head: dict[str, Any],
    is_found: "Callable[[Case], bool | None]",
) -> Iterator[dict[str, Any]]:
    """A line a cheat; none where the scheme does not know it."""
    wrong = sum(bool(is_found(case)) for case in honest)
    false = {"honest_answers": len(honest), "false_positives": wrong}
    false["rate_at_most"] = round(get_rate_bound(wrong, len(honest), CONFIDENCE), 5)
    for cheat in dict.fromkeys(case.cheat for case in cases if case.cheat != "honest"):
        results = [is_found(case) for case in cases if case.cheat == cheat]
        if results and None not in results:
            share = sum(map(bool, results)) / len(results)
            yield {
                "cheat": cheat,
                **head,
                "detected": round(share, 4),
                "answers": len(results),
                **false,
            }


def split_honest(cases: "Sequence[Case]") -> "tuple[list[Case], list[Case]]":
    """Those that make thresholds, and those that try them."""
    honest = [case for case in cases if case.cheat == "honest"]
    first = min(CALIBRATING, len(honest) - 1)
    return honest[:first], honest[first:]


def get_noise(
    cases: "Sequence[Case]", said: dict[str, Any], verifiers: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """The worst honest answer beside the best cheat's, in each scheme's own numbers."""
    for cheat in dict.fromkeys(case.cheat for case in cases):
        chosen = [case for case in cases if case.cheat == cheat]
        pick = max if cheat == "honest" else min
        line: dict[str, Any] = {"noise": cheat, "answers": len(chosen)}
        for name in FINGERPRINT[:2]:
            values = [get_statistics(one.found, POINTS[-1]) for one in chosen]
            held = [one[name] / PPM for one in values if name in one]
            line[f"hanse torch {name}"] = round(pick(held), 4) if held else None
        for basis, by_name in said.items():
            for verifier in verifiers:
                found = [
                    by_name[one.name]["found"].get(verifier)
                    for one in chosen
                    if one.name in by_name
                ]
                proofs = [proof[1] for proof in found if proof and len(proof) > 1]
                if proofs:
                    numbers = [round(pick(one[place] for one in proofs), 3) for place in range(3)]
                    line[f"toploc {basis} {verifier} exponents, mean, median"] = numbers
        yield line


def get_cost(
    cases: "Sequence[Case]",
    by_name: dict[str, Any],
    hanse_s: Sequence[float],
    toploc_s: Sequence[float],
) -> dict[str, Any]:
    """Bytes and processor time a token, of proofs alone and of whole audits in torch."""
    longest = max(len(case.answer) for case in cases)
    long = [case for case in cases if len(case.answer) == longest and case.name in by_name]
    lines = [by_name[case.name] for case in long]
    tokens = sum(len(case.answer) for case in long)
    own = [_time_own(case) for case in long]
    mean_verify_s = sum(one["verify_s"] for one in by_name.values()) / len(by_name)
    return {
        "cost": f"of answers of {longest} tokens, their prompts proven too",
        "answers": len(long),
        "hanse_bytes_kept": round(
            sum(len(encode_kept(one.found.entries)) for one in long) / tokens, 2
        ),
        "hanse_bytes_of_fingerprint": FINGERPRINT_BYTES,
        "hanse_bytes_on_the_wire_a_request": 32,
        "toploc_bytes": round(sum(one["bytes"] for one in lines) / tokens, 2),
        "hanse_build_us": round(1e6 * sum(one[0] for one in own) / tokens, 1),
        "toploc_build_us": round(1e6 * sum(one["build_s"] for one in lines) / tokens, 1),
        "hanse_verify_us": round(1e6 * sum(one[1] for one in own) / tokens, 1),
        "toploc_verify_us": round(1e6 * sum(one["verify_s"] for one in lines) / tokens, 1),
        "hanse_audit_ms_an_answer": round(1e3 * sum(hanse_s) / len(hanse_s), 1),
        "toploc_audit_ms_an_answer": round(
            1e3 * (sum(toploc_s) / len(toploc_s) + mean_verify_s), 1
        ),
    }


def _time_own(case: "Case") -> tuple[float, float]:
    """Processor seconds to make an answer's commitment, and to make it again and compare."""
    found = case.found
    served = [one.fingerprint for one in found.entries]
    rows = [
        [(byte if byte < 128 else byte - 256) * STATE_SCALE for byte in one]
        for one in found.measured.fingerprints
    ]
    builds, verifies = [], []
    for _ in range(REPEATS):
        began = time.process_time()
        made = [quantise(row) for row in rows]
        get_commitment_root(
            [Entry(one.token, own) for one, own in zip(found.entries, made, strict=True)]
        )
        builds.append(time.process_time() - began)
        began = time.process_time()
        get_fingerprint_statistics(served, made)
        verifies.append(time.process_time() - began + builds[-1])
    assert ABSENT not in made
    return min(builds), min(verifies)


def make_table(lines: Sequence[dict[str, Any]]) -> str:
    """Shares found, a row a scheme and a column a cheat."""
    cheats = list(dict.fromkeys(line["cheat"] for line in lines))
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    for line in lines:
        key = (line["scheme"], line["verifier"], line["thresholds"], str(line["tokens"]))
        row = rows.setdefault(key, {"false": f"{line['false_positives']}/{line['honest_answers']}"})
        row[line["cheat"]] = f"{line['detected']:.2f}"
    width = max(map(len, cheats)) + 2
    head = f"{'scheme, verifier, thresholds, tokens':46}" + "".join(
        f"{name:>{width}}" for name in (*cheats, "false")
    )
    body = [
        f"{', '.join(key):46}"
        + "".join(f"{row.get(name, '-'):>{width}}" for name in (*cheats, "false"))
        for key, row in rows.items()
    ]
    return "\n".join([head, *body])
