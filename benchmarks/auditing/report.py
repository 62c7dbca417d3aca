"""The lines of `make bench-audit QUICK=0` from the records: honest answers by kind, cheats by rung.

    honest      kind, temperature, load, length or pair; answers, above (a threshold, by either
                rung), penalties (verdict cheat), what bounds their rate at 95 %, and the worst
                fingerprint statistic over its threshold (2 is a penalty)
    kept        what a broker stores of them, by length
    cheat       as `benchmarks.bench_audit` has it; `penalised` is the share with a verdict
    by_question the same with a question as the unit, whose answers may be alike

Thresholds are fixed from the calibration part before any held-out answer is looked at.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.auditing.groups import make_groups
from benchmarks.auditing.kept import show_kept
from benchmarks.auditing.plan import AGAIN_LANE, CHEATS, LANES
from benchmarks.auditing.questions import TEMPERATURES
from benchmarks.auditing.reading import (
    CONFIDENCE,
    Pair,
    Part,
    judge_record,
    make_thresholds,
    read_pairs,
)
from benchmarks.auditing.records import Record
from benchmarks.auditing.signed import show_signed
from hanse.protocol.commitments.fingerprints import ABSENT, get_error
from hanse.protocol.errors import RequestError
from hanse.verification.audits.bounds import find_upper_bound, get_rate_bound
from hanse.verification.audits.calibration import MARGIN_PPM, Calibration
from hanse.verification.audits.judging import Judgement, Verdict
from hanse.verification.audits.statistics import FINGERPRINT

QUANTILE, SAMPLING_QUANTILE = 0.99, 0.975
"""Of fingerprints, and of draws."""

POINTS = (1, 4, 16, 64, 300, 1_000)
RUNGS = {"V2": ("sampling",), "V3": ("fingerprint",), "V2+V3": ("fingerprint", "sampling")}

Judged = tuple[Record, Judgement]


def make_report(folder: Path) -> Iterator[dict[str, Any]]:
    """All lines, the summary last."""
    again = read_pairs([folder / f"{AGAIN_LANE}.jsonl"])
    pairs = read_pairs(folder / f"{lane}.jsonl" for lane in LANES)
    pairs = {pair: part for pair, part in pairs.items() if pair not in again}
    calibrations: dict[Pair, Calibration] = {}
    for pair, part in (*sorted(pairs.items()), *again.items()):
        try:
            calibrations[pair] = make_thresholds(part.calibration, QUANTILE, SAMPLING_QUANTILE)
        except RequestError as error:
            yield {"pair": " -> ".join(pair), "not_calibrated": error.message}
    honest: list[Judged] = []
    twice: list[Judged] = []
    for pair, calibration in calibrations.items():
        part = pairs[pair] if pair in pairs else again[pair]
        judged = [(one, judge_record(one, calibration)) for one in part.held_out]
        (honest if pair in pairs else twice).extend(judged)
        yield describe_pair(pair, calibration, part, judged)
    yield from slice_honest(honest)
    yield from show_kept([record for part in pairs.values() for record in part.held_out])
    for pair, calibration in calibrations.items():
        for name in CHEATS if pair in pairs else ():
            if records := pairs[pair].cheats.get(name):
                yield from show_cheat(pair, name, records, calibration, honest, pairs[pair])
                yield from show_by_question(name, records, calibration)
    yield from show_signed([record.entries for record, _ in honest if record.tokens])
    yield summarise([*honest, *twice], calibrations)


def make_rows(folder: Path) -> tuple[dict[str, list[float]], int]:
    """For the plot: each answer's worst statistic over its threshold, and how many rows are honest.

    Cheats that nobody calibrated for are not in it.
    """
    rows: dict[str, list[float]] = {}
    cheats: dict[str, list[float]] = {}
    for (server, auditor), part in read_pairs(folder / f"{lane}.jsonl" for lane in LANES).items():
        try:
            calibration = make_thresholds(part.calibration, QUANTILE, SAMPLING_QUANTILE)
        except RequestError:
            continue
        name = f"honest, {server} by {auditor.split()[0]}"
        rows[name] = _get_ratios(part.held_out, calibration)
        for cheat in CHEATS:
            if records := part.cheats.get(cheat):
                cheats.setdefault(cheat, []).extend(_get_ratios(records, calibration))
    return rows | cheats, len(rows)


def _get_ratios(records: Sequence[Record], calibration: Calibration) -> list[float]:
    judged = [judge_record(record, calibration) for record in records if not record.misfits]
    return [ratio for found in judged if (ratio := get_ratio(found)) is not None]


def get_ratio(found: Judgement) -> float | None:
    """The worst fingerprint statistic over its threshold."""
    ratios = [
        one.value_ppm / one.limit_ppm for one in found.findings if one.statistic in FINGERPRINT
    ]
    return max(ratios, default=None)


def describe_pair(
    pair: Pair, calibration: Calibration, part: Part, judged: Sequence[Judged]
) -> dict[str, Any]:
    """Thresholds of one pair beside the worst of its held-out answers."""
    limits = {one.statistic: one.limit_ppm / 1e6 for one in calibration.thresholds}
    worst: dict[str, float] = {}
    for _, judgement in judged:
        for one in judgement.findings:
            value = one.value_ppm / 1e6
            worst[one.statistic] = max(worst.get(one.statistic, 0.0), value)
    return {
        "pair": " -> ".join(pair),
        "calibrated_on": sum(not record.misfits for record in part.calibration),
        "quantile": QUANTILE,
        "sampling_quantile": SAMPLING_QUANTILE,
        "limits": limits,
        "worst_held_out": worst,
        **count(judged),
    }


def count(judged: Sequence[Judged]) -> dict[str, Any]:
    """Of some honest answers: above a threshold, penalised, left out, and the worst."""
    looked = [(record, found) for record, found in judged if not record.misfits]
    penalties = sum(found.verdict is Verdict.CHEAT for _, found in looked)
    over = [ratio for _, found in looked if (ratio := get_ratio(found)) is not None]
    answers = len(looked)
    return {
        "answers": answers,
        "above": sum(bool(found.detected) for _, found in looked),
        "above_fingerprint": sum("fingerprint" in found.detected for _, found in looked),
        "penalties": penalties,
        "rate_at_most": bound(penalties, answers),
        "worst_over_limit": round(max(over, default=0.0), 3),
        "left_out": len(judged) - answers,
        "tokens": sum(len(record.tokens) for record, _ in looked),
    }


def slice_honest(judged: Sequence[Judged]) -> Iterator[dict[str, Any]]:
    """The same by kind, temperature, load and length."""
    ways: dict[str, Callable[[Record], str]] = {
        "kind": lambda one: one.kind,
        "temperature": lambda one: TEMPERATURES[one.sampler],
        "load": lambda one: f"{one.served_by} {one.load}",
        "tokens": lambda one: _get_length(len(one.tokens)),
    }
    for way, name in ways.items():
        groups: dict[str, list[Judged]] = {}
        for one in judged:
            groups.setdefault(name(one[0]), []).append(one)
        for value, some in sorted(groups.items()):
            yield {"honest": way, "is": value, **count(some)}


def show_cheat(
    pair: Pair,
    name: str,
    records: Sequence[Record],
    calibration: Calibration,
    honest: Sequence[Judged],
    part: Part,
) -> Iterator[dict[str, Any]]:
    """A line a rung and number of tokens."""
    looked = [record for record in records if not record.misfits]
    single = _get_single_limit(part.calibration)
    wrong = {
        rung: sum(any(one in found.detected for one in checks) for _, found in honest)
        for rung, checks in RUNGS.items()
    }
    answers = sum(not record.misfits for record, _ in honest)
    penalties = sum(found.verdict is Verdict.CHEAT for _, found in honest)
    for tokens in POINTS:
        groups = list(make_groups(looked, tokens, lambda one: len(one.tokens)))
        if not groups:
            continue
        found = [[judge_record(one, calibration, n) for one, n in group] for group in groups]
        penalised = sum(any(one.verdict is Verdict.CHEAT for one in group) for group in found)
        for rung, checks in RUNGS.items():
            if tokens == 1 and "fingerprint" in checks:
                hits = sum(_is_single_above(group[0][0], single) for group in groups)
            else:
                hits = sum(
                    any(check in one.detected for one in group for check in checks)
                    for group in found
                )
            yield {
                "cheat": name,
                "rung": rung,
                "tokens": tokens,
                "detected": round(hits / len(groups), 4),
                "honest_answers": answers,
                "false_positives": wrong[rung],
                "found": hits,
                "groups": len(groups),
                "power_at_least": round(1 - (bound(len(groups) - hits, len(groups)) or 0.0), 4),
                "penalised": round(penalised / len(groups), 4) if "V3" in rung else 0.0,
                "penalties": penalties,
                "rate_at_most": bound(penalties, answers),
                "pair": " -> ".join(pair),
            }


def show_by_question(
    name: str, records: Sequence[Record], calibration: Calibration
) -> Iterator[dict[str, Any]]:
    """The same with a question as the unit: found if each of its answers of that length is."""
    for tokens in POINTS[2:4]:
        by_question: dict[int, list[Judgement]] = {}
        for one in records:
            if not one.misfits and len(one.tokens) >= tokens:
                judged = judge_record(one, calibration, tokens)
                by_question.setdefault(one.question, []).append(judged)
        count = len(by_question)
        for rung, checks in RUNGS.items() if count else ():
            hits = sum(
                all(any(check in one.detected for check in checks) for one in answers)
                for answers in by_question.values()
            )
            yield {
                "by_question": name,
                "rung": rung,
                "tokens": tokens,
                "found": hits,
                "questions": count,
                "power_at_least": round(1 - (bound(count - hits, count) or 0.0), 4),
            }


def summarise(honest: Sequence[Judged], calibrations: dict[Pair, Calibration]) -> dict[str, Any]:
    """The bar: penalties among distinct held-out answers, however many audited each."""
    looked = [(record, found) for record, found in honest if not record.misfits]
    answers = {(one.job, one.question, one.sampler) for one, _ in looked}
    punished = {
        (one.job, one.question, one.sampler)
        for one, found in looked
        if found.verdict is Verdict.CHEAT
    }
    return {
        "honest_answers": len(answers),
        "audits": len(looked),
        "questions": len({(one.job, one.question) for one, _ in looked}),
        "penalties": len(punished),
        "rate_at_most": bound(len(punished), len(answers)),
        "pairs": [" -> ".join(pair) for pair in calibrations],
        "loads": sorted({f"{one.served_by} {one.load}" for one, _ in looked}),
        "tokens": sum(len(one.tokens) for one, _ in looked),
        "left_out": len(honest) - len(looked),
    }


def bound(found: int, answers: int) -> float | None:
    """The rate that so many found still allow at 95 %."""
    return round(get_rate_bound(found, answers, CONFIDENCE), 6) if answers else None


def _get_single_limit(records: Sequence[Record]) -> int:
    """The threshold of one position, from each answer's worst; audits do not use it."""
    worst = []
    for record in records:
        errors = [
            round(get_error(one.fingerprint, own) * 1e6)
            for one, own in zip(record.entries, record.measured.fingerprints, strict=True)
            if one.fingerprint != ABSENT
        ]
        worst += [max(errors)] if errors else []
    limit = find_upper_bound(worst, QUANTILE, CONFIDENCE)
    assert limit is not None
    return limit * MARGIN_PPM // 1_000_000


def _is_single_above(record: Record, limit_ppm: int) -> bool:
    served, own = record.entries[0].fingerprint, record.measured.fingerprints[0]
    return served != ABSENT and round(get_error(served, own) * 1e6) > limit_ppm


def _get_length(tokens: int) -> str:
    least = max((point for point in (1, 16, 32, 64, 300, 1_000) if tokens >= point), default=0)
    return f"{least:>4} and more"
