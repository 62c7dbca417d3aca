"""The verdict of an audit, from its numbers alone: whoever holds them comes to the same one.

| fingerprint | sampling | verdict | reason |
| --- | --- | --- | --- |
| above twice its threshold | any | cheat | `fingerprint_differs` |
| above its threshold | any | inconclusive | `fingerprint_doubtful` |
| within | above its threshold | inconclusive | `sampling_differs` |
| within | within | honest | - |
| within | not covered | honest | the kinds that are not covered are named |
| not covered | any | inconclusive | `fingerprint_not_covered`, and `sampling_differs` if it does |
| any | any | cheat | `overbilled`: the receipt alone contradicts its commitment, whatever was run |

Tokens that do not fit answer or prompt, another model or another pair of runtimes than calibrated:
inconclusive, whatever the numbers say. Only `cheat` may cost anybody stake. `sampling_differs`
alone never does: its noise has heavy tails, and an engine's own sampler may differ for harmless
reasons. It is what cheap text behind a full prefill looks like, so it counts against a provider's
record. So does a fingerprint that is further off than honest ones were, by less than twice: an
honest answer in a hundred may be, by the quantile of its calibration, and none may be punished.

`detected` says which checks found something, for statistics over many audits.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum

import msgspec

from hanse.protocol.commitments.fingerprints import ABSENT
from hanse.protocol.commitments.tree import Entry
from hanse.verification.audits.calibration import Calibration
from hanse.verification.audits.coverage import Coverage
from hanse.verification.audits.measuring import Measured
from hanse.verification.audits.sampling import Chain
from hanse.verification.audits.statistics import (
    FINGERPRINT,
    get_fingerprint_statistics,
    get_sampling_statistics,
)

PENALTY_FACTOR = 2
"""How far above its threshold a fingerprint must be to make a cheat. The largest honest one of
10,118 was at 1.48 of it over four tokens and at 1.05 over sixteen (`docs/measurements.md`)."""

REASONS = {
    "overbilled": "the receipt bills more answer tokens than it commits to",
    "fingerprint_differs": "the committed fingerprints are not those of this copy's full run",
    "fingerprint_doubtful": "the committed fingerprints are further off than honest ones were",
    "sampling_differs": "the tokens are not those that the request's seed gives",
    "fingerprint_not_covered": "fingerprints say nothing about this kind of answer",
    "not_calibrated": "the calibration has no threshold for this length of answer",
    "other_model": "the calibration is of another model",
    "other_runtime": "the calibration is of another pair of runtimes",
    "prompt_unreadable": "the auditor cannot read the request as the model's prompt",
    "prompt_differs": "the receipt bills another number of prompt tokens than the auditor counts",
    "count_differs": "the receipt bills another number of answer tokens than were committed",
    "tail_unexplained": "more answer tokens are billed behind the whole text than its end takes",
    "text_differs": "the committed tokens do not spell the answer",
    "answer_parsed": "the answer was delivered in parts, so tokens cannot be compared with it",
    "parts_unasked": "tools or several choices were delivered, and the request asked for a text",
    "nothing_told": "the first committed token is unknown",
    "little_told": "of a long answer too few tokens were committed to with a fingerprint",
}
"""Why a verdict is not `honest`; the codes are in evidence files."""


class Verdict(StrEnum):
    """What an audit says."""

    HONEST = "honest"
    CHEAT = "cheat"
    INCONCLUSIVE = "inconclusive"


class Finding(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One statistic beside its threshold."""

    statistic: str
    value_ppm: int
    limit_ppm: int

    @property
    def is_above(self) -> bool:
        """Whether it is more than an honest answer's."""
        return self.value_ppm > self.limit_ppm

    @property
    def is_far_above(self) -> bool:
        """Whether it is so much more that no honest answer can be meant."""
        return self.value_ppm > PENALTY_FACTOR * self.limit_ppm


class Judgement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A verdict and what it rests on.

    Attributes:
        verdict: of this answer.
        reasons: keys of REASONS, in their order; empty if honest.
        findings: statistics that were compared.
        not_covered: kinds of `coverage.ROWS` that kept a check out.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    findings: tuple[Finding, ...]
    not_covered: tuple[str, ...]

    @property
    def detected(self) -> tuple[str, ...]:
        """Checks that found something: `fingerprint`, `sampling`."""
        found = {
            "fingerprint" if one.statistic in FINGERPRINT else "sampling"
            for one in self.findings
            if one.is_above
        }
        return tuple(sorted(found))


class Case(msgspec.Struct, frozen=True):
    """All that a verdict depends on.

    Attributes:
        entries: committed and audited positions, as many as were measured.
        measured: the auditor's own numbers.
        chain: the request's sampler.
        coverage: which checks cover the answer.
        misfits: reasons of alignment.
        manifest_root: of the offer.
        engine: that the offer names.
    """

    entries: Sequence[Entry]
    measured: Measured
    chain: Chain
    coverage: Coverage
    misfits: tuple[str, ...]
    manifest_root: str
    engine: str


def judge(case: Case, calibration: Calibration) -> Judgement:
    """The verdict of one audit; pure."""
    statistics = get_statistics(case.entries, case.measured, case.chain)
    reasons = {*case.misfits, *_get_mismatches(case, calibration)}
    findings = []
    for name, value in statistics.items():
        is_fingerprint = name in FINGERPRINT
        kinds = case.coverage.fingerprint if is_fingerprint else case.coverage.sampling
        threshold = calibration.find(name)
        if threshold is not None and not kinds:
            findings.append(Finding(name, value, threshold.limit_ppm))
    prints = [one for one in findings if one.statistic in FINGERPRINT]
    if any(one.is_far_above for one in prints):
        reasons.add("fingerprint_differs")
    elif any(one.is_above for one in prints):
        reasons.add("fingerprint_doubtful")
    elif not prints:
        reasons.add("fingerprint_not_covered" if case.coverage.fingerprint else "not_calibrated")
    if any(one.is_above for one in findings if one not in prints):
        reasons.add("sampling_differs")
    kinds = tuple(sorted({*case.coverage.fingerprint, *case.coverage.sampling}))
    ordered = tuple(code for code in REASONS if code in reasons)
    return Judgement(_get_verdict(ordered), ordered, tuple(findings), kinds)


def get_statistics(entries: Sequence[Entry], measured: Measured, chain: Chain) -> Mapping[str, int]:
    """All statistics that an answer has, whether covered or not; for calibrations as for audits.

    Raises:
        ValueError: entries and measured are not of the same positions.
    """
    count = len(measured.misses)
    if len(entries) != count or len(measured.odds) != count:
        raise ValueError(f"{len(entries)} positions opened, {count} measured")
    found: dict[str, int] = {}
    if measured.fingerprints:
        served = [entry.fingerprint for entry in entries]
        found |= get_fingerprint_statistics(served, measured.fingerprints)
    return found | get_sampling_statistics(measured.misses, chain)


def count_fingerprints(entries: Sequence[Entry], measured: Measured) -> int:
    """Positions at which two fingerprints can be compared."""
    if not measured.fingerprints:
        return 0
    return sum(entry.fingerprint != ABSENT for entry in entries)


def _get_mismatches(case: Case, calibration: Calibration) -> list[str]:
    conditions, found = calibration.conditions, []
    if case.manifest_root != conditions.manifest_root:
        found.append("other_model")
    served_by = conditions.served_by.split(" ", 1)[0]
    if case.measured.runtime != conditions.audited_by or case.engine != served_by:
        found.append("other_runtime")
    return found


def _get_verdict(reasons: Sequence[str]) -> Verdict:
    """A cheat only if fingerprints differ and nothing speaks against looking at them at all.

    Or if the bill is above the commitment: both are signed, and no model says otherwise.
    """
    if not reasons:
        return Verdict.HONEST
    if "overbilled" in reasons:
        return Verdict.CHEAT
    # Tokens before an unexplained tail spell the whole text: what they differ in is no misfit.
    is_cheat = set(reasons) <= {"fingerprint_differs", "sampling_differs", "tail_unexplained"}
    return Verdict.CHEAT if is_cheat and "fingerprint_differs" in reasons else Verdict.INCONCLUSIVE
