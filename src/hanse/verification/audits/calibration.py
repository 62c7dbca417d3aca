"""Thresholds as honest noise justifies them, and the document that says how.

Two honest runs of one model never give the same floats: another runtime, build, thread count or
batch adds up in another order. How far they lie apart is measured, for each pair of serving and
auditing runtime, over answers that are known to be honest. An answer gives one value of each
statistic (`statistics.py`); a threshold is an upper bound of the quantile of these values, at a
stated confidence, by order statistics (`bounds.py`), times a margin for what the sample lacks.

    calibration = make_calibration(conditions, answers, quantile, confidence)
    data = encode_calibration(calibration)
    calibration = decode_calibration(data)       # checks the document's own arithmetic

A quantile that the sample size does not carry is refused, with the size that would: 0 of 300 honest
answers above a value says nothing about one in 10,000.

The document keeps the largest values of each statistic, so a stranger can do its arithmetic again.
Whether the answers were honest and the conditions as stated is its maker's word.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import msgspec

from hanse.protocol.errors import RequestError
from hanse.protocol.signatures import Hash32, parse_hash32
from hanse.protocol.wire.files import FileForm
from hanse.verification.audits.bounds import (
    SAMPLES_MAX,
    find_rank,
    get_carried_quantile,
    get_count_needed,
)
from hanse.verification.audits.statistics import FLOORS_PPM, NAMES, PPM

FORMAT = "hanse-calibration-1"

DOCUMENT_BYTES_MAX = 65_536
"""Six statistics of 64 values each take 4 kB."""

LARGEST_MAX = 64
"""Values of each statistic that are kept. A threshold further down than that is refused: with so
many answers a higher quantile can be asked for."""

MARGIN_PPM = 1_250_000
"""What a bound is multiplied by, for noise of kinds that the sample lacks. No statistics justify
it: it is caution, and stated in the document."""

LABELS_MAX = 64
"""Conditions that a document names."""


class Conditions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a calibration is of, and for.

    Attributes:
        manifest_root: of the model.
        quantisation: of the served file.
        served_by: runtime that served; an offer's engine name is its first word.
        audited_by: runtime of the prefill, as `Prefill.runtime` says.
        context_tokens: longest prompt and answer in the sample.
        answer_tokens: longest answer in it; of a longer one so many are audited.
        labels: what the answers were made under, each once: `threads=1`, `concurrent=8`, `cache`,
            `chat`, `json` and so on.
    """

    manifest_root: Hash32
    quantisation: str
    served_by: str
    audited_by: str
    context_tokens: int
    answer_tokens: int
    labels: tuple[str, ...]


class Threshold(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The most that an honest answer's statistic comes to.

    Attributes:
        statistic: its name.
        limit_ppm: above it an answer is not honest; the bound times the margin.
        answers: that had this statistic.
        largest_ppm: their largest values, falling.
    """

    statistic: str
    limit_ppm: int
    answers: int
    largest_ppm: tuple[int, ...]


class Calibration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Thresholds of one pair of runtimes.

    Attributes:
        format: FORMAT.
        conditions: what it is of.
        quantile_ppm: share of honest answers that stay below each threshold.
        confidence_ppm: how sure that is.
        margin_ppm: on top of it.
        thresholds: one a statistic that was measured.
    """

    format: str
    conditions: Conditions
    quantile_ppm: int
    confidence_ppm: int
    margin_ppm: int
    thresholds: tuple[Threshold, ...]

    def find(self, statistic: str) -> Threshold | None:
        """The threshold of a statistic; None if it was not calibrated."""
        return next((one for one in self.thresholds if one.statistic == statistic), None)


FORM = FileForm(
    FORMAT,
    Calibration,
    DOCUMENT_BYTES_MAX,
    "calibration_invalid",
    "this calibration cannot be used",
)


def make_calibration(
    conditions: Conditions,
    answers: Sequence[Mapping[str, int]],
    quantile: float,
    confidence: float,
    margin_ppm: int = MARGIN_PPM,
) -> Calibration:
    """Thresholds from honest answers, each given by its statistics in millionths.

    A statistic that too few answers have (long blocks, one kind of sampler) is left out.

    Raises:
        RequestError: `unprocessable` if no statistic carries the quantile; the message says how
            many answers would, and which quantile these carry.
    """
    thresholds = []
    for name in NAMES:
        values = sorted((one[name] for one in answers if name in one), reverse=True)
        limit = _find_limit(values, len(values), quantile, confidence, margin_ppm)
        if limit is not None:
            limit = max(limit, FLOORS_PPM.get(name, 0))
            kept = tuple(values[:LARGEST_MAX])
            thresholds.append(Threshold(name, limit, len(values), kept))
    if not thresholds:
        needed = get_count_needed(quantile, confidence)
        carried = get_carried_quantile(max(1, len(answers)), confidence)
        raise RequestError(
            "unprocessable",
            f"{len(answers)} honest answers carry at most the quantile {carried:.6f} at confidence "
            f"{confidence}; for {quantile} measure {needed}",
        )
    return Calibration(
        FORMAT,
        conditions,
        round(quantile * PPM),
        round(confidence * PPM),
        margin_ppm,
        tuple(thresholds),
    )


def encode_calibration(calibration: Calibration) -> bytes:
    """The document: indented JSON, a line feed at its end."""
    return msgspec.json.format(msgspec.json.encode(calibration), indent=2) + b"\n"


def decode_calibration(data: bytes) -> Calibration:
    """Read a document and check that its thresholds follow from its own figures.

    The caller still owes: that the one who made it is trusted with its conditions, and that they
    are those of the audit (`judging.py` compares runtimes and model).

    Raises:
        VerificationError: `calibration_invalid`, naming what does not fit.
    """
    found = FORM.decode(data)
    with FORM.reading():
        parse_hash32(found.conditions.manifest_root, "manifest_root")
    verify_calibration(found)
    return found


def verify_calibration(found: Calibration) -> None:
    """Check a calibration's own arithmetic; raises VerificationError `calibration_invalid`."""
    if found.format != FORMAT:
        raise FORM.refuse(f"the format is {found.format!r:.40}, not {FORMAT}")
    if not (0 < found.quantile_ppm < PPM and 0 < found.confidence_ppm < PPM):
        raise FORM.refuse("quantile and confidence lie between 0 and 1")
    if found.conditions.answer_tokens < 1:
        raise FORM.refuse("its longest answer has no token")
    if found.margin_ppm < PPM or len(found.conditions.labels) > LABELS_MAX:
        raise FORM.refuse(f"the margin is below 1, or there are more than {LABELS_MAX} labels")
    names = [one.statistic for one in found.thresholds]
    if not names or len(set(names)) != len(names) or not set(names) <= set(NAMES):
        raise FORM.refuse(f"its statistics are not some of {', '.join(NAMES)}, each once")
    for one in found.thresholds:
        _verify_threshold(one, found)


def _verify_threshold(one: Threshold, found: Calibration) -> None:
    values = list(one.largest_ppm)
    is_falling = all(a >= b >= 0 for a, b in pairwise(values))
    if not 0 < one.answers <= SAMPLES_MAX or len(values) != min(one.answers, LARGEST_MAX):
        raise FORM.refuse(f"{one.statistic} names {one.answers} answers and {len(values)} values")
    if not is_falling or values[-1] < 0:
        raise FORM.refuse(f"the largest values of {one.statistic} are not in order")
    quantile, confidence = found.quantile_ppm / PPM, found.confidence_ppm / PPM
    limit = _find_limit(values, one.answers, quantile, confidence, found.margin_ppm)
    if limit is None:
        needed = get_count_needed(quantile, confidence)
        raise FORM.refuse(
            f"{one.answers} answers do not carry the quantile {quantile} of {one.statistic} at "
            f"confidence {confidence}: that takes {needed}"
        )
    limit = max(limit, FLOORS_PPM.get(one.statistic, 0))
    if limit != one.limit_ppm:
        raise FORM.refuse(f"{one.statistic} has limit {one.limit_ppm}, its values give {limit}")


def _find_limit(
    falling: Sequence[int], count: int, quantile: float, confidence: float, margin_ppm: int
) -> int | None:
    """The bound times the margin, rounded up; None if the sample or what is kept carries none."""
    deepest = count - LARGEST_MAX
    rank = find_rank(count, quantile, confidence, deepest) if count else None
    if rank is None or count - rank >= min(len(falling), LARGEST_MAX):
        return None
    return -(-falling[count - rank] * margin_ppm // PPM)
