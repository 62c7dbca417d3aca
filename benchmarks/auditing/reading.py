"""Records judged by the product's own code, under thresholds from the calibration part alone.

    pairs = read_pairs(paths)
    calibration = make_thresholds(pairs[pair], quantile)
    judgement = judge_record(record, calibration)

A pair is who served and who audited. Thresholds of one say nothing about another.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.audit_cheats import ROOT
from benchmarks.auditing.plan import CALIBRATION, HELD_OUT
from benchmarks.auditing.records import Record, read_records
from hanse.protocol.errors import RequestError
from hanse.verification.audits.calibration import Calibration, Conditions, make_calibration
from hanse.verification.audits.coverage import Circumstances, get_chain, get_coverage
from hanse.verification.audits.judging import (
    Case,
    Judgement,
    count_fingerprints,
    get_statistics,
    judge,
)
from hanse.verification.audits.measuring import Measured
from hanse.verification.audits.sampling import Chain
from hanse.verification.audits.statistics import FINGERPRINT, count_choices

CONFIDENCE = 0.95
PATH = "/v1/chat/completions"

Pair = tuple[str, str]


@dataclass
class Part:
    """Records of one pair of runtimes."""

    calibration: list[Record] = field(default_factory=list)
    held_out: list[Record] = field(default_factory=list)
    cheats: dict[str, list[Record]] = field(default_factory=dict)


def read_pairs(paths: Iterable[Path]) -> dict[Pair, Part]:
    """All records by pair and part; one that is there twice counts once."""
    pairs: dict[Pair, Part] = {}
    seen = set()
    for record in read_records(paths):
        key = (record.job, record.question, record.sampler, record.audited_by)
        if key in seen:
            continue
        seen.add(key)
        part = pairs.setdefault((record.served_by, record.audited_by), Part())
        if record.part == CALIBRATION:
            part.calibration.append(record)
        elif record.part == HELD_OUT:
            part.held_out.append(record)
        else:
            part.cheats.setdefault(record.part, []).append(record)
    return pairs


def make_thresholds(
    records: Sequence[Record], quantile: float, sampling_quantile: float
) -> Calibration:
    """Thresholds of fingerprints and of draws, each as `hanse audit calibrate` writes them.

    Draws have a statistic for each kind of sampler, so fewer answers have each of them, which carry
    a lower quantile.

    Raises:
        RequestError: they do not carry the quantile.
    """
    found = calibrate_records(records, quantile)
    try:
        other = calibrate_records(records, sampling_quantile).thresholds
    except RequestError:
        other = ()
    draws = tuple(one for one in other if one.statistic not in FINGERPRINT)
    prints = tuple(one for one in found.thresholds if one.statistic in FINGERPRINT)
    return msgspec.structs.replace(found, thresholds=(*prints, *draws))


def calibrate_records(records: Sequence[Record], quantile: float) -> Calibration:
    """Thresholds of all that these answers of one pair carry; RequestError if that is nothing."""
    fitting = [record for record in records if not record.misfits]
    labels = {record.kind for record in fitting}
    for record in fitting:
        labels |= set(record.load.split())
        if record.cached_tokens:
            labels.add("cache")
    first = fitting[0]
    conditions = Conditions(
        ROOT,
        "Q8_0",
        get_server_name(first.served_by),
        first.audited_by,
        max(record.prompt_tokens + len(record.tokens) for record in fitting),
        max(len(record.tokens) for record in fitting),
        tuple(sorted(labels)),
    )
    values = [
        dict(get_statistics(record.entries, record.measured, read_chain(record.body)))
        for record in fitting
    ]
    return make_calibration(conditions, values, quantile, CONFIDENCE)


def judge_record(
    record: Record, calibration: Calibration, first_tokens: int | None = None
) -> Judgement:
    """The verdict on an answer, or on its first tokens, by the rules of the product."""
    most = calibration.conditions.answer_tokens
    count = min(len(record.tokens), most, first_tokens or most)
    entries, measured = record.entries[:count], cut(record.measured, count)
    body = _read_body(record.body)
    circumstances = Circumstances(
        record.prompt_tokens,
        count_fingerprints(entries, measured),
        count,
        record.cached_tokens,
        count_choices(measured.odds),
    )
    coverage = get_coverage(PATH, body, circumstances, calibration)
    engine = calibration.conditions.served_by.split(" ", 1)[0]
    chain = read_chain(record.body)
    return judge(
        Case(entries, measured, chain, coverage, record.misfits, ROOT, engine), calibration
    )


def cut(measured: Measured, count: int) -> Measured:
    """The first positions' numbers."""
    return Measured(
        measured.runtime,
        measured.fingerprints[:count],
        measured.misses[:count],
        measured.odds[:count],
    )


def get_server_name(served_by: str) -> str:
    """Runtime and build, as a calibration names who served."""
    package = {"llama": "xllamacpp", "torch": "torch"}[served_by]
    return f"{served_by} {package}-{version(package)} cpu"


@lru_cache(maxsize=65_536)
def read_chain(body: str) -> Chain:
    """The sampler of a request."""
    return get_chain(_read_body(body))


@lru_cache(maxsize=65_536)
def _read_body(body: str) -> dict[str, Any]:
    return msgspec.json.decode(body, type=dict[str, Any])
